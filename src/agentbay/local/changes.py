"""What has changed below directories of a session since somebody last asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agentbay.local.sandbox.host import FileOperationFailed

Call = Callable[..., Awaitable[tuple[dict[str, Any], bytes]]]
Found = Mapping[str, list[Any]]
_TICK = 0.02  # seconds; two writes may bear the same time if they are no further apart than a tick of the kernel
_ROUNDS = 3
_DIRECTORY, _TIME, _SIZE = range(3)  # places in what is known of a path


class Changes:
    """The last state of each directory that is asked about, by the path by which it is."""

    def __init__(self) -> None:
        self._known: dict[str, Found] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def begin(self, call: Call, path: str) -> None:
        """Look at a directory that was not looked at before; changes since are told next time.

        Raises:
            FileOperationFailed: There is no such directory.
        """
        if path not in self._known:
            await self.since_last(call, path)

    async def since_last(self, call: Call, path: str) -> list[dict[str, str]]:
        """Return the changes since the last call with this path, sorted by path; none in the first call.

        Args:
            call: How the session does a file operation.

        Raises:
            FileOperationFailed: There is no such directory, and was none before.
        """
        async with self._turns.setdefault(path, asyncio.Lock()):
            before = self._known.get(path)
            try:
                now = await _settled(call, path)
            except FileOperationFailed:
                if not before:
                    raise
                now = {}
            self._known[path] = now
            return [] if before is None else compare(before, now)


async def _settled(call: Call, path: str) -> Found:
    """Look until nothing was written within the last tick: what is written next then bears another time."""
    left = _ROUNDS
    while True:
        result, _ = await call("snapshot", {"path": path})
        found: Found = result["found"]
        newest = max((facts[_TIME] for facts in found.values()), default=0)
        left -= 1
        if not left or abs(result["now"] - newest) > _TICK * 1e9:
            return found
        await asyncio.sleep(_TICK)


def compare(before: Found, now: Found) -> list[dict[str, str]]:
    """Return what happened between two states.

    One event for each path; two if it became something else, or if it is a new file that has been written to.
    """
    known = {tuple(facts) for facts in before.values()}  # a file that is one of these, by its inode too, was moved
    events = []
    for path in sorted(before.keys() | now.keys()):
        old, new = before.get(path), now.get(path)
        if old == new:
            continue
        if old and new and old[_DIRECTORY] == new[_DIRECTORY]:
            events.append(_event("modify", path, new))
            continue
        if old:
            events.append(_event("delete", path, old))
        if new:
            events.append(_event("create", path, new))
            if new[_SIZE] and tuple(new) not in known:
                events.append(_event("modify", path, new))
    return events


def _event(kind: str, path: str, facts: list[Any]) -> dict[str, str]:
    return {"eventType": kind, "path": path, "pathType": "directory" if facts[_DIRECTORY] else "file"}
