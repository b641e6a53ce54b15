"""Writing to file descriptors."""

from __future__ import annotations

import os


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data`.

    A single write(2) may take only a part.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
