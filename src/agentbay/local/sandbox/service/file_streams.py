"""Files of any size in and out of a sandbox, in pieces."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncGenerator, AsyncIterator

from agentbay.local.sandbox.service.errors import SandboxGone
from agentbay.local.sandbox.service.init_client import parse_file_reply
from agentbay.local.sandbox.service.input_pipe import InputClosed, InputPipe
from agentbay.local.sandbox.service.pipe_reader import PIECE_BYTES, enlarge_pipe, make_output_pipe
from agentbay.local.sandbox.service.sandbox import Sandbox
from agentbay.local.sandbox.shared.file_protocol import CONTENT_HEAD, CONTENT_MARK, SendFile, WriteFile

_MAX_FAILURE_BYTES = 1 << 20  # of the reply of an operation that failed
_END_SECONDS = 5.0  # that an operation may take to end after its input has broken off


class ContentLost(Exception):
    """The rest of a file cannot be read any more."""


async def write_stream(
    sandbox: Sandbox, path: str, pieces: AsyncIterator[bytes], size: int, *, append: bool = False
) -> None:
    """Replace a file by `size` bytes that come in pieces, or append them.

    If they break off, the file stays as it was.

    Raises:
        FileOperationFailed: The file cannot be written, or there is no room for it.
        SandboxGone: The sandbox ended first.
    """
    request = WriteFile(path, append=append, size=size)
    await sandbox.watchdog.check_write(request, size)
    pipe = InputPipe(sandbox.clock)
    writing = asyncio.ensure_future(sandbox.run_file_operation_with_input(request, pipe.read_fd))
    try:
        try:
            async for piece in pieces:
                await pipe.write(piece, math.inf)
        except InputClosed:
            pass  # the operation has ended, and says why
        finally:
            pipe.close()
        await writing
    finally:
        if not writing.done():
            # Without its input it removes what it has written; a kill would leave that.
            await asyncio.wait({writing}, timeout=_END_SECONDS)
            writing.cancel()
        elif not writing.cancelled():
            writing.exception()  # the cancellation or the error on the way here is the one to report


class FileStream:
    """A part of a file, as `size` bytes that come in pieces."""

    def __init__(self, sandbox: Sandbox, path: str, offset: int, length: int) -> None:
        self._request = SendFile(path, offset=offset, length=length)
        self._sandbox = sandbox
        self._fd, write_fd = make_output_pipe()
        enlarge_pipe(self._fd)
        self._loop = asyncio.get_running_loop()
        try:
            input_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            self._ended = sandbox.start_file_operation(self._request, input_fd, write_fd)
        except BaseException:
            os.close(self._fd)
            raise
        self.size = 0  # known when it is open

    async def open(self) -> None:
        """Wait for the size.

        Raises:
            FileOperationFailed: The file cannot be read.
            SandboxGone: The sandbox ended first.
        """
        head = await self._read_fully(CONTENT_HEAD.size)
        if len(head) == CONTENT_HEAD.size and head.startswith(CONTENT_MARK):
            _, self.size = CONTENT_HEAD.unpack(head)
            return
        reply = head + await self._read_fully(_MAX_FAILURE_BYTES)
        await asyncio.wait({self._ended})
        if isinstance(gone := self._ended.exception(), SandboxGone):
            raise gone
        parse_file_reply(reply, self._request)
        raise ContentLost

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the content.

        Raises:
            ContentLost: The file became shorter, or the sandbox ended.
        """
        left = self.size
        while left:
            piece = await self._read(min(left, PIECE_BYTES))
            if not piece:
                raise ContentLost
            left -= len(piece)
            yield piece

    def close(self) -> None:
        """Stop reading."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._ended.cancel()

    async def _read_fully(self, size: int) -> bytearray:
        found = bytearray()
        while piece := await self._read(size - len(found)):
            found += piece
        return found

    async def _read(self, size: int) -> bytes:
        while True:
            try:
                return os.read(self._fd, size)
            except BlockingIOError:
                await self._wait_readable()

    async def _wait_readable(self) -> None:
        readable: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._fd, _resolve, readable)
        try:
            await readable
        finally:
            self._loop.remove_reader(self._fd)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
