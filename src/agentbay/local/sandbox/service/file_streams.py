"""Files of any size in and out of a sandbox, in pieces."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress

from agentbay.local.sandbox.service.errors import FileOperationFailed, SandboxError, SandboxGone
from agentbay.local.sandbox.service.init_client import parse_file_reply
from agentbay.local.sandbox.service.input_pipe import InputClosed, InputPipe
from agentbay.local.sandbox.service.read_pipe import OnDemandPipe
from agentbay.local.sandbox.service.sandbox import Sandbox
from agentbay.local.sandbox.shared.file_protocol import (
    CONTENT_HEAD,
    CONTENT_MARK,
    RemoveUnfinished,
    SendFile,
    WriteFile,
    WriteReply,
)

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
    request = WriteFile(path, append=append, size=size, token=secrets.token_hex(8))
    # What is appended is kept beside the file until it is whole.
    await sandbox.watchdog.reserve(2 * size if append else size, path)
    pipe = InputPipe(sandbox.clock)
    pipe.enlarge()
    writing = asyncio.ensure_future(sandbox.run_file_operation_with_input(request, pipe.read_fd))
    try:
        await _write_pieces(pipe, pieces)
        await writing
    except BaseException:
        await _clean_up(sandbox, request, writing)
        raise


async def _write_pieces(pipe: InputPipe, pieces: AsyncIterator[bytes]) -> None:
    try:
        async for piece in pieces:
            await pipe.write(piece, math.inf)
    except InputClosed:
        pass  # the operation has ended, and says why
    finally:
        pipe.close()


async def _clean_up(sandbox: Sandbox, request: WriteFile, writing: asyncio.Future[WriteReply]) -> None:
    """Remove what an operation has left that was killed, or does not end."""
    # Without its input it ends and removes what it has written.
    await asyncio.wait({writing}, timeout=_END_SECONDS)
    if not writing.cancel() and not writing.cancelled():
        error = writing.exception()
        if not isinstance(error, FileOperationFailed) or error.errno != errno.EINTR:
            return
    # If the sandbox has ended, its files go with it.
    with suppress(SandboxError):
        await sandbox.run_file_operation(RemoveUnfinished(request.path, request.token))


class FileStream:
    """A part of a file, as `size` bytes that come in pieces."""

    def __init__(self, sandbox: Sandbox, path: str, offset: int, length: int) -> None:
        self._request = SendFile(path, offset=offset, length=length)
        self._pipe = OnDemandPipe()
        try:
            input_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            self._ended = sandbox.start_file_operation(self._request, input_fd, self._pipe.write_fd)
        except BaseException:
            self._pipe.close()
            raise
        self.size = 0  # known when it is open

    async def open(self) -> None:
        """Wait for the size.

        Raises:
            FileOperationFailed: The file cannot be read.
            SandboxGone: The sandbox ended first.
        """
        head = await self._pipe.read_fully(CONTENT_HEAD.size)
        if len(head) == CONTENT_HEAD.size and head.startswith(CONTENT_MARK):
            _, self.size = CONTENT_HEAD.unpack(head)
            return
        reply = head + await self._pipe.read_fully(_MAX_FAILURE_BYTES)
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
            piece = await self._pipe.read(left)
            if not piece:
                raise ContentLost
            left -= len(piece)
            yield piece

    def close(self) -> None:
        """Stop reading."""
        self._pipe.close()
        self._ended.cancel()
