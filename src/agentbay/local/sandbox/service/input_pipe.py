"""The input of a background process."""

from __future__ import annotations

import asyncio
import os

from agentbay.local.sandbox.service.frozen_clock import FrozenClock
from agentbay.local.sandbox.service.pipe_reader import enlarge_pipe
from agentbay.local.sandbox.shared import ipc

_LARGE_BYTES = 1 << 20  # a write of more gives the pipe more room


class InputClosed(Exception):
    """The process does not take input any more."""


class InputPipe:
    """Writes to a process without blocking, one writer at a time.

    `read_fd` is the end to pass on.

    Args:
        whole: All of the input, which is then closed from the beginning.
    """

    def __init__(self, clock: FrozenClock, whole: bytes | None = None) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()  # the data of several writers must not be mixed
        self._closed: asyncio.Future[None] = self._loop.create_future()
        if whole is not None:
            self.read_fd, self._fd = ipc.make_memfd(whole), -1
            self._closed.set_result(None)
            return
        self.read_fd, self._fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._fd, False)

    def enlarge(self) -> None:
        """Give the pipe more room, since much is to come.

        Each time it is full or empty, one process waits for the other.
        """
        enlarge_pipe(self._fd)

    async def write(self, data: bytes, timeout: float) -> int:
        """Write data, or what the process takes in `timeout` seconds.

        Return the number of bytes.

        Raises:
            InputClosed: The process has closed its input, or it was closed here.
        """
        end = self._clock.time() + timeout
        if not self._lock.locked():
            async with self._lock:
                return await self._write(memoryview(data), end)
        turn = asyncio.ensure_future(self._lock.acquire())
        try:
            if not await self._clock.ends_within(turn, timeout):
                return 0
            return await self._write(memoryview(data), end)
        finally:
            if not turn.done():
                turn.cancel()
            elif not turn.cancelled():
                self._lock.release()

    async def _write(self, data: memoryview, end: float) -> int:
        done = 0
        if len(data) > _LARGE_BYTES:
            self.enlarge()
        while done < len(data):
            if self._closed.done():
                raise InputClosed
            try:
                done += os.write(self._fd, data[done:])
            except BlockingIOError:
                if not await self._wait_writable(end):
                    break
            except BrokenPipeError:
                raise InputClosed from None
        return done

    async def _wait_writable(self, end: float) -> bool:
        """Wait until the pipe takes more, or was closed.

        Return False if time is up.
        """
        writable: asyncio.Future[None] = self._loop.create_future()

        def wake(_: object = None) -> None:
            if not writable.done():
                writable.set_result(None)

        self._loop.add_writer(self._fd, wake)
        self._closed.add_done_callback(wake)
        try:
            return await self._clock.ends_within(writable, end - self._clock.time())
        finally:
            self._closed.remove_done_callback(wake)
            if not self._closed.done():
                self._loop.remove_writer(self._fd)

    def close(self) -> None:
        """End the input.

        What was written before is still read. Idempotent.
        """
        if not self._closed.done():
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._closed.set_result(None)
