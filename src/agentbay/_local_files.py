"""Local files, read and written one block at a time.

All of it blocks: callers use `async_run_blocking`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ._regular_files import open_regular
from ._transport.file_errors import make_file_error, raise_os_error
from .errors import FileError

BLOCK_BYTES = 1 << 20  # read or written at once


@contextmanager
def _map_os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileError:  # some are OSErrors too
        raise
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError)
        raise_os_error(error, path, f"Local file not found: {path}" if is_missing else "")


class LocalSource:
    """A local file to be sent, whose size is fixed when this is made.

    `rewind` opens it.

    Raises:
        FileError: If it does not exist, or is not a regular file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with _map_os_errors(self.path):
            found = self.path.stat()
        if not stat.S_ISREG(found.st_mode):  # opening a FIFO would wait for its other end
            raise FileError(f"{self.path} is not a file.")
        self.size = found.st_size
        self.sent = 0
        self._file: BinaryIO | None = None
        self._closed = False
        self._lock = threading.Lock()  # a cancelled task's last call may still run in its thread

    def rewind(self) -> None:
        """Open the file, or start again at its beginning.

        Raises:
            FileError: If it cannot be read.
        """
        with _map_os_errors(self.path), self._lock:
            # A late call in the thread of a cancelled task must not open the file again after close().
            if self._file is None and not self._closed:
                self._file = open_regular(self.path)
            if self._file is not None:
                self._file.seek(0)
        # Compared with an ETag, not for security: without the flag, Python in FIPS mode refuses MD5.
        self._hash = hashlib.md5(usedforsecurity=False)
        self.sent = 0

    def read(self) -> bytes:
        """Return the next block, or b"" at the end.

        Raises:
            FileError: If it cannot be read, or became shorter.
        """
        with _map_os_errors(self.path), self._lock:
            # Never more than the size announced as Content-Length, even if the file grows meanwhile.
            block = b"" if self._file is None else self._file.read(min(BLOCK_BYTES, self.size - self.sent))
        if not block and self.sent < self.size:
            raise FileError(f"{self.path} became shorter while it was sent.")
        self._hash.update(block)
        self.sent += len(block)
        return block

    @property
    def md5(self) -> str:
        """The MD5 checksum of what was read."""
        return self._hash.hexdigest()

    def close(self) -> None:
        """Close it for good."""
        with self._lock:
            file, self._file, self._closed = self._file, None, True
            if file is not None:
                file.close()


class LocalTarget:
    """A local file to be written, which appears when it is complete.

    `rewind` creates a temporary file beside it, and `commit` renames that.

    Raises:
        FileError: If a directory or a file that may not be replaced is there.
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool) -> None:
        self.path = Path(path)
        self.received = 0
        self._overwrite = overwrite
        # In the same directory, since a rename is atomic only within one file system.
        self._temporary_path = self.path.with_name(f".{secrets.token_hex(8)}.part")
        self._file: FileIO | None = None
        self._closed = False
        self._lock = threading.Lock()  # as in LocalSource
        check_target(self.path, overwrite=overwrite)

    def rewind(self) -> None:
        """Create the temporary file and its parent directories, or empty it.

        Raises:
            FileError: If it cannot be written.
        """
        with _map_os_errors(self.path), self._lock:
            if self._file is None and not self._closed:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                # "x" creates the file or fails, so it never writes through a link that somebody else put there.
                self._file = self._temporary_path.open("xb", buffering=0)
            if self._file is not None:
                self._file.seek(0)
                self._file.truncate()
        self.received = 0

    def write(self, block: bytes) -> None:
        """Append a block.

        Raises:
            FileError: If it cannot be written.
        """
        with _map_os_errors(self.path), self._lock:
            rest = memoryview(block)
            while rest and self._file is not None:
                # An unbuffered file may take less than it was given.
                rest = rest[self._file.write(rest) :]
        self.received += len(block)

    def commit(self) -> None:
        """Rename the temporary file to the target.

        Raises:
            FileError: If that cannot be done.
        """
        # Again, since a file or a directory may have appeared there during the transfer.
        check_target(self.path, overwrite=self._overwrite)
        with _map_os_errors(self.path), self._lock:
            if self._file is None:
                return
            # Before the rename: after a crash of the machine the target must not be there without its content.
            os.fsync(self._file.fileno())
            if self.path.exists():
                # The rename would replace the permissions of the old file too.
                shutil.copymode(self.path, self._temporary_path)
            self._file.close()
            # Windows renames no open file, so it is closed by now.
            self._temporary_path.replace(self.path)

    def discard(self) -> None:
        """Remove the temporary file, if it was not committed."""
        with self._lock:
            file, self._file, self._closed = self._file, None, True
            if file is not None:
                file.close()
                self._temporary_path.unlink(missing_ok=True)


def check_target(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Refuse a path where no file may be written.

    Raises:
        FileError: If a directory is there, or something that may not be replaced.
    """
    target = Path(path)
    if target.is_dir():
        raise make_file_error(f"{target} is a directory.", number=errno.EISDIR, path=str(target))
    # Renaming a file over a device, such as /dev/null, would take it from every program of the machine.
    if target.exists() and not target.is_file():
        raise FileError(f"{target} is neither a file nor a link to one.")
    if not overwrite and target.exists():
        message = f"Destination exists and overwrite=False: {target}"
        raise make_file_error(message, number=errno.EEXIST, path=str(target))


class LocalFile(NamedTuple):
    """A file below a directory, and its path there.

    `name` has slashes, and is "" for the file that was asked for itself.
    """

    path: Path
    name: str


def list_local_files(path: str | os.PathLike[str]) -> list[LocalFile]:
    """Return the file itself, or all files below a directory, sorted.

    Links to directories are not followed.

    Raises:
        FileError: If there is nothing, or a directory cannot be read.
    """
    root = Path(path)
    if not root.is_dir():
        return [LocalFile(root, "")]
    # Without onerror, os.walk skips a directory that it cannot read, and files would be missing without a word.
    paths = (Path(folder, name) for folder, _, names in os.walk(root, onerror=_raise_file_error) for name in names)
    found = [LocalFile(target, target.relative_to(root).as_posix()) for target in paths if target.is_file()]
    return sorted(found, key=lambda file: file.name)


def _raise_file_error(error: OSError) -> None:
    raise_os_error(error, error.filename)
