"""WebSockets and their readers, in pairs: what differs by flavour (`_concurrency`).

| asynchronous     | synchronous     | what it is                                        |
|------------------|-----------------|---------------------------------------------------|
| `AsyncWebSocket` | `SyncWebSocket` | one connection, of the library `websockets`       |
| `AsyncQueue`     | `SyncQueue`     | a queue whose `put` never waits                   |
| `AsyncEvent`     | `SyncEvent`     | an event that is set once                         |
| `AsyncWorker`    | `SyncWorker`    | background work: a task, or a thread              |

Only this module turns what `websockets` raises into this package's errors.
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
from websockets.http11 import Response
from websockets.protocol import State
from websockets.sync import client as synchronous

from ._transport.deadline import unlimited_context
from ._transport.ws_protocol import handshake_error
from ._version import __version__
from ._wire.frames import LIMIT_HEADER, MAX_FRAME_BYTES
from .errors import ConnectionFailed, ConnectionLost, DeadlineExceeded

T = TypeVar("T")


_PING_SECONDS = 20.0  # seconds between pings, and that a pong may take
_CLOSE_TIMEOUT_SECONDS = 2.0  # seconds for the other side's close frame
_SEND_STALL_SECONDS = 10  # seconds in which a blocking connection must take at least some of what is sent


class WebSocketEndpoint(NamedTuple):
    """Where and how to connect: URL, token, TLS context and proxy.

    With `socket_path` the connection goes through that unix socket.
    """

    url: str
    token: str
    tls: ssl.SSLContext | None
    proxy: str | None
    socket_path: str = ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.host!r})"

    @property
    def host(self) -> str:
        """Host and port, the only part of the URL that may be shown."""
        return self.url.partition("://")[2].partition("/")[0].rpartition("@")[2]

    def connect_options(self, timeout: float) -> dict[str, Any]:
        """Return the arguments for `connect` of either flavour."""
        secure = self.url.startswith("wss:")
        return {
            # websockets refuses a TLS context together with a ws:// URL.
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


# websockets logs headers, which hold tokens, so its logger stays off
_DISABLED_LOGGER = logging.Logger("agentbay.websocket")  # noqa: LOG001
_DISABLED_LOGGER.disabled = True


class _HandshakeRefused(WebSocketException):
    """The service refused the handshake with an HTTP status.

    Unlike InvalidStatus it is no redirect, so the token never goes to another host.
    """

    def __init__(self, error: InvalidStatus) -> None:
        super().__init__(f"HTTP {error.response.status_code}")
        self.status, self.headers = error.response.status_code, dict(error.response.headers.raw_items())


@contextlib.contextmanager
def _map_connect_errors(endpoint: WebSocketEndpoint) -> Iterator[None]:
    """Turn errors raised while connecting into this package's errors."""
    try:
        yield
    except _HandshakeRefused as refused:
        raise handshake_error(refused.status, refused.headers) from refused
    except TimeoutError as error:
        # TimeoutError and ssl.SSLError are OSErrors, so their clauses stand before that of OSError.
        raise _connection_failed(endpoint, "it did not open in time") from error
    except ssl.SSLError as error:  # before ValueError, since a certificate error is one too
        raise _connection_failed(endpoint, str(error)) from error
    except (InvalidURI, InvalidProxy, ValueError) as error:
        # Their texts quote the URL, which may hold a token, so the cause is dropped with them.
        raise _connection_failed(endpoint, f"the address cannot be used ({type(error).__name__})") from None
    except (OSError, EOFError, WebSocketException, ImportError) as error:  # the last for SOCKS without its package
        raise _connection_failed(endpoint, str(error) or type(error).__name__) from error


def _connection_failed(endpoint: WebSocketEndpoint, why: str) -> ConnectionFailed:
    return ConnectionFailed(
        f"No WebSocket connection to {endpoint.host}: {why}.", hint="Nothing was sent.", action="WebSocket"
    )


@contextlib.contextmanager
def _map_connection_errors() -> Iterator[None]:
    """Turn errors raised on an open connection into this package's errors."""
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
            # only our own reason is safe to show: the service's may hold anything
            reason = f" ({closed.reason})" if closed.reason and closed is error.sent else ""
            return f"{who} closed it with code {int(closed.code)}{reason}"
    return "it broke off"


def _frame_limit(answer: Response | None) -> int:
    """Return how many bytes a frame to the service may have."""
    told = "" if answer is None else answer.headers.get(LIMIT_HEADER, "")
    return min(int(told), MAX_FRAME_BYTES) if told.isdecimal() else MAX_FRAME_BYTES


class _AsyncClientConnection(asynchronous.ClientConnection):
    async def handshake(self, *args: Any, **kwargs: Any) -> None:
        try:
            await super().handshake(*args, **kwargs)
        except InvalidStatus as error:
            # On InvalidStatus websockets follows a redirect, and sends the header with the token to the new host.
            raise _HandshakeRefused(error) from None


class AsyncWebSocket:
    """One WebSocket connection."""

    def __init__(self, connection: asynchronous.ClientConnection) -> None:
        self._connection = connection
        self.max_frame_bytes = _frame_limit(connection.response)

    @classmethod
    async def open(cls, endpoint: WebSocketEndpoint, timeout: float) -> AsyncWebSocket:
        """Connect.

        Raises:
            APIError: The service refused.
            ConnectionFailed: There is no connection, for another reason or in time.
        """
        with _map_connect_errors(endpoint):
            connect = (
                partial(asynchronous.unix_connect, endpoint.socket_path)
                if endpoint.socket_path
                else asynchronous.connect
            )
            return cls(
                await connect(
                    endpoint.url, create_connection=_AsyncClientConnection, **endpoint.connect_options(timeout)
                )
            )

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
        """Send a close frame and close, without waiting for the reply."""
        # The library's own close needs an asynchronous generator, and none may begin while a loop shuts down.
        connection = self._connection
        if connection.protocol.state is State.OPEN:
            connection.protocol.send_close(CloseCode.NORMAL_CLOSURE)
            connection.transport.write(b"".join(connection.protocol.data_to_send()))
        connection.transport.close()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_SECONDS):
                await connection.wait_closed()
        except TimeoutError:  # it does not even read
            connection.transport.abort()


