"""Background processes in a session."""

from __future__ import annotations

import codecs
import math
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from .._arguments import checked_arguments, refusal
from .._concurrency import AsyncSemaphore, async_sleep
from .._handles import Handle
from .._transport.deadline import Deadline, time_limit
from .._transport.files import to_bytes
from .._transport.poll import LAST_POLL_SECONDS, poll_delays
from .._transport.processes import ProcessState
from .._wire.process_tools import StartProcess
from ..errors import AgentBayError, CommandError, ConflictError, DeadlineExceeded
from .process_scripts import AsyncProcessScripts
from .process_tools import AsyncProcessTools
from .waiting import PauseExtension

if TYPE_CHECKING:
    from .session import AsyncSession

_STREAMS = ("stdout", "stderr")
_FOLLOW_POLL_SECONDS = 0.5  # wait of one call while both streams are followed; standard error may be that late
_OUTPUT_RETRY_SECONDS = 120.0  # seconds for which a lost connection is tried again
_PAUSE_POLL_SECONDS = 0.5  # between two polls of a process whose session is paused
_SIGKILL, _MAX_SIGNAL = 9, 64  # on Linux, where the session runs; other systems need not know them


def process_control(session: AsyncSession) -> AsyncProcessTools | AsyncProcessScripts:
    """Return the object that starts and controls the background processes of a session."""
    if any(tool.name == StartProcess.tool for tool in session.mcpTools):
        return AsyncProcessTools(session)
    return AsyncProcessScripts(session)


