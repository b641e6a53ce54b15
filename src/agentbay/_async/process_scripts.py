"""Background processes by shell scripts, for sessions that have no tools for them."""

from __future__ import annotations

import base64
import contextlib
import os
from typing import TYPE_CHECKING

from .._concurrency import async_sleep
from .._transport import process_scripts as scripts
from .._transport.command_line import CommandLine
from .._transport.deadline import Deadline, operation_deadline, to_timeout_ms
from .._transport.processes import CANCEL_SECONDS, REPLY_MARGIN_SECONDS, ProcessEntry, ProcessState
from .._wire.tools import DeleteFile, Shell, ToolReply, WriteFile, mark_internal
from ..errors import AgentBayError, CommandError, FileError
from .service import text_or_raise

if TYPE_CHECKING:
    from .._transport.reply import Reply
    from .session import AsyncSession

_START_SECONDS = 15.0
_CLEANUP_SECONDS = 5.0  # for the removal of input that was not taken
_STDIN_STALL_SECONDS = 2.0  # seconds that a process has to take a block of input


class AsyncProcessScripts:
    """Starts and drives background processes by scripts for the session's shell."""

    long_poll_seconds = 5.0  # wait of one call, during which the script itself takes processes of the session
    input_bytes = 36 * 1024  # in one call; as base64 they fit one write_file

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def start(
        self, process_id: str, line: CommandLine, cwd: str | None, envs: dict[str, str] | None, label: str
    ) -> int:
        """Start a command and return its pid.

        Under the same id nothing is started twice.
        """
        script = scripts.start_script(process_id, line.text, cwd, envs or {}, label)
        text = mark_internal(script, starts=label, directory=scripts.process_directory(process_id))
        call = Shell(command=text, timeout_ms=to_timeout_ms(_START_SECONDS))
        deadline = operation_deadline(_START_SECONDS + REPLY_MARGIN_SECONDS)
        reply = await self._session._run_tool(call, deadline=deadline)
        return scripts.read_pid(reply, process_id, cwd)

    async def list(self) -> list[ProcessEntry]:
        """List the processes, the newest last."""
        return scripts.read_list(await self._run(scripts.list_script(), self._session.timeout))

    async def follow(self, process_id: str, stream: str, offset: int, seconds: float) -> ProcessState:
        """Wait for output beyond an offset, or for the end.

        With `stream` "" it waits for the end only.
        """
        script = scripts.follow_script(process_id, stream, offset, seconds)
        try:
            return scripts.read_state(await self._run(script, seconds + REPLY_MARGIN_SECONDS), process_id)
        except CommandError as error:
            if not scripts.is_out_of_processes(error):
                raise
        # This says nothing about the process: it may itself have used up the processes that the session can start.
        await async_sleep(seconds)
        return ProcessState(None, size=offset)

    async def write_input(self, process_id: str, piece: bytes, deadline: Deadline) -> int:
        """Write to the input, and return how many bytes were taken in time."""
        staged, done = f"/tmp/.agentbay-{os.urandom(8).hex()}.b64", 0
        # As base64, because tools take only text, and input may be any bytes.
        call = WriteFile(path=staged, content=base64.b64encode(piece).decode())
        try:
            text_or_raise(await self._session._run_tool(call, deadline=deadline), FileError)
            # The script stops when the process does not read, so that no call hangs in the session. It is then run
            # again from the first byte that was not taken.
            while done < len(piece) and (not done or deadline.remaining() > 0):
                script = scripts.feed_script(process_id, staged, len(piece), done, _STDIN_STALL_SECONDS)
                done = int(await self._run_checked(script, process_id, deadline))
                if deadline.remaining() <= 0:
                    break
        except AgentBayError:
            await self._delete(staged)
            raise
        if done < len(piece):
            await self._delete(staged)
        return done

    async def close_input(self, process_id: str) -> None:
        """End the input."""
        await self._run_checked(scripts.close_input_script(process_id), process_id)

    async def signal(self, process_id: str, number: int) -> None:
        """Send a signal to the process group."""
        await self._run_checked(scripts.signal_script(process_id, number), process_id)

    async def remove(self, process_id: str) -> None:
        """Remove a process that has ended."""
        await self._run_checked(scripts.remove_script(process_id), process_id)

    async def cancel(self, process_id: str) -> None:
        """Kill and remove a process, and let none start under its id any more."""
        call = Shell(command=mark_internal(scripts.cancel_script(process_id)), timeout_ms=to_timeout_ms(CANCEL_SECONDS))
        scripts.read_output_or_raise(await self._session._run_tool(call, timeout=CANCEL_SECONDS), process_id)

    async def _delete(self, staged: str) -> None:
        with contextlib.suppress(AgentBayError):  # what happened before is what the caller must know
            await self._session._run_tool(DeleteFile(path=staged), timeout=_CLEANUP_SECONDS)

    async def _run_checked(self, script: str, process_id: str, deadline: Deadline | None = None) -> str:
        seconds = self._session.timeout
        if deadline is not None:  # the script looks at the time by itself, and needs some to answer
            seconds = min(seconds, max(deadline.remaining(), 0.0) + REPLY_MARGIN_SECONDS)
        return scripts.read_output_or_raise(await self._run(script, seconds), process_id)

    async def _run(self, script: str, seconds: float) -> Reply[ToolReply]:
        call = Shell(command=mark_internal(script), timeout_ms=to_timeout_ms(seconds))
        return await self._session._run_tool(call, timeout=seconds + REPLY_MARGIN_SECONDS, extend_while_paused=True)
