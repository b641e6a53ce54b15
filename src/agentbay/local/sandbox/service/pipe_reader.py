"""Reading the output of a sandboxed process on the event loop."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable

_CHUNK_BYTES = 1 << 18
_PIPE_CAPACITY_BYTES = 1 << 20  # bytes; the default of 64 KiB costs a switch of processes each

OutputTail = Callable[[int], tuple[bytes, bytes]]  # the last so many bytes of two streams


class PipeReader:
    """Collects what comes through a pipe, up to `limit` bytes; the rest is read and thrown away.

    `writer` is the end to pass on. Reading goes on after `finish`: who still writes, such as a server left running in
    the background, must not be killed by a broken pipe.
    """

    def __init__(self, limit: int) -> None:
        self._fd, self.write_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._fd, False)
        _enlarge(self._fd)
        self._limit = limit
        self._data = bytearray()
        self._keeping = True
        self.truncated = False
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._fd, self._read)

    def tail(self, size: int) -> bytes:
        """Return the last `size` bytes of what has come so far."""
        return bytes(self._data[-size:])

    def stop_collecting(self) -> bytearray:
        """Return what has come and keep nothing of what is still to come."""
        self._keeping = False
        return self._data

    def close(self) -> None:
        """Stop reading."""
        if not self.ended.done():
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self.ended.set_result(None)

    def _read(self) -> None:
        try:
            chunk = os.read(self._fd, _CHUNK_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            self.close()
        elif self._keeping:
            room = self._limit - len(self._data)
            self._data += chunk[:room] if len(chunk) > room else chunk
            self.truncated = self.truncated or len(chunk) > room


def _enlarge(fd: int) -> None:
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_CAPACITY_BYTES)
    except PermissionError:  # the user has used up /proc/sys/fs/pipe-user-pages-soft
        return
