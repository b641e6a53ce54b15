"""Writing below a local directory, which an archive of a session can never leave.

Code in the session may have made the archive, so nothing in it is trusted. Every parent directory is opened below the
one before it without following links, which leaves no time for a race (TOCTOU) between a check and its use.
"""

from __future__ import annotations

import errno
import gzip
import os
import secrets
import stat
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from ._transport.file_errors import raise_os_error
from ._transport.tree_plan import KIND_LINK, TEMPORARY_PREFIX, TreeEntry, leads_outside
from .errors import FileError

MAX_GROWTH_BYTES = 64 << 20  # that the files of one archive may have grown since they were listed
_MEMBER_OVERHEAD_BYTES = 16 << 10  # headers of one member, with long names
_COPY_BUFFER_BYTES = 1 << 20  # copied at once
_HAS_DIR_FD = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")  # not on Windows


class UnpackedPaths(NamedTuple):
    """The paths that an archive brought, and its links that were not created."""

    arrived: set[str]
    skipped: set[str]


def archive_limit(wanted: Mapping[str, TreeEntry]) -> int:
    """Return how many bytes an archive of the wanted entries may have, uncompressed."""
    size = sum(entry.size for entry in wanted.values())
    return size + MAX_GROWTH_BYTES + (len(wanted) + 1) * _MEMBER_OVERHEAD_BYTES


def archive_frame(path: str, entry: TreeEntry) -> tuple[bytes, bytes]:
    """Return the header and the end of an archive of one file."""
    member = tarfile.TarInfo(path)
    member.size, member.mode = entry.size, entry.mode
    member.mtime = entry.mtime_ns / 1e9  # pyright: ignore[reportAttributeAccessIssue]  # PAX keeps fractions
    padding = -entry.size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"), bytes(padding)


def unpack_archive(
    root: Path,
    file: IO[bytes],
    wanted: Mapping[str, TreeEntry],
    listed: Mapping[str, TreeEntry],
    *,
    is_zipped: bool = True,
) -> UnpackedPaths:
    """Unpack an archive, replacing each file atomically by renaming.

    Args:
        root: The local directory.
        file: The archive.
        wanted: The entries that it shall hold.
        listed: All entries of the session's directory, by which links are resolved.
        is_zipped: Whether it is compressed.

    Raises:
        FileError: It cannot be written, or holds something else.
    """
    file.seek(0)
    links = _LinkResolver(root, listed)
    growth = MAX_GROWTH_BYTES
    arrived, skipped = set[str](), set[str]()
    try:
        source = gzip.GzipFile(fileobj=file) if is_zipped else file
        content = _LimitedReader(source, archive_limit(wanted))
        with tarfile.open(fileobj=cast(IO[bytes], content), mode="r|") as archive:
            for member in archive:
                # The session packs names as `encode_paths` writes them, which begin with ./.
                path = member.name.removeprefix("./")
                if path not in wanted or path in arrived:
                    raise FileError(f"The session sends what was not asked for: {path!r}")
                growth -= max(member.size - wanted[path].size, 0) if member.isfile() else 0
                if growth < 0:
                    raise FileError(f"{path}: the session sends much more than it listed.")
                arrived.add(path)
                if member.issym() and not links.is_safe(path, member.linkname):
                    skipped.add(path)
                else:
                    _extract_member(root, path, member, archive)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise FileError(f"What the session sends is no archive: {error}") from error
    except OSError as error:
        raise_os_error(error, error.filename or root)
    return UnpackedPaths(arrived - skipped, skipped)


class _LimitedReader:
    """A reader that fails when more arrives than was announced (a zip bomb)."""

    def __init__(self, source: gzip.GzipFile | IO[bytes], limit: int) -> None:
        self._source, self._left = source, limit

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise FileError("The session sends much more than it listed.")
        return data


class _LinkResolver:
    """Decides which links stay inside the directory after the pull (path traversal)."""

    def __init__(self, root: Path, listed: Mapping[str, TreeEntry]) -> None:
        self._root, self._listed = root, listed

    def is_safe(self, path: str, target: str) -> bool:
        # Windows also takes backslashes as separators, and a colon after a drive letter.
        if os.sep != "/" and (os.sep in target or ":" in target):
            return False
        # a link that changed since the listing may make others unsafe that were created before
        return target == self._listed[path].link_target and not leads_outside(path, target, self._read_link)

    def _read_link(self, path: str) -> str | None:
        entry = self._listed.get(path)
        if entry is not None:
            return entry.link_target if entry.kind == KIND_LINK else None
        try:
            return str((self._root / path).readlink())
        except OSError:
            # No link, or nothing at all: then there is no target to compare.
            return None


