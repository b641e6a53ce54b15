"""What the page shows, as it changes: one JSON object a line, for as long as somebody looks.

Looking is no activity of a session's user, so that a forgotten window does not keep a session alive.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Any, Protocol

from agentbay.local.asgi import Receive, disconnected
from agentbay.local.runtime import Runtime
from agentbay.local.sandbox.host import SandboxError, Usage
from agentbay.local.session import Session

_TICK = 0.5  # seconds after which it is seen that the runtime stops
_PAUSE = 1.0  # seconds between two looks at all sessions, at least
_SHARE = 10  # of that time, one part at most is spent on looking
_SILENCE = 10.0  # seconds after which a line says that all is well although nothing changed
_NOTHING = Usage(0.0, 0, 0)

Line = dict[str, Any]


class Watch(Protocol):
    """Something to look at again and again."""

    pause: float

    async def look(self) -> Line | None:
        """Return what changed, {} if nothing did, None when there is no more to see."""


async def lines(watch: Watch, runtime: Runtime, receive: Receive) -> AsyncGenerator[bytes, None]:
    """Yield what a watch sees until it ends, the client leaves or the runtime stops."""
    gone, said = asyncio.ensure_future(disconnected(receive)), 0.0
    try:
        while not gone.done() and not runtime.sessions.closing:
            seen = await watch.look()
            if seen is None:
                yield _write({"ended": True})
                return
            if seen or time.monotonic() - said > _SILENCE:
                said = time.monotonic()
                yield _write({"now": time.time(), **seen})
            for _ in range(max(1, round(watch.pause / _TICK))):
                if not gone.done() and not runtime.sessions.closing:
                    await asyncio.wait({gone}, timeout=_TICK)
    finally:
        gone.cancel()
        with suppress(asyncio.CancelledError):
            await gone


def _write(line: Line) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


class WatchAll:
    """Looks at every session."""

    def __init__(self, runtime: Runtime) -> None:
        self.pause = _PAUSE
        self._runtime, self._meters = runtime, dict[str, _Meter]()
        self._shown: dict[str, Line] | None = None

    async def look(self) -> Line | None:
        began, before = time.monotonic(), self._shown or {}
        sessions = self._runtime.sessions.matching(lambda _: True)
        self._meters = {item.session_id: self._meters.get(item.session_id) or _Meter() for item in sessions}
        shown = {item.session_id: await _facts(item, self._meters[item.session_id]) async for item in _gently(sessions)}
        self.pause = max(_PAUSE, _SHARE * (time.monotonic() - began))
        changed = {key: facts for key, facts in shown.items() if before.get(key) != facts}
        gone = [key for key in before if key not in shown]
        first, self._shown = self._shown is None, shown
        return {"sessions": changed, "gone": gone} if changed or gone or first else {}


async def _gently(sessions: list[Session]) -> AsyncIterator[Session]:
    """Let others have their turn between two sessions."""
    for session in sessions:
        yield session
        await asyncio.sleep(0)


class WatchOne:
    """Looks at one session: what it is, what runs, what was run."""

    pause = _TICK

    def __init__(self, session: Session) -> None:
        self._session, self._meter = session, _Meter()
        self._shown: Line = {}
        self._change = 0

    async def look(self) -> Line | None:
        if not self._session.known:
            return None
        try:
            shown: Line = {
                "session": await _facts(self._session, self._meter),
                "processes": [process._asdict() for process in self._session.processes()],
            }
        except SandboxError:  # it ends in this very moment
            return None
        changed = {key: value for key, value in shown.items() if self._shown.get(key) != value}
        self._shown = shown
        if entries := self._session.journal.since(self._change):
            self._change = max(entry.changed for entry in entries)
            changed["log"] = [dataclasses.asdict(entry) for entry in entries]
        return changed


class _Meter:
    """Tells how many processors a session keeps busy."""

    def __init__(self) -> None:
        self._before: tuple[float, float] | None = None

    def load(self, cpu_seconds: float) -> float:
        """Return the load since the last time; 0 at first."""
        now, (then, earlier) = time.monotonic(), self._before or (time.monotonic(), cpu_seconds)
        self._before = (now, cpu_seconds)
        return max(0.0, cpu_seconds - earlier) / max(now - then, 1e-3)


async def _facts(session: Session, meter: _Meter) -> Line:
    try:
        usage = await session.glance()
    except SandboxError:  # it ends in this very moment
        usage = _NOTHING
    return {
        "id": session.session_id,
        "state": session.state.value,
        "image": session.image_id,
        "labels": dict(session.labels),
        "policy": session.policy_id,
        "created": session.created_at,
        "memory": usage.memory_bytes,
        "load": round(meter.load(usage.cpu_seconds), 2),
        "processes": usage.processes,
    }
