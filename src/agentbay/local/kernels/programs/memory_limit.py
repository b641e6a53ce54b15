"""The limits of a Python kernel's memory, at which Python raises an error."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

LIMIT_VARIABLE = "AGENTBAY_KERNEL_MEMORY_BYTES"  # what the session may use in all
_SPARE_BYTES = 32 << 20  # for telling a MemoryError
_OTHER_PROCESSES_SHARE = 8  # a part of the limit that is left for other processes of the session
_STACK_BYTES_PER_CALL = 2048  # of a call that goes through C, such as that of a cached function


class MemoryLimit:
    """A limit of this process below that of its session.

    So code meets a MemoryError, before the session's limit kills something.

    Args:
        used_bytes: What this process uses already of the session's memory.
    """

    def __init__(self, used_bytes: int = 0) -> None:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        session = int(os.environ.pop(LIMIT_VARIABLE, machine // 2))
        room = max(session - session // _OTHER_PROCESSES_SHARE - used_bytes, session // 2)
        soft, self._hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = _data_bytes() + room
        self._limit = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft)
        self._set(self._limit)
        if sys.version_info < (3, 12):  # later ones have a limit of their own for calls that go through C
            sys.setrecursionlimit = _with_stack(sys.setrecursionlimit)

    @contextlib.contextmanager
    def spare(self) -> Iterator[None]:
        """Allow a little more memory in the block."""
        soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
        if soft != self._limit:  # code has set a limit of its own
            yield
            return
        self._set(self._limit + _SPARE_BYTES)
        try:
            yield
        finally:
            self._set(self._limit)

    def _set(self, soft: int) -> None:
        if self._hard != resource.RLIM_INFINITY:
            soft = min(soft, self._hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, self._hard))


def _data_bytes() -> int:
    """Return how much of RLIMIT_DATA this process uses."""
    status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    line = next(line for line in status.splitlines() if line.startswith("VmData:"))
    return int(line.split()[1]) << 10


def _with_stack(set_limit: Callable[[int], None]) -> Callable[[int], None]:
    """Let the stack grow with the recursion limit.

    Calls through C take room on it, and crash at its end.
    """
    former, hard = resource.getrlimit(resource.RLIMIT_STACK)

    def setrecursionlimit(limit: int, /) -> None:
        set_limit(limit)
        if former != resource.RLIM_INFINITY:
            wanted = max(former, limit * _STACK_BYTES_PER_CALL)
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))

    setrecursionlimit.__doc__ = set_limit.__doc__
    return setrecursionlimit
