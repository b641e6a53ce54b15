"""A clock that stops while a sandbox is frozen.

So time limits do not count the time of a pause.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

_MAX_REMEMBERED_FREEZES = 100


class FrozenClock:
    """Measures the time in which a sandbox is not frozen."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._frozen_at: float | None = None
        self._frozen_total_seconds = 0.0  # in all earlier freezes
        self._freezes: deque[tuple[float, float]] = deque(maxlen=_MAX_REMEMBERED_FREEZES)  # begin and end
        self._thawed = asyncio.Event()

    @property
    def is_frozen(self) -> bool:
        """Whether the clock stands still."""
        return self._frozen_at is not None

    def time(self) -> float:
        """Return the seconds on this clock."""
        return (self._loop.time() if self._frozen_at is None else self._frozen_at) - self._frozen_total_seconds

    def stop(self) -> None:
        """Stop the clock: the sandbox is frozen."""
        self._thawed.clear()
        self._frozen_at = self._loop.time()

    def resume(self) -> None:
        """Let the clock run: the sandbox is thawed, or has ended."""
        if self._frozen_at is not None:
            now = self._loop.time()
            self._freezes.append((self._frozen_at, now))
            self._frozen_total_seconds += now - self._frozen_at
        self._frozen_at = None
        self._thawed.set()

    async def ends_within(self, ended: asyncio.Future[Any], timeout: float | None) -> bool:
        """Wait for a future, or return False after `timeout` seconds of this clock."""
        start = self.time()
        while not ended.done():
            if self.is_frozen:
                await self._thawed.wait()
                continue
            remaining = None if timeout is None else start + timeout - self.time()
            if remaining is not None and remaining <= 0:
                return False
            await asyncio.wait({ended}, timeout=remaining)
        return True

    def recent_freezes(self) -> list[tuple[float, float]]:
        """Return the begin and end of the last freezes, in seconds before now."""
        now = self._loop.time()
        present = [] if self._frozen_at is None else [(self._frozen_at, now)]
        return [(now - began, now - ended) for began, ended in (*self._freezes, *present)]
