"""What has changed below directories of a session since somebody last asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agentbay.local.sandbox.service.manager import FileOperationFailed

CallFileOperation = Callable[..., Awaitable[tuple[dict[str, Any], bytes]]]
DirectorySnapshot = Mapping[str, list[Any]]
_KERNEL_TICK_SECONDS = (
    0.02  # seconds; two writes may bear the same time if they are no further apart than a tick of the kernel
)
_MAX_SNAPSHOT_ATTEMPTS = 3
_IS_DIRECTORY_INDEX, _MTIME_INDEX, _SIZE_INDEX = range(3)  # places in what is known of a path


class FileChangeTracker:
    """The last state of each directory that is asked about, by the path by which it is."""

    def __init__(self) -> None:
        self._snapshots: dict[str, DirectorySnapshot] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def start_tracking(self, call: CallFileOperation, path: str) -> None:
        """Look at a directory that was not looked at before; changes since are told next time.

        Raises:
            FileOperationFailed: There is no such directory.
        """
        if path not in self._snapshots:
            await self.changes_since_last_call(call, path)

    async def changes_since_last_call(self, call: CallFileOperation, path: str) -> list[dict[str, str]]:
        """Return the changes since the last call with this path, sorted by path; none in the first call.

        Args:
            call: How the session does a file operation.

        Raises:
            FileOperationFailed: There is no such directory, and was none before.
        """
        async with self._locks.setdefault(path, asyncio.Lock()):
            before = self._snapshots.get(path)
            try:
                now = await _stable_snapshot(call, path)
            except FileOperationFailed:
                if not before:
                    raise
                now = {}
            self._snapshots[path] = now
            return [] if before is None else diff_snapshots(before, now)


async def _stable_snapshot(call: CallFileOperation, path: str) -> DirectorySnapshot:
    """Look until nothing was written within the last tick: what is written next then bears another time."""
    left = _MAX_SNAPSHOT_ATTEMPTS
    while True:
        result, _ = await call("snapshot", {"path": path})
        found: DirectorySnapshot = result["found"]
        newest = max((facts[_MTIME_INDEX] for facts in found.values()), default=0)
        left -= 1
        if not left or abs(result["now"] - newest) > _KERNEL_TICK_SECONDS * 1e9:
            return found
        await asyncio.sleep(_KERNEL_TICK_SECONDS)


def diff_snapshots(before: DirectorySnapshot, now: DirectorySnapshot) -> list[dict[str, str]]:
    """Return what happened between two states.

    One event for each path; two if it became something else, or if it is a new file that has been written to.
    """
    known = {tuple(facts) for facts in before.values()}  # a file that is one of these, by its inode too, was moved
    events = []
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


def _event(kind: str, path: str, facts: list[Any]) -> dict[str, str]:
    return {"eventType": kind, "path": path, "pathType": "directory" if facts[_IS_DIRECTORY_INDEX] else "file"}
