"""What the page shows, as it changes: one JSON object a line, for as long as somebody looks.

Looking is no activity of a session's user, so that a forgotten window does not keep a session alive.
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

_STOP_CHECK_SECONDS = 0.5  # seconds after which it is seen that the runtime stops
_KEEPALIVE_SECONDS = 10.0  # seconds after which a line says that all is well although nothing changed


class EventSource(Protocol):
    """Something to look at again and again."""

    poll_interval_seconds: float

    async def poll(self) -> JsonObject | None:
        """Return what changed, {} if nothing did, None when there is no more to see."""


async def stream_events(watch: EventSource, runtime: Runtime, receive: Receive) -> AsyncGenerator[bytes, None]:
    """Yield what a watch sees until it ends, the client leaves or the runtime stops."""
    gone, said = asyncio.ensure_future(wait_for_disconnect(receive)), 0.0
    try:
        while not gone.done() and not runtime.sessions.closing:
            seen = await watch.poll()
            if seen is None:
                yield _write({"ended": True})
                return
            if seen or time.monotonic() - said > _KEEPALIVE_SECONDS:
                said = time.monotonic()
                yield _write({"now": time.time(), **seen})
            for _ in range(max(1, round(watch.poll_interval_seconds / _STOP_CHECK_SECONDS))):
                if not gone.done() and not runtime.sessions.closing:
                    await asyncio.wait({gone}, timeout=_STOP_CHECK_SECONDS)
    finally:
        gone.cancel()
        with suppress(asyncio.CancelledError):
            await gone


def _write(line: JsonObject) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


class AllSessionsSource:
    """Looks at every session."""

    poll_interval_seconds = REFRESH_SECONDS

    def __init__(self, board: SessionOverview) -> None:
        self._overview = board
        self._previous_ids: frozenset[str] | None = None
        self._last_change = 0

    async def poll(self) -> JsonObject | None:
        await self._overview.refresh()
        changed, self._last_change = self._overview.changed_since(self._last_change)
        before, self._previous_ids = self._previous_ids, self._overview.session_ids
        gone = sorted((before or frozenset()) - self._previous_ids)
        return {"sessions": changed, "gone": gone} if changed or gone or before is None else {}


class SingleSessionSource:
    """Looks at one session: what it is, what runs, what was run."""

    poll_interval_seconds = _STOP_CHECK_SECONDS

    def __init__(self, session: Session) -> None:
        self._session, self._usage_meter, self._background = session, UsageMeter(), BackgroundCommands(session)
        self._previous: JsonObject = {}
        self._last_change = 0

    async def poll(self) -> JsonObject | None:
        if not self._session.lifecycle.is_usable:
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
