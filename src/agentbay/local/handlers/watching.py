"""Changes of files, pushed over the session's WebSocket to who has subscribed."""

from __future__ import annotations

import asyncio

from agentbay._wire.tools import GetFileChange
from agentbay.errors import AgentBayError
from agentbay.local.dispatch import serves
from agentbay.local.hub import Exchange
from agentbay.local.sandbox.host import FileOperationFailed, SandboxError
from agentbay.local.session import Session

_PAUSE = 0.2  # seconds between two looks
_AT_ONCE = 200  # events of one push, since the published client takes no frame of more than 1 MiB
_MOST = 64  # directories of a session that are watched in this way
_FAILURES = (AgentBayError, FileOperationFailed, SandboxError)  # as while it is paused, or the directory is gone


class Watcher:
    """Looks at a directory as long as anybody is connected. It shares what is known with the tool, so that each
    change is told once, by the one or the other."""

    def __init__(self, session: Session, path: str) -> None:
        self._session, self._path = session, path
        self._task = asyncio.create_task(self._watch())

    def close(self) -> None:
        """End it."""
        self._task.cancel()

    async def _watch(self) -> None:
        hub = self._session.hub
        while True:
            await asyncio.sleep(_PAUSE)
            if not hub.peers:  # what changes meanwhile is told to who comes back
                continue
            try:
                events = await self._session.changes.since_last(self._session.peek, self._path)
            except _FAILURES:
                continue
            for start in range(0, len(events), _AT_ONCE):
                part = events[start : start + _AT_ONCE]
                data = {"eventType": "file_change", "path": self._path, "events": part}
                await hub.push(GetFileChange.server, data)


@serves(GetFileChange.server)
async def watching(session: Session, exchange: Exchange) -> None:
    """Subscribe, or end that; a connection that is lost and comes back needs not subscribe again."""
    path, lasting = exchange.params.get("path"), session.hub.lasting
    if not isinstance(path, str) or "\0" in path:
        await exchange.answer(error="path must be a text")
    elif exchange.method == "subscribe_file_change":
        watchers = sum(isinstance(thing, Watcher) for thing in lasting.values())
        if f"watch {path}" not in lasting and watchers >= _MOST:
            await exchange.answer(error=f"A session can have {_MOST} watched directories at a time, not more.")
            return
        try:
            await session.changes.begin(session.call, path)
        except FileOperationFailed as error:
            await exchange.answer(error=f"Failed to watch: {error.path}, error: {error.strerror}")
            return
        if f"watch {path}" not in lasting:
            lasting[f"watch {path}"] = Watcher(session, path)
        await exchange.end(status="finished")
    elif exchange.method == "unsubscribe_file_change":
        watcher = lasting.pop(f"watch {path}", None)
        if watcher is not None:
            watcher.close()
    else:
        await exchange.answer(error=f"There is no method {exchange.method!r:.80}.")
