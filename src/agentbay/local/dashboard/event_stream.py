"""The event streams of the dashboard, with a line of JSON for each change.

Watching does not count as activity, so a forgotten window does not keep a session alive.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Protocol

from agentbay.local.dashboard.background import BackgroundCommands
from agentbay.local.dashboard.overview import REFRESH_SECONDS, JsonObject, SessionOverview, UsageMeter, describe_session
from agentbay.local.http.asgi import Receive, wait_for_disconnect
from agentbay.local.runtime import Runtime
from agentbay.local.sandbox.service.manager import SandboxError
from agentbay.local.sessions.session import Session

_STOP_CHECK_SECONDS = 0.5  # how often a stream checks whether the runtime stops
_KEEPALIVE_SECONDS = 10.0  # an empty event is sent if nothing changed for so long


class EventSource(Protocol):
    """A source of events that is polled."""

    poll_interval_seconds: float

    async def poll(self) -> JsonObject | None:
        """Return the changes since the last poll, or None at the end."""


async def stream_events(source: EventSource, runtime: Runtime, receive: Receive) -> AsyncGenerator[bytes, None]:
    """Yield events as lines of JSON.

    The stream ends when the source does, when the client disconnects and when the runtime stops.
    """
    disconnected, sent_at = asyncio.ensure_future(wait_for_disconnect(receive)), 0.0
    try:
        while not disconnected.done() and not runtime.sessions.closing:
            changes = await source.poll()
            if changes is None:
                yield _encode_line({"ended": True})
                return
            if changes or time.monotonic() - sent_at > _KEEPALIVE_SECONDS:
                sent_at = time.monotonic()
                yield _encode_line({"now": time.time(), **changes})
            for _ in range(max(1, round(source.poll_interval_seconds / _STOP_CHECK_SECONDS))):
                if not disconnected.done() and not runtime.sessions.closing:
                    await asyncio.wait({disconnected}, timeout=_STOP_CHECK_SECONDS)
    finally:
        disconnected.cancel()
        with suppress(asyncio.CancelledError):
            await disconnected


def _encode_line(event: JsonObject) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


class AllSessionsSource:
    """The changes of the list of all sessions."""

    poll_interval_seconds = REFRESH_SECONDS

    def __init__(self, overview: SessionOverview) -> None:
        self._overview = overview
        self._previous_ids: frozenset[str] | None = None
        self._last_change = 0

    async def poll(self) -> JsonObject | None:
        await self._overview.refresh()
        changed, self._last_change = self._overview.changed_since(self._last_change)
        previous, self._previous_ids = self._previous_ids, self._overview.session_ids
        gone = sorted((previous or frozenset()) - self._previous_ids)
        return {"sessions": changed, "gone": gone} if changed or gone or previous is None else {}


class SingleSessionSource:
    """The changes of one session: its state, its processes and its command history."""

    poll_interval_seconds = _STOP_CHECK_SECONDS

    def __init__(self, session: Session) -> None:
        self._session, self._usage_meter, self._background = session, UsageMeter(), BackgroundCommands(session)
        self._previous: JsonObject = {}
        self._last_change = 0

    async def poll(self) -> JsonObject | None:
        if not self._session.lifecycle.is_live:
            return None
        try:
            processes = self._session.sandbox.list_processes()
        except SandboxError:  # it ends in this very moment
            return None
        await self._usage_meter.measure(self._session)
        shown: JsonObject = {
            "session": describe_session(self._session, self._usage_meter),
            "processes": [process._asdict() for process in processes],
        }
        changed = {key: value for key, value in shown.items() if self._previous.get(key) != value}
        self._previous = shown
        await self._background.refresh(processes)
        if entries := self._session.history.changed_since(self._last_change):
            self._last_change = max(entry.changed for entry in entries)
            changed["log"] = [entry.to_dict() for entry in entries]
        return changed
