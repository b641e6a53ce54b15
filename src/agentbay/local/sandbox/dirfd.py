"""Going down a directory tree by descriptors: no link is followed, and no path is too long."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
TEMPORARY = ".agentbay-"  # how the names of what is just being written or removed begin
DEEPEST = 250  # levels of directories that are walked
_IN_THE_WAY = (errno.ENOTDIR, errno.ELOOP)


@contextmanager
def entered(top: int, parts: Sequence[str], make: Callable[[str, int], None] | None = None) -> Iterator[int]:
    """Open the directory `parts` below `top`.

    Args:
        make: Makes a directory that is missing (its name, and the descriptor of the one above); what is in the way
            and is none is removed first. Without it, the error says so.
    """
    fd = os.dup(top)
    try:
        for part in parts:
            below = _open(part, fd, make)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def _open(name: str, above: int, make: Callable[[str, int], None] | None) -> int:
    try:
        return os.open(name, DIRECTORY, dir_fd=above)
    except OSError as error:
        if make is None or (error.errno != errno.ENOENT and error.errno not in _IN_THE_WAY):
            raise
        if error.errno in _IN_THE_WAY:
            os.unlink(name, dir_fd=above)
    make(name, above)
    return os.open(name, DIRECTORY, dir_fd=above)


def remove(name: str, above: int) -> None:
    """Remove a file, a link, or a directory with all that is in it; what is not there is as good as removed.

    Directories below are first moved up: however deep it is, this needs few descriptors and no recursion.
    """
    pending = [name]
    while pending:
        current = pending.pop()
        try:
            status = os.stat(current, dir_fd=above, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(status.st_mode):
            os.chmod(current, 0o700, dir_fd=above)  # one that forbids it cannot be emptied
            pending += _move_up(current, above)
            os.rmdir(current, dir_fd=above)
        else:
            os.unlink(current, dir_fd=above)


def _move_up(name: str, above: int) -> list[str]:
    """Empty a directory: its files are removed, its directories moved up to where it is; return their names there."""
    moved: list[str] = []
    fd = os.open(name, DIRECTORY, dir_fd=above)
    try:
        for entry in os.listdir(fd):
            if stat.S_ISDIR(os.stat(entry, dir_fd=fd, follow_symlinks=False).st_mode):
                os.chmod(entry, 0o700, dir_fd=fd)
                moved.append(TEMPORARY + os.urandom(8).hex())
                os.rename(entry, moved[-1], src_dir_fd=fd, dst_dir_fd=above)
            else:
                os.unlink(entry, dir_fd=fd)
    finally:
        os.close(fd)
    return moved


def make_way(name: str, above: int) -> None:
    """Remove a directory of that name, so that a file can be renamed to it."""
    try:
        status = os.stat(name, dir_fd=above, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        remove(name, above)
