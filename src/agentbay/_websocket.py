"""WebSockets and what reads them, in pairs: the third part of the seam (`_concurrency.py`).

| asynchronous   | synchronous   | what it is                                                    |
|----------------|---------------|---------------------------------------------------------------|
| `AsyncSocket`  | `SyncSocket`  | one connection, of the library `websockets`                   |
| `AsyncMailbox` | `SyncMailbox` | things put without waiting, and taken one after the other     |
| `AsyncFlag`    | `SyncFlag`    | something that becomes true once                              |
| `AsyncWorker`  | `SyncWorker`  | work in the background: a task, or a thread                   |

All that `websockets` raises is turned into this package's errors here, and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import queue
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from websockets.asyncio import client as asynchronous
from websockets.exceptions import ConnectionClosed, InvalidProxy, InvalidStatus, InvalidURI, WebSocketException
from websockets.frames import CloseCode
from websockets.protocol import State
from websockets.sync import client as synchronous

from ._transport.ws_protocol import handshake_error
from ._version import __version__
from ._wire.frames import MAX_FRAME_BYTES
from .errors import ConnectionFailed, ConnectionLost, DeadlineExceeded

T = TypeVar("T")


_PING_SECONDS = 20.0  # seconds between pings, and that a pong may take
_CLOSE_TIMEOUT_SECONDS = 2.0  # seconds for the other side's goodbye
_SEND_STALL_SECONDS = 10  # seconds in which a blocking connection must take at least some of what is sent


class WebSocketEndpoint(NamedTuple):
    """Where to connect, with what trust and by which way: straight, by a proxy, or through the unix socket `path`."""

    url: str
    token: str
    tls: ssl.SSLContext | None
    proxy: str | None
    socket_path: str = ""

    def __repr__(self) -> str:
        return f"Place({self.host!r})"

    @property
    def host(self) -> str:
        """Host and port, all of the URL that may be shown."""
        return self.url.partition("://")[2].partition("/")[0].rpartition("@")[2]

    def connect_options(self, timeout: float) -> dict[str, Any]:
        """Arguments for `connect` of either flavour."""
        secure = self.url.startswith("wss:")
        return {
            "ssl": self.tls if secure else None,
            "additional_headers": {"X-Access-Token": self.token},
            "user_agent_header": f"agentbay/{__version__}",
            "compression": "deflate" if secure else None,  # in the clear it is this machine: not worth the time
            "proxy": self.proxy,
            "open_timeout": timeout,
            "ping_interval": _PING_SECONDS,
            "ping_timeout": _PING_SECONDS,
            "close_timeout": _CLOSE_TIMEOUT_SECONDS,
            "max_size": MAX_FRAME_BYTES,
            "logger": _DISABLED_LOGGER,
        }


# websockets logs headers, tokens too; nobody shall switch this on
_DISABLED_LOGGER = logging.Logger("agentbay.websocket")  # noqa: LOG001
_DISABLED_LOGGER.disabled = True


class _HandshakeRefused(WebSocketException):
    """The service answered with a status.

    Unlike InvalidStatus, nobody follows it to another host with our token.
    """

    def __init__(self, error: InvalidStatus) -> None:
        super().__init__(f"HTTP {error.response.status_code}")
        self.status, self.headers = error.response.status_code, dict(error.response.headers.raw_items())


@contextlib.contextmanager
def _map_connect_errors(place: WebSocketEndpoint) -> Iterator[None]:
    """Turn what is raised while a connection opens into this package's errors."""
    try:
        yield
    except _HandshakeRefused as refused:
        raise handshake_error(refused.status, refused.headers) from refused
    except TimeoutError as error:
        raise _connection_failed(place, "it did not open in time") from error
    except ssl.SSLError as error:  # some are ValueErrors too
        raise _connection_failed(place, str(error)) from error
    except (InvalidURI, InvalidProxy, ValueError) as error:
        # these hold the URL
        raise _connection_failed(place, f"the address cannot be used ({type(error).__name__})") from None
    except (OSError, EOFError, WebSocketException, ImportError) as error:  # the last for SOCKS without its package
        raise _connection_failed(place, str(error) or type(error).__name__) from error


