"""Subscriptions to file changes, which are pushed over the session's WebSocket."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Any

from agentbay._wire.tools import GetFileChange
from agentbay.errors import AgentBayError
from agentbay.local.handlers.handler_tables import target_handler
from agentbay.local.sandbox.service.manager import FileOperationFailed, SandboxError
from agentbay.local.sessions.hub import WebSocketRequest
from agentbay.local.sessions.session import Session
from agentbay.local.sessions.watching.file_changes import take_snapshot
from agentbay.local.sessions.watching.inotify_watcher import POLL_INTERVAL_SECONDS, InotifyWatcher

_MAX_EVENTS_PER_PUSH = 200  # since the published client accepts no frame of more than 1 MiB
_MAX_BACKLOG_EVENTS = 10_000  # kept for subscribers that reconnect
_MAX_WATCHED_DIRECTORIES = 64  # of one session
_IGNORED_ERRORS = (AgentBayError, FileOperationFailed, SandboxError)  # while it is paused, or without its directory


class DirectoryWatcher:
    """Pushes the changes of one directory while any client is connected.

    It shares its snapshots with the tool `get_file_change`, so that each change is told once, by the one or the other.
    Pushes are numbered: a subscriber that reconnects names the last push it got, and gets the later ones.
    """

    def __init__(self, session: Session, path: str) -> None:
        self.subscribers: set[str] = set()
        self._session, self._path = session, path
        self._push_number = self._backlog_events = 0
        self._backlog: deque[dict[str, Any]] = deque()
        self._lock = asyncio.Lock()
        self._inotify_watcher = InotifyWatcher(session)
        self._task = asyncio.create_task(self._watch())

    def close(self) -> None:
        """Stop watching."""
        self._task.cancel()

    async def subscribe(self, request: WebSocketRequest, since: int | None) -> None:
        """Answer a subscriber, with the pushes behind number `since` if that is given."""
        async with self._lock:
            self._session.lifecycle.require_running()
            self._session.lifecycle.touch()
            await self._push_changes()
            lost = False
            if since is not None:
                oldest = self._push_number - len(self._backlog)
                # A number above the last one comes from an earlier watcher of the directory, whose pushes are gone.
                lost = not oldest <= since <= self._push_number
                for push in self._backlog:
                    if push["number"] > since and not lost:
                        await request.push(push)
            await request.send_end(status="finished", number=self._push_number, lost=lost)

    async def _watch(self) -> None:
        async with self._lock:
            pass  # the first subscriber takes the first snapshot
        try:
            while True:
                await self._inotify_watcher.wait_for_change()
                if not self._session.hub.clients:  # the next client to connect is told of changes until then
                    await asyncio.sleep(POLL_INTERVAL_SECONDS)
                    continue
                began = time.monotonic()
                with suppress(*_IGNORED_ERRORS):
                    async with self._lock:
                        await self._push_changes()
                await asyncio.sleep(
                    min(POLL_INTERVAL_SECONDS, time.monotonic() - began)
                )  # at most half of the time is spent on snapshots
        finally:
            self._inotify_watcher.close()

    async def _push_changes(self) -> None:
        events = await self._session.file_changes.changes_since_last_call(
            self._inotify_watcher.take_snapshot, self._path
        )
        if any((event["eventType"], event["pathType"]) == ("delete", "directory") for event in events):
            self._inotify_watcher.reset()
        for start in range(0, len(events), _MAX_EVENTS_PER_PUSH):
            part = events[start : start + _MAX_EVENTS_PER_PUSH]
            self._push_number += 1
            push = {"eventType": "file_change", "path": self._path, "events": part, "number": self._push_number}
            self._append_backlog(push)
            await self._session.hub.broadcast(GetFileChange.server, push)

    def _append_backlog(self, push: dict[str, Any]) -> None:
        self._backlog.append(push)
        self._backlog_events += len(push["events"])
        while self._backlog_events > _MAX_BACKLOG_EVENTS:
            self._backlog_events -= len(self._backlog.popleft()["events"])


@target_handler(GetFileChange.server)
async def handle_watch_request(session: Session, request: WebSocketRequest) -> None:
    """Subscribe or unsubscribe a client.

    A subscription outlives the connection.
    """
    path, resources = request.params.get("path"), session.hub.resources
    subscriber, since = str(request.params.get("subscriber", "")), request.params.get("since")
    if not isinstance(path, str) or "\0" in path:
        await request.send_answer(error="path must be a text")
    elif request.method == "subscribe_file_change":
        watchers = sum(isinstance(resource, DirectoryWatcher) for resource in resources.values())
        if f"watch {path}" not in resources and watchers >= _MAX_WATCHED_DIRECTORIES:
            await request.send_answer(
                error=f"A session can have {_MAX_WATCHED_DIRECTORIES} watched directories at a time, not more."
            )
            return
        try:
            watcher = await _get_or_create_watcher(session, path)
            watcher.subscribers.add(subscriber)
            await watcher.subscribe(request, since if isinstance(since, int) else None)
        except FileOperationFailed as error:
            await request.send_answer(error=f"Failed to watch: {error.path}, error: {error.strerror}")
    elif request.method == "unsubscribe_file_change":
        _unsubscribe(session, path, subscriber)
    else:
        await request.send_answer(error=f"There is no method {request.method!r:.80}.")


async def _get_or_create_watcher(session: Session, path: str) -> DirectoryWatcher:
    with session.using() as sandbox:
        await session.file_changes.start_tracking(partial(take_snapshot, sandbox), path)
    found = session.hub.resources.get(f"watch {path}")
    if isinstance(found, DirectoryWatcher):
        return found
    made = session.hub.resources[f"watch {path}"] = DirectoryWatcher(session, path)
    return made


def _unsubscribe(session: Session, path: str, subscriber: str) -> None:
    watcher = session.hub.resources.get(f"watch {path}")
    if isinstance(watcher, DirectoryWatcher):
        watcher.subscribers.discard(subscriber)
        if not watcher.subscribers:
            del session.hub.resources[f"watch {path}"]
            watcher.close()
