"""Sends requests and reads answers over httpx; decides nothing that can be decided without I/O."""

from __future__ import annotations

import logging
import ssl
import time
import urllib.request
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from weakref import WeakSet

import httpx

from .._concurrency import AsyncCall, AsyncOwner, async_blocking, async_in_time, async_mind, async_sleep
from .._transport.deadline import ANY_PATIENCE, Deadline, Patience
from .._transport.reply import Answer, Reply, read, read_direct
from .._transport.request import Outgoing, direct, rpc
from .._transport.retry import pause_before_retry
from .._wire.schema import Action
from .._wire.tools import DirectToolCall, ToolReply
from ..config import Settings
from ..errors import (
    AgentBayError,
    ClientClosedError,
    ConfigurationError,
    ConnectionFailed,
    ConnectionLost,
    DeadlineExceeded,
    NotFoundError,
    ReplyError,
)
from .pool import AsyncPool, is_local_socket

if TYPE_CHECKING:
    from .._launcher import Launcher
    from .._websocket import Place
    from .ws import AsyncWsClient

DataT = TypeVar("DataT")
R = TypeVar("R")
MAX_CONNECTIONS = 100
_log = logging.getLogger("agentbay")
_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


class AsyncTransport:
    """The way to the service, and straight to a session's own link."""

    def __init__(
        self,
        settings: Settings,
        *,
        launcher: Launcher | None,
        max_retries: int,
        http_client: httpx.AsyncClient | None,
        proxy: str | None,
        verify: bool | str | ssl.SSLContext,
    ) -> None:
        self.settings = settings
        self._launcher = launcher
        self.max_retries = max_retries
        self._http_client = http_client
        self._proxy = proxy
        self._verify = verify
        self._routes = AsyncOwner(self._make_routes, AsyncRoutes.aclose)
        self._websockets: WeakSet[AsyncWsClient] = WeakSet()
        self._closed = False

    async def call(
        self, action: Action[DataT], deadline: Deadline | None = None, patience: Patience = ANY_PATIENCE
    ) -> Reply[DataT]:
        """Send an action and return what the service said; without a deadline it may take the client's time limit.

        Raises:
            AgentBayError: Typed by what happened; nothing that could be executed twice is sent twice.
        """
        spec, attempt = action.spec, 0
        deadline = deadline or Deadline(self.settings.timeout)
        await self._be_ready()
        while True:
            attempt += 1
            try:
                return read(action, await self._exchange(rpc(action, self.settings), deadline, patience))
            except AgentBayError as error:
                if attempt > 1 and spec.gone_is_done and isinstance(error, NotFoundError):
                    return Reply(action=spec.name, data=None, request_id=error.request_id)
                await self._pause(error, attempt, spec.idempotent, deadline)

    async def call_direct(
        self, link_url: str, call: DirectToolCall, deadline: Deadline, patience: Patience = ANY_PATIENCE
    ) -> Reply[ToolReply]:
        """Call a tool straight at a session's own link.

        Raises:
            AgentBayError: Typed by what happened; a tool call that may have been executed is not repeated.
        """
        outgoing, attempt = direct(link_url, call), 0
        await self._be_ready()
        while True:
            attempt += 1
            try:
                return read_direct(await self._exchange(outgoing, deadline, patience), call.request_id)
            except AgentBayError as error:
                await self._pause(error, attempt, False, deadline)

    @asynccontextmanager
    async def presigned(
        self, outgoing: Outgoing, content: AsyncIterable[bytes] | None, deadline: Deadline, idle: float
    ) -> AsyncIterator[httpx.Response]:
        """Send a request, its body block by block, and yield the answer unread; nothing is repeated or followed.

        Raises:
            AgentBayError: Typed by what happened; `idle` is how many seconds nothing may move.
        """
        await self._be_ready()
        wait = min(deadline.check(outgoing.label), idle)
        extensions = {
            "target": outgoing.target,  # apart from the URL, which logs may show
            "deadline": deadline.at,
            "timeout": {"pool": wait, "connect": wait, "read": wait, "write": wait},
        }
        try:
            request = httpx.Request(
                outgoing.method, outgoing.url, headers=outgoing.headers, content=content, extensions=extensions
            )
            response = await self._open(request)
            try:
                yield response
            finally:
                await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            if isinstance(error, (httpx.ReadTimeout, httpx.WriteTimeout)) and deadline.remaining() > 0:
                message = f"The {outgoing.label} stood still for {wait:g} s."
                raise DeadlineExceeded(message, action=outgoing.label) from error
            _raise_typed(error, outgoing, deadline)

    async def _open(self, request: httpx.Request) -> httpx.Response:
        if self._http_client is not None:
            return await self._http_client.send(request, stream=True, auth=None, follow_redirects=False)
        return await (await self._routes.get()).route(request.url).handle_async_request(request)

    async def repeat(self, attempt: AsyncCall[R], deadline: Deadline) -> R:
        """Make an attempt, and make it again where that may help; for what does the same however often it is done.

        Raises:
            AgentBayError: That of the last attempt.
        """
        number = 0
        while True:
            number += 1
            try:
                return await attempt()
            except AgentBayError as error:
                await self._pause(error, number, True, deadline)

    async def place(self, url: str, token: str) -> Place:
        """Say how a WebSocket gets there: by the same proxy, and with the same trust, as everything else."""
        from .._websocket import Place

        await self._be_ready()
        address = httpx.URL(url)
        secure = address.scheme == "wss"
        path = self.settings.socket if is_local_socket(address) else ""
        proxy = self._proxy or environment_proxy("https" if secure else "http", address.host)
        return Place(url, token, ssl_context(self._verify) if secure else None, proxy, path)

    def close_later(self, websocket: AsyncWsClient) -> None:
        """Close a session's WebSocket too when this is closed."""
        self._websockets.add(websocket)

    def lend(self, bay: Any) -> None:
        """Set up a client of either flavour that goes the same way, with connections of its own and never raising."""
        bay._set_up(self.settings, None, self.max_retries, None, self._proxy, self._verify, False)

    async def aclose(self) -> None:
        """Close the connections; an `http_client` that was given stays open."""
        self._closed = True
        for websocket in list(self._websockets):
            await websocket.aclose()
        await self._routes.aclose()
        if self._launcher is not None:
            await async_blocking(self._launcher.stop)

    async def _be_ready(self) -> None:
        async_mind()
        if self._closed:
            raise ClientClosedError(hint="Make a new one, or keep this one open.")
        if self._http_client is not None and self._http_client.is_closed:
            raise ClientClosedError("The http_client that this client was given is closed.")
        if self._launcher is not None and not self.settings.url:
            url = await async_blocking(self._launcher.start)
            self.settings = self.settings._replace(url=url, host=url.partition("://")[2])

    async def _pause(self, error: AgentBayError, attempt: int, idempotent: bool, deadline: Deadline) -> None:
        pause = pause_before_retry(
            error,
            attempt,
            idempotent=idempotent,
            max_retries=self.max_retries,
            remaining=deadline.remaining(),
        )
        if pause is None:
            raise error
        _log.debug("%s again in %.2f s: %s", error.action, pause, type(error).__name__)
        await async_sleep(pause)

    async def _exchange(self, outgoing: Outgoing, deadline: Deadline, patience: Patience) -> Answer:
        left = deadline.check(outgoing.label)
        extensions = {
            "deadline": deadline.at,
            "timeout": {
                "pool": left,
                "connect": min(left, patience.connect or left),
                "read": min(left, patience.read or left),
                "write": left,
            },
        }
        body, began = httpx.ByteStream(outgoing.body), time.monotonic()
        try:
            request = httpx.Request("POST", outgoing.url, headers=outgoing.headers, stream=body, extensions=extensions)
            response, content = await self._send(request, outgoing.target, deadline)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, TimeoutError) as error:
            _raise_typed(error, outgoing, deadline)
        _log.debug("%s: HTTP %d in %.1f ms", outgoing.label, response.status_code, (time.monotonic() - began) * 1000)
        return Answer(response.status_code, response.headers, content, outgoing.label)

    async def _send(self, request: httpx.Request, target: bytes, deadline: Deadline) -> tuple[httpx.Response, bytes]:
        route = None if self._http_client is not None else (await self._routes.get()).route(request.url)
        if isinstance(route, AsyncPool):  # which keeps to the deadline by itself
            request.extensions["target"] = target
            return await self._receive(route, request, deadline)
        if route is None and b"Authorization=" in target:
            request.extensions["target"] = target  # httpx writes addresses to its log, where no key may be
        else:
            request.url = request.url.copy_with(raw_path=target)
        return await async_in_time(deadline.remaining(), lambda: self._receive(route, request, deadline))

    async def _receive(
        self, route: httpx.AsyncBaseTransport | None, request: httpx.Request, deadline: Deadline
    ) -> tuple[httpx.Response, bytes]:
        if route is not None:
            response = await route.handle_async_request(request)
        else:
            assert self._http_client is not None
            response = await self._http_client.send(request, stream=True, follow_redirects=False)
        parts = []
        try:
            async for part in response.aiter_bytes():
                parts.append(part)
                if deadline.remaining() <= 0:
                    raise httpx.ReadTimeout("too late", request=request)
        finally:
            await response.aclose()
        return response, b"".join(parts)

    def _make_routes(self) -> AsyncRoutes:
        return AsyncRoutes(self._verify, self._proxy, self.settings.socket)


