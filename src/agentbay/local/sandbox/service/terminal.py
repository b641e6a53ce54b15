"""The driving side of a terminal in a sandbox."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import stat
import struct
import termios
from collections.abc import Callable
from contextlib import suppress

_CHUNK_BYTES = 1 << 16
_MAX_PENDING_INPUT_BYTES = 1 << 20  # for a program that does not read


class Terminal:
    """A program in a terminal.

    The future `exited` holds its exit code, as a shell reports it, or SandboxGone.

    Args:
        fd: The driving side, non-blocking; this object owns it.
        kill: Kills the program and its descendants, and forgets it.
    """

    def __init__(self, fd: int, exited: asyncio.Future[int], kill: Callable[[], None]) -> None:
        self.exited = exited
        self._fd, self._kill = fd, kill
        os.set_blocking(fd, False)  # whatever process 1 has sent
        self._loop = asyncio.get_running_loop()
        self._readable: asyncio.Future[None] | None = None
        self._pending_input = bytearray()
        self._input_taken = asyncio.Event()

    async def read(self) -> bytes:
        """Wait for output of the program and return it.

        Returns b"" after the terminal has closed.
        """
        while self._fd >= 0:
            try:
                return os.read(self._fd, _CHUNK_BYTES)
            except BlockingIOError:
                await self._wait_readable()
            except OSError:  # EIO: no process has the other side open
                return b""
        return b""

    async def _wait_readable(self) -> None:
        self._readable = self._loop.create_future()
        self._loop.add_reader(self._fd, _wake, self._readable)
        try:
            await self._readable
        finally:
            if self._fd >= 0:
                self._loop.remove_reader(self._fd)

    def write_input(self, data: bytes) -> bool:
        """Write input, now or when the program reads.

        Return False if too much is pending (back pressure).
        """
        # With nothing pending any size is taken, or one large write could never succeed.
        if self._pending_input and len(self._pending_input) + len(data) > _MAX_PENDING_INPUT_BYTES:
            return False
        was_pending = bool(self._pending_input)
        self._pending_input += data
        if not was_pending:
            self._write()
        return True

    async def write_input_in_time(self, data: bytes, timeout: float) -> bool:
        """Write input when there is room, or return False after `timeout` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not self.write_input(data):
                    self._input_taken.clear()
                    await self._input_taken.wait()
                return True
        return False

    def _write(self) -> None:
        try:
            while self._pending_input:
                del self._pending_input[: os.write(self._fd, self._pending_input)]
        except BlockingIOError:
            self._loop.add_writer(self._fd, self._write)
            return
        except OSError:  # the program is gone
            self._pending_input.clear()
        self._input_taken.set()
        if self._fd >= 0:
            self._loop.remove_writer(self._fd)

    def resize(self, cols: int, rows: int) -> None:
        """Change the size.

        The kernel sends SIGWINCH to the program.
        """
        if self._fd >= 0:
            fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def close(self) -> None:
        """Hang up and kill what still runs in the terminal.

        Idempotent.
        """
        if self._fd < 0:
            return
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._pending_input.clear()
        self._input_taken.set()
        if self._readable is not None:
            _wake(self._readable)
        self._kill()

    def kill(self) -> None:
        """Kill the program and its descendants.

        Await `exited` for the end.
        """
        self._kill()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def is_terminal(fd: int) -> bool:
    """Return whether a descriptor from a sandbox is a terminal."""
    return stat.S_ISCHR(os.fstat(fd).st_mode) and os.isatty(fd)


def is_stream_socket(fd: int, family: int) -> bool:
    """Return whether a descriptor from a sandbox is a stream socket of a family."""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return False
    with socket.socket(fileno=os.dup(fd)) as sock:
        return sock.family == family and sock.type == socket.SOCK_STREAM


def is_inotify(fd: int) -> bool:
    """Return whether a descriptor from a sandbox is an inotify instance."""
    return os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:inotify"
