"""The WebSocket of a session: one connection for everything that streams.

It is opened with the first use. What a frame means is decided in `_transport/ws_protocol.py`; what differs by flavour
is in `_websocket.py`.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from .._concurrency import AsyncCallable, AsyncPerLoop, AsyncSemaphore, async_sleep
from .._transport.deadline import Deadline, operation_deadline, without_time_limit
from .._transport.retry import retry_backoff
from .._transport.ws_protocol import ExchangeEnded, ExchangeKind, PushMessage, make_frame
from .._websocket import AsyncEvent, AsyncWebSocket, AsyncWorker, WebSocketEndpoint
from ..errors import (
    AgentBayError,
    APIError,
    ClientClosedError,
    ConflictError,
    ConnectionLost,
    PtyError,
    SessionError,
    SessionNotFoundError,
    ToolError,
    TransportError,
)
from .waiting import PauseExtension
from .ws_connection import SEND_TIMEOUT_SECONDS, AsyncWsConnection, AsyncWsStream

if TYPE_CHECKING:
    from .session import AsyncSession

CALL_TIMEOUT_SECONDS = 30.0  # until the answer to a call must be there
_CONNECT_TIMEOUT_SECONDS = 10.0  # for one attempt to connect
_RECONNECT_FIRST_SECONDS = 0.5  # before the first attempt to connect again; each pause is 1.5 times the one before
_RECONNECT_MAX_SECONDS = 5.0  # longest pause between two attempts
_RECONNECT_GIVE_UP_SECONDS = 300.0  # after so long no further attempt is made
_RECONNECT_JITTER_SECONDS = 0.1  # added at random, so that many clients do not reconnect at once
_logger = logging.getLogger("agentbay")


class Listener(NamedTuple):
    """Callbacks for the pushes of one target.

    Attributes:
        target: Whose pushes.
        on_push: Gets the data of each push. It runs where frames are read, so it must not wait or run user code.
        on_lost: Gets the reason when the connection is lost, under the same rule.
        on_reconnect: Called after a reconnection, to subscribe again; may wait and use the connection. With it the
            connection is made again at once, without it by the next use.
    """

    target: str
    on_push: Callable[[dict[str, Any]], None]
    on_lost: Callable[[AgentBayError], None]
    on_reconnect: AsyncCallable[None] | None = None


class AsyncWsClient:
    """The WebSocket of one session, for this package's own use.

    There is one connection for each event loop, or one for the process. Nothing that was sent is ever sent again: when
    the connection is lost, every call that waits for an answer fails with `ConnectionLost`.
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self._websockets = AsyncPerLoop(lambda: AsyncReconnectingWebSocket(self), AsyncReconnectingWebSocket.aclose)
        self._closed = False

    async def websocket(self) -> AsyncReconnectingWebSocket:
        """Return the running loop's connection, connected or not.

        Raises:
            SessionNotFoundError: The session was deleted.
            ClientClosedError: The client was closed.
        """
        if self._closed:
            raise await self.explain(
                ClientClosedError(f"The WebSocket of session {self._session.session_id} is closed.")
            )
        return await self._websockets.get()

    async def call(self, target: str, data: dict[str, Any], timeout: float = CALL_TIMEOUT_SECONDS) -> dict[str, Any]:
        """Send a request and return its answer, like `AsyncReconnectingWebSocket.call`."""
        return await (await self.websocket()).call(target, data, operation_deadline(timeout))

    async def stream(self, target: str, data: dict[str, Any], timeout: float) -> AsyncWsStream:
        """Send a request and return the stream of its events.

        Its end must come within `timeout` seconds.
        """
        with without_time_limit():  # of the call that starts it, which it outlives
            deadline = Deadline(timeout)
        extend = PauseExtension(self._session.agent_bay.client, self._session.session_id, deadline).extend
        return await (await self.websocket()).stream(target, data, deadline, extend)

    async def aclose(self) -> None:
        """Close the connection, which fails every pending call.

        Calling it again does nothing.
        """
        # Set before the connections go, or a call in between would open a new one that nobody closes.
        self._closed = True
        await self._websockets.aclose()

    async def explain(self, error: AgentBayError) -> AgentBayError:
        """Return an error that says whether the session ended or is paused."""
        # A frame carries the text of an error and not its code; the local runtime's text names the state PAUSED.
        is_about_state = isinstance(error, ToolError) and "PAUS" in error.message
        if not is_about_state and not isinstance(error, (APIError, ClientClosedError, ConnectionLost, PtyError)):
            return error
        hint = await self._session.agent_bay.client.ask_for_hint(self._session.session_id)
        if hint.text and isinstance(error, (APIError, ClientClosedError)):
            if hint.has_ended:
                error = SessionNotFoundError(f"Session {self._session.session_id} not found", **error.context())
            else:
                error = ConflictError("The session is not running", **error.context())
        error.hint = hint.text or error.hint
        return error

    @property
    def max_retries(self) -> int:
        """How often connecting is tried again."""
        return self._session.agent_bay.client.max_retries

    async def make_endpoint(self) -> WebSocketEndpoint:
        """Return how to open the connection.

        Raises:
            SessionError: The service has not said where.
        """
        session = self._session
        if not session.ws_url:
            raise SessionError("ws_url is not available for this session")
        if not session.token:
            raise SessionError("token is not available for WS connection")
        return await session.agent_bay.client.websocket_endpoint(session.ws_url, session.token)


