"""Changes of files, pushed over the session's WebSocket to who has subscribed."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from typing import Any

from agentbay._wire.tools import GetFileChange
from agentbay.errors import AgentBayError
from agentbay.local.alarm import PAUSE, Alarm
from agentbay.local.dispatch import serves
from agentbay.local.hub import Exchange
from agentbay.local.sandbox.host import FileOperationFailed, SandboxError
from agentbay.local.session import Session

_AT_ONCE = 200  # events of one push, since the published client takes no frame of more than 1 MiB
_KEPT = 10_000  # events kept for who comes back
_MOST = 64  # directories of a session that are watched in this way
_FAILURES = (AgentBayError, FileOperationFailed, SandboxError)  # as while it is paused, or the directory is gone


class Watcher:
    """Looks at a directory when it may have changed, as long as anybody is connected, and pushes what has.

    It shares what is known with the tool, so that each change is told once, by the one or the other. Pushes bear
    numbers: a subscriber who was away says which was the last that came, and gets those behind it.
    """

    def __init__(self, session: Session, path: str) -> None:
        self.subscribers: set[str] = set()
        self._session, self._path = session, path
        self._number = self._held = 0
        self._kept: deque[dict[str, Any]] = deque()
        self._turn = asyncio.Lock()
        self._alarm = Alarm(session)
        self._task = asyncio.create_task(self._watch())

    def close(self) -> None:
        """End it."""
        self._task.cancel()

    async def admit(self, exchange: Exchange, since: int | None) -> None:
        """Answer a subscriber, for whom it begins here, or goes on behind the push of a number."""
        async with self._turn:
            self._session.check_running()
            await self._look()
            lost = False
            if since is not None:
                oldest = self._number - len(self._kept)
                lost = not oldest <= since <= self._number
                for push in self._kept:
                    if push["number"] > since and not lost:
                        await exchange.push(push)
            await exchange.end(status="finished", number=self._number, lost=lost)

    async def _watch(self) -> None:
        async with self._turn:
            pass  # the first look is that of who subscribes
        try:
            while True:
                await self._alarm.wait()
                if not self._session.hub.peers:  # what changes meanwhile is told to who comes back
                    await asyncio.sleep(PAUSE)
                    continue
                began = time.monotonic()
                with suppress(*_FAILURES):
                    async with self._turn:
                        await self._look()
                await asyncio.sleep(min(PAUSE, time.monotonic() - began))  # no more than half of the time is for looks
        finally:
            self._alarm.close()

    async def _look(self) -> None:
        events = await self._session.changes.since_last(self._alarm.look, self._path)
        if any((event["eventType"], event["pathType"]) == ("delete", "directory") for event in events):
            self._alarm.forget()
        for start in range(0, len(events), _AT_ONCE):
            part = events[start : start + _AT_ONCE]
            self._number += 1
            push = {"eventType": "file_change", "path": self._path, "events": part, "number": self._number}
            self._keep(push)
            await self._session.hub.push(GetFileChange.server, push)

    def _keep(self, push: dict[str, Any]) -> None:
        self._kept.append(push)
        self._held += len(push["events"])
        while self._held > _KEPT:
            self._held -= len(self._kept.popleft()["events"])


@serves(GetFileChange.server)
async def watching(session: Session, exchange: Exchange) -> None:
    """Subscribe, or end that; a connection that is lost and comes back needs not subscribe again."""
    path, lasting = exchange.params.get("path"), session.hub.lasting
    subscriber, since = str(exchange.params.get("subscriber", "")), exchange.params.get("since")
    if not isinstance(path, str) or "\0" in path:
        await exchange.answer(error="path must be a text")
    elif exchange.method == "subscribe_file_change":
        watchers = sum(isinstance(thing, Watcher) for thing in lasting.values())
        if f"watch {path}" not in lasting and watchers >= _MOST:
            await exchange.answer(error=f"A session can have {_MOST} watched directories at a time, not more.")
            return
        try:
            watcher = await _watcher(session, path)
            watcher.subscribers.add(subscriber)
            await watcher.admit(exchange, since if isinstance(since, int) else None)
        except FileOperationFailed as error:
            await exchange.answer(error=f"Failed to watch: {error.path}, error: {error.strerror}")
    elif exchange.method == "unsubscribe_file_change":
        _leave(session, path, subscriber)
    else:
        await exchange.answer(error=f"There is no method {exchange.method!r:.80}.")


async def _watcher(session: Session, path: str) -> Watcher:
    await session.changes.begin(session.call, path)
    found = session.hub.lasting.get(f"watch {path}")
    if isinstance(found, Watcher):
        return found
    made = session.hub.lasting[f"watch {path}"] = Watcher(session, path)
    return made


def _leave(session: Session, path: str, subscriber: str) -> None:
    watcher = session.hub.lasting.get(f"watch {path}")
    if isinstance(watcher, Watcher):
        watcher.subscribers.discard(subscriber)
        if not watcher.subscribers:
            del session.hub.lasting[f"watch {path}"]
            watcher.close()
