"""Run commands with input or argument lists, even where tools take only text."""

from __future__ import annotations

import base64
import codecs
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from .._transport.command import command_timeout_result, finished_command_result
from .._transport.command_line import MAX_INPUT_BYTES, CommandLine, accepts_command_fields
from .._transport.deadline import Deadline
from .._transport.shell_scripts import staging_path
from .._wire.schema import Tool
from .._wire.tools import Shell, mark_internal
from ..errors import AgentBayError
from ..models.command import CommandResult
from .callbacks import invoke_callback
from .waiting import PauseExtension, clean_up

if TYPE_CHECKING:
    from .process import AsyncProcess
    from .session import AsyncSession

OutputCallback = Callable[[str], object]
_DISCARD_SECONDS = 5.0  # to delete the input file of a command that did not start


@asynccontextmanager
async def prepared(
    session: AsyncSession, line: CommandLine, tool: type[Tool], deadline: Deadline
) -> AsyncIterator[CommandLine]:
    """Yield a command in the form that the session's tool accepts.

    Where the tool takes only a command line, or the input is too large for a call, the input goes through a file.
    """
    fits = len(line.stdin or b"") <= MAX_INPUT_BYTES
    if fits and accepts_command_fields(session.mcpTools, tool):
        yield line
        return
    if not line.stdin:
        yield CommandLine(line.shell_text(None))
        return
    staged = staging_path(os.urandom(8).hex())
    try:
        text = base64.b64encode(line.stdin).decode()
        await session.file_system._write_text(staged, text, "append", deadline)
        yield CommandLine(line.shell_text(staged))
    except BaseException:
        await clean_up(lambda: _discard(session, staged))
        raise


async def _discard(session: AsyncSession, staged: str) -> None:
    script = Shell(command=mark_internal(f"rm -f -- {staged} {staged}.in"), timeout_ms=int(_DISCARD_SECONDS * 1000))
    with contextlib.suppress(AgentBayError):  # the failure before it is the one to report
        await session._run_tool(script, timeout=_DISCARD_SECONDS)


class AsyncCommandStream:
    """Hands out the output of a command while it runs."""

    def __init__(
        self, process: AsyncProcess, on_stdout: OutputCallback | None, on_stderr: OutputCallback | None
    ) -> None:
        self._process = process
        self._callbacks = {"stdout": on_stdout, "stderr": on_stderr}
        self._output = {"stdout": bytearray(), "stderr": bytearray()}
        # Incremental, because the end of a chunk may split a character.
        self._decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in self._output}

    async def run(self, deadline: Deadline) -> CommandResult:
        """Follow the command to its end, or kill it at the deadline.

        Afterwards it is removed from the session, also after an error or a cancellation.
        """
        try:
            return await self._follow(deadline)
        finally:
            await clean_up(self._remove)

    async def _follow(self, deadline: Deadline) -> CommandResult:
        session = self._process._session
        pauses = PauseExtension(session._transport, session.session_id, deadline)
        async for name, data, done in self._process._follow(deadline):
            self._output[name] += data
            text, callback = self._decoders[name].decode(data, done), self._callbacks[name]
            if text and callback is not None:
                await invoke_callback(callback, text)
            if not done and await pauses.is_over():
                return command_timeout_result(*map(bytes, self._output.values()))
        assert self._process.exit_code is not None
        return finished_command_result(self._process.exit_code, *map(bytes, self._output.values()))

    async def _remove(self) -> None:
        with contextlib.suppress(AgentBayError):  # the session may be gone, and everything with it
            await self._process._control.cancel(self._process.id)
