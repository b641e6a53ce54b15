"""Waiting until a directory of a session may have changed."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from agentbay.local.sandbox.service.errors import SandboxGone
from agentbay.local.sandbox.service.manager import ResourceCreationFailed, Sandbox
from agentbay.local.sandbox.shared.file_protocol import SnapshotReply, SnapshotTree
from agentbay.local.sessions.session import Session

POLL_INTERVAL_SECONDS = 0.2  # between two snapshots where inotify is not available
_CHUNK_BYTES = 1 << 16


class InotifyWatcher:
    """Waits for inotify events on the directories that the last snapshot found.

    Events are discarded unread: they say that something changed, and the next snapshot says what. So an overflow of
    the inotify queue does no harm. Without inotify, or with too few watches, the watcher polls.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._inotify = -1
        self._waiter: asyncio.Future[None] | None = None
        self._is_watching = self._closed = False
        session.on_new_mounts.add(self.reset)

    async def wait_for_change(self) -> None:
        """Return when something may have changed since the last snapshot began."""
        if not self._is_watching:
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
            return
        self._waiter = self._loop.create_future()
        self._loop.add_reader(self._inotify, self._wake)
        try:
            await self._waiter
        finally:
            self._wake()

    async def take_snapshot(self, path: str) -> SnapshotReply:
        """Take a snapshot of a directory, and watch all that it finds.

        This does not count as an activity of the session's user.
        """
        self._wake()  # a snapshot that another request takes may find that inotify no longer suffices
        self._is_watching = False
        with self._session.using(counts_as_activity=False) as sandbox:
            if self._inotify < 0:
                # Without inotify, snapshots in intervals find the changes.
                with suppress(ResourceCreationFailed):
                    await self._open_inotify(sandbox)
            watch = self._inotify >= 0
            if watch:
                # Before the snapshot: an event that arrives during it must cause the next one.
                _discard_events(self._inotify)
            source = os.dup(self._inotify) if watch else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            reply = await sandbox.run_file_operation_with_input(SnapshotTree(path, watch), source)
        self._is_watching = reply.watched
        return reply

    def reset(self) -> None:
        """Drop all watches.

        inotify goes on watching what was moved out of the tree, or is hidden by a mount.
        """
        self._wake()
        if self._inotify >= 0:
            os.close(self._inotify)
        self._inotify, self._is_watching = -1, False

    def close(self) -> None:
        """Stop watching for good."""
        self._closed = True
        self._session.on_new_mounts.discard(self.reset)
        self.reset()

    async def _open_inotify(self, sandbox: Sandbox) -> None:
        made = await sandbox.make_inotify()
        if self._closed:  # while this waited
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