@checked_arguments()
class AsyncProcess(Handle):
    """A background process of a session.

    Made by `start()`, `attach()` and `list()` of `session.command`. It outlives this program, and its output is kept in
    the session: it can be read from the beginning as often as needed, and a lost connection loses nothing of it.

    Attributes:
        id: The id by which any client of the session can find it again.
        pid: Its process id in the session, and that of its process group.
        command: What was started, in lists perhaps shortened.
        exit_code: Its exit code, 128 + N by signal N; None as long as that is not known here.
        stdout, stderr: Its output streams.
    """

    _instead = "Send its id and the session_id instead, and call command.attach(id) there."

    def __init__(
        self, session: AsyncSession, process_id: str, pid: int, *, command: str = "", exit_code: int | None = None
    ) -> None:
        self.id, self.pid, self.command = process_id, pid, command
        self.exit_code = exit_code
        self._session = session
        self._control = process_control(session)
        self._stdin_lock = AsyncSemaphore(1)
        self.stdout = AsyncOutput(self, "stdout")
        self.stderr = AsyncOutput(self, "stderr")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, pid={self.pid}, exit_code={self.exit_code})"

    async def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit code.

        Args:
            timeout: Seconds to wait, without those for which the session is paused; None is without limit. After
                that the process still runs.

        Raises:
            DeadlineExceeded: Time ran out.
            CommandError: It is gone and has left no exit code.
            ConflictError: The session is paused already.

        Wire: CallMcpTool/wait_process, CallMcpTool/shell
        """
        deadline, waits_out_pause = Deadline(math.inf if timeout is None else timeout), False
        pauses = PauseExtension(self._session._transport, self._session.session_id, deadline)
        while self.exit_code is None:
            seconds = min(self._control.long_poll_seconds, max(deadline.remaining(), 0.0))
            await self._poll_output("", 0, seconds, waits_out_pause=waits_out_pause, deadline=deadline)
            waits_out_pause = True
            if self.exit_code is None and await pauses.is_over():
                raise DeadlineExceeded(f"Process {self.id} still runs after {deadline.seconds:g} s.")
        return self.exit_code

    async def show(self, *, timeout: float | None = None) -> None:
        """Follow it to its end and display its output.

        It appears in the notebook's cell, or on the terminal.

        Args:
            timeout: Seconds to follow it; None is to its end.

        Raises:
            CommandError: Output is lost, or the process is gone and has left no exit code.

        Wire: CallMcpTool/read_process_output, CallMcpTool/shell
        """
        with time_limit(timeout):
            from .._display import write_to_stream

            # Incremental, because the end of a chunk may split a character.
            decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in _STREAMS}
            async for name, data, done in self._follow(Deadline(math.inf)):
                write_to_stream(name, decoders[name].decode(data, done))

    async def poll(self, *, timeout: float | None = None) -> int | None:
        """Return the exit code, or None if it still runs.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            CommandError: It is gone and has left no exit code.

        Wire: CallMcpTool/wait_process, CallMcpTool/shell
        """
        with time_limit(timeout):
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

        Wire: CallMcpTool/write_process_input, CallMcpTool/write_file, CallMcpTool/shell
        """
        whole = to_bytes(data, "data")
        deadline = Deadline(self._session.timeout if timeout is None else timeout)
        # several writers take turns, so that their data is not mixed
        if not await self._stdin_lock.acquire(deadline.remaining()):
            raise deadline.exceeded_error(f"Writing to process {self.id}")
        try:
            sent = 0
            while sent < len(whole):
                piece = whole[sent : sent + self._control.input_bytes]
                sent += await self._control.write_input(self.id, piece, deadline)
                if sent < len(whole) and deadline.remaining() <= 0:
                    late = deadline.exceeded_error(f"Writing to process {self.id}")
                    raise DeadlineExceeded(late.message, hint="It does not read its input.", sent=sent)
        finally:
            self._stdin_lock.release()

    async def close_stdin(self, *, timeout: float | None = None) -> None:
        """Close its standard input.

        Data that was sent before is still read. Calling it again does nothing.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/write_process_input, CallMcpTool/shell
        """
        with time_limit(timeout):
            await self._control.close_input(self.id)

    async def signal(self, number: int, *, timeout: float | None = None) -> None:
        """Send a signal to its process group, if it still runs.

        Args:
            number: Such as `signal.SIGINT`, 1 to 64.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/signal_process, CallMcpTool/shell
        """
        with time_limit(timeout):
            if not 1 <= number <= _MAX_SIGNAL:
                raise refusal("number", f"the number of a signal, 1 to {_MAX_SIGNAL}", number)
            await self._control.signal(self.id, int(number))

    async def kill(self, *, timeout: float | None = None) -> None:
        """Kill its process group.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/signal_process, CallMcpTool/shell
        """
        with time_limit(timeout):
            await self._control.signal(self.id, _SIGKILL)

    async def remove(self, *, timeout: float | None = None) -> None:
        """Remove its output, which the session otherwise keeps to its end.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            CommandError: It still runs.

        Wire: CallMcpTool/remove_process, CallMcpTool/shell
        """
        with time_limit(timeout):
            await self._control.remove(self.id)

    async def _follow(self, deadline: Deadline) -> AsyncIterator[tuple[str, bytes, bool]]:
        """Yield the output of both streams as it comes.

        That is the name of a stream, new bytes, and whether these are its last. At least every half second, and at the
        deadline, something is yielded, perhaps without bytes.
        """
        offsets = dict.fromkeys(_STREAMS, 0)
        while offsets:
            for number, name in enumerate(list(offsets)):  # only the call for the first stream waits
                seconds = 0.0 if number else min(_FOLLOW_POLL_SECONDS, max(deadline.remaining(), 0.0))
                state = await self._poll_output(name, offsets[name], seconds, waits_out_pause=True, deadline=deadline)
                offsets[name] += len(state.data)
                done = state.exit_code is not None and offsets[name] >= state.size
                if done:
                    del offsets[name]
                yield name, state.data, done

    async def _poll_output(
        self,
        stream: str,
        offset: int,
        seconds: float,
        *,
        waits_out_pause: bool = False,
        deadline: Deadline | None = None,
    ) -> ProcessState:
        """Wait for output beyond an offset, or for the end.

        Reading consumes nothing, so the call is repeated if its answer was lost. If the session is paused after the
        first call, or the caller `waits_out_pause`, this waits for the end of the pause, which another task or program
        can bring about. After the deadline nothing is repeated.
        """
        retry_until = Deadline(_OUTPUT_RETRY_SECONDS)
        if deadline is not None:
            retry_until = deadline.capped(_OUTPUT_RETRY_SECONDS, at_least=LAST_POLL_SECONDS)
        for delay in poll_delays(retry_until, first=0.1, factor=2.0, cap=5.0):
            try:
                state = await self._control.follow(self.id, stream, offset, seconds)
            except ConflictError:
                if not waits_out_pause:
                    raise
                await async_sleep(_PAUSE_POLL_SECONDS)
                return ProcessState(None, size=offset)
            except AgentBayError as error:
                waits_out_pause = True
                if not error.retryable or retry_until.remaining() <= delay:
                    raise
                await async_sleep(delay)
                continue
            # What it wrote before it was killed is given out first.
            if state.is_lost and not state.data:
                raise CommandError(f"Process {self.id} is gone and has left no exit code: it was killed from outside.")
            if state.exit_code is not None and (not stream or offset + len(state.data) == state.size):
                self.exit_code = state.exit_code
            return state
        raise retry_until.exceeded_error(f"Reading process {self.id}")


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
            state = await self._process._poll_output(self._stream, offset, self._process._control.long_poll_seconds)
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
