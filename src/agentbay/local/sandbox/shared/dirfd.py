"""Walking directory trees by descriptors, without following any link.

This prevents path traversal and races (TOCTOU), and no path is too long.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from agentbay.local.sandbox.shared.fd_io import closing_fd

DIRECTORY_OPEN_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
# A name may lead to anything by the time it is opened: a FIFO must not block, nor a terminal become ours.
FILE_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
TEMPORARY_PREFIX = ".agentbay-"  # of files and directories that are being written or removed
MAX_DEPTH = 250  # levels of nested directories
_NOT_A_DIRECTORY_ERRNOS = (errno.ENOTDIR, errno.ELOOP)
# of a directory that another process changes meanwhile
_RACE_ERRNOS = (*_NOT_A_DIRECTORY_ERRNOS, errno.ENOENT, errno.ENOTEMPTY)
_MAX_ATTEMPTS = 1000  # against a process that keeps changing it


@contextmanager
def open_path(path: str) -> Iterator[int]:
    """Open a directory by its path, in which links are followed.

    The descriptor serves for work on its entries, not for listing them.
    """
    # Unlike reading, this needs no permission.
    with closing_fd(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        yield fd


@contextmanager
def open_directory(top: int, parts: Sequence[str], make: Callable[[str, int], None] | None = None) -> Iterator[int]:
    """Open the directory `parts` below `top`.

    Args:
        make: Creates a missing directory, by its name and the descriptor of its parent; anything else of that name is
            removed first. Without it, both are errors.
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
    for _ in range(_MAX_ATTEMPTS):
        try:
            return os.open(name, DIRECTORY_OPEN_FLAGS, dir_fd=above)
        except OSError as error:
            if make is None or (error.errno != errno.ENOENT and error.errno not in _NOT_A_DIRECTORY_ERRNOS):
                raise
            in_the_way = error.errno in _NOT_A_DIRECTORY_ERRNOS
        with suppress(FileExistsError, FileNotFoundError, IsADirectoryError):  # another process changes it too
            if in_the_way:
                os.unlink(name, dir_fd=above)
            make(name, above)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)


def remove(name: str, above: int) -> None:
    """Remove a file, a link, or a directory with its content, if it exists.

    Subdirectories are moved up first, so that any depth needs few descriptors and no recursion. After a change by
    another process it tries again.
    """
    pending, attempts = [name], 0
    while pending:
        current = pending.pop()
        try:
            _remove_one(current, above, pending)
        except OSError as error:
            attempts += 1
            if error.errno not in _RACE_ERRNOS or attempts > _MAX_ATTEMPTS:
                raise
            pending.append(current)


def _remove_one(name: str, above: int, moved: list[str]) -> None:
    try:
        os.unlink(name, dir_fd=above)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        _move_up(name, above, moved)
        os.rmdir(name, dir_fd=above)


def _move_up(name: str, above: int, moved: list[str]) -> None:
    """Remove the files of a directory, and move its directories up one level.

    The names of these are appended to `moved`.
    """
    _make_accessible(name, above)
    with closing_fd(os.open(name, DIRECTORY_OPEN_FLAGS, dir_fd=above)) as fd:
        for entry in os.listdir(fd):
            try:
                os.unlink(entry, dir_fd=fd)
            except FileNotFoundError:
                continue
            except IsADirectoryError:
                _make_accessible(entry, fd)
                # A random name, since the directory above may have an entry of the same name.
                aside = TEMPORARY_PREFIX + os.urandom(8).hex()
                os.rename(entry, aside, src_dir_fd=fd, dst_dir_fd=above)
                moved.append(aside)


def _make_accessible(name: str, above: int) -> None:
    """Make a directory writable.

    chmod by name would follow a link that was put there meanwhile (a race).
    """
    with closing_fd(os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)) as fd:
        # fchmod refuses O_PATH descriptors (EBADF), and any other open needs rights that the mode may deny.
        os.chmod(f"/proc/self/fd/{fd}", 0o700)


def replace(source: str, name: str, above: int) -> None:
    """Rename the file `source` to a name, replacing what is there."""
    for _ in range(_MAX_ATTEMPTS):
        remove_directory_in_the_way(name, above)
        with suppress(IsADirectoryError):  # created meanwhile
            os.rename(source, name, dst_dir_fd=above)
            return
    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)


def remove_directory_in_the_way(name: str, above: int) -> os.stat_result | None:
    """Remove a directory of that name, before a file is renamed to it.

    Return the status of what was there.
    """
    try:
        status = os.stat(name, dir_fd=above, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        remove(name, above)
    return status