def _connection_failed(place: WebSocketEndpoint, why: str) -> ConnectionFailed:
    return ConnectionFailed(
        f"No WebSocket connection to {place.host}: {why}.", hint="Nothing was sent.", action="WebSocket"
    )


@contextlib.contextmanager
def _map_connection_errors() -> Iterator[None]:
    """Turn what is raised over an open connection into this package's errors."""
    try:
        yield
    except ConnectionClosed as error:
        raise ConnectionLost(
            f"The WebSocket connection was lost: {_close_reason(error)}.",
            hint="What was under way may have been executed.",
            action="WebSocket",
        ) from error


def _close_reason(error: ConnectionClosed) -> str:
    for closed, who in ((error.rcvd, "the service"), (error.sent, "this side")):
        if closed is not None:
            # our own words are known: a frame too large, a missing pong; the service's may hold anything
            said = f" ({closed.reason})" if closed.reason and closed is error.sent else ""
            return f"{who} closed it with code {int(closed.code)}{said}"
    return "it broke off"


# ── Asynchronous ─────────────────────────────────────────────────────────────────────────────────────────────────────


class _AsyncClientConnection(asynchronous.ClientConnection):
    async def handshake(self, *args: Any, **kwargs: Any) -> None:
        try:
            await super().handshake(*args, **kwargs)
        except InvalidStatus as error:
            raise _HandshakeRefused(error) from None


class AsyncWebSocket:
    """One connection."""

    def __init__(self, connection: asynchronous.ClientConnection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, place: WebSocketEndpoint, timeout: float) -> AsyncWebSocket:
        """Connect.

        Raises:
            APIError: The service refused.
            ConnectionFailed: There is no connection, for another reason or in time.
        """
        with _map_connect_errors(place):
            way = partial(asynchronous.unix_connect, place.socket_path) if place.socket_path else asynchronous.connect
            return cls(await way(place.url, create_connection=_AsyncClientConnection, **place.connect_options(timeout)))

    async def send(self, text: str, timeout: float) -> None:
        """Send a frame.

        Raises:
            ConnectionLost: The connection is closed.
            DeadlineExceeded: The other side did not take it in time.
        """
        try:
            with _map_connection_errors():
                async with asyncio.timeout(timeout):
                    await self._connection.send(text)
        except TimeoutError as error:
            raise DeadlineExceeded(f"A frame was not taken within {timeout:g} s.", action="WebSocket") from error

    async def receive(self) -> str | bytes:
        """Return the next frame.

        Raises:
            ConnectionLost: The connection is closed.
        """
        with _map_connection_errors():
            return await self._connection.recv()

    async def aclose(self) -> None:
        """Say goodbye and close.

        The other side's goodbye is not waited for.
        """
        # By hand: the library's own way needs an asynchronous generator, and when a loop ends, none may begin any more.
        connection = self._connection
        if connection.protocol.state is State.OPEN:
            connection.protocol.send_close(CloseCode.NORMAL_CLOSURE)
            connection.transport.write(b"".join(connection.protocol.data_to_send()))
        connection.transport.close()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_SECONDS):
                await connection.wait_closed()
        except TimeoutError:  # it does not even take that
            connection.transport.abort()


class AsyncQueue(Generic[T]):
    """Things put by one side, without waiting, and taken by another."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[T] = asyncio.Queue()

    def put(self, item: T) -> None:
        """Add something."""
        self._queue.put_nowait(item)

    def get_or_none(self) -> T | None:
        """Remove the oldest thing and return it.

        None if there is none.
        """
        try:
            return self._queue.get_nowait()
        except asyncio.QueueEmpty:
            return None

    async def get(self, timeout: float = math.inf) -> T:
        """Return the oldest thing.

        Raises:
            TimeoutError: There was nothing for so many seconds.
        """
        async with asyncio.timeout(None if timeout == math.inf else timeout):
            return await self._queue.get()


class AsyncEvent:
    """Something that becomes true once."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Make it true."""
        self._event.set()

    def is_set(self) -> bool:
        """Whether it is true."""
        return self._event.is_set()

    async def wait(self, timeout: float = math.inf) -> bool:
        """Wait until it is true, or so many seconds.

        Return whether it is.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if timeout == math.inf else timeout):
                await self._event.wait()
        return self.is_set()


class AsyncWorker:
    """Work in the background."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._task = asyncio.get_running_loop().create_task(work())

    def is_current(self) -> bool:
        """Whether this is what runs now."""
        return self._task is asyncio.current_task()

    async def stop(self) -> None:
        """End the work.

        If it is the work itself that asks, let it end by itself.
        """
        if not self.is_current():
            self._task.cancel()
            await asyncio.wait([self._task])


