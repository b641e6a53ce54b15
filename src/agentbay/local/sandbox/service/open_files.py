"""The open files of sandboxed processes: memory files, deleted files, and descriptors in flight."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

from agentbay.local.sandbox.shared.proc_fs import read_proc_file

_MAX_FILES = 20_000  # of one process that are looked at
_MAX_MAPS_BYTES = 4 << 20
# a line of /proc/PID/maps: addresses, permissions, offset, device, inode, name
_DELETED_MAPPING = re.compile(rb"^(\w+)-(\w+) \S+ \S+ (\w+):(\w+) (\d+) +/.* \(deleted\)$", re.MULTILINE)


class OpenFile(NamedTuple):
    """A descriptor of a process, by its number, and what it leads to."""

    name: str
    status: os.stat_result

    def is_unlinked_on(self, device: int) -> bool:
        """Return whether it is a deleted file or a memory file."""
        status = self.status
        return status.st_nlink == 0 and status.st_dev == device and stat.S_ISREG(status.st_mode)

    @property
    def allocated_bytes(self) -> int:
        """The bytes that it really takes."""
        return self.status.st_blocks * 512


def list_open_files(proc: int, pid: int) -> Iterator[OpenFile]:
    """Yield the open files of a process, none if it is gone.

    Raises:
        PermissionError: The process may not be inspected.
    """
    try:
        directory = os.open(f"{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
    except FileNotFoundError:
        # The process has ended.
        return
    try:
        for name in os.listdir(directory)[:_MAX_FILES]:
            try:
                yield OpenFile(name, os.stat(name, dir_fd=directory))
            except OSError:  # closed meanwhile
                continue
    except (FileNotFoundError, ProcessLookupError):  # the process has ended
        return
    finally:
        os.close(directory)


def deleted_mappings(proc: int, pid: int, device: int) -> dict[int, int]:
    """Return the mapped bytes of a device's deleted files, by inode."""
    found: dict[int, int] = {}
    try:
        fd = os.open(f"{pid}/maps", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
        with open(fd, "rb") as file:
            text = file.read(_MAX_MAPS_BYTES)
    except OSError:
        return found
    for start, end, major, minor, inode in _DELETED_MAPPING.findall(text):
        if os.makedev(int(major, 16), int(minor, 16)) == device:
            found[int(inode)] = found.get(int(inode), 0) + int(end, 16) - int(start, 16)
    return found


def count_in_flight(proc: int, pid: int, file: OpenFile) -> int:
    """Return how many descriptors are queued in a socket (SCM_RIGHTS)."""
    if not stat.S_ISSOCK(file.status.st_mode):
        return 0
    lines = read_proc_file(proc, f"{pid}/fdinfo/{file.name}").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(b"scm_fds:")), 0)
