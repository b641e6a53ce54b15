"""The files in which transfers of images arrive.

A download keeps its file when it breaks off, for a later pull, and a lock beside it tells that one is under way.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UPLOADS_PATH = "/image-uploads/"  # of URLs that archives are sent to
_LOCK, _UPLOAD = ".lock", ".upload"


def upload_path(directory: Path, job_id: str) -> Path:
    """Return the file for the archive that a client sends."""
    return directory / f"{job_id}{_UPLOAD}"


@contextmanager
def locked_download(directory: Path, digits: str) -> Iterator[Path]:
    """Yield the file of a download, locked against others of the same blob."""
    target = directory / digits
    lock = _acquire(Path(f"{target}{_LOCK}"))
    try:
        yield target
    finally:
        _release(lock, target)


def remove_downloads(directory: Path) -> None:
    """Remove the files of downloads that are not under way."""
    names = {path.name.removesuffix(_LOCK) for path in directory.iterdir() if path.suffix != _UPLOAD}
    for target in (directory / name for name in names):
        with suppress(BlockingIOError):  # it is under way
            lock = _acquire(Path(f"{target}{_LOCK}"), fcntl.LOCK_NB)
            target.unlink(missing_ok=True)
            _release(lock, target)


def remove_uploads(directory: Path) -> None:
    """Remove the archives that a killed runtime has left."""
    for path in directory.glob(f"*{_UPLOAD}"):
        path.unlink()


def _acquire(path: Path, flags: int = 0) -> int:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | flags)
            # Whoever held it before may have removed the file, and then a lock on it excludes nobody.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), path.stat()):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _release(fd: int, target: Path) -> None:
    """Release a lock, whose file goes with the download."""
    if not target.exists():
        Path(f"{target}{_LOCK}").unlink(missing_ok=True)
    os.close(fd)
