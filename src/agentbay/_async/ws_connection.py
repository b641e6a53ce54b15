"""A connection of a session's WebSocket as long as it lasts, and the streams that go over it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Generator
from typing import TYPE_CHECKING, Any

from .._transport.deadline import Deadline
from .._transport.ws import Arrival, Ended, Event, Exchanges, Ignored, Kind, Push, cancelling
from .._websocket import LARGEST_FRAME, AsyncFlag, AsyncMailbox, AsyncSocket, AsyncWorker
from ..errors import AgentBayError, ClientClosedError, InvalidArgumentError, TransportError, WsCancelledError

if TYPE_CHECKING:
    from .._wire.frames import Frame

SEND_SECONDS = 30.0
_log = logging.getLogger("agentbay")


class AsyncConnection:
    """A connection as long as it lasts: who waits for what, and the worker that reads it."""

    def __init__(
        self, socket: AsyncSocket, on_push: Callable[[Push], None], on_lost: Callable[[AgentBayError], None]
    ) -> None:
        self.lost = AsyncFlag()
        self._socket = socket
        self._on_push, self._on_lost = on_push, on_lost
        self._exchanges = Exchanges()
        self._waiting: dict[str, AsyncMailbox[Any]] = {}
        self._on_answer: dict[str, Callable[[dict[str, Any]], None]] = {}
        self._why: AgentBayError | None = None
        self._reader = AsyncWorker(self._read)

    def __len__(self) -> int:
        return len(self._exchanges) + len(self._waiting) + len(self._on_answer)

    def begin(
        self,
        kind: Kind,
        target: str,
        data: dict[str, Any],
        on_answer: Callable[[dict[str, Any]], None] | None = None,
    ) -> tuple[Frame, AsyncMailbox[Any]]:
        """Begin an exchange: return the frame to send, and where to wait for what comes."""
        mailbox: AsyncMailbox[Any] = AsyncMailbox()
        frame = self._exchanges.open(kind, target, data)
        self._waiting[frame.id] = mailbox
        if on_answer is not None:
            self._on_answer[frame.id] = on_answer
        return frame, mailbox

    @contextlib.contextmanager
    def exchange(
        self,
        kind: Kind,
        target: str,
        data: dict[str, Any],
        on_answer: Callable[[dict[str, Any]], None] | None = None,
    ) -> Generator[tuple[Frame, AsyncMailbox[Any]], None, None]:
        """Begin an exchange that is over at the end of the block, whatever happens in it."""
        frame, mailbox = self.begin(kind, target, data, on_answer)
        try:
            yield frame, mailbox
        finally:
            self.forget(frame.id)

    def forget(self, frame_id: str) -> bool:
        """End an exchange; False if it was over already."""
        self._waiting.pop(frame_id, None)
        self._on_answer.pop(frame_id, None)
        return self._exchanges.forget(frame_id)

    def further(self, frame_id: str, data: dict[str, Any]) -> Frame | None:
        """Return a further frame of an exchange, None if it is over."""
        return self._exchanges.further(frame_id, data)

    async def send(self, frame: Frame, deadline: Deadline) -> None:
        """Send a frame.

        Raises:
            AgentBayError: It could not be sent.
        """
        text = frame.encode()
        if len(text) > LARGEST_FRAME // 4 and len(text.encode()) > LARGEST_FRAME:
            raise InvalidArgumentError(f"{frame.target}: more than {LARGEST_FRAME >> 20} MiB cannot be sent at once.")
        await self._socket.send(text, deadline.check(frame.target))

    async def _read(self) -> None:
        try:
            while True:
                self._take(self._exchanges.receive(await self._socket.receive()))
        except AgentBayError as error:
            self._why = error if self._why is None else self._why
        finally:
            closed = ClientClosedError("The WebSocket of this session is closed.")
            self._end(closed if self._why is None else self._why)

    def _take(self, arrival: Arrival) -> None:
        match arrival:
            case Push():
                self._on_push(arrival)
            case Event():
                self._hand_over(arrival, self._waiting.get(arrival.id))
            case Ended():
                on_answer = self._on_answer.pop(arrival.id, None)
                if on_answer is not None and arrival.error is None:
                    arrival = _checked(arrival, on_answer)
                self._hand_over(arrival, self._waiting.pop(arrival.id, None))
            case Ignored():
                _log.warning("A WebSocket frame was ignored: %s", arrival.why)

    def _hand_over(self, arrival: Arrival, mailbox: AsyncMailbox[Any] | None) -> None:
        if mailbox is not None:
            mailbox.put(arrival)

    def _end(self, error: AgentBayError) -> None:
        self.lost.set()
        for frame_id in self._exchanges.forget_all():
            self._on_answer.pop(frame_id, None)
            self._hand_over(Ended(frame_id, {}, error), self._waiting.pop(frame_id, None))
        self._on_lost(error)

    async def aclose(self) -> None:
        """Close it; what waits for an answer fails."""
        self._why = ClientClosedError("The WebSocket of this session was closed meanwhile.")
        await self._socket.aclose()
        await self._reader.stop()


class AsyncStream:
    """What happens in the course of one request: iterate over its events, then read `end`.

    As a context manager it is cancelled at the end of the block if it has not ended by then.

    Attributes:
        id: The id of the request.
        end: The data of the end, once it has come.
    """

    def __init__(
        self, connection: AsyncConnection, frame: Frame, arrivals: AsyncMailbox[Any], deadline: Deadline
    ) -> None:
        self.id = frame.id
        self.end: dict[str, Any] | None = None
        self._connection, self._frame, self._arrivals, self._deadline = connection, frame, arrivals, deadline
        self._error: AgentBayError | None = None

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cancel()

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            event = await self.next_event()
            if event is None:
                return
            yield event

    async def next_event(self) -> dict[str, Any] | None:
        """Return the next event, None after the last.

        Raises:
            ToolError: The service reports a failure.
            WsCancelledError: It was cancelled.
            AgentBayError: The end will not come any more, or not in time; then the service is told to stop.
        """
        if self._error is not None:
            raise self._error
        if self.end is not None:
            return None
        try:
            arrival = await self._arrivals.take(self._deadline.remaining())
        except TimeoutError as error:
            late = self._deadline.exceeded(self._frame.target)
            await self._stop(late)
            raise late from error
        if isinstance(arrival, Event):
            return arrival.data
        if arrival.error is not None:
            self._error = arrival.error
            raise arrival.error
        self.end = arrival.data
        return None

    async def wait_end(self) -> dict[str, Any]:
        """Pass over what events are left; return the data of the end.

        Raises:
            AgentBayError: As for `next_event`.
        """
        while await self.next_event() is not None:
            pass
        assert self.end is not None
        return self.end

    async def write(self, data: dict[str, Any]) -> None:
        """Say something more within the same request.

        Raises:
            WsCancelledError: It is over.
            AgentBayError: It could not be sent.
        """
        frame = self._connection.further(self.id, data)
        if frame is None:
            raise WsCancelledError("The stream is over.", action=self._frame.target)
        await self._connection.send(frame, self._deadline.within(SEND_SECONDS))

    async def cancel(self) -> None:
        """Stop, and tell the service; who waits for the end gets a `WsCancelledError`. Once it is over, do nothing."""
        await self._stop(WsCancelledError(action=self._frame.target))

    async def _stop(self, why: AgentBayError) -> None:
        frame = self._connection.further(self.id, cancelling(self._frame.data or {}))
        if not self._connection.forget(self.id):
            return
        self._error = why
        self._arrivals.put(Ended(self.id, {}, why))
        if frame is not None:
            with contextlib.suppress(TransportError):  # whoever is not there any more needs not be told
                await self._connection.send(frame, Deadline(SEND_SECONDS))


def _checked(arrival: Ended, on_answer: Callable[[dict[str, Any]], None]) -> Ended:
    try:
        on_answer(arrival.data)
    except AgentBayError as error:  # it cannot be used: whoever waits for it is to know, not who reads
        return arrival._replace(error=error)
    return arrival
