"""Sends requests and reads replies.

Decisions that need no I/O are made in `_transport`.
"""

from __future__ import annotations

import copy
import logging
import time
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from weakref import WeakSet

from .._arguments import refusal
from .._concurrency import (
    AsyncCallable,
    AsyncPerLoop,
    async_check_event_loop,
    async_run_blocking,
    async_sleep,
)
from .._transport.addresses import read_address
from .._transport.connection_errors import CONNECTION_ERRORS, NothingSent, PoolExhausted, Unreadable, WaitTimedOut
from .._transport.deadline import NO_TIMEOUTS, Deadline, Timeouts, current_limit, operation_deadline
from .._transport.reply import HttpAnswer, Reply, read_direct_reply, read_reply
from .._transport.request import HttpRequest, make_direct_request, make_raw_request, make_rpc_request
from .._transport.retry import retry_backoff
from .._transport.sessions import SessionHint, session_hint
from .._wire.schema import Action
from .._wire.sessions import GetSessionDetail
from .._wire.tools import DirectToolCall, ToolReply
from ..config import Settings, check_timeout, redact_url
from ..errors import (
    AgentBayError,
    ClientClosedError,
    ConflictError,
    ConnectionFailed,
    ConnectionLost,
    ConnectionPoolFull,
    DeadlineExceeded,
    NotFoundError,
    NotSupportedError,
    ReplyError,
    SessionNotFoundError,
)
from .connection_pool import AsyncPoolResponse
from .router import AsyncTransportRouter, choose_proxy, environment_proxy, ssl_context

if TYPE_CHECKING:
    import ssl

    import httpx

    from .._runtime_launcher import RuntimeLauncher
    from .._websocket import WebSocketEndpoint
    from .ws_client import AsyncWsClient

DataT = TypeVar("DataT")
R = TypeVar("R")
_HINT_TIMEOUT_SECONDS = 2.0  # for the question why a session cannot be used
_logger = logging.getLogger("agentbay")


