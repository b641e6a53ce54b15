"""The list of all sessions with their usage, refreshed while anybody watches."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

from agentbay.local.runtime import Runtime
from agentbay.local.sandbox.service.cpu_meter import CpuMeter
from agentbay.local.sandbox.service.manager import ResourceUsage, SandboxError
from agentbay.local.sessions.session import Session

JsonObject = dict[str, Any]

REFRESH_SECONDS = 1.0  # between two refreshes
_MEASURE_BUDGET_SECONDS = 0.01  # processor time that one refresh may spend on measuring
_MAX_SAMPLE_AGE_SECONDS = 30.0  # after which usage is measured again, whatever that costs
_NO_USAGE = ResourceUsage(0.0, 0, 0)


class UsageMeter:
    """The last measurement of what a session uses.

    Attributes:
        load: The number of processors that were busy between the last two measurements.
        measured_at: Monotonic time; minus infinity before the first measurement.
    """

    def __init__(self) -> None:
        self.usage, self.load, self.measured_at = _NO_USAGE, 0.0, float("-inf")
        self._cpu_meter = CpuMeter(self.measured_at)

    async def measure(self, session: Session) -> None:
        """Measure now."""
        try:
            self.usage = await session.sandbox.usage()
        except SandboxError:  # it ends in this very moment
            self.usage = _NO_USAGE
        self.load = self._cpu_meter.sample(self.usage.cpu_seconds)
        self.measured_at = time.monotonic()


def describe_session(session: Session, meter: UsageMeter) -> JsonObject:
    """Return facts and usage of a session for the dashboard's script."""
    return {
        "id": session.session_id,
        "state": session.lifecycle.state.value,
        "image": session.image_id,
        "labels": dict(session.labels),
        "policy": session.policy_id,
        "created": session.created_at,
        "memory": meter.usage.memory_bytes,
        "load": round(meter.load, 2),
        "processes": meter.usage.processes,
        "recorded": session.browser.was_recorded,
    }


class SessionOverview:
    """The descriptions of all sessions, with numbers that tell what changed since when.

    States are always current. Usage is measured within a budget of processor time, the oldest measurement first.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._meters: dict[str, UsageMeter] = {}
        self._descriptions: dict[str, JsonObject] = {}
        self._change_numbers: dict[str, int] = {}  # of each session's last change
        self._changes = itertools.count(1)
        self._next_refresh = 0.0  # monotonic time
        self._refresh_lock = asyncio.Lock()

    @property
    def session_ids(self) -> frozenset[str]:
        """The ids of all sessions."""
        return frozenset(self._descriptions)

    async def refresh(self) -> None:
        """Refresh the descriptions, unless that was done within `REFRESH_SECONDS`."""
        async with self._refresh_lock:
            if time.monotonic() >= self._next_refresh:
                self._next_refresh = time.monotonic() + REFRESH_SECONDS
                await self._refresh_now()

    async def _refresh_now(self) -> None:
        sessions = self._runtime.sessions.matching(lambda _: True)
        self._meters = {item.session_id: self._meters.get(item.session_id) or UsageMeter() for item in sessions}
        await self._measure(sessions)
        lines = {
            item.session_id: describe_session(item, self._meters[item.session_id])
            for item in sessions
            if item.lifecycle.is_live
        }
        changed = {key: next(self._changes) for key, line in lines.items() if self._descriptions.get(key) != line}
        self._change_numbers = {key: changed.get(key) or self._change_numbers[key] for key in lines}
        self._descriptions = lines

    async def _measure(self, sessions: list[Session]) -> None:
        spent, stale, meters = 0.0, time.monotonic() - _MAX_SAMPLE_AGE_SECONDS, self._meters
        for session in sorted(sessions, key=lambda session: meters[session.session_id].measured_at):
            meter = meters[session.session_id]
            if spent > _MEASURE_BUDGET_SECONDS and meter.measured_at > stale:
                return
            # Processor time, since a measurement that waits does not hold up the event loop.
            began = time.thread_time()
            await meter.measure(session)
            spent += time.thread_time() - began
            await asyncio.sleep(0)  # let other tasks run

    def changed_since(self, change: int) -> tuple[dict[str, JsonObject], int]:
        """Return the sessions that changed after `change`, and the number of the last change."""
        changed = {key: self._descriptions[key] for key, number in self._change_numbers.items() if number > change}
        return changed, max(self._change_numbers.values(), default=change)
