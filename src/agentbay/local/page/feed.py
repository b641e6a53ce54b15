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

from agentbay.local.asgi import Receive, disconnected
from agentbay.local.page.background import Background
from agentbay.local.page.board import PERIOD, Board, Line, Meter, describe
from agentbay.local.runtime import Runtime
from agentbay.local.sandbox.host import SandboxError
from agentbay.local.session import Session

_TICK = 0.5  # seconds after which it is seen that the runtime stops
_SILENCE = 10.0  # seconds after which a line says that all is well although nothing changed


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

    pause = PERIOD

    def __init__(self, board: Board) -> None:
        self._board = board
        self._shown: frozenset[str] | None = None
        self._change = 0

    async def look(self) -> Line | None:
        await self._board.refresh()
        changed, self._change = self._board.since(self._change)
        before, self._shown = self._shown, self._board.shown
        gone = sorted((before or frozenset()) - self._shown)
        return {"sessions": changed, "gone": gone} if changed or gone or before is None else {}


class WatchOne:
    """Looks at one session: what it is, what runs, what was run."""

    pause = _TICK

    def __init__(self, session: Session) -> None:
        self._session, self._meter, self._background = session, Meter(), Background(session)
        self._shown: Line = {}
        self._change = 0

    async def look(self) -> Line | None:
        if not self._session.known:
            return None
        try:
            processes = self._session.processes()
        except SandboxError:  # it ends in this very moment
            return None
        await self._meter.measure(self._session)
        shown: Line = {
            "session": describe(self._session, self._meter),
            "processes": [process._asdict() for process in processes],
        }
        changed = {key: value for key, value in shown.items() if self._shown.get(key) != value}
        self._shown = shown
        await self._background.look(processes)
        if entries := self._session.journal.since(self._change):
            self._change = max(entry.changed for entry in entries)
            changed["log"] = [entry.told() for entry in entries]
        return changed
