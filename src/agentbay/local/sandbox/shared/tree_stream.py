"""The stream format in which whole directory trees enter and leave a sandbox.

A stream is a sequence of records: 4 bytes of length and a JSON object. The record of a file is followed by its content
in chunks, each with 4 bytes of length, then an empty chunk and one byte that says whether the file stayed the same and
could be read to its end. Instead of a length, four bytes of 0xff and a length of 8 bytes stand for a hole. The last
record holds "end".
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

from agentbay.local.sandbox.shared.fd_io import write_all

CHUNK_BYTES = 1 << 18
_MAX_RECORD_BYTES = 1 << 20  # holds a path of 250 long names, and the target of a link
_LENGTH_PREFIX = struct.Struct(">I")
_HOLE_MARK = (1 << 32) - 1
_HOLE_LENGTH = struct.Struct(">Q")

TreeRecord = dict[str, Any]


class MalformedStream(OSError):
    """A stream breaks the format."""


class TruncatedStream(MalformedStream):
    """A stream stopped before its last record."""


def check_relative_path(path: object) -> str:
    """Return a path of a record, or raise MalformedStream for a path traversal."""
    if not isinstance(path, str) or "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise MalformedStream("the stream is malformed: a path leaves its directory")
    return path


class FileContent:
    """A file's content, which ends early where it cannot be read.

    Attributes:
        error: Why it ended early.
    """

    def __init__(self, read: Callable[[int], bytes], expected: tuple[type[Exception], ...] = (OSError,)) -> None:
        self._read, self._expected = read, expected
        self.error = ""

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes, b"" at the end."""
        try:
            return self._read(size)
        except self._expected as error:
            self.error = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return b""


class TreeStreamWriter:
    """Writes records and file contents to a descriptor, with a buffer."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = bytearray()

    def write_record(self, **content: Any) -> None:
        """Write one record."""
        body = json.dumps(content).encode()
        self._put(_LENGTH_PREFIX.pack(len(body)) + body)

    def write_content(self, read: Callable[[int], bytes], skip_hole: Callable[[], int] | None = None) -> int:
        """Write the content of a file and return its size.

        `skip_hole` is asked before each read, and returns the bytes of a hole that it has skipped.
        `write_unchanged_flag` must follow.
        """
        size = 0
        while True:
            if skip_hole is not None and (hole := skip_hole()):
                self._put(_LENGTH_PREFIX.pack(_HOLE_MARK) + _HOLE_LENGTH.pack(hole))
                size += hole
            chunk = read(CHUNK_BYTES)
            self._put(_LENGTH_PREFIX.pack(len(chunk)) + chunk)
            if not chunk:
                return size
            size += len(chunk)

    def write_unchanged_flag(self, unchanged: bool) -> None:
        """Write whether the file stayed the same while it was read."""
        self._put(b"\1" if unchanged else b"\0")

    def end(self) -> None:
        """Write the last record."""
        self.write_record(end=True)
        self.flush()

    def flush(self) -> None:
        """Write out the buffer."""
        buffered = bytes(self._buffer)
        self._buffer.clear()
        write_all(self._fd, buffered)

    def _put(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= CHUNK_BYTES:
            self.flush()


class TreeStreamReader:
    """Reads records and file contents from a descriptor, which stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._file = open(fd, "rb", buffering=CHUNK_BYTES, closefd=False)  # noqa: SIM115 - the descriptor is the caller's

    def read_record(self) -> TreeRecord | None:
        """Read the next record, or return None after the last."""
        record: TreeRecord = json.loads(self._read_length_prefixed(_MAX_RECORD_BYTES))
        return None if "end" in record else record

    def read_chunk(self) -> bytes:
        """Read the next chunk of a file, b"" at its end."""
        return self._read_length_prefixed(CHUNK_BYTES)

    def read_piece(self) -> bytes | int:
        """Read the next chunk of a file, or the bytes of its next hole."""
        length = self._read_length()
        if length != _HOLE_MARK:
            return self._read_limited(length, CHUNK_BYTES)
        (hole,) = _HOLE_LENGTH.unpack(self._read_exactly(_HOLE_LENGTH.size))
        if not hole:
            raise MalformedStream("the stream is malformed: a hole is empty")
        return int(hole)

    def read_unchanged_flag(self) -> bool:
        """Read whether the file stayed the same while it was read."""
        return self._read_exactly(1) == b"\1"

    def _read_length_prefixed(self, limit: int) -> bytes:
        return self._read_limited(self._read_length(), limit)

    def _read_length(self) -> int:
        return int(_LENGTH_PREFIX.unpack(self._read_exactly(_LENGTH_PREFIX.size))[0])

    def _read_limited(self, length: int, limit: int) -> bytes:
        if length > limit:  # a session must not fill the memory of the service
            raise MalformedStream("the stream is malformed: a record is too long")
        return self._read_exactly(length)

    def _read_exactly(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) != length:
            raise TruncatedStream("the stream ended too early")
        return data
