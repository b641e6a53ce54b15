"""Files of this machine, read and written a block at a time. It blocks: the seam decides where that happens."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .errors import FileError

BLOCK = 1 << 20


@contextmanager
def _local(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise FileError(f"Local file not found: {path}") from error
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from error


class LocalSource:
    """A file to be sent. Its size is fixed when it is opened.

    Raises:
        FileError: If it cannot be read, or is no file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with _local(self.path):
            if not stat.S_ISREG(self.path.stat().st_mode):  # opening a pipe would wait for its other end
                raise FileError(f"{self.path} is not a file.")
            self._file = self.path.open("rb")
            self.size = os.fstat(self._file.fileno()).st_size
        self.rewind()

    def rewind(self) -> None:
        """Begin anew."""
        self._file.seek(0)
        self._hash = hashlib.md5(usedforsecurity=False)
        self.sent = 0

    def read(self) -> bytes:
        """Return the next block, empty at the end.

        Raises:
            FileError: If it cannot be read, or became shorter.
        """
        with _local(self.path):
            block = self._file.read(min(BLOCK, self.size - self.sent))
        if not block and self.sent < self.size:
            raise FileError(f"{self.path} became shorter while it was sent.")
        self._hash.update(block)
        self.sent += len(block)
        return block

    @property
    def md5(self) -> str:
        """Checksum of what was read."""
        return self._hash.hexdigest()

    def close(self) -> None:
        """Close it."""
        self._file.close()


class LocalTarget:
    """A file to be made: under a temporary name beside its own, which it gets when it is whole.

    Raises:
        FileError: If it cannot be made, or is there and may not be replaced.
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool) -> None:
        self.path = Path(path)
        self._overwrite = overwrite
        self._lock = threading.Lock()  # a cancelled task leaves its last write to a thread
        self.received = 0
        check_target(self.path, overwrite=overwrite)
        with _local(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._scratch = self.path.with_name(f".{secrets.token_hex(8)}.part")
            self._file = self._scratch.open("xb", buffering=0)

    def rewind(self) -> None:
        """Begin anew."""
        with _local(self.path), self._lock:
            self._file.seek(0)
            self._file.truncate()
        self.received = 0

    def write(self, block: bytes) -> None:
        """Add a block.

        Raises:
            FileError: If it cannot be written.
        """
        with _local(self.path), self._lock:
            rest = memoryview(block)
            while rest:
                rest = rest[self._file.write(rest) :]
        self.received += len(block)

    def commit(self) -> None:
        """Give the file its name.

        Raises:
            FileError: If that cannot be done.
        """
        check_target(self.path, overwrite=self._overwrite)
        with _local(self.path), self._lock:
            os.fsync(self._file.fileno())
            if self.path.exists():
                shutil.copymode(self.path, self._scratch)
            self._file.close()
            self._scratch.replace(self.path)

    def discard(self) -> None:
        """Remove what was not committed."""
        with self._lock:
            self._file.close()
            self._scratch.unlink(missing_ok=True)


def check_target(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Refuse a place for a file.

    Raises:
        FileError: If a directory is there, or something that may not be replaced.
    """
    place = Path(path)
    if place.is_dir():
        raise FileError(f"{place} is a directory.")
    if not overwrite and place.exists():
        raise FileError(f"Destination exists and overwrite=False: {place}")


class LocalFile(NamedTuple):
    """A file below a directory; `name` is its path there, with slashes, or "" for the directory's own place."""

    path: Path
    name: str


def local_files(path: str | os.PathLike[str]) -> list[LocalFile]:
    """The file itself, or all files below a directory, sorted. Links to directories are not followed.

    Raises:
        FileError: If there is nothing, or a directory cannot be read.
    """
    root = Path(path)
    if not root.is_dir():
        return [LocalFile(root, "")]
    found = []
    for folder, _, names in os.walk(root, onerror=_refuse):
        for place in (Path(folder, name) for name in names):
            if place.is_file():
                found.append(LocalFile(place, place.relative_to(root).as_posix()))
    return sorted(found, key=lambda file: file.name)


def _refuse(error: OSError) -> None:
    raise FileError(f"{error.filename}: {error.strerror or error}") from error
