"""Zip archives of unknown origin, read within bounds.

Whoever made an archive chooses its sizes, dates, methods and names. So nothing is read before it is bounded, and an
archive that breaks a rule is refused before anything of it is used: a zip bomb, encrypted members, rare compression
methods, headers that contradict the central directory. Members whose names are a path traversal are left out.
"""

from __future__ import annotations

import calendar
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from agentbay.local.contexts import keys
from agentbay.local.sandbox.shared.dirfd import MAX_DEPTH

MAX_MEMBERS = 200_000
_MAX_DIRECTORY_BYTES = 32 << 20  # of the central directory, which is parsed in memory
_MAX_RATIO, _FREE_BYTES = 100, 64 << 20  # a small archive may compress as well as it likes
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others decompress without a bound on their memory
_CHUNK_BYTES = 1 << 18
_DIRECTORY_SIGNATURE = b"PK\1\2"
_SMALL_READ_BYTES = 64 << 10  # cannot hold too many members
READ_ERRORS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    OSError,
    OverflowError,
    RuntimeError,  # encrypted members, and NotImplementedError
    ValueError,
)


class BadArchive(Exception):
    """An archive, or one member of it, cannot be read within the bounds."""


class Archive:
    """The regular files of a checked archive."""

    def __init__(self, archive: zipfile.ZipFile, mtime_ns: int) -> None:
        self._archive, self._mtime_ns = archive, mtime_ns

    def members(self) -> Iterator[tuple[str, zipfile.ZipInfo]]:
        """Yield relative paths and members, without links and unsafe names."""
        for member in self._archive.infolist():
            # The upper half holds the Unix mode, and is 0 in archives from other systems.
            kind = stat.S_IFMT(member.external_attr >> 16)
            if not member.is_dir() and kind in (0, stat.S_IFREG) and _is_safe(member.filename):
                yield member.filename, member

    def open(self, member: zipfile.ZipInfo) -> IO[bytes]:
        """Open a member for sequential reading, which raises READ_ERRORS.

        Raises:
            BadArchive: It cannot be opened.
        """
        with _refusing():
            return self._archive.open(member)

    def mtime_ns(self, member: zipfile.ZipInfo) -> int:
        """Return the time of a member, by default that of the archive."""
        try:
            return calendar.timegm((*member.date_time, 0, 0, 0)) * 1_000_000_000
        except ValueError:  # some programs write a date of 0, which is no date
            return self._mtime_ns


def open_archive(file: IO[bytes], mtime_ns: int, *, from_upload: bool) -> Archive:
    """Open an archive after checking all of it.

    Args:
        mtime_ns: The time of the archive file.
        from_upload: Made by upload mode Archive. Only its directory is checked, as it may be large and compress well.

    Raises:
        BadArchive: It breaks a rule. Nothing of it should be used.
    """
    with _refusing():
        zip_file = zipfile.ZipFile(_BoundedFile(file))
        members, size = zip_file.infolist(), file.seek(0, io.SEEK_END)
        if len(members) > MAX_MEMBERS:
            raise BadArchive(f"it has more than {MAX_MEMBERS} members")
        if any(member.compress_type not in _METHODS or member.flag_bits & 1 for member in members):
            raise BadArchive("it is encrypted, or compressed by another method than deflate")
        if not from_upload:
            # The stated sizes bound what is read, because zipfile stops at the size that a member states.
            extracted = sum(member.file_size for member in members)
            if extracted > max(_FREE_BYTES, _MAX_RATIO * size):
                raise BadArchive("it is a zip bomb")
            for member in members:
                _read_through(zip_file, member)
    return Archive(zip_file, mtime_ns)


def _read_through(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Check the local header and the CRC of a member."""
    with archive.open(member) as file:
        while file.read(_CHUNK_BYTES):
            pass


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except READ_ERRORS as error:
        raise BadArchive(str(error) or type(error).__name__) from error


def _is_safe(name: str) -> bool:
    parts = name.split("/")
    traverses = any(part in ("", ".", "..") for part in parts)  # "" begins an absolute path
    too_long = len(keys.encode(name)) > keys.MAX_PATH_BYTES or any(
        len(keys.encode(part)) > keys.MAX_NAME_BYTES for part in parts
    )
    return not traverses and not too_long and "\\" not in name and len(parts) <= MAX_DEPTH


class _BoundedFile(io.RawIOBase):
    """A file that refuses reads larger than a central directory may be."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> Any:
        # zipfile reads the central directory by one call, and trusts the size that the archive states
        wanted = _MAX_DIRECTORY_BYTES + 1 if size is None or size < 0 else size
        if wanted > _MAX_DIRECTORY_BYTES + 1:
            raise BadArchive("its directory is too large")
        data = self._file.read(wanted)
        too_many = len(data) > _SMALL_READ_BYTES and data.count(_DIRECTORY_SIGNATURE) > MAX_MEMBERS
        if len(data) > _MAX_DIRECTORY_BYTES or too_many:
            raise BadArchive("its directory is too large")
        return data
