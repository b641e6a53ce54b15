"""When a directory of a session is worth another look."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from agentbay.local.sandbox.errors import SandboxGone
from agentbay.local.sandbox.host import NotGiven, Sandbox
from agentbay.local.session import Session

PAUSE = 0.2  # seconds between two looks where the kernel tells nothing
_CHUNK = 1 << 16


class Alarm:
    """Waits for inotify, to which each look adds the directories that it finds.

    What inotify tells is not read but thrown away: it says that there is something to see, and the look what. So it is
    all one if its queue runs over. Where it is not to be had, or not for all directories, time passing is the alarm.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._inotify = -1
        self._waiting: asyncio.Future[None] | None = None
        self._armed = self._closed = False

    async def wait(self) -> None:
        """Wait until something may have changed since the last look began."""
        if not self._armed:
            await asyncio.sleep(PAUSE)
            return
        self._waiting = self._loop.create_future()
        self._loop.add_reader(self._inotify, self._ring)
        try:
            await self._waiting
        finally:
            self._ring()

    async def look(self, operation: str, params: Mapping[str, object]) -> tuple[dict[str, Any], bytes]:
        """Do a "snapshot" of the sandbox's, and be the alarm for what changes from then on."""
        self._ring()  # a look of somebody else's may find that waiting will not do any more
        self._armed = False
        sandbox = self._session.unnoticed()
        if self._inotify < 0:
            with suppress(NotGiven):
                await self._obtain(sandbox)
        watch = self._inotify >= 0
        if watch:
            _drain(self._inotify)
        source = os.dup(self._inotify) if watch else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        result = await sandbox.call_from(operation, {**params, "watch": watch}, source)
        self._armed = result["watched"]
        return result, b""

    def forget(self) -> None:
        """Begin anew: what has left the tree is still watched, wherever it is now."""
        self._ring()
        if self._inotify >= 0:
            os.close(self._inotify)
        self._inotify, self._armed = -1, False

    def close(self) -> None:
        """End it."""
        self._closed = True
        self.forget()

    async def _obtain(self, sandbox: Sandbox) -> None:
        made = await sandbox.make_inotify()
        if self._closed:
            os.close(made)
            raise SandboxGone("the session has ended")
        self._inotify = made

    def _ring(self) -> None:
        if self._waiting is not None:
            self._loop.remove_reader(self._inotify)
            if not self._waiting.done():
                self._waiting.set_result(None)
            self._waiting = None


def _drain(fd: int) -> None:
    with suppress(BlockingIOError):
        while os.read(fd, _CHUNK):
            pass
