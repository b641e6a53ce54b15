"""When a directory of a session is worth another look."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from agentbay.local.sandbox.service.errors import SandboxGone
from agentbay.local.sandbox.service.manager import ResourceCreationFailed, Sandbox
from agentbay.local.sessions.session import Session

POLL_INTERVAL_SECONDS = 0.2  # seconds between two looks where the kernel tells nothing
_CHUNK_BYTES = 1 << 16


class InotifyWatcher:
    """Waits for inotify, to which each look adds the directories that it finds.

    What inotify tells is not read but thrown away: it says that there is something to see, and the look what. So it is
    all one if its queue runs over. Where it is not to be had, or not for all directories, time passing is the alarm.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._inotify = -1
        self._waiter: asyncio.Future[None] | None = None
        self._is_watching = self._closed = False

    async def wait_for_change(self) -> None:
        """Wait until something may have changed since the last look began."""
        if not self._is_watching:
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
            return
        self._waiter = self._loop.create_future()
        self._loop.add_reader(self._inotify, self._wake)
        try:
            await self._waiter
        finally:
            self._wake()

    async def take_snapshot(self, operation: str, params: Mapping[str, object]) -> tuple[dict[str, Any], bytes]:
        """Do a "snapshot" of the sandbox's, and be the alarm for what changes from then on."""
        self._wake()  # a look of somebody else's may find that waiting will not do any more
        self._is_watching = False
        sandbox = self._session.running_sandbox()
        if self._inotify < 0:
            with suppress(ResourceCreationFailed):
                await self._open_inotify(sandbox)
        watch = self._inotify >= 0
        if watch:
            _discard_events(self._inotify)
        source = os.dup(self._inotify) if watch else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        result = await sandbox.run_file_operation_with_input(operation, {**params, "watch": watch}, source)
        self._is_watching = result["watched"]
        return result, b""

    def reset(self) -> None:
        """Begin anew: what has left the tree is still watched, wherever it is now."""
        self._wake()
        if self._inotify >= 0:
            os.close(self._inotify)
        self._inotify, self._is_watching = -1, False

    def close(self) -> None:
        """End it."""
        self._closed = True
        self.reset()

    async def _open_inotify(self, sandbox: Sandbox) -> None:
        made = await sandbox.make_inotify()
        if self._closed:
            os.close(made)
            raise SandboxGone("the session has ended")
        self._inotify = made

    def _wake(self) -> None:
        if self._waiter is not None:
            self._loop.remove_reader(self._inotify)
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None


def _discard_events(fd: int) -> None:
    with suppress(BlockingIOError):
        while os.read(fd, _CHUNK_BYTES):
            pass
