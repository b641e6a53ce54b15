"""Separate host uids and gids, since the kernel counts resources by user.

Descriptors in flight, pipe buffers, signals and more are limited for each host uid, whatever the namespaces.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import struct
from pathlib import Path

_FIRST_ID = 1_900_000_000  # uids above 1,879,048,191 are used neither by systemd nor as subordinate ids
_IDS_PER_RUNTIME = 20_000
_MAX_RUNTIMES = 1_000  # of one machine, each with a block of ids of its own
_LOCK_FILE = "/run/agentbay-ids.lock"

HOST_IDS_OF_A_SANDBOX = 2  # for its user and for its file operations

HostIds = tuple[int, int]


class HostIdPool:
    """Hands out ids, each to one sandbox at a time.

    Args:
        owner: The ids that own the files of all sandboxes; None for a runtime that has no other ids than its own.
    """

    def __init__(self, owner: HostIds | None) -> None:
        self._owner = owner
        self._lock_fd, self._free = -1, list[int]()
        if owner and _exists(_FIRST_ID + _MAX_RUNTIMES * _IDS_PER_RUNTIME):
            self._lock_fd, first = _reserve_block()
            ids = range(first, first + _IDS_PER_RUNTIME, HOST_IDS_OF_A_SANDBOX)
            self._free = list(ids) if self._lock_fd >= 0 else []

    @property
    def is_shared(self) -> bool:
        """Whether all sandboxes get the same ids."""
        return self._lock_fd < 0

    def acquire(self) -> HostIds | None:
        """Return ids for a sandbox, or None for those of the runtime.

        The next higher uid is that of the sandbox's file operations.
        """
        if not self._free:
            return self._owner
        number = heapq.heappop(self._free)
        return number, number

    def release(self, ids: HostIds | None) -> None:
        """Take ids back after all processes of their sandbox have ended."""
        if ids and ids != self._owner and not self.is_shared:
            heapq.heappush(self._free, ids[0])

    def close(self) -> None:
        """Return the block of ids, and let later sandboxes share one set."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
        self._lock_fd, self._free = -1, []


def _exists(number: int) -> bool:
    """Return whether a uid and a gid are mapped in this user namespace."""
    for name in ("uid_map", "gid_map"):
        lines = [line.split() for line in Path(f"/proc/self/{name}").read_text().splitlines()]
        if not any(int(first) <= number < int(first) + int(count) for first, _, count in lines):
            return False
    return True


def _reserve_block() -> tuple[int, int]:
    """Reserve ids that no other runtime of this machine uses.

    Returns:
        A descriptor that holds the reservation until it is closed, or -1; and the first id.
    """
    try:
        fd = os.open(_LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:  # /run is read-only
        return -1, 0
    for block in range(_MAX_RUNTIMES):
        # struct flock: type, whence, start, length, pid; an OFD lock also excludes another manager of this process
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, block, 1, 0)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
        except OSError:  # another runtime has it
            continue
        return fd, _FIRST_ID + block * _IDS_PER_RUNTIME
    os.close(fd)
    return -1, 0