def _extract_member(root: Path, path: str, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
    with _open_parent(root, path, create=True) as (name, dir_fd):
        if member.isdir():
            _make_directory(name, member.mode, dir_fd)
            return
        content = archive.extractfile(member) if member.isreg() else None
        if content is None and not member.issym():
            raise FileError(f"The session sends something that is no file: {path!r}")
        scratch = os.path.join(os.path.dirname(name), f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")  # noqa: PTH118, PTH120
        try:
            if content is None:
                os.symlink(member.linkname, scratch, dir_fd=dir_fd)
            else:
                _write_file(scratch, content, member, dir_fd)
            os.replace(scratch, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(scratch, dir_fd=dir_fd)
            raise


def _make_directory(name: str, mode: int, dir_fd: int | None) -> None:
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=dir_fd)
    # mkdir fails with FileExistsError for a link or a file too, and neither may stand for the directory.
    if not stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
        raise FileExistsError(errno.EEXIST, "It is no directory", name)
    os.chmod(name, mode & 0o777 | 0o700, dir_fd=dir_fd)


def _write_file(name: str, content: IO[bytes], member: tarfile.TarInfo, dir_fd: int | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=dir_fd), "wb") as writer:
        _copy_data(content, writer, member)
    os.chmod(name, member.mode & 0o777, dir_fd=dir_fd)
    time = round(float(member.mtime) * 1e9)
    os.utime(name, ns=(time, time), dir_fd=dir_fd)


def _copy_data(content: IO[bytes], writer: IO[bytes], member: tarfile.TarInfo) -> None:
    """Copy the content of a file, and leave its holes out."""
    segments: list[tuple[int, int]] = cast(Any, member.sparse) or [(0, member.size)]
    reader = cast(Any, content).raw  # which can skip a hole also where the archive itself cannot be rewound
    end = 0
    for offset, size in segments:
        if offset < end or size < 0 or offset + size > member.size:
            raise FileError(f"What the session sends is no archive: the parts of {member.name!r} are not in order")
        reader.seek(offset)
        writer.seek(offset)
        end, left = offset + size, size
        while left > 0 and (piece := reader.read(min(left, _COPY_BUFFER_BYTES))):
            left -= writer.write(piece)
    if member.sparse:
        writer.truncate(member.size)  # a hole at the end


@contextmanager
def _open_parent(root: Path, path: str, *, create: bool = False) -> Iterator[tuple[str, int | None]]:
    """Yield the name of an entry and the descriptor of its parent directory.

    Without descriptors of directories, it is the whole path and None.

    Raises:
        FileError: If a link is in the way.
    """
    *above, name = path.split("/")
    if not _HAS_DIR_FD:
        place = root
        for part in above:
            place /= part
            if create:
                place.mkdir(exist_ok=True)
            if place.is_symlink():
                raise FileError(f"{place} is a link; nothing is written behind it.")
        yield str(place / name), None
        return
    # Links are followed here alone: the root is what the user has chosen.
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for depth, part in enumerate(above, 1):
            if create:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=descriptor)
            try:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            except OSError as error:
                # For a link, O_NOFOLLOW with O_DIRECTORY fails with ENOTDIR on Linux, and with ELOOP elsewhere.
                if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
                raise FileError(f"{root.joinpath(*above[:depth])} is a link; nothing is written behind it.") from error
            os.close(descriptor)
            descriptor = inner
        yield name, descriptor
    finally:
        os.close(descriptor)


def delete_paths(root: Path, paths: Iterable[str]) -> list[str]:
    """Remove files and empty directories, children first, and return those that were removed.

    A directory that is not empty holds something that was not to be removed, so it stays.

    Raises:
        FileError: It cannot be done.
    """
    removed = []
    for path in paths:
        try:
            with _open_parent(root, path) as (name, dir_fd):
                if stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
                    os.rmdir(name, dir_fd=dir_fd)
                else:
                    os.unlink(name, dir_fd=dir_fd)
        except FileNotFoundError:
            continue
        except OSError as error:
            # POSIX allows either code for a directory that is not empty.
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                continue
            raise_os_error(error, root / path)
        removed.append(path)
    return removed