class AsyncTransport:
    """Sends calls to the service, and tool calls to a session's own link."""

    _closed = True  # until the constructor has ended, for `__del__`

    def __init__(
        self,
        settings: Settings,
        *,
        launcher: RuntimeLauncher | None,
        max_retries: int,
        http_client: httpx.AsyncClient | None,
        proxy: str | None,
        verify: bool | str | ssl.SSLContext,
        max_connections: int | None,
    ) -> None:
        if http_client is not None:
            import httpx

            kind = httpx.AsyncClient
            if not isinstance(http_client, kind):
                raise refusal("http_client", f"an httpx.{kind.__name__}", http_client)
        self.settings = settings
        self._launcher = launcher
        self.max_retries = max_retries
        self._http_client = http_client
        self._proxy = proxy
        self._verify = verify
        self._max_connections = max_connections
        self._routers = AsyncPerLoop(self._make_router, AsyncTransportRouter.aclose)
        self._ws_clients: WeakSet[AsyncWsClient] = WeakSet()
        self._origin = self
        self._closed = False

    def with_options(self, timeout: float | None, max_retries: int | None) -> AsyncTransport:
        """Return a view of this transport with other limits, which owns nothing.

        Raises:
            ConfigurationError: The time limit is not a positive number.
        """
        view = copy.copy(self)
        view._closed = True  # whether calls are refused is up to the origin
        if timeout is not None:
            view.settings = self.settings._replace(timeout=check_timeout(timeout))
        if max_retries is not None:
            view.max_retries = max_retries
        return view

    @property
    def timeout(self) -> float:
        """Seconds that a call without a deadline may take."""
        limit = current_limit()
        return self.settings.timeout if limit is None else limit.seconds

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if self._closed:
            return
        is_left = self._routers.needs_close() or (self._launcher is not None and self._launcher.is_running())
        if is_left:
            # Python's own warnings, of a socket and a process, do not say whose they are.
            _warn(
                "An AgentBay client was not closed: close it, or use it in a `with` block.",
                ResourceWarning,
                source=self,
            )

    async def call(
        self,
        action: Action[DataT],
        deadline: Deadline | None = None,
        timeouts: Timeouts = NO_TIMEOUTS,
        extend: AsyncCallable[float] | None = None,
    ) -> Reply[DataT]:
        """Send an action and return the service's reply.

        Without a deadline, the client's time limit applies. When the time is over, `extend` is called and may return a
        later moment.

        Raises:
            AgentBayError: Typed by what happened; nothing that could be executed twice is sent twice.
        """
        deadline = deadline or operation_deadline(self.settings.timeout)
        try:
            return await self._call_with_retries(action, deadline, timeouts, extend)
        # The service only says that the call is impossible. Users need to know that the session is paused or has ended.
        except (ConflictError, SessionNotFoundError) as error:
            session_id = getattr(action, "session_id", None)
            if session_id and not isinstance(action, GetSessionDetail):
                error.hint = (await self.ask_for_hint(session_id)).text or error.hint
            raise

    async def ask_for_hint(self, session_id: str) -> SessionHint:
        """Ask the service why a session cannot be used.

        The hint is empty if the session can be used, or if the service does not answer.
        """
        try:
            detail = (await self.call(GetSessionDetail(session_id=session_id), Deadline(_HINT_TIMEOUT_SECONDS))).data
        except NotFoundError:
            detail = None
        except AgentBayError:  # the refusal itself says more than a failed question about it
            return SessionHint()
        return session_hint(session_id, detail)

    async def _call_with_retries(
        self,
        action: Action[DataT],
        deadline: Deadline,
        timeouts: Timeouts,
        extend: AsyncCallable[float] | None,
    ) -> Reply[DataT]:
        spec, attempt = action.spec, 0
        await self._ensure_ready(deadline)
        while True:
            attempt += 1
            try:
                return read_reply(
                    action,
                    await self._send_request(make_rpc_request(action, self.settings), deadline, timeouts, extend),
                )
            except AgentBayError as error:
                # The answer to an earlier attempt was lost, but that attempt did delete the thing, so this is no
                # failure.
                if attempt > 1 and spec.not_found_is_success and isinstance(error, NotFoundError):
                    return Reply(action=spec.name, data=None, request_id=error.request_id)
                await self._wait_before_retry(error, attempt, spec.idempotent, deadline)

    async def call_direct(
        self,
        link_url: str,
        call: DirectToolCall,
        deadline: Deadline,
        timeouts: Timeouts = NO_TIMEOUTS,
        extend: AsyncCallable[float] | None = None,
        body: bytes | None = None,
    ) -> Reply[ToolReply]:
        """Call a tool directly at a session's own link.

        With a `body` that is not None, the call has raw bytes.

        Raises:
            AgentBayError: Typed by what happened; a tool call that may have been executed is not repeated.
        """
        outgoing = make_direct_request(link_url, call) if body is None else make_raw_request(link_url, call, body)
        attempt = 0
        await self._ensure_ready()
        while True:
            attempt += 1
            try:
                return read_direct_reply(
                    await self._send_request(outgoing, deadline, timeouts, extend), call.request_id
                )
            except AgentBayError as error:
                # A tool call has side effects and no idempotency key, so it is sent again only if it never reached the
                # session.
                await self._wait_before_retry(error, attempt, False, deadline)

    @asynccontextmanager
    async def send_streamed(
        self, outgoing: HttpRequest, content: AsyncIterable[bytes] | None, deadline: Deadline, idle: float
    ) -> AsyncIterator[AsyncPoolResponse | httpx.Response]:
        """Send a streamed request and yield the unread response.

        It is never repeated, and redirects are not followed.

        Args:
            outgoing: The request.
            content: Its body, or None for a body in the request.
            deadline: When the response must have begun.
            idle: Seconds without any byte after which the transfer fails.

        Raises:
            AgentBayError: Typed by what happened.
        """
        await self._ensure_ready()
        wait = min(deadline.remaining_or_raise(outgoing.label), idle)
        limits: dict[str, float | None] = {"pool": wait, "connect": wait, "read": wait, "write": wait}
        try:
            sender = await self._httpx_sender(outgoing.url)
            if sender is None:
                pool = (await self._routers.get()).pool
                response = await pool.send(outgoing, limits, deadline.at, content, is_long=True)
                async with aclosing(response):
                    yield response
            else:
                from .httpx_sender import send_unread, translated_errors

                with translated_errors():
                    async with aclosing(await send_unread(sender, outgoing, content, limits)) as unread:
                        yield unread
        except CONNECTION_ERRORS as error:
            if isinstance(error, WaitTimedOut) and deadline.remaining() > 0:
                message = f"The {outgoing.label} stood still for {wait:g} s."
                raise DeadlineExceeded(message, action=outgoing.label) from error
            _raise_mapped(error, outgoing, deadline, self._proxy_for)

    def _proxy_for(self, url: str) -> str | None:
        """Return the proxy on the way to a URL, if known."""
        if self._http_client is not None:  # its own settings decide
            return None
        return choose_proxy(self._proxy, self.settings.socket_path, url)

    async def _httpx_sender(self, url: str) -> httpx.AsyncClient | httpx.AsyncBaseTransport | None:
        """Return what sends requests to a URL, None for the connection pool."""
        if self._http_client is not None:
            return self._http_client
        proxy = self._proxy_for(url)
        return None if proxy is None else (await self._routers.get()).through(proxy)

    async def retry(self, attempt: AsyncCallable[R], deadline: Deadline) -> R:
        """Repeat an idempotent attempt with exponential backoff.

        It ends at the deadline, or after `max_retries`.

        Raises:
            AgentBayError: That of the last attempt.
        """
        number = 0
        while True:
            number += 1
            try:
                return await attempt()
            except AgentBayError as error:
                await self._wait_before_retry(error, number, True, deadline)

    async def websocket_endpoint(self, url: str, token: str) -> WebSocketEndpoint:
        """Return how to open a WebSocket with this client's proxy and TLS."""
        from .._websocket import WebSocketEndpoint

        await self._ensure_ready()
        address = read_address(url)
        secure = address.scheme == "wss"
        path = self.settings.socket_path if address.is_local_socket else ""
        proxy = self._proxy or environment_proxy("https" if secure else "http", address.host)
        # Only the runtime's own address goes through its unix socket. A URL of another host must reach that host.
        return WebSocketEndpoint(url, token, ssl_context(self._verify) if secure else None, proxy, path)

    def register_websocket(self, websocket: AsyncWsClient) -> None:
        """Remember a session's WebSocket, to close it with this transport."""
        self._ws_clients.add(websocket)

    def configure_clone(self, bay: Any) -> None:
        """Set up a client that uses the same service with its own connections.

        It is of the synchronous flavour, and is never strict.

        Raises:
            NotSupportedError: This client sends everything by an asynchronous `http_client`.
        """
        http_client: object = self._http_client  # of which flavour it is, is not known to type checkers
        if http_client is not None:
            import httpx

            if not isinstance(http_client, httpx.Client):
                raise NotSupportedError(
                    "watch_directory() works in a thread of its own, where the http_client of this client cannot be "
                    "used.",
                    hint="Use watch() instead.",
                )
        bay._set_up(
            self.settings,
            None,
            self.max_retries,
            http_client,
            self._proxy,
            self._verify,
            False,
            self._max_connections,
        )

    async def aclose(self) -> None:
        """Close the connections.

        An `http_client` that was given stays open.
        """
        if self._origin is not self:
            return
        # Calls are refused from here on, so that none can open a connection while the others are being closed.
        self._closed = True
        # A copy, because a session that is used in another thread may register its WebSocket meanwhile.
        for websocket in list(self._ws_clients):
            await websocket.aclose()
        await self._routers.aclose()
        if self._launcher is not None:
            await async_run_blocking(self._launcher.stop)

    async def _ensure_ready(self, deadline: Deadline | None = None) -> None:
        async_check_event_loop()
        if self._origin._closed:
            raise ClientClosedError(hint="Make a new one, or keep this one open.")
        if self._http_client is not None and self._http_client.is_closed:
            raise ClientClosedError("The http_client that this client was given is closed.")
        if self._launcher is not None and not self.settings.url:
            # Only a running runtime knows its address. Its start takes a while, so it must not block an event loop.
            began = time.monotonic()
            url = await async_run_blocking(self._launcher.start)
            # The start has a limit of its own: in a container, its image may be built first.
            waiting = deadline or current_limit()
            if waiting is not None:
                waiting.postpone(time.monotonic() - began)
            self.settings = self.settings._replace(url=url, host=url.partition("://")[2])

    async def _wait_before_retry(
        self, error: AgentBayError, attempt: int, idempotent: bool, deadline: Deadline
    ) -> None:
        pause = retry_backoff(
            error,
            attempt,
            idempotent=idempotent,
            max_retries=self.max_retries,
            remaining=deadline.remaining(),
        )
        if pause is None:
            raise error
        _logger.debug("%s again in %.2f s: %s", error.action, pause, type(error).__name__)
        await async_sleep(pause)

    async def _send_request(
        self,
        outgoing: HttpRequest,
        deadline: Deadline,
        timeouts: Timeouts,
        extend: AsyncCallable[float] | None,
    ) -> HttpAnswer:
        left, began = deadline.remaining_or_raise(outgoing.label), time.monotonic()
        limits = {
            "pool": left,
            "connect": min(left, timeouts.connect or left),
            "read": min(left, timeouts.read or left),
            "write": left,
        }
        try:
            sender = await self._httpx_sender(outgoing.url)
            if sender is None:
                answer = await self._send_by_pool(outgoing, limits, deadline, extend)
            else:
                from .httpx_sender import send_by_httpx

                answer = await send_by_httpx(sender, outgoing, limits, deadline, extend)
        except CONNECTION_ERRORS as error:
            _raise_mapped(error, outgoing, deadline, self._proxy_for)
        _logger.debug("%s: HTTP %d in %.1f ms", outgoing.label, answer.status, (time.monotonic() - began) * 1000)
        return answer

    async def _send_by_pool(
        self,
        outgoing: HttpRequest,
        limits: Mapping[str, float | None],
        deadline: Deadline,
        extend: AsyncCallable[float] | None,
    ) -> HttpAnswer:
        pool = (await self._routers.get()).pool
        is_long = extend is not None
        response = await pool.send(outgoing, limits, deadline.at, extend_deadline=extend, is_long=is_long)
        async with aclosing(response):
            body = b"".join([part async for part in response.aiter_raw()])
        answer = HttpAnswer(response.status_code, response.headers, body, outgoing.label)
        if "content-encoding" in response.headers:  # which nobody asked for
            from .httpx_sender import decode_content

            return decode_content(answer)
        return answer

    def _make_router(self) -> AsyncTransportRouter:
        return AsyncTransportRouter(self._verify, self.settings.socket_path, self._max_connections)


