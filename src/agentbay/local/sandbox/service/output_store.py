"""The output of a background process, kept in a file."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from agentbay.local.sandbox.service.pipe_reader import (
    DEFAULT_PIPE_BYTES,
    enlarge_pipe,
    make_output_pipe,
    readable_bytes,
)
from agentbay.local.sandbox.shared.fd_io import closing_fd, write_all

_CHUNK_BYTES = 1 << 20
# A disk that is written to faster than it can take blocks whoever writes, and that must not be the event loop, which
# serves all sessions.
_THREADS = ThreadPoolExecutor(4, "agentbay-output")


class OutputStore:
    """Keeps all that comes through a pipe.

    Any part of it can be read again. `write_fd` is the end to pass on. The pipe is read for as long as any process can
    write to it.

    Attributes:
        size: Bytes that are kept so far.
        loss: Why output after these is lost; "" if none is.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._pipe, self.write_fd = make_output_pipe()
        self.size, self.loss = 0, ""
        self._loop = asyncio.get_running_loop()
        self._changed: asyncio.Future[None] = self._loop.create_future()
        self._move: asyncio.Task[int] | None = None
        self._is_draining = self._is_closed = self._is_removed = self._is_enlarged = False
        self._loop.add_reader(self._pipe, self._begin_move)

    def next_change(self) -> asyncio.Future[None]:
        """Return a future that is done when there is more, or no more.

        It must not be cancelled.
        """
        return self._changed

    async def read(self, offset: int, limit: int) -> bytes:
        """Return up to `limit` bytes from an offset on."""
        return await self._loop.run_in_executor(_THREADS, self.read_now, offset, min(limit, max(self.size - offset, 0)))

    def read_now(self, offset: int, limit: int) -> bytes:
        """Return up to `limit` bytes from an offset on, b"" if they were removed.

        It may block for as long as the disk takes.
        """
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        with closing_fd(fd):
            return os.pread(fd, limit, offset)

    async def drain(self) -> None:
        """Keep what is in the pipe now, also if other processes go on writing."""
        self._is_draining = True  # nobody else reads meanwhile, so that what is counted is what is read
        try:
            if self._move is not None:
                await asyncio.wait({self._move})
            left = 0 if self._is_closed else readable_bytes(self._pipe)
            while left > 0 and not self._is_closed:
                left -= await self._move_chunk()
        finally:
            self._is_draining = False
            self._watch()

    def remove(self) -> None:
        """Remove what is kept, and discard what is still to come."""
        self._is_removed = True
        with suppress(FileNotFoundError):
            os.unlink(self._path)

    def _watch(self) -> None:
        if not self._is_closed and not self._is_draining:
            self._loop.add_reader(self._pipe, self._begin_move)

    def _begin_move(self) -> None:
        self._loop.remove_reader(self._pipe)
        if not self._is_draining:
            self._move = self._loop.create_task(self._move_chunk())
            self._move.add_done_callback(lambda _: self._watch())

    async def _move_chunk(self) -> int:
        """Move one chunk from the pipe to the file, and return its size."""
        keep = not (self._is_removed or self.loss)
        try:
            moved, loss = await self._loop.run_in_executor(
                _THREADS, _move_bytes, self._pipe, self._file if keep else -1
            )
        except BlockingIOError:  # it was drained since it was readable
            return 0
        if moved >= DEFAULT_PIPE_BYTES and not self._is_enlarged:  # it was full, and a full pipe stops its writer
            self._is_enlarged = True
            enlarge_pipe(self._pipe)
        self.loss = self.loss or loss
        if keep and not loss:
            self.size += moved
        if not moved:
            self._close()
        changed, self._changed = self._changed, self._loop.create_future()
        changed.set_result(None)
        return moved

    def _close(self) -> None:
        self._is_closed = True
        self._loop.remove_reader(self._pipe)
        os.close(self._pipe)
        os.close(self._file)


def _move_bytes(pipe: int, file: int) -> tuple[int, str]:
    """Move what a pipe holds to a file.

    It is discarded if that is -1. Return how many bytes were read, and why they could not be kept.
    """
    chunk = os.read(pipe, _CHUNK_BYTES)
    if file < 0:
        return len(chunk), ""
    try:
        write_all(file, chunk)
    except OSError as error:
        return len(chunk), os.strerror(error.errno or 0)
    return len(chunk), ""
