"""A session's WebSocket: one connection, made with its first use, for all that streams.

What a frame means is decided in `_transport/ws.py`; what is different by flavour is in `_websocket.py`.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from .._concurrency import AsyncOwner, AsyncSlots, async_sleep
from .._transport.deadline import Deadline
from .._transport.retry import pause_before_retry
from .._transport.ws import Ended, Kind, Push, one_way
from .._websocket import AsyncCall, AsyncFlag, AsyncSocket, AsyncWorker, Place
from ..errors import (
    AgentBayError,
    APIError,
    ClientClosedError,
    ConnectionLost,
    SessionError,
    TransportError,
)
from .ws_connection import SEND_SECONDS, AsyncConnection, AsyncStream

if TYPE_CHECKING:
    from .session import AsyncSession

CALL_SECONDS = 30.0
_OPEN_SECONDS = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE, _GIVE_UP = 0.5, 5.0, 300.0  # of attempts to connect again, seconds
_log = logging.getLogger("agentbay")


class Listener(NamedTuple):
    """Who wants to know what a target says unasked.

    Attributes:
        target: Whose pushes.
        on_push: Gets the data of each, where frames are read: it must not wait, nor run code of the user's.
        on_lost: Gets the reason when the connection is lost; under the same rule.
        on_up: Called when there is a connection again, to ask for the pushes again; may wait and use the connection.
            With it the connection is made again by itself, without it by the next use.
    """

    target: str
    on_push: Callable[[dict[str, Any]], None]
    on_lost: Callable[[AgentBayError], None]
    on_up: AsyncCall[None] | None = None


class AsyncWsClient:
    """The WebSocket of one session; for this package's own use.

    There is one connection for each event loop, or one for the process. Nothing that was sent is ever sent again: when
    the connection is lost, all that waits for an answer fails with `ConnectionLost`.
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self._links = AsyncOwner(lambda: AsyncLink(self._place, self._retries), AsyncLink.aclose)
        self._closed = False

    async def link(self) -> AsyncLink:
        """Return the running loop's connection, connected or not.

        Raises:
            ClientClosedError: It was closed, as by `session.delete()`.
        """
        if self._closed:
            raise ClientClosedError(
                f"The WebSocket of session {self._session.session_id} is closed.", hint="The session was deleted."
            )
        return await self._links.get()

    async def call(self, target: str, data: dict[str, Any], timeout: float = CALL_SECONDS) -> dict[str, Any]:
        """Ask, and return the one answer; see `AsyncLink.call`."""
        return await (await self.link()).call(target, data, Deadline(timeout))

    async def stream(self, target: str, data: dict[str, Any], timeout: float) -> AsyncStream:
        """Ask, and return the stream of what happens until its end, which must come within `timeout` seconds."""
        return await (await self.link()).stream(target, data, Deadline(timeout))

    async def aclose(self) -> None:
        """Close the connection; what waits for an answer fails. Calling it again does nothing."""
        self._closed = True
        await self._links.aclose()

    def _retries(self) -> int:
        return self._session.agent_bay.client.max_retries

    async def _place(self) -> Place:
        session = self._session
        if not session.ws_url:
            raise SessionError("ws_url is not available for this session")
        if not session.token:
            raise SessionError("token is not available for WS connection")
        return await session.agent_bay.client.place(session.ws_url, session.token)


