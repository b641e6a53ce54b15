"""A command whose input comes in pieces, and whose output leaves in pieces."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from agentbay.local.sandbox.service.input_pipe import InputClosed, InputPipe
from agentbay.local.sandbox.service.pipe_reader import OutputCollector
from agentbay.local.sandbox.service.read_pipe import OnDemandPipe
from agentbay.local.sandbox.service.sandbox import Sandbox
from agentbay.local.sandbox.shared import ipc

_CLEAN_UP_SECONDS = 5.0  # after SIGTERM
_MAX_ERROR_BYTES = 1 << 16  # kept of what it writes to standard error


class CommandStream:
    """A running shell script.

    Attributes:
        exit_code: Known when `pieces` has ended.
    """

    exit_code: int

    def __init__(
        self, sandbox: Sandbox, script: str, timeout: float, *, cwd: str | None, env: Mapping[str, str]
    ) -> None:
        """Start it.

        It is killed after `timeout` seconds in which the sandbox is not frozen.
        """
        self._clock, self._watchdog = sandbox.clock, sandbox.watchdog
        self._kills = sandbox.watchdog.kill_counts()
        self._until = self._clock.time() + timeout
        argv, content = sandbox.shell_arguments(script)
        self._input, self._output, self._errors = (
            InputPipe(sandbox.clock),
            OnDemandPipe(),
            OutputCollector(_MAX_ERROR_BYTES),
        )
        self._input.enlarge()
        fds = [self._input.read_fd, self._output.write_fd, self._errors.write_fd]
        if content is not None:
            fds.append(ipc.make_memfd(content))
        try:
            self._ended, self._control = sandbox.start_controlled(argv, fds, cwd=cwd, env=env)
        except BaseException:
            self._close_pipes()
            raise

    async def write(self, pieces: AsyncIterator[bytes]) -> None:
        """Write its whole input, or as much as it reads."""
        try:
            async for piece in pieces:
                if await self._input.write(piece, self._until - self._clock.time()) < len(piece):
                    return  # its time is over: it is killed before it could take a part for the whole
        except InputClosed:
            pass
        except BaseException:
            await self._stop()
            raise
        self._input.close()

    async def _stop(self) -> None:
        """End it, with a few seconds to clean up.

        This comes before its input is closed, or it would take a part of the input for the whole.
        """
        self._control.signal(signal.SIGTERM)
        await asyncio.wait({self._ended}, timeout=_CLEAN_UP_SECONDS)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield its output.

        Raises:
            TimeoutError: It was killed, since it took too long.
            DirectoryNotEntered: Its working directory cannot be entered.
            SandboxGone: The sandbox ended first.
        """
        while True:
            reading = asyncio.ensure_future(self._output.read())
            try:
                await self._wait_for(reading)
            finally:
                reading.cancel()
            if not (piece := reading.result()):
                break
            yield piece
        await self._wait_for(self._ended)
        self.exit_code = self._ended.result()

    async def _wait_for(self, future: asyncio.Future[Any]) -> None:
        if not await self._clock.ends_within(future, self._until - self._clock.time()):
            self._control.kill()
            raise TimeoutError

    def error_text(self) -> str:
        """Return what it has written to standard error, and why it was killed."""
        self._errors.drain()
        written = self._errors.tail(_MAX_ERROR_BYTES) + self._watchdog.kill_message(self._kills)
        return written.decode("utf-8", "replace")

    def close(self) -> None:
        """End it if it still runs, with a moment to clean up."""
        if self._ended.done():
            self._close_pipes()
            return
        self._control.signal(signal.SIGTERM)
        asyncio.get_running_loop().call_later(_CLEAN_UP_SECONDS, self._kill)
        # Only at its end: a shell that reports a killed program to a closed pipe dies of SIGPIPE without cleaning up.
        self._ended.add_done_callback(lambda _: self._close_pipes())

    def _kill(self) -> None:
        if not self._ended.done():
            self._control.kill()

    def _close_pipes(self) -> None:
        self._input.close()
        self._output.close()
        self._errors.close()
