"""What every file operation needs: paths, input and output, and safe opening."""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Sequence
from typing import NoReturn

from agentbay.local.sandbox.shared import dirfd
from agentbay.local.sandbox.shared.sandbox_config import resolve_path

CHUNK_BYTES = 1 << 20
OPEN_FLAGS = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # a FIFO must not block, nor a terminal become ours


class OperationContext:
    """Where relative paths start, where the input comes from and the payload goes.

    Args:
        own_directories: The directories that count to the session's disk limit.
    """

    def __init__(
        self, home: str, directory: str, own_directories: Sequence[str], input_fd: int, output_fd: int
    ) -> None:
        self._home, self._directory, self._own_directories = home, directory, own_directories
        self.input_fd, self.output_fd = input_fd, output_fd

    def resolve(self, path: str) -> str:
        """Return `path` as an absolute one."""
        if not path:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return resolve_path(path, self._home, self._directory)

    def resolve_directory(self, path: str) -> str:
        """Return the plain absolute form of a path of a directory.

        Raises:
            OSError: It is no directory.
        """
        absolute = self.resolve(path)
        whole = os.path.realpath(absolute)
        if not stat.S_ISDIR(os.stat(whole).st_mode):
            raise_os_error(errno.ENOTDIR, absolute)
        parts = [part for part in absolute.split("/") if part not in ("", ".")]
        # ".." after a link cannot be resolved by the text alone.
        return whole if ".." in parts else "/" + "/".join(parts)

    def read_input(self) -> bytes:
        """Read the whole input."""
        return b"".join(iter(lambda: os.read(self.input_fd, CHUNK_BYTES), b""))

    def room_in(self, directory: int, room: int | None) -> float:
        """Return `room` where the session's disk counts, and infinity elsewhere."""
        return math.inf if room is None or not self.is_own_disk(directory) else room

    def is_own_disk(self, directory: int) -> bool:
        """Return whether a directory counts to the session's disk.

        Home, /tmp and further writable directories do, mounted contexts do not.
        """
        own = mount_id(directory)
        return any(own == _mount_id_at(top) for top in self._own_directories)


def mount_id(fd: int) -> bytes:
    """Return what identifies the mount of a directory.

    Its device does not: several mounts may show directories of one file system.
    """
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        return next(line for line in file if line.startswith(b"mnt_id:"))


def _mount_id_at(path: str) -> bytes:
    with dirfd.open_path(path) as fd:
        return mount_id(fd)


def raise_os_error(code: int, path: str, reason: str = "") -> NoReturn:
    """Raise the OSError of a code."""
    raise OSError(code, reason or os.strerror(code), path)


def require_regular(mode: int, path: str) -> None:
    """Raise OSError for what is no regular file."""
    if stat.S_ISDIR(mode):
        raise_os_error(errno.EISDIR, path)
    if not stat.S_ISREG(mode):
        raise_os_error(errno.EINVAL, path, "Not a regular file")


def open_regular(path: str) -> int:
    """Open a regular file for reading, and nothing else.

    Raises:
        OSError: It is something else, which opening must neither wait for nor change.
    """
    try:
        fd = os.open(path, os.O_RDONLY | OPEN_FLAGS)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise_os_error(errno.EINVAL, path, "Not a regular file")
        raise
    require_regular(os.fstat(fd).st_mode, path)
    return fd
