"""The differences of directory trees from one request to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agentbay.local.sandbox.service.manager import FileOperationFailed, Sandbox
from agentbay.local.sandbox.shared.file_protocol import SnapshotReply, SnapshotTree
from agentbay.local.worker_thread import run_by_size

TakeSnapshot = Callable[[str], Awaitable[SnapshotReply]]
DirectorySnapshot = Mapping[str, list[Any]]
_KERNEL_TICK_SECONDS = 0.02  # file times are no finer: two writes within a tick may bear the same time
_MAX_SNAPSHOT_ATTEMPTS = 3
_PATH_BYTES = 200  # about what a path takes in a snapshot
_IS_DIRECTORY_INDEX, _MTIME_INDEX, _SIZE_INDEX = range(3)  # positions in the status of a path


class FileChangeTracker:
    """Keeps the last snapshot of each tracked directory."""

    def __init__(self) -> None:
        self._snapshots: dict[str, DirectorySnapshot] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def start_tracking(self, take_snapshot: TakeSnapshot, path: str) -> None:
        """Take the first snapshot of a directory, unless there is one.

        Raises:
            FileOperationFailed: There is no such directory.
        """
        if path not in self._snapshots:
            await self.changes_since_last_call(take_snapshot, path)

    async def changes_since_last_call(self, take_snapshot: TakeSnapshot, path: str) -> list[dict[str, str]]:
        """Return the changes since the last call with this path, sorted by path.

        The first call returns none.

        Args:
            take_snapshot: Returns the current state of a path, as the file operation SnapshotTree does.

        Raises:
            FileOperationFailed: There is no such directory, and was none before.
        """
        async with self._locks.setdefault(path, asyncio.Lock()):
            before = self._snapshots.get(path)
            try:
                now = await _take_stable_snapshot(take_snapshot, path)
            except FileOperationFailed:
                if not before:
                    raise
                now = {}
            self._snapshots[path] = now
            if before is None:
                return []
            return await run_by_size((len(before) + len(now)) * _PATH_BYTES, diff_snapshots, before, now)


async def take_snapshot(sandbox: Sandbox, path: str) -> SnapshotReply:
    """Return the paths below a directory, and the sandbox's time."""
    reply, _ = await sandbox.run_file_operation(SnapshotTree(path))
    return reply


async def _take_stable_snapshot(take: TakeSnapshot, path: str) -> DirectorySnapshot:
    """Take snapshots until the last clock tick saw no write.

    The next write then bears another time than all that the snapshot has seen.
    """
    attempts_left = _MAX_SNAPSHOT_ATTEMPTS
    while True:
        snapshot = await take(path)
        newest = await run_by_size(len(snapshot.found) * _PATH_BYTES, _newest, snapshot.found)
        attempts_left -= 1
        if not attempts_left or abs(snapshot.now - newest) > _KERNEL_TICK_SECONDS * 1e9:
            return snapshot.found
        await asyncio.sleep(_KERNEL_TICK_SECONDS)


def _newest(snapshot: DirectorySnapshot) -> int:
    return max((status[_MTIME_INDEX] for status in snapshot.values()), default=0)


def diff_snapshots(before: DirectorySnapshot, now: DirectorySnapshot) -> list[dict[str, str]]:
    """Return the events that lead from one snapshot to the other, sorted by path.

    There is one event for each path, or two if the kind of the path changed or a new file has content.
    """
    known = {tuple(status) for status in before.values()}  # which hold the inode: a file found here was moved
    events: list[dict[str, str]] = []
    for path in sorted(before.keys() | now.keys()):
        old, new = before.get(path), now.get(path)
        if old == new:
            continue
        if old and new and old[_IS_DIRECTORY_INDEX] == new[_IS_DIRECTORY_INDEX]:
            events.append(_event("modify", path, new))
            continue
        if old:
            events.append(_event("delete", path, old))
        if new:
            events.append(_event("create", path, new))
            if new[_SIZE_INDEX] and tuple(new) not in known:
                events.append(_event("modify", path, new))
    return events


def _event(kind: str, path: str, status: list[Any]) -> dict[str, str]:
    return {"eventType": kind, "path": path, "pathType": "directory" if status[_IS_DIRECTORY_INDEX] else "file"}
