"""Reading tar archives as a stream, with bounds on all that an archive claims.

The module `tarfile` reads headers of any length into memory, so only its parsing of one block is used here.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

from agentbay.local.images.errors import DamagedImage

_BLOCK_BYTES = 512
_MAX_HEADER_BYTES = 1 << 20  # of a long name or of extended attributes
_MAX_SIZE = 1 << 62  # bytes of a file, more than any has
_SPARSE = "GNU.sparse."
_RECORDS = ("path", "linkpath", "size", "mtime")  # those that matter; the others may be many
_ENCODING = "utf-8"
_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
    tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
}


class TarEntry(NamedTuple):
    """An entry of an archive.

    Attributes:
        kind: "file", "directory", "symlink", "hardlink", "fifo" or "device".
        size: Bytes that follow in the stream.
        mtime: Seconds since 1970.
    """

    name: str
    kind: str
    mode: int
    size: int
    mtime: float
    link: str


class TarReader:
    """Iterates over the entries of an archive.

    Args:
        read: Returns exactly so many bytes of the archive, fewer only at its end.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._unread = self._padding = 0  # of the content of the current entry

    def __iter__(self) -> Iterator[TarEntry]:
        overrides: dict[str, str] = {}
        defaults: dict[str, str] = {}
        while (block := self._next_block()) is not None:
            info = self._parse(block)
            if info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                overrides |= self._read_records(info.size)
            elif info.type == tarfile.XGLTYPE:
                defaults |= self._read_records(info.size)
            elif info.type == tarfile.GNUTYPE_LONGNAME:
                overrides["path"] = self._read_text(info.size)
            elif info.type == tarfile.GNUTYPE_LONGLINK:
                overrides["linkpath"] = self._read_text(info.size)
            else:
                yield self._make_entry(info, defaults | overrides)
                overrides = {}

    def pieces(self, size: int = 1 << 18) -> Iterator[bytes]:
        """Read the content of the current entry."""
        while self._unread:
            piece = self._exactly(min(size, self._unread))
            self._unread -= len(piece)
            yield piece

    def skip(self) -> None:
        """Note that the caller has passed over the content of the current entry."""
        self._unread = 0

    def _next_block(self) -> bytes | None:
        """Return the next header, or None at the end."""
        for _ in self.pieces():
            pass
        self._exactly(self._padding)
        self._padding = 0
        block = self._read(_BLOCK_BYTES)
        if not block or block.count(0) == _BLOCK_BYTES:
            return None
        if len(block) < _BLOCK_BYTES:
            raise DamagedImage("The archive is no tar archive, or ends in the middle of a header.")
        return block

    def _parse(self, block: bytes) -> tarfile.TarInfo:
        try:
            info = tarfile.TarInfo.frombuf(block, _ENCODING, "surrogateescape")
        except (tarfile.HeaderError, ValueError, OverflowError) as error:
            raise DamagedImage(f"The archive is no tar archive, or damaged: {error}.") from error
        _check_size(info.size, info.name)
        return info

    def _make_entry(self, info: tarfile.TarInfo, headers: dict[str, str]) -> TarEntry:
        if info.type == tarfile.GNUTYPE_SPARSE or any(name.startswith(_SPARSE) for name in headers):
            raise DamagedImage(f"The archive has a sparse file, {info.name!r:.200}: make it without --sparse.")
        kind = _KINDS.get(info.type)
        if kind is None:
            raise DamagedImage(f"The archive has an entry of unknown type {info.type!r}: {info.name!r:.200}.")
        size = info.size
        mtime: float = info.mtime
        try:
            size = int(headers.get("size", size))
            mtime = float(headers.get("mtime", mtime))
        except ValueError as error:
            raise DamagedImage(f"The archive has a malformed header: {error}.") from error
        _check_size(size, info.name)
        name = headers.get("path", info.name)
        if kind == "file" and name.endswith("/"):  # as very old archives write directories
            kind = "directory"
        if kind != "file":
            # Some writers give links the size of their target, without content.
            size = 0 if kind in ("hardlink", "symlink") else size
        self._unread, self._padding = size, -size % _BLOCK_BYTES
        return TarEntry(name, kind, info.mode, size, mtime, headers.get("linkpath", info.linkname))

    def _read_header_content(self, size: int) -> bytes:
        if size > _MAX_HEADER_BYTES:
            raise DamagedImage(f"The archive has a header of {size} bytes; {_MAX_HEADER_BYTES} are allowed.")
        content = self._exactly(size)
        self._exactly(-size % _BLOCK_BYTES)
        return content

    def _read_text(self, size: int) -> str:
        return os.fsdecode(self._read_header_content(size).partition(b"\0")[0])

    def _read_records(self, size: int) -> dict[str, str]:
        """Read the records of an extended header (pax, POSIX.1-2001).

        Each is "LENGTH NAME=VALUE" and a newline.
        """
        content, records, position = self._read_header_content(size), dict[str, str](), 0
        while position < len(content) and content[position]:
            length, _, _ = content[position : position + 20].partition(b" ")
            if not length.isdigit() or not len(length) < int(length) <= len(content) - position:
                raise DamagedImage("The archive has a malformed extended header.")
            record = content[position + len(length) + 1 : position + int(length) - 1]
            name, _, value = record.partition(b"=")
            key = os.fsdecode(name)
            if key.startswith(_SPARSE):
                records[_SPARSE] = ""
            elif key in _RECORDS:
                records[key] = os.fsdecode(value)
            position += int(length)
        return records

    def _exactly(self, size: int) -> bytes:
        content = self._read(size) if size else b""
        if len(content) != size:
            raise DamagedImage("The archive ends too early: it is incomplete.")
        return content


def _check_size(size: int, name: str) -> None:
    if not 0 <= size <= _MAX_SIZE:
        raise DamagedImage(f"The archive claims a size of {name!r:.200} that no file has.")
