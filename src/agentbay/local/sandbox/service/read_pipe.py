"""A pipe from a sandbox that is read only as fast as wanted."""

from __future__ import annotations

import asyncio
import os

from agentbay.local.sandbox.service.pipe_reader import enlarge_pipe, make_output_pipe

PIECE_BYTES = 1 << 18  # read at once


class OnDemandPipe:
    """The reading end of a pipe. `write_fd` is the end to pass on."""

    def __init__(self) -> None:
        self._fd, self.write_fd = make_output_pipe()
        enlarge_pipe(self._fd)
        self._loop = asyncio.get_running_loop()

    async def read(self, size: int = PIECE_BYTES) -> bytes:
        """Read up to `size` bytes, b"" at the end."""
        while True:
            try:
                return os.read(self._fd, min(size, PIECE_BYTES))
            except BlockingIOError:
                await self._wait_readable()

    async def read_fully(self, size: int) -> bytearray:
        """Read `size` bytes, or what comes before the end."""
        found = bytearray()
        while piece := await self.read(size - len(found)):
            found += piece
        return found

    def close(self) -> None:
        """Stop reading."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

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
