"""Background processes in a session."""

from __future__ import annotations

import base64
import codecs
import contextlib
import math
import secrets
import signal as signals
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from .._arguments import checked_arguments
from .._concurrency import AsyncSemaphore, async_sleep
from .._handles import Handle
from .._transport import process_scripts as commands
from .._transport.deadline import Deadline, to_timeout_ms
from .._transport.files import to_bytes
from .._transport.poll import poll_delays
from .._wire.tools import DeleteFile, Shell, ToolReply, WriteFile, mark_internal
from ..errors import AgentBayError, CommandError, DeadlineExceeded, FileError
from .service import text_or_raise

if TYPE_CHECKING:
    from .._transport.reply import Reply
    from .session import AsyncSession

_LONG_POLL_SECONDS = 5.0  # seconds that one call waits inside the session for something to happen
_SHOW_POLL_SECONDS = 0.5  # the same while output is shown: standard error may be late by so much
_LONG_POLL_MARGIN_SECONDS = 15.0  # seconds that the answer to a call may take beyond that
_OUTPUT_RETRY_SECONDS = 120.0  # seconds for which a lost connection is tried again
_STDIN_CHUNK_BYTES = 36 * 1024  # bytes of input in one call; as base64 it fits one write_file
_CLEANUP_SECONDS = 5.0  # for the removal of input that was not taken
_STDIN_STALL_SECONDS = 2.0  # seconds that a process has to take a block of input


