"""The bytes of a layer: decompressed, counted, hashed, and bounded."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import importlib
import lzma
import zlib
from collections.abc import Callable
from typing import IO, Any

from agentbay.local.images.errors import DamagedImage, ImageError, LimitExceeded

_CHUNK_BYTES = 1 << 20
_MAX_RATIO, _RATIO_FROM = 200, 256 << 20  # of unpacked to packed bytes, checked once so many are unpacked
_ZSTD_MODULES = ("compression.zstd", "backports.zstd", "zstandard")
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_DAMAGES = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, ValueError, OSError)


class CountedFile:
    """A file that reports each read to a callback, which may abort it."""

    def __init__(self, file: IO[bytes], progress: Callable[[int], None]) -> None:
        self._file, self._progress = file, progress
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(min(size, _CHUNK_BYTES) if size >= 0 else _CHUNK_BYTES)
        self.count += len(content)
        self._progress(len(content))
        return content

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


class LayerSource:
    """The uncompressed bytes of a layer.

    Args:
        file: The layer as it came, compressed or not.
        progress: Called with the number of each piece of bytes read from the file.

    Attributes:
        size: Uncompressed bytes so far.
    """

    def __init__(self, file: IO[bytes], progress: Callable[[int], None]) -> None:
        self._packed = CountedFile(file, progress)
        self._stream = _open_stream(file, self._packed)
        self._digest = hashlib.sha256()
        self._pending = bytearray()
        self.size = 0

    def read(self, size: int) -> bytes:
        """Return exactly so many bytes, fewer only at the end."""
        while len(self._pending) < size and self._fill():
            pass
        content = bytes(self._pending[:size])
        del self._pending[:size]
        return content

    def finish(self) -> str:
        """Read the rest, and return the digest of all."""
        while True:
            self._pending.clear()
            if not self._fill():
                return f"sha256:{self._digest.hexdigest()}"

    def _fill(self) -> bool:
        try:
            content: bytes = self._stream.read(_CHUNK_BYTES)
        except ImageError:
            raise
        except _DAMAGES as error:
            raise DamagedImage(f"A layer is damaged or incomplete: {error}.") from error
        self._digest.update(content)
        self._pending += content
        self.size += len(content)
        if self.size > _RATIO_FROM and self.size > _MAX_RATIO * self._packed.count:
            raise LimitExceeded(f"A layer unpacks to more than {_MAX_RATIO} times its size: it may be a bomb.")
        return bool(content)


def compression_of(file: IO[bytes]) -> str:
    """Return how what follows in a file is compressed, "" if it is not."""
    start = file.read(8)
    file.seek(-len(start), 1)
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), "")


def _open_stream(file: IO[bytes], counted: CountedFile) -> Any:
    found = compression_of(file)
    packed: Any = counted
    if found == "zstd":
        return _open_zstd(packed)
    if found == "gzip":
        return gzip.GzipFile(fileobj=packed, mode="rb")
    if found == "bzip2":
        return bz2.BZ2File(packed)
    if found == "xz":
        return lzma.LZMAFile(packed)
    return counted


def _open_zstd(packed: Any) -> Any:
    for name in _ZSTD_MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if name == "zstandard":
            return module.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
        return module.ZstdFile(packed)
    raise ImageError('A layer is compressed with zstd, which this Python cannot read: pip install "backports.zstd".')
