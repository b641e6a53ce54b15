"""A terminal that a client is attached to."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from .._arguments import checked_arguments
from .._concurrency import AsyncSemaphore
from .._handles import Handle
from .._transport.deadline import Deadline, operation_deadline, time_limit
from .._transport.files import to_bytes
from .._websocket import AsyncEvent, AsyncQueue, AsyncWorker
from .._wire import pty as wire
from .._wire.converter import MalformedError, structure
from ..errors import AgentBayError, DeadlineExceeded, PtyError, PtyNotConnectedError, ReplyError
from .callbacks import invoke_callback
from .waiting import PauseExtension
from .ws_client import CALL_TIMEOUT_SECONDS, Listener

if TYPE_CHECKING:
    from .pty import AsyncPty
    from .ws_client import AsyncReconnectingWebSocket

_INPUT_CHUNK_BYTES = 256 << 10  # of input in one frame
_MAX_UNREAD_BYTES = 16 << 20  # output kept for a reader who does not read
_MAX_EARLY_PUSHES = 256  # pushes kept until the terminal's id is known
_CONNECT_HINT = "If its program still runs, pty.connect() takes it up again."
_logger = logging.getLogger("agentbay")


@checked_arguments(cols=None, rows=None)
class AsyncPtyHandle(Handle):
    """A terminal that this client is attached to.

    Iterate over it for its output, until its program ends, or `read` it, unless `on_data` receives it. As a context
    manager it kills the program at the end of the block, if that still runs.

    Attributes:
        dropped: Bytes of output that were lost because nobody read them; the newest 16 MiB of unread output are kept.
    """

    _instead = "Send its pty_session_id and the session_id instead, and call pty.connect(pty_session_id) there."

    def __init__(
        self, pty_session_id: str, pty_module: AsyncPty, on_data: Callable[[bytes], object] | None = None
    ) -> None:
        self.dropped = 0
        self._id, self._pty, self._on_data = pty_session_id, pty_module, on_data
        self._exit_code: int | None = None
        self._error: PtyError | None = None
        self._is_attached = self._acknowledges_input = False
        self._input_lock = AsyncSemaphore(1)
        self._early_pushes: list[wire.PtyPush] = []
        self._output_queue: AsyncQueue[bytes | None] = AsyncQueue()
        self._unread = bytearray()  # taken from the queue, and not given to the user yet
        # each is counted by one side alone, so no lock is needed
        self._received_bytes = self._consumed_bytes = 0
        self._ended, self._callbacks_done = AsyncEvent(), AsyncEvent()
        self._unsubscribe: Callable[[], None] = _no_op
        self._delivery_worker = AsyncWorker(self._deliver_output) if on_data is not None else None

    def __repr__(self) -> str:
        state = "connected" if self.is_connected else "not connected"
        return f"{type(self).__name__}({self._id!r}, {state}, exit_code={self._exit_code})"

    async def __aenter__(self) -> AsyncPtyHandle:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.is_connected:
            await self.kill()

    @property
    def pty_session_id(self) -> str:
        """The terminal's id."""
        return self._id

    @property
    def is_connected(self) -> bool:
        """Whether the program is known to run and its output arrives here."""
        return not self._ended.is_set()

    @property
    def exit_code(self) -> int | None:
        """The program's exit code, or None if not known.

        It is 128 + N if signal N ended the program.
        """
        return self._exit_code

    async def send_input(self, data: bytes | str, *, timeout: float | None = None) -> None:
        r"""Send input, as if typed.

        The return key is "\r" or "\n", Ctrl-C is "\x03". Where the service acknowledges input, this returns when the
        terminal has taken all of it; input of several tasks or threads is not mixed.

        Args:
            timeout: Seconds it may take; None is 30.

        Raises:
            PtyError: The program does not read, so the rest of the input was not taken.
            PtyNotConnectedError: The program has ended, or the connection.
            TransportError: It could not be sent.

        Wire: WebSocket PTY_SERVER/pty.input
        """
        with time_limit(timeout):
            whole = to_bytes(data, "data")
            await self._check_connected()
            if not self._acknowledges_input:
                await self._pty._send("pty.input", self._make_input(whole))
                return
            deadline = operation_deadline(CALL_TIMEOUT_SECONDS)
            if not await self._input_lock.acquire(deadline.remaining()):
                raise deadline.exceeded_error(f"Input for the terminal {self._id}")
            try:
                for start in range(0, max(len(whole), 1), _INPUT_CHUNK_BYTES):
                    piece = whole[start : start + _INPUT_CHUNK_BYTES]
                    # The next piece waits for the acknowledgement of this one: back pressure by a program that reads
                    # slowly.
                    await self._pty._call("pty.input", self._make_input(piece, acknowledge=True))
            finally:
                self._input_lock.release()

    def _make_input(self, data: bytes, *, acknowledge: bool | None = None) -> wire.PtyInput:
        encoding, text = wire.encode_bytes(data)
        return wire.PtyInput(pty_session_id=self._id, encoding=encoding, data=text, acknowledge=acknowledge)

    async def resize(self, cols: int, rows: int, *, timeout: float | None = None) -> None:
        """Change the size, and notify the program.

        Args:
            timeout: Seconds it may take; None is 30.

        Raises:
            PtyNotConnectedError: The program has ended, or the connection.
            PtyError: The size is impossible: each may be 1 to 500 characters.
            TransportError: It could not be sent.

        Wire: WebSocket PTY_SERVER/pty.resize
        """
        with time_limit(timeout):
            await self._check_connected()
            check_size(cols, rows)
            await self._pty._send("pty.resize", wire.PtyResize(pty_session_id=self._id, cols=cols, rows=rows))

    async def kill(self, *, timeout: float | None = None) -> None:
        """Kill the program and its child processes.

        `wait()` then returns its exit code.

        Args:
            timeout: Seconds it may take; None is 30.

        Raises:
            PtyNotConnectedError: The program has ended, or the connection.
            PtyError: The service refuses.
            TransportError: There is no answer.

        Wire: WebSocket PTY_SERVER/pty.kill
        """
        with time_limit(timeout):
            await self._check_connected()
            await self._pty.kill(self._id)

    async def wait(self, timeout_s: float | None = None, *, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code.

        By then `on_data` has received all output.

        Args:
            timeout_s: Seconds to wait, without those for which the session is paused; None is as long as it takes.
            timeout: The same; takes precedence over `timeout_s`.

        Raises:
            TimeoutError: It has not ended in time; it goes on.
            PtyError: The connection was lost, or closed, or the service reports a failure: the exit code is not known.
        """
        limit = timeout_s if timeout is None else timeout
        pauses = self._limit(limit)
        done = await _happens_in_time(self._ended, pauses)
        # A callback that calls `wait` would otherwise wait for its own end.
        if done and self._delivery_worker is not None and not self._delivery_worker.is_current():
            done = await _happens_in_time(self._callbacks_done, pauses)
        if not done:
            raise DeadlineExceeded(f"The terminal {self._id} has not ended within {limit:g} s.", action="wait")
        if self._exit_code is None:
            raise await self._explained_error()
        return self._exit_code

    def disconnect(self) -> None:
        """Detach from the terminal, whose program goes on.

        `pty.connect()` finds it again. Calling it again does nothing.
        """
        if self.is_connected:
            self._finish(PtyNotConnectedError(f"The terminal {self._id} was disconnected from this side."))

    async def read(self, timeout: float | None = None) -> bytes:
        """Return the output that has not been read yet, and wait for some.

        Args:
            timeout: Seconds to wait for output, without those for which the session is paused; None is as long as it
                takes.

        Returns:
            At least one byte; b"" if the program has ended and all of it was read.

        Raises:
            DeadlineExceeded: There was no output in time.
            PtyError: As when iterating.
        """
        if not self._unread:
            await self._receive(self._limit(timeout))
        return self._take(len(self._unread))

    async def read_until(self, pattern: str | bytes | re.Pattern[bytes], timeout: float | None = 30.0) -> bytes:
        """Return the output up to the end of a text.

        The rest is left for the next read.

        Args:
            pattern: The text, as it is; or a compiled regular expression for bytes.
            timeout: Seconds to wait for it, without those for which the session is paused; None is as long as it takes.

        Raises:
            DeadlineExceeded: It did not appear in time. What has come so far can still be read.
            PtyError: The program ended before it appeared, or wrote 16 MiB without it; or as when iterating.
        """
        wanted = pattern if isinstance(pattern, re.Pattern) else re.compile(re.escape(to_bytes(pattern, "pattern")))
        pauses = self._limit(timeout)
        while (found := wanted.search(self._unread)) is None:
            if len(self._unread) > _MAX_UNREAD_BYTES:
                raise PtyError(f"The terminal {self._id} wrote {len(self._unread)} bytes without {pattern!r:.80}.")
            if not await self._receive(pauses, f"Waiting for {pattern!r:.80}"):
                raise PtyError(f"The terminal {self._id} ended before {pattern!r:.80} appeared.")
        return self._take(found.end())

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the output until the program ends.

        Raises:
            PtyError: The connection was lost, or the service reports a failure; or `on_data` takes the output.
        """
        while self._unread or await self._receive(self._limit(None)):
            yield self._take(len(self._unread))

    def _take(self, size: int) -> bytes:
        taken = bytes(self._unread[:size])
        del self._unread[:size]
        return taken

    def _limit(self, seconds: float | None) -> PauseExtension:
        """Return a time limit to which pauses do not count.

        None is no limit.
        """
        session = self._pty.session
        return PauseExtension(
            session._transport, session.session_id, Deadline(math.inf if seconds is None else seconds)
        )

    async def _receive(self, pauses: PauseExtension, doing: str = "Waiting for output") -> bool:
        """Wait for more output, and return False at its end."""
        if self._on_data is not None:
            raise PtyError("on_data takes the output of this terminal, so there is nothing to read.")
        piece = await self._next_piece(pauses, doing)
        if piece is not None:
            self._consumed_bytes += len(piece)
            self._unread += piece
            return True
        self._output_queue.put(None)  # for whoever reads next
        if self._exit_code is None and not isinstance(self._error, PtyNotConnectedError):
            raise await self._explained_error()
        return False

    async def _next_piece(self, pauses: PauseExtension, doing: str) -> bytes | None:
        while True:
            try:
                return await self._output_queue.get(max(pauses.deadline.remaining(), 0.0))
            except TimeoutError:
                if await pauses.is_over():
                    raise pauses.deadline.exceeded_error(f"{doing} from the terminal {self._id}") from None

    async def _deliver_output(self) -> None:
        assert self._on_data is not None
        while (piece := await self._output_queue.get()) is not None:
            self._consumed_bytes += len(piece)
            await invoke_callback(self._on_data, piece)
        self._callbacks_done.set()

    async def _check_connected(self) -> None:
        if self.is_connected:
            return
        if self._exit_code is not None:
            raise PtyNotConnectedError
        raise await self._pty.session.ws.explain(PtyNotConnectedError(hint=_CONNECT_HINT))

    async def _explained_error(self) -> AgentBayError:
        return await self._pty.session.ws.explain(self._error or PtyNotConnectedError())

    def _subscribe(self, websocket: AsyncReconnectingWebSocket) -> None:
        self._unsubscribe = websocket.add_listener(Listener(wire.PTY_TARGET, self._on_push, self._on_lost))

    def _on_attached(self, data: dict[str, Any]) -> None:
        """Take the terminal's id from the answer, and handle earlier pushes."""
        answer = parse_answer(data)
        self._id = answer.pty_session_id or self._id
        if not self._id:
            raise ReplyError("The answer to pty.create has no ptySessionId.", action=wire.PTY_TARGET)
        self._is_attached = True
        self._acknowledges_input = answer.acknowledges_input is True
        early, self._early_pushes = self._early_pushes, []
        if answer.replay:
            # output pushed before the answer is part of the replay
            early = [push for push in early if push.event_type != wire.OUTPUT_EVENT]
            self._buffer_output(_decode_replay(answer.replay))
        for push in early:
            self._handle_push(push)
        if answer.exit_code is not None:
            self._exit_code = answer.exit_code
            self._finish(None)

    def _on_push(self, data: dict[str, Any]) -> None:
        try:
            push: wire.PtyPush = structure(data, wire.PtyPush, path=wire.PTY_TARGET)
            if self._is_attached:
                self._handle_push(push)
            # Pushes of all terminals of the session arrive here, so a busy neighbour must not fill the memory
            # meanwhile.
            elif len(self._early_pushes) < _MAX_EARLY_PUSHES:
                self._early_pushes.append(push)
        except MalformedError as error:
            _logger.warning("A push of %s was ignored: %s", wire.PTY_TARGET, error)

    def _handle_push(self, push: wire.PtyPush) -> None:
        # All terminals of a session share one target, and a push may still be under way after the end.
        if push.pty_session_id != self._id or not self.is_connected:
            return
        if push.event_type == wire.OUTPUT_EVENT:
            self._buffer_output(wire.decode_bytes(push.encoding, push.data or ""))
        elif push.event_type == wire.EXIT_EVENT:
            self._exit_code = -1 if push.exit_code is None else push.exit_code
            self._finish(None)
        elif push.event_type == wire.ERROR_EVENT:
            self._finish(PtyError(push.error or "The service reports a failure and gives no reason."))

    def _buffer_output(self, piece: bytes) -> None:
        self._received_bytes += len(piece)
        self._output_queue.put(piece)
        while self._received_bytes - self._consumed_bytes - self.dropped > _MAX_UNREAD_BYTES:
            # The oldest output goes first. The reader of the WebSocket may not wait for the user: that would stop every
            # other exchange of the session.
            oldest = self._output_queue.get_or_none()
            if not oldest:
                return
            self.dropped += len(oldest)

    def _on_lost(self, error: AgentBayError) -> None:
        if not self.is_connected:
            return
        message = f"The connection to the terminal {self._id} was lost, so its exit code is not known."
        lost = PtyError(message, hint=_CONNECT_HINT)
        lost.__cause__ = error
        self._finish(lost)

    def _finish(self, error: PtyError | None) -> None:
        # Before the event, because `wait` reads it as soon as it wakes.
        self._error = error
        self._unsubscribe()
        self._ended.set()
        self._output_queue.put(None)


async def _happens_in_time(event: AsyncEvent, pauses: PauseExtension) -> bool:
    while not await event.wait(max(pauses.deadline.remaining(), 0.0)):
        if await pauses.is_over():
            return False
    return True


def _no_op() -> None:
    return


def check_size(cols: int, rows: int) -> None:
    """Refuse an impossible size.

    Raises:
        PtyError: Says which sizes are possible.
    """
    for size in (cols, rows):
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= wire.MAX_TERMINAL_SIZE:
            raise PtyError(f"Invalid terminal size: cols={cols}, rows={rows} (must be 1-{wire.MAX_TERMINAL_SIZE})")


def _decode_replay(text: str) -> bytes:
    try:
        return wire.decode_bytes("base64", text)
    except MalformedError as error:
        raise ReplyError(
            f"What {wire.PTY_TARGET} has kept of the output cannot be read: {error}.", action=wire.PTY_TARGET
        ) from error


def parse_answer(data: Mapping[str, Any]) -> wire.PtyAnswer:
    """Read the answer to a request.

    Raises:
        ReplyError: It cannot be read.
    """
    result = data.get("result", data)
    try:
        answer: wire.PtyAnswer = structure(
            result if isinstance(result, dict) else {}, wire.PtyAnswer, path=wire.PTY_TARGET
        )
    except MalformedError as error:
        raise ReplyError(f"The answer of {wire.PTY_TARGET} cannot be read: {error}.", action=wire.PTY_TARGET) from error
    return answer