class AsyncRoutes:
    """By which way a host is reached: straight through the pool, or through a proxy."""

    def __init__(self, verify: bool | str | ssl.SSLContext, proxy: str | None, socket: str) -> None:
        self._ssl_context = partial(ssl_context, verify)
        self._proxy, self._socket = proxy, socket
        self._pool = AsyncPool(self._ssl_context, MAX_CONNECTIONS, socket)
        self._proxied: dict[str, httpx.AsyncHTTPTransport] = {}

    def route(self, url: httpx.URL) -> httpx.AsyncBaseTransport:
        """Return what carries requests to that URL."""
        proxy = self._proxy or environment_proxy(url.scheme, url.host)
        if proxy is None or (self._socket and is_local_socket(url)):
            return self._pool
        if proxy not in self._proxied:
            self._proxied[proxy] = self._through(proxy)
        return self._proxied[proxy]

    def _through(self, proxy: str) -> httpx.AsyncHTTPTransport:
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
        try:
            address = httpx.Proxy(proxy if "://" in proxy else f"http://{proxy}")
            if not 0 < (address.url.port or 1) < 1 << 16:
                raise ValueError(f"its port is {address.url.port}")
            return httpx.AsyncHTTPTransport(proxy=address, verify=self._ssl_context(), limits=limits)
        except (ValueError, httpx.InvalidURL, ImportError) as error:  # the last for SOCKS without the package for it
            raise ConfigurationError(
                f"The proxy cannot be used: {error}", hint="Write it as http://host:port."
            ) from error

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()
        for transport in self._proxied.values():
            await transport.aclose()


