"""Files with holes, as members of an archive that keep them.

https://www.gnu.org/software/tar/manual/html_section/Sparse-Formats.html describes the format, of which this is 1.0.
"""

from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import Iterator
from io import BytesIO
from typing import IO


def as_member(member: tarfile.TarInfo, file: IO[bytes]) -> IO[bytes] | SparseContent:
    """Return the content of a member.

    If the file has holes, the member is changed.
    """
    segments = list(_data_segments(file.fileno(), member.size))
    if segments == [(0, member.size)] or not member.size:
        return file
    # The last one tells the size, in case that the file ends with a hole.
    numbers = [len(segments) + 1, *(number for segment in segments for number in segment), member.size, 0]
    head = "".join(f"{number}\n" for number in numbers).encode()
    head += bytes(-len(head) % tarfile.BLOCKSIZE)
    sparse = {"major": "1", "minor": "0", "name": member.name, "realsize": str(member.size)}
    member.pax_headers = {f"GNU.sparse.{name}": value for name, value in sparse.items()}
    member.size = len(head) + sum(size for _, size in segments)
    return SparseContent(head, file, segments)


class SparseContent:
    """Reads the list of a file's segments, and then the segments."""

    def __init__(self, head: bytes, file: IO[bytes], segments: list[tuple[int, int]]) -> None:
        self._head, self._file, self._segments = BytesIO(head), file, segments

    def read(self, size: int = -1, /) -> bytes:
        """Read `size` bytes, or what is left."""
        data = self._head.read(size)
        while self._segments and len(data) < size:
            offset, left = self._segments.pop(0)
            self._file.seek(offset)
            piece = self._file.read(min(size - len(data), left))
            if not piece:  # it became shorter
                break
            data += piece
            if len(piece) < left:
                self._segments.insert(0, (offset + len(piece), left - len(piece)))
        return data


def _data_segments(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield start and length of what is no hole."""
    if not hasattr(os, "SEEK_DATA"):  # Windows
        yield 0, size
        return
    end = 0
    try:
        while end < size:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
            if end > start:
                yield start, end - start
    except OSError as error:
        if error.errno != errno.ENXIO:  # which says that there is no more data; others, that nobody knows
            yield end, size - end
    finally:
        os.lseek(fd, 0, os.SEEK_SET)