class AsyncLink:
    """The connection of one loop: made when it is needed, and made again when it was lost."""

    def __init__(self, place: AsyncCall[Place], retries: Callable[[], int]) -> None:
        self._place, self._retries = place, retries
        self._opening = AsyncSlots(1)
        self._connection: AsyncConnection | None = None
        self._listeners: list[Listener] = []
        self._closing = AsyncFlag()
        self._keeper: AsyncWorker | None = None

    async def call(
        self,
        target: str,
        data: dict[str, Any],
        deadline: Deadline,
        on_answer: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Ask, and return the one answer.

        Args:
            target: Whom.
            data: What.
            deadline: When the answer must be there.
            on_answer: Gets the answer before any later frame is read; under the rule of `Listener.on_push`.

        Raises:
            ToolError: The target refused.
            AgentBayError: There is no answer, or none that can be read.
        """
        connection = await self.connected(deadline)
        with connection.exchange(Kind.CALL, target, data, on_answer) as (frame, answers):
            await connection.send(frame, deadline)
            try:
                arrival: Ended = await answers.take(deadline.remaining())
            except TimeoutError as error:
                raise deadline.exceeded(f"{target} {data.get('method', '')}") from error
        if arrival.error is not None:
            raise arrival.error
        return arrival.data

    async def stream(self, target: str, data: dict[str, Any], deadline: Deadline) -> AsyncStream:
        """Ask, and return the stream of what happens.

        Raises:
            AgentBayError: It could not be asked.
        """
        connection = await self.connected(deadline)
        frame, arrivals = connection.begin(Kind.STREAM, target, data)
        try:
            await connection.send(frame, deadline)
        except BaseException:
            connection.forget(frame.id)
            raise
        return AsyncStream(connection, frame, arrivals, deadline)

    async def send(self, target: str, data: dict[str, Any], deadline: Deadline | None = None) -> None:
        """Say something that has no answer.

        Raises:
            AgentBayError: It could not be sent.
        """
        deadline = deadline or Deadline(SEND_SECONDS)
        await (await self.connected(deadline)).send(one_way(target, data), deadline)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell a listener what comes, from now on; return the function that ends it."""
        self._listeners.append(listener)
        return lambda: self._unlisten(listener)

    def _unlisten(self, listener: Listener) -> None:
        with contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    async def connected(self, deadline: Deadline) -> AsyncConnection:
        """Return the connection; connect if there is none.

        Raises:
            ClientClosedError: This was closed.
            APIError, TransportError: There is none to be had in time.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._connect(deadline)
            except (APIError, TransportError) as error:
                pause = pause_before_retry(
                    error, attempt, idempotent=True, max_retries=self._retries(), remaining=deadline.remaining()
                )
                if pause is None or self._closing.is_set():
                    raise
                await async_sleep(pause)

    async def _connect(self, deadline: Deadline) -> AsyncConnection:
        if not await self._opening.acquire(max(deadline.remaining(), 0.0)):
            raise deadline.exceeded("Connecting")
        try:
            if self._closing.is_set():
                raise ClientClosedError("The WebSocket of this session is closed.")
            if self._connection is None or self._connection.lost.is_set():
                place = await self._place()
                socket = await AsyncSocket.open(place, min(deadline.check("Connecting"), _OPEN_SECONDS))
                self._connection = AsyncConnection(socket, self._on_push, self._on_lost)
                _log.debug("WebSocket connected to %s", place.host)
            return self._connection
        finally:
            self._opening.release()

    def _on_push(self, push: Push) -> None:
        for listener in list(self._listeners):
            if listener.target == push.target:
                listener.on_push(push.data)

    def _on_lost(self, error: AgentBayError) -> None:
        for listener in list(self._listeners):
            listener.on_lost(error)
        wanted = any(listener.on_up is not None for listener in self._listeners)
        if wanted and isinstance(error, ConnectionLost) and not self._closing.is_set():
            self._keeper = AsyncWorker(self._connect_again)

    async def _connect_again(self) -> None:
        """Connect again for those who want it, until it works, makes no sense any more or has lasted too long."""
        pause, since = _FIRST_PAUSE, Deadline(_GIVE_UP)
        while not await self._closing.wait(pause + random.uniform(0, 0.1)):
            waiting = [listener for listener in self._listeners if listener.on_up is not None]
            try:
                if waiting:
                    await self._connect(Deadline(_OPEN_SECONDS))
                    for listener in waiting:
                        await _ask_again(listener)
                return
            except ClientClosedError:
                return
            except AgentBayError as error:
                if since.remaining() <= 0 or not error.retryable:
                    for listener in waiting:
                        listener.on_lost(error)
                    return
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    async def aclose(self) -> None:
        """Close the connection for good."""
        self._closing.set()
        if self._keeper is not None:
            await self._keeper.stop()
        if self._connection is not None:
            await self._connection.aclose()


async def _ask_again(listener: Listener) -> None:
    if listener.on_up is None:
        return
    try:
        await listener.on_up()
    except TransportError:  # lost once more: the next attempt asks all again
        raise
    except AgentBayError as error:
        listener.on_lost(error)
