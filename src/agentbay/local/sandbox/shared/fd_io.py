"""Work on file descriptors."""

from __future__ import annotations

import os


class closing_fd:  # noqa: N801  # used as a function, like `contextlib.closing`
    """Close a descriptor at the end of a `with` block."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data`.

    A single write(2) may take only a part.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
