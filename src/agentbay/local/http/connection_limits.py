"""Uvicorn's HTTP protocol, with limits for connections that have not shown a key yet.

Any user of the machine can connect to the loopback. Such connections must not hold descriptors for long, so there is a
time limit for the head of a request, and a limit of their number.
"""

from __future__ import annotations

import asyncio
import resource
from typing import TYPE_CHECKING, Any

from agentbay.local.http.asgi import MARK_AUTHENTICATED
from agentbay.local.http.uvicorn_parts import HttpProtocol as UvicornProtocol
from agentbay.local.lazy_imports import import_in_thread

if TYPE_CHECKING:
    from agentbay.local.http.uvicorn_parts import RequestResponseCycle

# uvicorn's other protocol, on h11, limits heads and chunk headers itself, and does not call `on_body`.
_NEEDS_LIMITS = UvicornProtocol.__name__ == "HttpToolsProtocol"
_MAX_HEAD_BYTES = 1 << 16  # also of what frames a body, such as the lengths of its chunks
_MAX_HEADERS = 256
_MAX_PIPELINED = 8  # requests that wait for the answer to an earlier one on their connection
_HEAD_SECONDS = 10.0  # for a connection to send the head of a request, from its first byte or from its opening
_MAX_ANONYMOUS = 512  # beyond these, the oldest ones are closed
_HARD_LIMIT = 4096  # beyond these, new ones are closed at once
_GRACE_SECONDS = 5.0  # in which a connection is not closed for being the oldest: honest clients may open many at once


class AnonymousConnections:
    """The connections that have not shown a valid secret yet, the oldest first."""

    def __init__(self) -> None:
        self._opened_at: dict[HttpProtocol, float] = {}
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Half of the descriptors stay for sessions, whatever happens.
        self._hard_limit = _HARD_LIMIT if soft == resource.RLIM_INFINITY else min(_HARD_LIMIT, soft // 2)

    def add(self, connection: HttpProtocol) -> None:
        """Count a new connection, and close the oldest or itself above the limits."""
        now = asyncio.get_running_loop().time()
        self._opened_at[connection] = now
        # The oldest go, not the new one: a client that hoards connections would otherwise lock out everybody else.
        while len(self._opened_at) > _MAX_ANONYMOUS:
            oldest = next(iter(self._opened_at))
            if now - self._opened_at[oldest] < _GRACE_SECONDS:
                break
            self._close(oldest)
        if len(self._opened_at) > self._hard_limit:
            self._close(connection)

    def discard(self, connection: HttpProtocol) -> None:
        """Forget a connection that is authenticated, or closed."""
        self._opened_at.pop(connection, None)

    def _close(self, connection: HttpProtocol) -> None:
        self.discard(connection)
        # close() would first flush the send buffer, and a peer that reads nothing would keep the descriptor open.
        connection.transport.abort()


class HttpProtocol(UvicornProtocol):
    """uvicorn's protocol with limits for the heads of requests and for anonymous connections."""

    def __init__(self, *args: Any, connections: AnonymousConnections, **options: Any) -> None:
        super().__init__(*args, **options)
        self.app_state = {**self.app_state, MARK_AUTHENTICATED: self._mark_authenticated}  # goes into each scope
        self._anonymous = connections
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0  # of what was received, without bodies

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_head_timer()
        self._anonymous.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, *args: Any) -> None:
        self._forget()  # another protocol has the connection from here on
        self.transport.pause_reading()  # it begins when it has been imported
        task = self.loop.create_task(self._upgrade(*args))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _upgrade(self, *args: Any) -> None:
        await import_in_thread(
            "http.web_server_websocket"
        )  # its libraries take a third as long as the start of the runtime
        if not self.transport.is_closing():
            super().handle_websocket_upgrade(*args)
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        last_request: RequestResponseCycle | None = self.cycle
        # Not while an answer is under way: a head that was sent ahead (pipelining) has to wait for that answer.
        if self._head_timer is None and (last_request is None or last_request.response_complete):
            self._start_head_timer()
        self._head_bytes += len(data)
        super().data_received(data)
        if self.cycle is not last_request:  # a head is complete
            self._stop_head_timer()
        if _NEEDS_LIMITS and self._head_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The head of a request can have {_MAX_HEAD_BYTES >> 10} KiB.")

    # Callbacks of httptools; an exception makes it refuse the request.

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise ValueError("too many requests wait for their answers")
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= _MAX_HEADERS:
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._head_bytes = 0

    def on_body(self, body: bytes) -> None:
        # The body itself, and as much again for its framing: smaller chunks would only waste processor time.
        self._head_bytes = max(self._head_bytes - 2 * len(body), 0)
        super().on_body(body)

    def _mark_authenticated(self) -> None:
        self._anonymous.discard(self)

    def _forget(self) -> None:
        self._stop_head_timer()
        self._anonymous.discard(self)

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(_HEAD_SECONDS, self.transport.abort)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
