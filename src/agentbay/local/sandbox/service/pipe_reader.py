"""Reading the output of a sandboxed process on the event loop."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import termios
from collections.abc import Callable
from contextlib import suppress

_CHUNK_BYTES = 1 << 18
DEFAULT_PIPE_BYTES = 64 << 10  # each of them costs a context switch
_PIPE_CAPACITY_BYTES = 1 << 20
_QUIET_SECONDS = 0.05  # seconds without output after which a command that has ended has no more to say
_MAX_DRAIN_SECONDS = 1.0  # seconds; a background process may write for ever
_MAX_BACKGROUND_PIPES = 4096  # for each sandbox whose processes are not limited
_STREAMS_PER_PROCESS = 2

OutputTail = Callable[[int], tuple[bytes, bytes]]  # the last so many bytes of stdout and stderr


class OutputCollector:
    """Collects what comes through a pipe, up to `limit` bytes.

    The rest is read and discarded.

    `write_fd` is the end to pass on. Reading goes on after `stop_collecting`: a process that still writes, such as a
    server left in the background, must not be killed by a broken pipe.

    Args:
        sink: Gets what comes instead, which is then not collected.
    """

    def __init__(self, limit: int, sink: Callable[[bytes], object] | None = None) -> None:
        self._fd, self.write_fd = make_output_pipe()
        enlarge_pipe(self._fd)
        self._limit, self._sink = limit, sink
        self._data = bytearray()
        self._collecting = True
        self.truncated = False
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._fd, self._read)

    def tail(self, size: int) -> bytes:
        """Return the last `size` bytes of what has come so far."""
        return bytes(self._data[-size:])

    def drain(self) -> int:
        """Read what is in the pipe now, without waiting.

        Return the number of bytes.
        """
        # what is written meanwhile does not count, or a background process could keep this from ending
        available = 0 if self.ended.done() else readable_bytes(self._fd)
        drained = 0
        while drained < available and (size := self._read()):
            drained += size
        return drained

    def stop_collecting(self) -> bytearray:
        """Return what has come, and discard what is still to come."""
        self._collecting = False
        return self._data

    def shrink(self) -> None:
        """Give back the memory of a pipe that nobody waits for."""
        if not self.ended.done():
            with suppress(OSError):  # EBUSY: it holds more just now
                fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, DEFAULT_PIPE_BYTES)

    def close(self) -> None:
        """Stop reading."""
        if not self.ended.done():
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self.ended.set_result(None)

    def _read(self) -> int:
        try:
            chunk = os.read(self._fd, _CHUNK_BYTES)
        except BlockingIOError:
            return 0
        if not chunk:
            self.close()
        elif self._sink is not None:
            self._sink(chunk)
        elif self._collecting:
            room = self._limit - len(self._data)
            self._data += chunk[:room] if len(chunk) > room else chunk
            self.truncated = self.truncated or len(chunk) > room
        return len(chunk)


class BackgroundReaders:
    """Reads from background processes, so that a full pipe does not stop them.

    Args:
        processes: How many processes the sandbox may have. Each can write to two pipes of its own.
    """

    def __init__(self, processes: int | None) -> None:
        self._limit = _MAX_BACKGROUND_PIPES if processes is None else processes * _STREAMS_PER_PROCESS
        self._readers: list[OutputCollector] = []

    def add(self, *readers: OutputCollector) -> None:
        """Keep readers that have not ended.

        If there are more readers than the sandbox's processes could write to, the oldest are closed.
        """
        for reader in readers:
            reader.shrink()
        still_open = [reader for reader in (*self._readers, *readers) if not reader.ended.done()]
        for reader in still_open[: -self._limit]:
            reader.close()
        self._readers = still_open[-self._limit :]

    def close(self) -> None:
        """Close all readers."""
        for reader in self._readers:
            reader.close()


async def drain_after_exit(*readers: OutputCollector) -> None:
    """Collect what a command that has ended left in its pipes.

    What it wrote is in the pipes, however busy the event loop is, and is read at once. Its children may still write:
    that is awaited until a moment without output, or for a second at most.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + _MAX_DRAIN_SECONDS
    while clock() < deadline:
        ended = [reader.ended for reader in readers]
        await asyncio.wait(ended, timeout=_QUIET_SECONDS)
        drained_bytes = sum(reader.drain() for reader in readers)
        if not drained_bytes or all(future.done() for future in ended):
            return


def make_output_pipe() -> tuple[int, int]:
    """Return both ends of a pipe for the output of a sandboxed process.

    Reading does not block.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read_fd, False)
    # A program that opens /dev/stderr opens the pipe anew, as a user that need not be the one of this process. No other
    # process has a path to the pipe.
    os.fchmod(write_fd, 0o666)
    return read_fd, write_fd


def readable_bytes(fd: int) -> int:
    """Return how many bytes are in a pipe."""
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]


def enlarge_pipe(fd: int) -> None:
    """Give a pipe room for much data, if this user may."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_CAPACITY_BYTES)
    except PermissionError:  # this user has reached /proc/sys/fs/pipe-user-pages-soft
        return