class AsyncQueue(Generic[T]):
    """A queue without a limit, whose `put` never waits."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[T] = asyncio.Queue()

    def put(self, item: T) -> None:
        """Add an item."""
        self._queue.put_nowait(item)

    def get_or_none(self) -> T | None:
        """Remove and return the oldest item, or None if there is none."""
        try:
            return self._queue.get_nowait()
        except asyncio.QueueEmpty:
            return None

    async def get(self, timeout: float = math.inf) -> T:
        """Remove and return the oldest item.

        Raises:
            TimeoutError: There was nothing for so many seconds.
        """
        async with asyncio.timeout(None if timeout == math.inf else timeout):
            return await self._queue.get()


class AsyncEvent:
    """An event that is set once."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Set the event."""
        self._event.set()

    def is_set(self) -> bool:
        """Return whether the event is set."""
        return self._event.is_set()

    async def wait(self, timeout: float = math.inf) -> bool:
        """Wait for the event, and return whether it is set."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if timeout == math.inf else timeout):
                await self._event.wait()
        return self.is_set()


class AsyncWorker:
    """A background task."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._task = asyncio.get_running_loop().create_task(work(), context=unlimited_context())

    def is_current(self) -> bool:
        """Return whether this is the task that runs now."""
        return self._task is asyncio.current_task()

    async def stop(self) -> None:
        """Cancel the task, unless it is the one that asks."""
        # A task that waits for itself would never end. asyncio.wait raises nothing of what the task raised: its
        # CancelledError would look here like a cancellation of the caller.
        if not self.is_current():
            self._task.cancel()
            await asyncio.wait([self._task])


class _SyncClientConnection(synchronous.ClientConnection):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        # A blocked write holds the connection's lock, so not even the heartbeat can end it: the kernel must.
        if sys.platform != "win32" and isinstance(sock, socket.socket):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_STALL_SECONDS, 0))
        super().__init__(sock, *args, **kwargs)

    def handshake(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().handshake(*args, **kwargs)
        except InvalidStatus as error:
            raise _HandshakeRefused(error) from None


class SyncWebSocket:
    """One WebSocket connection, whose own threads read and send pings."""

    def __init__(self, stack: ExitStack, connection: synchronous.ClientConnection) -> None:
        self._stack, self._connection = stack, connection
        self.max_frame_bytes = _frame_limit(connection.response)

    @classmethod
    def open(cls, endpoint: WebSocketEndpoint, timeout: float) -> SyncWebSocket:
        """Connect.

        Raises:
            APIError: The service refused.
            ConnectionFailed: There is no connection, for another reason or in time.
        """
        stack = ExitStack()
        with _map_connect_errors(endpoint):
            connect = (
                partial(synchronous.unix_connect, endpoint.socket_path) if endpoint.socket_path else synchronous.connect
            )
            connection = connect(
                endpoint.url, create_connection=_SyncClientConnection, **endpoint.connect_options(timeout)
            )
            return cls(stack, stack.enter_context(connection))

    def send(self, text: str, timeout: float) -> None:
        """Send a frame.

        `timeout` is for the other flavour: here the connection is lost if it takes nothing for 10 s.

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
    """A queue without a limit, whose `put` never waits."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[T] = queue.SimpleQueue()

    def put(self, item: T) -> None:
        """Add an item."""
        self._queue.put(item)

    def get_or_none(self) -> T | None:
        """Remove and return the oldest item, or None if there is none."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def get(self, timeout: float = math.inf) -> T:
        """Remove and return the oldest item.

        Raises:
            TimeoutError: There was nothing for so many seconds.
        """
        try:
            # The queue takes neither a very long timeout (OverflowError) nor a negative one (ValueError).
            return self._queue.get(timeout=None if timeout > threading.TIMEOUT_MAX else max(timeout, 0.0))
        except queue.Empty:
            raise TimeoutError from None


class SyncEvent:
    """An event that is set once."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Set the event."""
        self._event.set()

    def is_set(self) -> bool:
        """Return whether the event is set."""
        return self._event.is_set()

    def wait(self, timeout: float = math.inf) -> bool:
        """Wait for the event, and return whether it is set."""
        # A very long timeout would raise OverflowError.
        return self._event.wait(None if timeout > threading.TIMEOUT_MAX else timeout)


class SyncWorker:
    """A background daemon thread."""

    def __init__(self, work: Callable[[], None]) -> None:
        name = f"agentbay-{getattr(work, '__name__', 'work')}"
        self._thread = threading.Thread(target=unlimited_context().run, args=(work,), daemon=True, name=name)
        self._thread.start()

    def is_current(self) -> bool:
        """Return whether this is the thread that runs now."""
        return self._thread is threading.current_thread()

    def stop(self) -> None:
        """Wait for the end of the thread, which must be near.

        If the thread itself asks, do not wait.
        """
        if not self.is_current():
            self._thread.join(_CLOSE_TIMEOUT_SECONDS + 1.0)
