"""Opening local files that may be replaced by something else at any moment."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path

from .errors import FileError


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading, without waiting for what has taken its place.

    Raises:
        FileError: If it is no regular file any more.
        OSError: If it cannot be opened.
    """
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - the caller closes it
    # Of the open descriptor, since the file may have been replaced after the look at it (TOCTOU).
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise FileError(f"{path} is not a file any more.")
    return file


def _open_at_once(path: str, flags: int) -> int:
    # Opening a FIFO would otherwise wait for its other end.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
