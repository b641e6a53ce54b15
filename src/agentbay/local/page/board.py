"""What is told of every session, looked at once a second for all who watch, and not at all while nobody does."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

from agentbay.local.runtime import Runtime
from agentbay.local.sandbox.host import SandboxError, Usage
from agentbay.local.session import Session

Line = dict[str, Any]

PERIOD = 1.0  # seconds between two looks
_TURN = 0.01  # seconds of processor time that one look may spend on measuring
_STALE = 30.0  # seconds after which a measure is taken anew, whatever that costs
_NOTHING = Usage(0.0, 0, 0)


class Meter:
    """What a session uses, as it was last measured.

    Attributes:
        load: How many processors it kept busy between the last two measures.
        taken: When, by the monotonic clock; minus infinity if never.
    """

    def __init__(self) -> None:
        self.usage, self.load, self.taken = _NOTHING, 0.0, float("-inf")

    async def measure(self, session: Session) -> None:
        """Measure."""
        before = self.usage.cpu_seconds
        try:
            self.usage = await session.glance()
        except SandboxError:  # it ends in this very moment
            self.usage = _NOTHING
        now = time.monotonic()
        self.load = max(0.0, self.usage.cpu_seconds - before) / max(now - self.taken, 1e-3)
        self.taken = now


def describe(session: Session, meter: Meter) -> Line:
    """Say what a session is and uses."""
    return {
        "id": session.session_id,
        "state": session.state.value,
        "image": session.image_id,
        "labels": dict(session.labels),
        "policy": session.policy_id,
        "created": session.created_at,
        "memory": meter.usage.memory_bytes,
        "load": round(meter.load, 2),
        "processes": meter.usage.processes,
    }


class Board:
    """Every session: states as they are, measures as far as time allows, those first that are oldest."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._meters: dict[str, Meter] = {}
        self._lines: dict[str, Line] = {}
        self._changed: dict[str, int] = {}
        self._changes = itertools.count(1)
        self._next = 0.0
        self._looking = asyncio.Lock()

    @property
    def shown(self) -> frozenset[str]:
        """The ids of the sessions there are."""
        return frozenset(self._lines)

    async def refresh(self) -> None:
        """Look, unless that was done just now."""
        async with self._looking:
            if time.monotonic() >= self._next:
                self._next = time.monotonic() + PERIOD
                await self._look()

    async def _look(self) -> None:
        sessions = self._runtime.sessions.matching(lambda _: True)
        self._meters = {item.session_id: self._meters.get(item.session_id) or Meter() for item in sessions}
        await self._measure(sessions)
        lines = {item.session_id: describe(item, self._meters[item.session_id]) for item in sessions if item.known}
        changed = {key: next(self._changes) for key, line in lines.items() if self._lines.get(key) != line}
        self._changed = {key: changed.get(key) or self._changed[key] for key in lines}
        self._lines = lines

    async def _measure(self, sessions: list[Session]) -> None:
        spent, stale, meters = 0.0, time.monotonic() - _STALE, self._meters
        for session in sorted(sessions, key=lambda session: meters[session.session_id].taken):
            meter = meters[session.session_id]
            if spent > _TURN and meter.taken > stale:
                return
            began = time.thread_time()
            await meter.measure(session)
            spent += time.thread_time() - began
            await asyncio.sleep(0)  # others have their turn

    def since(self, change: int) -> tuple[dict[str, Line], int]:
        """Return what changed after `change`, and the number of the last change."""
        changed = {key: self._lines[key] for key, number in self._changed.items() if number > change}
        return changed, max(self._changed.values(), default=change)
