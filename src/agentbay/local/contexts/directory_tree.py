"""The contents of one context as a plain directory tree on this disk.

It is a tree, not content-addressed blobs and an index, because mounts need one: what a session writes to a mounted
context is in it at once, without a second copy that could differ. Sessions change a mounted tree while it is read
here, and plant symbolic links in it. So nothing is opened by a path, or by a name that was looked at before (TOCTOU):
every walk goes down by descriptors that follow no link, and decides by what the descriptor says.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from agentbay.local.contexts import keys
from agentbay.local.contexts.entry import Entry, Owner
from agentbay.local.sandbox.shared import dirfd
from agentbay.local.sandbox.shared.fd_io import closing_fd

_NOT_FOUND_ERRNOS = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
# opens anything at all, a link or a FIFO too, without acting on it or waiting for it
_INSPECT_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class ContextTree:
    """The tree of one context, owned by the user that sandboxes run as."""

    def __init__(self, top: Path, owner: Owner) -> None:
        self.top, self._owner = top, owner

    def create(self) -> None:
        """Make an empty tree."""
        self.top.mkdir(mode=0o755)
        os.chown(self.top, *self._owner)

    def put(self, moves: Iterable[tuple[str, str]]) -> None:
        """Move files to keys, given as pairs of a key and a file.

        Idempotent: a file that was moved stays.
        """
        # Those of one directory follow each other, and each directory is opened once.
        for above, group in groupby(moves, lambda move: os.path.dirname(move[0])):
            with self._open_directory(keys.split(above), make=True) as fd:
                for key, source in group:
                    name = os.path.basename(key)
                    if not name:
                        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), key)
                    if os.path.lexists(source):
                        dirfd.replace(source, name, fd)

    def link(self, key: str, target: str) -> None:
        """Make a symbolic link."""
        with self._open_parent(key, make=True) as (above, name):
            dirfd.remove(name, above)
            os.symlink(target, name, dir_fd=above)
            os.chown(name, *self._owner, dir_fd=above, follow_symlinks=False)

    def make_directory(self, key: str, mode: int = 0o755) -> Path:
        """Make a directory, and return its path on this machine."""
        with self._open_directory(keys.split(key), make=True) as fd:
            # Whatever mode a session has set, later commits must be able to write into the directory.
            os.fchmod(fd, mode | 0o700)
            return Path(os.readlink(f"/proc/self/fd/{fd}"))

    def delete(self, key: str, *, folder: bool = False) -> bool:
        """Delete a file, link or empty directory, and return whether it existed.

        Args:
            folder: Delete a directory with its contents too.
        """
        with _SuppressNotFound(), self._open_parent(key) as (above, name):
            if folder:
                os.stat(name, dir_fd=above, follow_symlinks=False)
                dirfd.remove(name, above)
            else:
                _remove_one(name, above)
            return True
        return False

    def open(self, key: str) -> int:
        """Open a regular file for reading.

        Raises:
            FileNotFoundError: There is none.
        """
        try:
            with self._open_parent(key) as (above, name):
                fd = os.open(name, dirfd.FILE_OPEN_FLAGS, dir_fd=above)
        except OSError as error:
            # open() of a socket fails with ENXIO, and a socket is no file of the context.
            if error.errno in (*_NOT_FOUND_ERRNOS, errno.ENXIO):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), key) from error
            raise
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), key)
        return fd

    def has_directory(self, key: str) -> bool:
        with _SuppressNotFound(), self._open_directory(keys.split(key)):
            return True
        return False

    def children(self, key: str) -> list[Entry]:
        """List a directory, sorted by name. A missing directory is empty."""
        found: list[Entry] = []
        with _SuppressNotFound(), self._open_directory(keys.split(key)) as fd:
            found += _children(fd)
        return found

    def find_replaced(self, written: Iterable[str]) -> Iterator[Entry]:
        """Yield what writing files at keys would remove: directories there, and files above.

        The entries have whole keys as paths. A key that ends with a slash is a directory to be made.
        """
        for above, group in groupby(sorted(written), os.path.dirname):
            try:
                with self._open_directory(keys.split(above)) as fd:
                    for key in group:
                        with _SuppressNotFound():
                            status = os.stat(os.path.basename(key), dir_fd=fd, follow_symlinks=False)
                            if stat.S_ISDIR(status.st_mode):
                                yield _describe(key, status)
            except OSError as error:
                if error.errno not in _NOT_FOUND_ERRNOS:
                    raise
                yield from self._find_file_above(keys.split(above))

    def _find_file_above(self, parts: Sequence[str]) -> Iterator[Entry]:
        for length in range(1, len(parts) + 1):
            with _SuppressNotFound(), self._open_directory(parts[: length - 1]) as fd:
                status = os.stat(parts[length - 1], dir_fd=fd, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    yield _describe("/" + "/".join(parts[:length]), status)

    def snapshot(self, key: str, hold: Path, only: str = "") -> TreeSnapshot:
        """Take a snapshot of what is below a key, or at `only` below it.

        Each file is held by a hard link in the directory `hold`. So a later commit changes nothing of the snapshot, but
        a session that writes to a file in place through a mount does.
        """
        with closing_fd(os.open(hold, dirfd.DIRECTORY_OPEN_FLAGS)) as hold_fd:
            found = TreeSnapshot(hold_fd)
            with _SuppressNotFound(), self._open_directory(keys.split(key)) as fd:
                found.walk(fd, only)
        return found

    def clear(self, keep: Sequence[str]) -> None:
        """Delete everything but the mounted directories `keep` and those above them."""
        kept = {tuple(keys.split(key)) for key in keep}
        kept |= {parts[:length] for parts in kept for length in range(len(parts))}
        with self._open_directory([]) as fd:
            _clear(fd, (), kept)

    def flush_directory(self, key: str) -> None:
        """Flush the names in a directory to the disk, if there is one."""
        with _SuppressNotFound(), self._open_directory(keys.split(key)) as fd:
            os.fsync(fd)

    @contextmanager
    def _open_parent(self, key: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        *above, name = keys.split(key) or [""]
        if not name:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), key)
        with self._open_directory(above, make=make) as fd:
            yield fd, name

    @contextmanager
    def _open_directory(self, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
        with (
            closing_fd(os.open(self.top, dirfd.DIRECTORY_OPEN_FLAGS)) as top,
            dirfd.open_directory(top, parts, self._make if make else None) as fd,
        ):
            yield fd

    def _make(self, name: str, above: int) -> None:
        os.mkdir(name, 0o755, dir_fd=above)
        os.chown(name, *self._owner, dir_fd=above, follow_symlinks=False)


class TreeSnapshot:
    """The result of a walk, with each file held by a hard link.

    Attributes:
        entries: Each directory comes before its contents.
        unreadable: Why an entry is not held, by its path.
    """

    def __init__(self, hold_fd: int) -> None:
        self.entries: list[Entry] = []
        self.unreadable: dict[str, str] = {}
        self._hold_fd = hold_fd

    def walk(self, fd: int, only: str) -> None:
        """Add all that is below a directory, or at `only` below it."""
        if not only:
            self._add_children(fd, "")
            return
        *above, name = only.split("/")
        with dirfd.open_directory(fd, above) as parent:
            self._add(name, parent, only)

    def _add_children(self, fd: int, path: str) -> None:
        for name in sorted(os.listdir(fd)):
            self._add(name, fd, f"{path}/{name}" if path else name)

    def _add(self, name: str, above: int, path: str) -> None:
        # One entry that cannot be read must not keep all others from arriving.
        try:
            with closing_fd(os.open(name, _INSPECT_FLAGS, dir_fd=above)) as fd:
                self._add_opened(fd, name, path)
        except FileNotFoundError:  # deleted since it was listed
            return
        except OSError as error:
            self.unreadable[path] = error.strerror or str(error)

    def _add_opened(self, fd: int, name: str, path: str) -> None:
        """Add what a descriptor shows, whatever the name leads to by now."""
        status = os.fstat(fd)
        if stat.S_ISLNK(status.st_mode):
            self.entries.append(_describe(path, status, target=os.readlink("", dir_fd=fd)))
        elif stat.S_ISREG(status.st_mode) and not name.startswith(dirfd.TEMPORARY_PREFIX):
            content_id = str(len(self.entries))
            # The kernel's own link leads to the very file that was opened. Python follows it, by linkat(2), only with a
            # directory descriptor.
            os.link(f"/proc/self/fd/{fd}", content_id, dst_dir_fd=self._hold_fd, follow_symlinks=True)
            self.entries.append(_describe(path, status, content_id=content_id))
        elif stat.S_ISDIR(status.st_mode):
            self.entries.append(_describe(path, status))
            if path.count("/") >= dirfd.MAX_DEPTH:
                raise OSError(errno.ENAMETOOLONG, "The directories are nested too deeply")
            with closing_fd(os.open(".", dirfd.DIRECTORY_OPEN_FLAGS, dir_fd=fd)) as below:
                self._add_children(below, path)


class _SuppressNotFound:
    """Suppresses the errors of a path that does not exist."""

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, OSError) and error.errno in _NOT_FOUND_ERRNOS


def _remove_one(name: str, above: int) -> None:
    if stat.S_ISDIR(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
        try:
            os.rmdir(name, dir_fd=above)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
    else:
        os.unlink(name, dir_fd=above)


def _children(fd: int) -> Iterator[Entry]:
    for name in sorted(os.listdir(fd)):
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            # It was removed since the directory was listed.
            continue
        if not name.startswith(dirfd.TEMPORARY_PREFIX) and (
            stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
        ):
            yield _describe(name, status)


def _describe(path: str, status: os.stat_result, **more: str) -> Entry:
    kind = "dir" if stat.S_ISDIR(status.st_mode) else "link" if stat.S_ISLNK(status.st_mode) else "file"
    return Entry(path, kind, stat.S_IMODE(status.st_mode), status.st_size, status.st_mtime_ns, **more)


def _clear(fd: int, path: tuple[str, ...], kept: set[tuple[str, ...]]) -> None:
    for name in os.listdir(fd):
        if (below := (*path, name)) in kept:
            try:
                with dirfd.open_directory(fd, [name]) as inner:
                    _clear(inner, below, kept)
                continue
            except OSError as error:
                if error.errno not in _NOT_FOUND_ERRNOS:
                    raise
        dirfd.remove(name, fd)
