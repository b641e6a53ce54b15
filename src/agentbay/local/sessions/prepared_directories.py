"""Directories of sessions that are made ahead, with all that a sandbox begins with.

A sandbox begins with some twenty files and directories. A busy disk takes up to half a millisecond for each: ext4
passes over all inodes that were freed lately.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from agentbay.local.state_dir import StateDirectory

_REFILL_DELAY_SECONDS = 0.02  # after the last one was taken: where many sessions are made at once, it would slow them
_MIN_COUNT, _MAX_COUNT = 2, 8
_logger = logging.getLogger(__name__)


class PreparedDirectories:
    """Makes the directories of sessions, a few of them ahead.

    It keeps twice as many as were taken since the last refill. It begins with the second session, since many programs
    create only one.

    Args:
        fill: Makes in a directory what a sandbox finds there; called in a thread. None prepares nothing.
        start_task: Begins what the end of the runtime waits for.
    """

    def __init__(
        self,
        state_dir: StateDirectory,
        fill: Callable[[Path], None] | None,
        start_task: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._state_dir, self._fill, self._start_task = state_dir, fill, start_task
        self._prepared: list[Path] = []
        self._taken = 0  # since the last refill began
        self._is_first, self._is_refilling = True, False
        self._refill_timer: asyncio.TimerHandle | None = None

    def take(self, session_id: str) -> Path:
        """Return the directory of a new session.

        Raises:
            OSError: It cannot be made.
        """
        self._taken += 1
        if self._refill_timer is not None:
            self._refill_timer.cancel()
        if self._fill is not None and not self._is_first and not self._is_refilling:
            self._refill_timer = asyncio.get_running_loop().call_later(_REFILL_DELAY_SECONDS, self._begin_refill)
        self._is_first = False
        if self._prepared:
            return self._state_dir.rename_session(self._prepared.pop(), session_id)
        return self._state_dir.new_session(session_id)

    def close(self) -> None:
        """Prepare no more."""
        self._fill = None
        if self._refill_timer is not None:
            self._refill_timer.cancel()

    def _begin_refill(self) -> None:
        wanted, self._taken = min(max(2 * self._taken, _MIN_COUNT), _MAX_COUNT), 0
        self._refill_timer, self._is_refilling = None, True
        self._start_task(self._refill(wanted))

    async def _refill(self, wanted: int) -> None:
        try:
            while self._fill is not None and len(self._prepared) < wanted:
                self._prepared.append(await asyncio.to_thread(self._prepare, self._fill))
        except OSError as error:  # a session that has to make it itself meets the same, and reports it
            _logger.info("no directory is prepared: %s", error)
        finally:
            self._is_refilling = False

    def _prepare(self, fill: Callable[[Path], None]) -> Path:
        directory = self._state_dir.new_session(self._state_dir.unused_name())
        fill(directory)
        return directory