@cache
def ssl_context(verify: bool | str | ssl.SSLContext) -> ssl.SSLContext:
    """Make the TLS context, once in a process for each way to verify: loading the authorities takes its time.

    Raises:
        ConfigurationError: If `verify` names a file that cannot be used.
    """
    if isinstance(verify, ssl.SSLContext):
        return verify
    if isinstance(verify, bool):
        return httpx.create_ssl_context(verify=verify)
    try:
        return ssl.create_default_context(cafile=verify)
    except OSError as error:
        raise ConfigurationError(
            f"verify={verify!r} cannot be used: {error}.", hint="Give the path of a file of CA certificates (PEM)."
        ) from error


def environment_proxy(scheme: str, host: str) -> str | None:
    """The proxy that HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY name for a host; never for this machine."""
    if host in ("localhost", "127.0.0.1", "::1"):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    return proxy if proxy and not urllib.request.proxy_bypass(host) else None


def _raise_typed(error: Exception, outgoing: Outgoing, deadline: Deadline) -> NoReturn:
    """Turn what httpx raises into what this package raises; the one place that knows httpx's exceptions."""
    what = outgoing.label
    host = httpx.URL(outgoing.url).netloc.decode() if not isinstance(error, httpx.InvalidURL) else "the endpoint"
    if isinstance(error, (*_NEVER_SENT, httpx.InvalidURL)):
        raise ConnectionFailed(
            f"{what}: no connection to {host}: {error}.", hint="Nothing was sent.", action=what
        ) from error
    if isinstance(error, (httpx.TimeoutException, TimeoutError)):
        late = deadline.exceeded(f"{what} at {host}")
        late.action, late.hint = what, "It may have been executed all the same."
        raise late from error
    if isinstance(error, (httpx.DecodingError, httpx.LocalProtocolError, httpx.StreamError)):
        raise ReplyError(f"The answer of {host} to {what} cannot be read: {error}.", action=what) from error
    raise ConnectionLost(
        f"{what}: the connection to {host} was lost: {error}.", hint="It may have been executed.", action=what
    ) from error
