"""Copying what a session has written, as a layer that nobody changes any more.

The files were written by untrusted code, whose processes are frozen meanwhile. No link is followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from agentbay.local.images import merged_view
from agentbay.local.images.errors import ImageError, LimitExceeded
from agentbay.local.images.layer_writer import LayerLimits, LayerStats, check_free_space, copy_content, make_whiteout
from agentbay.local.images.merged_view import OPAQUE_ATTRIBUTE
from agentbay.local.sandbox.shared import dirfd
from agentbay.local.sandbox.shared.fd_io import closing_fd

_FREE_SPACE_CHECK_BYTES = 16 << 20


class TreeCopy:
    """Copies trees, and counts what it copies.

    Args:
        owner: Who gets the files; None means this process's user.
    """

    def __init__(self, owner: tuple[int, int] | None, limits: LayerLimits | None = None) -> None:
        self._owner, self._limits = owner, limits or LayerLimits()
        self._linked: dict[tuple[int, int], tuple[int, str]] = {}  # files with several names: where the first copy is
        self._kept: list[int] = []
        self._since_check, self._place = 0, "/"
        self.stats = LayerStats()

    def copy(self, source: str, target: str) -> None:
        """Copy the content of a directory into an existing one.

        Raises:
            ImageError: Something cannot be read, is nested too deep, or the disk is full.
        """
        self._place = target
        reader, writer = (os.open(path, dirfd.DIRECTORY_OPEN_FLAGS) for path in (source, target))
        try:
            self._copy_directory(reader, writer, os.fstat(reader), 0)
        except OSError as error:
            raise ImageError(f"{error.filename or 'A file'} cannot be copied: {error.strerror}.") from error
        finally:
            for fd in (reader, writer, *self._kept):
                os.close(fd)
            self._kept.clear()
            self._linked.clear()

    def _copy_directory(self, source: int, target: int, status: os.stat_result, depth: int) -> None:
        if depth > dirfd.MAX_DEPTH:
            raise LimitExceeded(f"Directories are nested deeper than {dirfd.MAX_DEPTH}.")
        for name in os.listdir(source):
            self.stats.entries += 1
            if self.stats.entries > self._limits.entries:
                raise LimitExceeded(f"There are more than {self._limits.entries:,} files.")
            found = os.stat(name, dir_fd=source, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                self._copy_subdirectory(name, source, target, found, depth)
            else:
                self._copy_other(name, source, target, found)
        with suppress(OSError):
            if os.getxattr(source, OPAQUE_ATTRIBUTE) == b"y":
                os.setxattr(target, OPAQUE_ATTRIBUTE, b"y")
        if self._owner:
            os.fchown(target, *self._owner)
        os.fchmod(target, status.st_mode & 0o1777)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _copy_subdirectory(self, name: str, source: int, target: int, status: os.stat_result, depth: int) -> None:
        os.mkdir(name, 0o700, dir_fd=target)
        with (
            closing_fd(os.open(name, dirfd.DIRECTORY_OPEN_FLAGS, dir_fd=target)) as writer,
            _opened(name, dirfd.DIRECTORY_OPEN_FLAGS, source, status) as reader,
        ):
            self._copy_directory(reader, writer, status, depth + 1)

    def _copy_other(self, name: str, source: int, target: int, status: os.stat_result) -> None:
        if merged_view.is_whiteout(status):
            make_whiteout(name, target)
            return
        if status.st_nlink > 1 and self._link_again(name, target, status):
            return
        if stat.S_ISREG(status.st_mode):
            self._copy_file(name, source, target, status)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif stat.S_ISFIFO(status.st_mode):
            os.mkfifo(name, status.st_mode & 0o777, dir_fd=target)
        else:  # a socket, which nobody listens on any more
            return
        if self._owner:
            os.chown(name, *self._owner, dir_fd=target, follow_symlinks=False)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)

    def _link_again(self, name: str, target: int, status: os.stat_result) -> bool:
        """Hard-link a name to the first copy of its file.

        Returns whether that worked.
        """
        key = (status.st_dev, status.st_ino)
        if key in self._linked:
            directory, first = self._linked[key]
            with suppress(PermissionError):  # of a directory that its owner may not enter: the name gets a copy
                os.link(first, name, src_dir_fd=directory, dst_dir_fd=target, follow_symlinks=False)
                return True
            return False
        if len(self._kept) < 1000:  # beyond that, each name gets a copy
            self._kept.append(os.dup(target))
            self._linked[key] = (self._kept[-1], name)
        return False

    def _copy_file(self, name: str, source: int, target: int, status: os.stat_result) -> None:
        with _opened(name, dirfd.FILE_OPEN_FLAGS, source, status) as reader:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with closing_fd(os.open(name, flags, 0o600, dir_fd=target)) as writer:
                copy_content(reader, writer, self._count)
                os.fchmod(writer, status.st_mode & 0o777)

    def _count(self, size: int) -> None:
        self.stats.size += size
        self._since_check += size
        if self._since_check > _FREE_SPACE_CHECK_BYTES:
            self._since_check = 0
            check_free_space(self._place, self._limits.min_free_bytes)


@contextmanager
def _opened(name: str, flags: int, above: int, status: os.stat_result) -> Iterator[int]:
    """Open a file or a directory that its owner may not read.

    An ordinary user's runtime has no other way than its mode, which is the same again afterwards.
    """
    with ExitStack() as undo:
        try:
            fd = os.open(name, flags, dir_fd=above)
        except PermissionError:
            place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
            undo.callback(os.close, place)
            path, mode = f"/proc/self/fd/{place}", stat.S_IMODE(status.st_mode)
            os.chmod(path, mode | stat.S_IRUSR | stat.S_IXUSR)
            undo.callback(os.chmod, path, mode)
            fd = os.open(name, flags, dir_fd=above)
        undo.callback(os.close, fd)
        yield fd