@checked_arguments()
class AsyncProcess(Handle):
    """A background process of a session.

    Made by `command.start()` and `command.attach()`. It outlives this program, and its output is kept in the session:
    it can be read from the beginning as often as needed, and a lost connection loses nothing of it.

    Attributes:
        id: The id by which any client of the session can find it again.
        pid: Its process id in the session, and that of its process group.
        exit_code: Its exit code, 128 + N by signal N; None as long as that is not known here.
        stdout, stderr: Its output streams.
    """

    _instead = "Send its id and the session_id instead, and call command.attach(id) there."

    def __init__(self, session: AsyncSession, process_id: str, pid: int) -> None:
        self.id, self.pid = process_id, pid
        self.exit_code: int | None = None
        self._session = session
        self._stdin_lock = AsyncSemaphore(1)
        self.stdout = AsyncOutput(self, "stdout")
        self.stderr = AsyncOutput(self, "stderr")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, pid={self.pid}, exit_code={self.exit_code})"

    async def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit code.

        Args:
            timeout: Seconds to wait; None is without limit. It runs on if they are over.

        Raises:
            DeadlineExceeded: Time ran out.
            CommandError: It is gone and has left no exit code.

        Wire: CallMcpTool/shell
        """
        deadline = Deadline(math.inf if timeout is None else timeout)
        while self.exit_code is None:
            await self._poll_output("", 0, min(_LONG_POLL_SECONDS, max(deadline.remaining(), 0.0)))
            if self.exit_code is None and deadline.remaining() <= 0:
                raise DeadlineExceeded(f"Process {self.id} still runs after {deadline.seconds:g} s.")
        return self.exit_code

    async def show(self) -> None:
        """Follow it to its end and display its output.

        It appears in the notebook's cell, or on the terminal.

        Raises:
            CommandError: Output is lost, or the process is gone and has left no exit code.

        Wire: CallMcpTool/shell
        """
        from .._display import write_to_stream

        # Incremental, because the end of a chunk may split a character.
        decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")}
        shown = dict.fromkeys(decoders, 0)
        while decoders:
            for number, name in enumerate(list(decoders)):  # only for the first one is waited
                state = await self._poll_output(name, shown[name], 0.0 if number else _SHOW_POLL_SECONDS)
                shown[name] += len(state.data)
                done = state.exit_code is not None and shown[name] >= state.size
                write_to_stream(name, decoders[name].decode(state.data, done))
                if done:
                    del decoders[name]

    async def poll(self) -> int | None:
        """Return the exit code, or None if it still runs.

        Raises:
            CommandError: It is gone and has left no exit code.

        Wire: CallMcpTool/shell
        """
        if self.exit_code is None:
            await self._poll_output("", 0, 0.0)
        return self.exit_code

    async def send_stdin(self, data: str | bytes, timeout: float | None = None) -> None:
        """Write to its standard input.

        When this returns, all data is in its pipe or was read.

        Args:
            data: Text, which is written as UTF-8, or bytes.
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            CommandError: It has ended, or its input was closed.
            DeadlineExceeded: It does not read; `extra["sent"]` tells how many bytes it was given.

        Wire: CallMcpTool/write_file, CallMcpTool/shell
        """
        whole = to_bytes(data, "data")
        deadline = Deadline(self._session.timeout if timeout is None else timeout)
        # several writers take turns, so that their data is not mixed
        if not await self._stdin_lock.acquire(deadline.remaining()):
            raise deadline.exceeded_error(f"Writing to process {self.id}")
        try:
            for start in range(0, len(whole), _STDIN_CHUNK_BYTES):
                await self._write_stdin_chunk(whole[start : start + _STDIN_CHUNK_BYTES], start, deadline)
        finally:
            self._stdin_lock.release()

    async def close_stdin(self) -> None:
        """Close its standard input.

        Data that was sent before is still read. Calling it again does nothing.

        Wire: CallMcpTool/shell
        """
        await self._run_checked(commands.close_input_script(self.id))

    async def signal(self, number: int) -> None:
        """Send a signal to its process group, if it still runs.

        Args:
            number: Such as `signal.SIGINT`.

        Wire: CallMcpTool/shell
        """
        await self._run_checked(commands.signal_script(self.id, signals.Signals(number).name.removeprefix("SIG")))

    async def kill(self) -> None:
        """Kill its process group.

        Wire: CallMcpTool/shell
        """
        await self.signal(signals.SIGKILL)

    async def remove(self) -> None:
        """Remove its output, which the session otherwise keeps to its end.

        Raises:
            CommandError: It still runs.

        Wire: CallMcpTool/shell
        """
        await self._run_checked(commands.remove_script(self.id))

    async def _poll_output(self, stream: str, offset: int, seconds: float) -> commands.ProcessState:
        """Wait for output beyond an offset, or for the end.

        Reading is idempotent, so it is repeated when the answer was lost.

        Asking takes nothing away, so it is asked again when the answer was lost.
        """
        retry_until = Deadline(_OUTPUT_RETRY_SECONDS)
        for delay in poll_delays(retry_until, first=0.1, factor=2.0, cap=5.0):
            try:
                reply = await self._run(
                    commands.follow_script(self.id, stream, offset, seconds), seconds + _LONG_POLL_MARGIN_SECONDS
                )
            except AgentBayError as error:
                if not error.retryable or retry_until.remaining() <= delay:
                    raise
                await async_sleep(delay)
                continue
            state = commands.read_state(reply, self.id)
            # What it wrote before it was killed is given out first.
            if state.is_lost and not state.data:
                raise CommandError(f"Process {self.id} is gone and has left no exit code: it was killed from outside.")
            if state.exit_code is not None and (not stream or offset + len(state.data) == state.size):
                self.exit_code = state.exit_code
            return state
        raise retry_until.exceeded_error(f"Reading process {self.id}")

    async def _write_stdin_chunk(self, piece: bytes, before: int, deadline: Deadline) -> None:
        staged, done = f"/tmp/.agentbay-{secrets.token_hex(8)}.b64", 0
        # As base64, because tools take only text, and input may be any bytes.
        call = WriteFile(path=staged, content=base64.b64encode(piece).decode())
        try:
            text_or_raise(await self._session._run_tool(call, deadline=deadline), FileError)
            # The script stops when the process does not read, so that no call hangs in the session. It is then run
            # again from the first byte that was not taken.
            while done < len(piece):
                command = commands.feed_script(self.id, staged, len(piece), done, _STDIN_STALL_SECONDS)
                done = int(await self._run_checked(command))
                if done < len(piece) and deadline.remaining() <= 0:
                    late = deadline.exceeded_error(f"Writing to process {self.id}")
                    raise DeadlineExceeded(late.message, hint="It does not read its input.", sent=before + done)
        except AgentBayError:
            with contextlib.suppress(AgentBayError):  # the failure before it is the one to report
                await self._session._run_tool(DeleteFile(path=staged), timeout=_CLEANUP_SECONDS)
            raise

    async def _run_checked(self, command: str) -> str:
        return commands.read_output_or_raise(await self._run(command, self._session.timeout), self.id)

    async def _run(self, command: str, seconds: float) -> Reply[ToolReply]:
        call = Shell(command=mark_internal(command), timeout_ms=to_timeout_ms(seconds))
        return await self._session._run_tool(call, timeout=seconds + _LONG_POLL_MARGIN_SECONDS)


@checked_arguments()
class AsyncOutput:
    """An output stream of a process, as an iterator of text.

    No character is split between two pieces, and bytes that are not UTF-8 become replacement characters; `chunks()`
    gives the bytes. Each iteration starts at the beginning, and ends when the process has ended and all its output
    was given.
    """

    def __init__(self, process: AsyncProcess, stream: str) -> None:
        self._process, self._stream = process, stream

    async def __aiter__(self) -> AsyncIterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        async for chunk in self.chunks():
            if text := decoder.decode(chunk):
                yield text
        if text := decoder.decode(b"", True):
            yield text

    async def chunks(self, offset: int = 0) -> AsyncIterator[bytes]:
        """Iterate over its bytes.

        Args:
            offset: Where to start, in bytes from the beginning.

        Raises:
            CommandError: Output is lost, or the process is gone and has left no exit code; then all that it wrote
                has been given before.
        """
        done = False
        while not done:
            state = await self._process._poll_output(self._stream, offset, _LONG_POLL_SECONDS)
            offset += len(state.data)
            done = state.exit_code is not None and offset >= state.size
            if state.data:
                yield state.data

    async def lines(self) -> AsyncIterator[str]:
        """Iterate over its lines, without line ends."""
        rest = ""
        async for text in self:
            # Not `splitlines`, which would also split at form feeds and other characters that end no line in a shell.
            *whole, rest = (rest + text).split("\n")
            for line in whole:
                yield line
        if rest:
            yield rest

    async def read(self) -> str:
        """Return all of it when the process has ended."""
        return "".join([text async for text in self])