# ── Synchronous ──────────────────────────────────────────────────────────────────────────────────────────────────────


class _SyncClientConnection(synchronous.ClientConnection):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        # A write holds the connection's lock, so that not even its heartbeat could end it: the kernel must.
        if sys.platform != "win32" and isinstance(sock, socket.socket):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_STALL_SECONDS, 0))
        super().__init__(sock, *args, **kwargs)

    def handshake(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().handshake(*args, **kwargs)
        except InvalidStatus as error:
            raise _HandshakeRefused(error) from None


class SyncWebSocket:
    """One connection.

    Its own threads read and send pings.
    """

    def __init__(self, stack: ExitStack, connection: synchronous.ClientConnection) -> None:
        self._stack, self._connection = stack, connection

    @classmethod
    def open(cls, place: WebSocketEndpoint, timeout: float) -> SyncWebSocket:
        """Connect.

        Raises:
            APIError: The service refused.
            ConnectionFailed: There is no connection, for another reason or in time.
        """
        stack = ExitStack()
        with _map_connect_errors(place):
            way = partial(synchronous.unix_connect, place.socket_path) if place.socket_path else synchronous.connect
            connection = way(place.url, create_connection=_SyncClientConnection, **place.connect_options(timeout))
            return cls(stack, stack.enter_context(connection))

    def send(self, text: str, timeout: float) -> None:
        """Send a frame.

        `timeout` is for the other flavour, here the connection is lost if it takes nothing for 10 s.

        Raises:
            ConnectionLost: The connection is closed.
        """
        with _map_connection_errors():
            self._connection.send(text)

    def receive(self) -> str | bytes:
        """Return the next frame.

        Raises:
            ConnectionLost: The connection is closed.
        """
        with _map_connection_errors():
            return self._connection.recv()

    def close(self) -> None:
        """Close."""
        self._stack.close()


class SyncQueue(Generic[T]):
    """Things put by one side, without waiting, and taken by another."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[T] = queue.SimpleQueue()

    def put(self, item: T) -> None:
        """Add something."""
        self._queue.put(item)

    def get_or_none(self) -> T | None:
        """Remove the oldest thing and return it.

        None if there is none.
        """
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def get(self, timeout: float = math.inf) -> T:
        """Return the oldest thing.

        Raises:
            TimeoutError: There was nothing for so many seconds.
        """
        try:
            return self._queue.get(timeout=None if timeout == math.inf else max(timeout, 0.0))
        except queue.Empty:
            raise TimeoutError from None


class SyncEvent:
    """Something that becomes true once."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Make it true."""
        self._event.set()

    def is_set(self) -> bool:
        """Whether it is true."""
        return self._event.is_set()

    def wait(self, timeout: float = math.inf) -> bool:
        """Wait until it is true, or so many seconds.

        Return whether it is.
        """
        return self._event.wait(None if timeout == math.inf else timeout)


class SyncWorker:
    """Work in the background.

    It does not keep the process from ending.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=work, daemon=True, name=f"agentbay-{getattr(work, '__name__', 'work')}")
        self._thread.start()

    def is_current(self) -> bool:
        """Whether this is what runs now."""
        return self._thread is threading.current_thread()

    def stop(self) -> None:
        """Wait for the end of the work, which must be near.

        If it is the work itself that asks, do not.
        """
        if not self.is_current():
            self._thread.join(_CLOSE_TIMEOUT_SECONDS + 1.0)