def _raise_mapped(
    error: Exception, outgoing: HttpRequest, deadline: Deadline, proxy_for: Callable[[str], str | None]
) -> NoReturn:
    """Raise this package's error for what happened to a connection."""
    what = outgoing.label
    proxy = proxy_for(outgoing.url)
    through = f" through the proxy {redact_url(proxy)}" if proxy else ""
    address = read_address(outgoing.url)
    port = f":{address.port}" if address.port else ""
    host = f"{address.host or 'the endpoint'}{port}{through}"
    if isinstance(error, PoolExhausted):
        raise ConnectionPoolFull(
            f"{what}: {error}, until its time was over.",
            hint="Nothing was sent. Make the client with a larger max_connections, or make fewer calls at once.",
            action=what,
        ) from error
    if isinstance(error, NothingSent):  # so the call may be repeated
        raise ConnectionFailed(
            f"{what}: no connection to {host}: {error}.", hint="Nothing was sent.", action=what
        ) from error
    if isinstance(error, WaitTimedOut):
        late = deadline.exceeded_error(f"{what} at {host}")
        late.action, late.hint = what, "It may have been executed all the same."
        raise late from error
    if isinstance(error, Unreadable):
        raise ReplyError(f"The answer of {host} to {what} cannot be read: {error}.", action=what) from error
    raise ConnectionLost(
        f"{what}: the connection to {host} was lost: {error}.", hint="It may have been executed.", action=what
    ) from error
