"""A single WebSocket connection and the streams that use it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Generator
from typing import TYPE_CHECKING, Any

from .._concurrency import AsyncCallable
from .._transport.deadline import Deadline
from .._transport.ws_protocol import (
    Arrival,
    ExchangeEnded,
    ExchangeKind,
    IgnoredFrame,
    PendingExchanges,
    PushMessage,
    StreamEvent,
    make_cancel_data,
)
from .._websocket import AsyncEvent, AsyncQueue, AsyncWebSocket, AsyncWorker
from ..errors import AgentBayError, ClientClosedError, InvalidArgumentError, TransportError, WsCancelledError

if TYPE_CHECKING:
    from .._wire.frames import Frame
    from .ws_client import AsyncWsClient

SEND_TIMEOUT_SECONDS = 30.0  # until a frame must have been sent
_logger = logging.getLogger("agentbay")


class AsyncWsConnection:
    """A single connection: its pending exchanges and the worker that reads it."""

    def __init__(
        self, socket: AsyncWebSocket, on_push: Callable[[PushMessage], None], on_lost: Callable[[AgentBayError], None]
    ) -> None:
        self.lost = AsyncEvent()
        self._socket = socket
        self._on_push, self._on_lost = on_push, on_lost
        self._exchanges = PendingExchanges()
        self._queues: dict[str, AsyncQueue[Any]] = {}
        self._answer_callbacks: dict[str, Callable[[dict[str, Any]], None]] = {}
        self._close_error: AgentBayError | None = None
        self._reader = AsyncWorker(self._read_loop)

    def __len__(self) -> int:
        return len(self._exchanges) + len(self._queues) + len(self._answer_callbacks)

    def begin_exchange(
        self,
        kind: ExchangeKind,
        target: str,
        data: dict[str, Any],
        on_answer: Callable[[dict[str, Any]], None] | None = None,
    ) -> tuple[Frame, AsyncQueue[Any]]:
        """Begin an exchange: return its first frame and its queue of arrivals."""
        queue: AsyncQueue[Any] = AsyncQueue()
        frame = self._exchanges.begin(kind, target, data)
        self._queues[frame.id] = queue
        if on_answer is not None:
            self._answer_callbacks[frame.id] = on_answer
        return frame, queue

    @contextlib.contextmanager
    def exchange(
        self,
        kind: ExchangeKind,
        target: str,
        data: dict[str, Any],
        on_answer: Callable[[dict[str, Any]], None] | None = None,
        on_late_answer: Callable[[dict[str, Any]], None] | None = None,
    ) -> Generator[tuple[Frame, AsyncQueue[Any]], None, None]:
        """Begin an exchange that ends with the `with` block.

        If the block fails before the answer came, `on_late_answer` gets it when it comes after all.
        """
        frame, queue = self.begin_exchange(kind, target, data, on_answer)
        try:
            yield frame, queue
        except BaseException:
            if on_late_answer is not None:
                self._answer_callbacks[frame.id] = on_late_answer
                if self._exchanges.is_pending(frame.id):
                    self._queues.pop(frame.id, None)
                    raise
            self.end_exchange(frame.id)
            raise
        self.end_exchange(frame.id)

    def end_exchange(self, frame_id: str) -> bool:
        """End an exchange, and return False if it was over already."""
        self._queues.pop(frame_id, None)
        self._answer_callbacks.pop(frame_id, None)
        return self._exchanges.end(frame_id)

    def make_follow_up(self, frame_id: str, data: dict[str, Any]) -> Frame | None:
        """Return a further frame of an exchange, or None if it is over."""
        return self._exchanges.make_follow_up(frame_id, data)

    async def send(self, frame: Frame, deadline: Deadline) -> None:
        """Send a frame.

        Raises:
            AgentBayError: It could not be sent.
        """
        text = frame.encode()
        # A character takes at most 4 bytes in UTF-8, so short texts need not be encoded to be measured. Too long a
        # frame would make the service close the connection, which fails every other exchange too.
        limit = self._socket.max_frame_bytes
        if len(text) > limit // 4 and len(text.encode()) > limit:
            sizes = f"{len(text) >> 20} MiB, and the service takes {limit >> 20} MiB"
            raise InvalidArgumentError(f"{frame.target}: the frame has {sizes} at once.")
        await self._socket.send(text, deadline.remaining_or_raise(frame.target))

    async def _read_loop(self) -> None:
        try:
            while True:
                self._dispatch(self._exchanges.receive(await self._socket.receive()))
        except AgentBayError as error:
            # After `aclose` the reader sees a lost connection too, but the reason to report is the one that was set
            # before.
            self._close_error = error if self._close_error is None else self._close_error
        finally:
            closed = ClientClosedError("The WebSocket of this session is closed.")
            self._fail_pending(closed if self._close_error is None else self._close_error)

    def _dispatch(self, arrival: Arrival) -> None:
        match arrival:
            case PushMessage():
                self._on_push(arrival)
            case StreamEvent():
                self._deliver(arrival, self._queues.get(arrival.id))
            case ExchangeEnded():
                on_answer = self._answer_callbacks.pop(arrival.id, None)
                # Called by the reader itself, so that pushes that follow the answer find what the answer established.
                if on_answer is not None and arrival.error is None:
                    arrival = _run_answer_callback(arrival, on_answer)
                self._deliver(arrival, self._queues.pop(arrival.id, None))
            case IgnoredFrame():
                _logger.warning("A WebSocket frame was ignored: %s", arrival.why)

    def _deliver(self, arrival: Arrival, queue: AsyncQueue[Any] | None) -> None:
        if queue is not None:
            queue.put(arrival)

    def _fail_pending(self, error: AgentBayError) -> None:
        # Before the waiters wake, since they may repeat their call at once and must then get a new connection.
        self.lost.set()
        for frame_id in self._exchanges.end_all():
            self._answer_callbacks.pop(frame_id, None)
            self._deliver(ExchangeEnded(frame_id, {}, error), self._queues.pop(frame_id, None))
        self._on_lost(error)

    async def aclose(self) -> None:
        """Close the connection, which fails every pending exchange."""
        # Set before the socket closes, so that the reader finds it when it stops.
        self._close_error = ClientClosedError("The WebSocket of this session was closed meanwhile.")
        await self._socket.aclose()
        await self._reader.stop()


class AsyncWsStream:
    """The events of one request, as an iterator.

    Read `end` after the last one. As a context manager it is cancelled at the end of the block if it has not ended by
    then.

    Attributes:
        id: The id of the request.
        end: The data of the end, once it has come.
    """

    def __init__(
        self,
        connection: AsyncWsConnection,
        frame: Frame,
        arrivals: AsyncQueue[Any],
        deadline: Deadline,
        client: AsyncWsClient,
        extend: AsyncCallable[float] | None = None,
    ) -> None:
        self.id = frame.id
        self.end: dict[str, Any] | None = None
        self._connection, self._frame, self._queue, self._deadline = connection, frame, arrivals, deadline
        self._client, self._extend = client, extend
        self._error: AgentBayError | None = None

    async def __aenter__(self) -> AsyncWsStream:
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
        """Return the next event, or None after the last.

        Raises:
            ToolError: The service reports a failure.
            WsCancelledError: It was cancelled.
            AgentBayError: The end will not come any more, or not in time; then the service is notified to stop.
        """
        if self._error is not None:
            raise self._error
        if self.end is not None:
            return None
        arrival = await self._next_arrival()
        if isinstance(arrival, StreamEvent):
            return arrival.data
        if arrival.error is not None:
            self._error = await self._client.explain(arrival.error)
            raise self._error
        self.end = arrival.data
        return None

    async def _next_arrival(self) -> Any:
        while True:
            try:
                return await self._queue.get(self._deadline.remaining())
            except TimeoutError as error:
                if self._extend is not None:
                    await self._extend()
                if self._deadline.remaining() <= 0:
                    late = self._deadline.exceeded_error(self._frame.target)
                    await self._stop(late)
                    raise late from error

    async def wait_end(self) -> dict[str, Any]:
        """Skip the remaining events and return the data of the end.

        Raises:
            AgentBayError: As for `next_event`.
        """
        while await self.next_event() is not None:
            pass
        assert self.end is not None
        return self.end

    def set_time_limit(self, timeout: float) -> None:
        """Let the end come within so many seconds from now."""
        self._deadline = Deadline(timeout)

    async def write(self, data: dict[str, Any]) -> None:
        """Send further data within the same request.

        Raises:
            WsCancelledError: It is over.
            AgentBayError: It could not be sent.
        """
        frame = self._connection.make_follow_up(self.id, data)
        if frame is None:
            raise WsCancelledError("The stream is over.", action=self._frame.target)
        await self._connection.send(frame, self._deadline.capped(SEND_TIMEOUT_SECONDS))

    async def cancel(self) -> None:
        """Cancel the stream and notify the service.

        Whoever waits for the end gets a `WsCancelledError`. Once it is over, this does nothing.
        """
        await self._stop(WsCancelledError(action=self._frame.target))

    async def _stop(self, why: AgentBayError) -> None:
        # Made first, because an exchange that has ended gives no more frames.
        frame = self._connection.make_follow_up(self.id, make_cancel_data(self._frame.data or {}))
        # Only one wins: an end that arrives at the same time, or a second `cancel`, finds the exchange gone.
        if not self._connection.end_exchange(self.id):
            return
        self._error = why
        # Another task or thread may be waiting for the next event and must wake.
        self._queue.put(ExchangeEnded(self.id, {}, why))
        if frame is not None:
            with contextlib.suppress(TransportError):  # a service that is gone needs no notice
                await self._connection.send(frame, Deadline(SEND_TIMEOUT_SECONDS))


def _run_answer_callback(arrival: ExchangeEnded, on_answer: Callable[[dict[str, Any]], None]) -> ExchangeEnded:
    try:
        on_answer(arrival.data)
    except AgentBayError as error:  # the caller gets the error; the reader goes on
        return arrival._replace(error=error)
    return arrival
