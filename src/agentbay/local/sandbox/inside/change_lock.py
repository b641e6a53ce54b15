"""A lock that serialises the changes of one file by several file operations."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from agentbay.local.sandbox.shared.fd_io import closing_fd

_WAIT_SECONDS, _RETRY_SECONDS = 10.0, 0.005


@contextmanager
def lock_for_change(path: str) -> Iterator[None]:
    """Keep other file operations from changing files in the directory of `path`.

    The lock is on the directory, because an atomic replacement makes a new file.

    Raises:
        OSError: Another change does not end.
    """
    directory = os.path.dirname(path)
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # files may be changed in a directory that cannot be listed
        yield
        return
    with closing_fd(fd):
        _lock(fd, path)
        yield


def _lock(fd: int, path: str) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:  # any program can hold such a lock for ever
                raise OSError(errno.EBUSY, "Another change in its directory does not end", path) from None
            time.sleep(_RETRY_SECONDS)
        else:
            return
