"""Unpacking a layer into a directory of the store, as overlayfs wants its layers.

Everything belongs to the one user that sandboxes have, so owners are not kept. Set-id bits, devices and extended
attributes are left out. What the archive names is never followed outside: each directory is opened from its parent
without following links, and links among the directories are resolved inside the image, as in a running system.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol

from agentbay._lazy_attrs import define
from agentbay.local.images import merged_view
from agentbay.local.images.errors import DamagedImage, LimitExceeded
from agentbay.local.images.layer_source import LayerSource
from agentbay.local.images.merged_view import OPAQUE_ATTRIBUTE, MergedView, Parts
from agentbay.local.images.tar_reader import TarEntry, TarReader
from agentbay.local.sandbox.shared import dirfd
from agentbay.local.sandbox.shared.fd_io import closing_fd, write_all

WHITEOUT_PREFIX, _OPAQUE_NAME = ".wh.", ".wh..wh..opq"
_MAX_OPEN_DIRECTORIES = 64
_FREE_SPACE_CHECK_BYTES = 16 << 20
_COPIED_BYTES = 16 << 20  # at once
_MAX_NAME_BYTES = 255


@define(frozen=True, slots=False)
class LayerLimits:
    """The limits of one layer.

    Attributes:
        min_free_bytes: What must stay free on the disk.
    """

    entries: int = 2_000_000
    size: int = 200 << 30
    min_free_bytes: int = 1 << 30


@define(slots=False)
class LayerStats:
    """What was unpacked."""

    entries: int = 0
    size: int = 0
    devices: int = 0


class EntrySource(Protocol):
    """Entries of a layer, each with its content while it is the current one."""

    def __iter__(self) -> Iterator[TarEntry]: ...

    def pieces(self) -> Iterator[bytes]:
        """Read the content of the current entry."""
        ...


class LayerWriter:
    """Unpacks one archive into an empty directory.

    Args:
        top: The directory.
        lowers: The unpacked layers below, the highest first.
        owner: Who gets the files; None means this process's user.
    """

    def __init__(
        self,
        top: str,
        lowers: Sequence[str],
        owner: tuple[int, int] | None = None,
        limits: LayerLimits | None = None,
    ) -> None:
        self._top, self._owner, self._limits = top, owner, limits or LayerLimits()
        self._view = MergedView([top, *lowers])
        self._open: dict[Parts, int] = {}
        self._times: dict[Parts, float] = {}
        self._written_since_check = 0
        self.stats = LayerStats()

    def unpack(self, source: LayerSource) -> None:
        """Unpack an archive.

        Raises:
            ImageError: It is damaged, too large, or tries to write elsewhere.
            OSError: The disk is full, or fails.
        """
        self.write(TarReader(source.read))

    def write(self, source: EntrySource) -> None:
        """Write the entries of a source.

        It raises what `unpack` raises.
        """
        try:
            for entry in source:
                self._count_entry()
                self._add(entry, source)
            self._set_directory_times()
        finally:
            self._close_directories()
            self._view.close()

    def _count_entry(self) -> None:
        self.stats.entries += 1
        if self.stats.entries > self._limits.entries:
            raise LimitExceeded(f"A layer has more than {self._limits.entries:,} entries.")

    def _add(self, entry: TarEntry, reader: EntrySource) -> None:
        parts = split_name(entry.name)
        if not parts:
            return
        if parts[-1].startswith(WHITEOUT_PREFIX):
            self._add_whiteout(parts)
            return
        path = (*self._view.real_directory(parts[:-1]), parts[-1])
        try:
            self._make(entry, path, reader)
        except FileNotFoundError as error:
            raise DamagedImage(f"The archive has a link to {entry.link!r:.200}, which does not exist.") from error
        except (IsADirectoryError, NotADirectoryError, FileExistsError, PermissionError) as error:
            raise DamagedImage(f"{entry.name!r:.200} cannot be unpacked: {error.strerror}.") from error

    def _make(self, entry: TarEntry, path: Parts, reader: EntrySource) -> None:
        name = path[-1]
        if entry.kind == "directory":
            self._make_directory(path, entry)
            return
        if entry.kind == "device":
            self.stats.devices += 1
            return
        if entry.kind == "hardlink":
            self._link(entry, path)
            return
        self._remove(path)
        above = self._open_directory(path[:-1])
        if entry.kind == "file":
            self._write_file(entry, name, above, reader)
            return
        if entry.kind == "symlink":
            os.symlink(entry.link, name, dir_fd=above)
        else:
            os.mkfifo(name, entry.mode & 0o777, dir_fd=above)
        self._own(name, above)
        _set_time(name, above, entry.mtime)

    def _make_directory(self, path: Parts, entry: TarEntry) -> None:
        name, above = path[-1], self._open_directory(path[:-1])
        kind = merged_view.kind_in(above, name)
        if kind != "directory":
            self._remove(path)
            os.mkdir(name, 0o700, dir_fd=above)
            self._view.forget(path)
            self._own(name, above)
            if kind == "whiteout":  # an earlier entry has removed what lower layers have there
                os.setxattr(self._open_directory(path), OPAQUE_ATTRIBUTE, b"y")
        # Its owner has no capability that overrides modes, unlike root elsewhere.
        os.chmod(name, (entry.mode & 0o1777) | stat.S_IRWXU, dir_fd=above)
        self._times[path] = entry.mtime

    def _write_file(self, entry: TarEntry, name: str, above: int, reader: EntrySource) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with closing_fd(os.open(name, flags, 0o600, dir_fd=above)) as fd:
            for piece in reader.pieces():
                self._count_bytes(len(piece))
                write_all(fd, piece)
            if self._owner:
                os.fchown(fd, *self._owner)
            os.fchmod(fd, (entry.mode & 0o777) | stat.S_IRUSR)
            # A time that the file system cannot store is no reason to refuse an image.
            with suppress(OverflowError, ValueError, OSError):
                os.utime(fd, (entry.mtime, entry.mtime))

    def _count_bytes(self, size: int) -> None:
        self.stats.size += size
        if self.stats.size > self._limits.size:
            raise LimitExceeded(f"A layer unpacks to more than {self._limits.size >> 30} GiB.")
        self._written_since_check += size
        if self._written_since_check > _FREE_SPACE_CHECK_BYTES:
            self._written_since_check = 0
            check_free_space(self._top, self._limits.min_free_bytes)

    def _link(self, entry: TarEntry, path: Parts) -> None:
        target = split_name(entry.link)
        if not target:
            raise DamagedImage(f"{entry.name!r:.200} is a hard link to nothing.")
        target = (*self._view.real_directory(target[:-1]), target[-1])
        if target == path:
            return
        found = self._view.find(target)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), entry.link)
        if found.kind == "directory":
            raise DamagedImage(f"{entry.name!r:.200} is a hard link to a directory.")
        if found.depth:  # it lies in a lower layer, which must not change: hard links do not cross layers
            self._copy_up(target)
        self._remove(path)
        # A copy, since opening another one may close it.
        with closing_fd(os.dup(self._open_directory(target[:-1]))) as source:
            above = self._open_directory(path[:-1])
            os.link(target[-1], path[-1], src_dir_fd=source, dst_dir_fd=above, follow_symlinks=False)

    def _copy_up(self, path: Parts) -> None:
        above = self._open_directory(path[:-1])
        with self._view.open_lower_parent(path) as lower:
            status = os.stat(path[-1], dir_fd=lower, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                os.symlink(os.readlink(path[-1], dir_fd=lower), path[-1], dir_fd=above)
            elif stat.S_ISREG(status.st_mode):
                _copy_file(path[-1], lower, above, status.st_mode, self._count_bytes)
            else:
                raise DamagedImage(f"The archive has a hard link to {'/'.join(path)!r:.200}, which is no file.")
        self._own(path[-1], above)
        _set_time(path[-1], above, status.st_mtime)

    def _add_whiteout(self, parts: Parts) -> None:
        if parts[-1].startswith(".wh..wh.") and parts[-1] != _OPAQUE_NAME:
            return  # metadata of aufs
        path = self._view.real_directory(parts[:-1])
        above = self._open_directory(path)
        if parts[-1] == _OPAQUE_NAME:
            if path:
                os.setxattr(above, OPAQUE_ATTRIBUTE, b"y")
                self._view.forget()
            return
        name = parts[-1].removeprefix(WHITEOUT_PREFIX)
        if not name or name in (".", ".."):
            raise DamagedImage(f"The archive removes {name!r}, which is no name.")
        if merged_view.kind_in(above, name) is None and self._view.find((*path, name)) is not None:
            make_whiteout(name, above)
            self._view.forget()

    def _open_directory(self, path: Parts) -> int:
        """Open a real directory of this layer, and make it if necessary."""
        if path in self._open:
            return self._open[path]
        if len(self._open) >= _MAX_OPEN_DIRECTORIES:
            self._close_directories()
        if not path:
            fd = os.open(self._top, dirfd.DIRECTORY_OPEN_FLAGS)
        else:
            above = self._open_directory(path[:-1])
            if merged_view.kind_in(above, path[-1]) != "directory":
                self._make_parent(path, above)
            fd = os.open(path[-1], dirfd.DIRECTORY_OPEN_FLAGS, dir_fd=above)
        self._open[path] = fd
        return fd

    def _make_parent(self, path: Parts, above: int) -> None:
        if len(path) > dirfd.MAX_DEPTH:
            raise LimitExceeded(f"A layer has directories nested deeper than {dirfd.MAX_DEPTH}.")
        self._count_entry()
        found = self._view.find(path)
        self._remove(path)
        os.mkdir(path[-1], 0o700, dir_fd=above)
        self._view.forget(path)
        self._own(path[-1], above)
        is_directory = found is not None and found.kind == "directory"
        os.chmod(path[-1], found.mode if found and is_directory else 0o755, dir_fd=above)
        if found and is_directory:
            self._times[path] = found.mtime

    def _remove(self, path: Parts) -> None:
        """Remove what an earlier entry of this layer has put there."""
        above = self._open_directory(path[:-1])
        kind = merged_view.kind_in(above, path[-1])
        if kind is None:
            return
        if kind == "directory":
            dirfd.remove(path[-1], above)
            for gone in [known for known in self._open if known[: len(path)] == path]:
                os.close(self._open.pop(gone))
            for gone in [known for known in self._times if known[: len(path)] == path]:
                del self._times[gone]
        else:
            os.unlink(path[-1], dir_fd=above)
        self._view.forget()

    def _own(self, name: str, above: int) -> None:
        if self._owner:
            os.chown(name, *self._owner, dir_fd=above, follow_symlinks=False)

    def _set_directory_times(self) -> None:
        for path, mtime in self._times.items():
            _set_time(path[-1], self._open_directory(path[:-1]), mtime)

    def _close_directories(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()


def split_name(name: str) -> Parts:
    """Return the parts of a path in an image.

    Raises:
        DamagedImage: It leads outside, or no file system can have it.
    """
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise DamagedImage(f"The archive has the path {name!r:.200}, which leads outside.")
    if "\0" in name or any(len(os.fsencode(part)) > _MAX_NAME_BYTES for part in parts):
        raise DamagedImage(f"The archive has the path {name!r:.200}, which no file system can have.")
    if len(parts) > dirfd.MAX_DEPTH:
        raise LimitExceeded(f"A layer has directories nested deeper than {dirfd.MAX_DEPTH}.")
    return parts


def make_whiteout(name: str, above: int) -> None:
    """Hide what lower layers have of that name, as overlayfs does."""
    os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=above)


def check_free_space(path: str, min_free_bytes: int) -> None:
    """Raise LimitExceeded if a disk has hardly any space left."""
    status = os.statvfs(path)
    free = status.f_bavail * status.f_frsize
    reserve = min(min_free_bytes, status.f_blocks * status.f_frsize // 20)
    if free < reserve:
        raise LimitExceeded(f"The disk of the runtime has only {free >> 20} MiB left, too few for this image.")


def copy_content(source: int, target: int, progress: Callable[[int], None]) -> None:
    """Copy a file's content between descriptors, inside the kernel where it can.

    Holes stay holes: anybody can make one that is larger than the disk.

    Args:
        progress: Called with the number of bytes of each piece.
    """
    size, end = os.fstat(source).st_size, 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # only a hole follows
        end = os.lseek(source, start, os.SEEK_HOLE)
        _copy_range(source, target, start, end, progress)
    os.ftruncate(target, size)


def _copy_range(source: int, target: int, start: int, end: int, progress: Callable[[int], None]) -> None:
    while start < end:
        try:
            copied = os.copy_file_range(source, target, min(end - start, _COPIED_BYTES), start, start)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            os.lseek(target, start, os.SEEK_SET)
            piece = os.pread(source, min(end - start, _COPIED_BYTES), start)
            write_all(target, piece)
            copied = len(piece)
        if not copied:  # it became shorter
            return
        start += copied
        progress(copied)


def _copy_file(name: str, source: int, target: int, mode: int, progress: Callable[[int], None]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with (
        closing_fd(os.open(name, dirfd.FILE_OPEN_FLAGS, dir_fd=source)) as reader,
        closing_fd(os.open(name, flags, 0o600, dir_fd=target)) as writer,
    ):
        copy_content(reader, writer, progress)
        os.fchmod(writer, stat.S_IMODE(mode))


def _set_time(name: str, above: int, mtime: float) -> None:
    with suppress(OverflowError, ValueError, OSError):  # no time that this file system can keep
        os.utime(name, (mtime, mtime), dir_fd=above, follow_symlinks=False)