class AsyncReconnectingWebSocket:
    """The connection of one loop, opened on demand and again when lost."""

    def __init__(self, client: AsyncWsClient) -> None:
        self._client = client
        self._connect_lock = AsyncSemaphore(1)
        self._connection: AsyncWsConnection | None = None
        self._listeners: list[Listener] = []
        self._closed = AsyncEvent()
        self._reconnect_worker: AsyncWorker | None = None

    async def call(
        self,
        target: str,
        data: dict[str, Any],
        deadline: Deadline,
        on_answer: Callable[[dict[str, Any]], None] | None = None,
        on_late_answer: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Send a request and return its answer.

        Args:
            target: The service's name.
            data: The request.
            deadline: When the answer must be there.
            on_answer: Gets the answer before any later frame is read, under the rule of `Listener.on_push`.
            on_late_answer: The same for an answer that comes when this has failed already.

        Raises:
            ToolError: The target refused.
            AgentBayError: There is no answer, or it cannot be read.
        """
        connection = await self.ensure_connected(deadline)
        exchange = connection.exchange(ExchangeKind.CALL, target, data, on_answer, on_late_answer)
        with exchange as (frame, answers):
            await connection.send(frame, deadline)
            try:
                arrival: ExchangeEnded = await answers.get(deadline.remaining())
            except TimeoutError as error:
                raise deadline.exceeded_error(f"{target} {data.get('method', '')}") from error
        if arrival.error is not None:
            raise await self._client.explain(arrival.error)
        return arrival.data

    async def stream(
        self, target: str, data: dict[str, Any], deadline: Deadline, extend: AsyncCallable[float] | None = None
    ) -> AsyncWsStream:
        """Send a request and return the stream of its events.

        Raises:
            AgentBayError: It could not be asked.
        """
        starting = Deadline(deadline.remaining())
        connection = await self.ensure_connected(starting)
        # Registered before it is sent, because the first event can arrive before `send` returns.
        frame, arrivals = connection.begin_exchange(ExchangeKind.STREAM, target, data)
        try:
            await connection.send(frame, starting)
        except BaseException:
            connection.end_exchange(frame.id)
            raise
        return AsyncWsStream(connection, frame, arrivals, deadline, self._client, extend)

    async def send(self, target: str, data: dict[str, Any], deadline: Deadline | None = None) -> None:
        """Send a message that has no answer.

        Raises:
            AgentBayError: It could not be sent.
        """
        deadline = deadline or Deadline(SEND_TIMEOUT_SECONDS)
        await (await self.ensure_connected(deadline)).send(make_frame(target, data), deadline)

    def add_listener(self, listener: Listener) -> Callable[[], None]:
        """Add a listener and return the function that removes it."""
        self._listeners.append(listener)
        return lambda: self._remove_listener(listener)

    def _remove_listener(self, listener: Listener) -> None:
        # It may be removed twice: by its owner, and when the connection is lost for good.
        with contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    async def ensure_connected(self, deadline: Deadline) -> AsyncWsConnection:
        """Return the connection, and connect if there is none.

        Raises:
            ClientClosedError: This was closed.
            APIError, TransportError: It cannot be opened in time.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._connect(deadline)
            except (APIError, TransportError) as error:
                # Connecting has no side effects, so it may be repeated even if the caller's request may not.
                pause = retry_backoff(
                    error,
                    attempt,
                    idempotent=True,
                    max_retries=self._client.max_retries,
                    remaining=deadline.remaining(),
                )
                if pause is None or self._closed.is_set():
                    explained = await self._client.explain(error)
                    if explained is error:
                        raise
                    raise explained from error
                await async_sleep(pause)

    async def _connect(self, deadline: Deadline) -> AsyncWsConnection:
        # Without the lock, callers that come at the same time would open a connection each, and all but one would leak.
        if not await self._connect_lock.acquire(max(deadline.remaining(), 0.0)):
            raise deadline.exceeded_error("Connecting")
        try:
            # Checked under the lock, since `aclose` may have run while this waited for its turn.
            if self._closed.is_set():
                raise ClientClosedError("The WebSocket of this session is closed.")
            if self._connection is None or self._connection.lost.is_set():
                endpoint = await self._client.make_endpoint()
                socket = await AsyncWebSocket.open(
                    endpoint, min(deadline.remaining_or_raise("Connecting"), _CONNECT_TIMEOUT_SECONDS)
                )
                self._connection = AsyncWsConnection(socket, self._on_push, self._on_lost)
                _logger.debug("WebSocket connected to %s", endpoint.host)
            return self._connection
        finally:
            self._connect_lock.release()

    def _on_push(self, push: PushMessage) -> None:
        # A copy, since a listener may remove itself while it is called.
        for listener in list(self._listeners):
            if listener.target == push.target:
                listener.on_push(push.data)

    def _on_lost(self, error: AgentBayError) -> None:
        for listener in list(self._listeners):
            listener.on_lost(error)
        # Calls and streams do not need a reconnection: they have failed, and the next one connects by itself.
        wanted = any(listener.on_reconnect is not None for listener in self._listeners)
        if wanted and isinstance(error, ConnectionLost) and not self._closed.is_set():
            self._reconnect_worker = AsyncWorker(self._reconnect)

    async def _reconnect(self) -> None:
        """Reconnect with exponential backoff and jitter, for listeners that want it.

        Gives up after an error that is not retryable, or after 300 s.
        """
        pause, since = _RECONNECT_FIRST_SECONDS, Deadline(_RECONNECT_GIVE_UP_SECONDS)
        # Waiting for the event instead of sleeping lets `aclose` end the pause at once.
        while not await self._closed.wait(pause + random.uniform(0, _RECONNECT_JITTER_SECONDS)):
            # Asked anew in each round, since listeners may have gone during the pause.
            waiting = [listener for listener in self._listeners if listener.on_reconnect is not None]
            try:
                if waiting:
                    await self._connect(Deadline(_CONNECT_TIMEOUT_SECONDS))
                    for listener in waiting:
                        await _resubscribe(listener)
                return
            except ClientClosedError:
                # Whoever closed the client wants no messages any more.
                return
            except AgentBayError as error:
                if since.remaining() <= 0 or not error.retryable:
                    for listener in waiting:
                        listener.on_lost(error)
                    return
            pause = min(pause * 1.5, _RECONNECT_MAX_SECONDS)

    async def aclose(self) -> None:
        """Close the connection for good."""
        # First, so that no connection is made any more. Then the worker goes, which could be about to store one.
        self._closed.set()
        if self._reconnect_worker is not None:
            await self._reconnect_worker.stop()
        if self._connection is not None:
            await self._connection.aclose()


async def _resubscribe(listener: Listener) -> None:
    if listener.on_reconnect is None:
        return
    try:
        await listener.on_reconnect()
    except TransportError:  # lost once more: the next attempt subscribes all again
        raise
    except AgentBayError as error:
        listener.on_lost(error)
