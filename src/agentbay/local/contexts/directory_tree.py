"""What one context holds on this disk: a plain directory tree, a key being the path below its top.

A tree, not blobs and an index, because a mount needs one: what a session writes to a mounted context is in it at once,
and there is no second copy that could differ. Sessions may change a mounted tree while it is read here, and plant
links: everything goes down by descriptors that follow none.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agentbay.local.contexts import keys
from agentbay.local.contexts.backend import Entry, Owner
from agentbay.local.sandbox.shared import dirfd

_NOT_FOUND_ERRNOS = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class ContextTree:
    """The tree of one context; files in it belong to the user that sandboxes run as."""

    def __init__(self, top: Path, owner: Owner) -> None:
        self.top, self._owner = top, owner

    def create(self) -> None:
        """Make an empty tree."""
        self.top.mkdir(mode=0o755)
        os.chown(self.top, *self._owner)

    def put(self, key: str, source: str) -> None:
        """Move the file `source` to a key; once moved it is a success to move it again."""
        with self._parent(key, make=True) as (above, name):
            if not os.path.lexists(source):
                return
            dirfd.replace(source, name, above)

    def link(self, key: str, target: str) -> None:
        """Make a symbolic link."""
        with self._parent(key, make=True) as (above, name):
            dirfd.remove(name, above)
            os.symlink(target, name, dir_fd=above)
            os.chown(name, *self._owner, dir_fd=above, follow_symlinks=False)

    def make_directory(self, key: str, mode: int = 0o755) -> Path:
        """Make a directory, and return where it is."""
        with self._opened(keys.split(key), make=True) as fd:
            os.fchmod(fd, mode | 0o700)
            return Path(os.readlink(f"/proc/self/fd/{fd}"))

    def delete(self, key: str, *, folder: bool = False) -> bool:
        """Delete a file or a link, or an empty directory (`folder`: a full one too); False if there is none."""
        try:
            with self._parent(key) as (above, name):
                if folder:
                    os.stat(name, dir_fd=above, follow_symlinks=False)
                    dirfd.remove(name, above)
                else:
                    _remove_one(name, above)
        except OSError as error:
            if error.errno in _NOT_FOUND_ERRNOS:
                return False
            raise
        return True

    def open(self, key: str) -> int:
        """Open a regular file for reading.

        Raises:
            FileNotFoundError: There is none.
        """
        try:
            with self._parent(key) as (above, name):
                fd = os.open(name, dirfd.FILE_OPEN_FLAGS, dir_fd=above)
        except OSError as error:
            if error.errno in (*_NOT_FOUND_ERRNOS, errno.ENXIO):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), key) from error
            raise
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), key)
        return fd

    def has_directory(self, key: str) -> bool:
        """Whether there is a directory."""
        try:
            with self._opened(keys.split(key)):
                return True
        except OSError as error:
            if error.errno in _NOT_FOUND_ERRNOS:
                return False
            raise

    def children(self, key: str) -> list[Entry]:
        """List a directory, sorted by name; one that is not there is empty."""
        try:
            with self._opened(keys.split(key)) as fd:
                return list(_children(fd))
        except OSError as error:
            if error.errno in _NOT_FOUND_ERRNOS:
                return []
            raise

    def snapshot(self, key: str, hold: Path, only: str = "") -> list[Entry]:
        """List all that is below a key, or at `only` below it, and hold each file by a link in the directory `hold`.

        What is committed later changes nothing of that; what a session writes in place through a mount does.
        """
        found: list[Entry] = []
        try:
            with self._opened(keys.split(key)) as fd:
                _link_snapshot(fd, only, hold, found)
        except OSError as error:
            if error.errno not in _NOT_FOUND_ERRNOS:
                raise
        return found

    def clear(self, keep: Sequence[str]) -> None:
        """Delete everything but the directories `keep`, which sessions have mounted, and those above them."""
        kept = {tuple(keys.split(key)) for key in keep}
        kept |= {parts[:length] for parts in kept for length in range(len(parts))}
        with self._opened([]) as fd:
            _clear(fd, (), kept)

    @contextmanager
    def _parent(self, key: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        *above, name = keys.split(key) or [""]
        if not name:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), key)
        with self._opened(above, make=make) as fd:
            yield fd, name

    @contextmanager
    def _opened(self, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
        top = os.open(self.top, dirfd.DIRECTORY_OPEN_FLAGS)
        try:
            with dirfd.open_directory(top, parts, self._make if make else None) as fd:
                yield fd
        finally:
            os.close(top)

    def _make(self, name: str, above: int) -> None:
        os.mkdir(name, 0o755, dir_fd=above)
        os.chown(name, *self._owner, dir_fd=above, follow_symlinks=False)


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
            continue
        if not name.startswith(dirfd.TEMPORARY_PREFIX) and (
            stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
        ):
            yield _describe(name, status)


def _describe(path: str, status: os.stat_result, **more: str) -> Entry:
    kind = "dir" if stat.S_ISDIR(status.st_mode) else "link" if stat.S_ISLNK(status.st_mode) else "file"
    return Entry(path, kind, stat.S_IMODE(status.st_mode), status.st_size, status.st_mtime_ns, **more)


def _link_snapshot(fd: int, only: str, hold: Path, found: list[Entry]) -> None:
    if not only:
        _hold_directory(fd, "", hold, found)
        return
    *above, name = only.split("/")
    with dirfd.open_directory(fd, above) as parent:
        _link_entry(name, parent, only, hold, found)


def _hold_directory(fd: int, path: str, hold: Path, found: list[Entry]) -> None:
    if path.count("/") >= dirfd.MAX_DEPTH:
        raise OSError(errno.ENAMETOOLONG, "The directories are nested too deeply")
    for name in sorted(os.listdir(fd)):
        try:
            _link_entry(name, fd, f"{path}/{name}" if path else name, hold, found)
        except FileNotFoundError:  # gone since
            continue


def _link_entry(name: str, above: int, path: str, hold: Path, found: list[Entry]) -> None:
    status = os.stat(name, dir_fd=above, follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode):
        found.append(_describe(path, status))
        with dirfd.open_directory(above, [name]) as fd:
            _hold_directory(fd, path, hold, found)
    elif stat.S_ISLNK(status.st_mode):
        found.append(_describe(path, status, target=os.readlink(name, dir_fd=above)))
    elif stat.S_ISREG(status.st_mode) and not name.startswith(dirfd.TEMPORARY_PREFIX):
        held = str(len(found))
        os.link(name, hold / held, src_dir_fd=above, follow_symlinks=False)
        found.append(_describe(path, status, content_id=held))


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
