"""Sends requests and reads answers over httpx; decides nothing that can be decided without I/O."""

from __future__ import annotations

import logging
import ssl
import time
import urllib.request
from functools import cache, partial
from typing import TYPE_CHECKING, NoReturn, TypeVar

import httpx

from .._concurrency import AsyncOwner, async_blocking, async_sleep
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
    NotFoundError,
    ReplyError,
)
from .pool import AsyncPool

if TYPE_CHECKING:
    from .._launcher import Launcher

DataT = TypeVar("DataT")
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
        self._max_retries = max_retries
        self._http_client = http_client
        self._proxy = proxy
        self._verify = verify
        self._routes = AsyncOwner(self._make_routes, AsyncRoutes.aclose)
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

    async def aclose(self) -> None:
        """Close the connections; an `http_client` that was given stays open."""
        self._closed = True
        await self._routes.aclose()
        if self._launcher is not None:
            await async_blocking(self._launcher.stop)

    async def _be_ready(self) -> None:
        if self._closed:
            raise ClientClosedError(hint="Make a new one, or keep this one open.")
        if self._launcher is not None and not self.settings.url:
            url = await async_blocking(self._launcher.start)
            self.settings = self.settings._replace(url=url, host=url.partition("://")[2])

    async def _pause(self, error: AgentBayError, attempt: int, idempotent: bool, deadline: Deadline) -> None:
        pause = pause_before_retry(
            error,
            attempt,
            idempotent=idempotent,
            max_retries=self._max_retries,
            remaining=deadline.remaining(),
        )
        if pause is None:
            raise error
        _log.debug("%s again in %.2f s: %s", error.action, pause, type(error).__name__)
        await async_sleep(pause)

    async def _exchange(self, outgoing: Outgoing, deadline: Deadline, patience: Patience) -> Answer:
        left = deadline.check(outgoing.label)
        request = httpx.Request(
            "POST",
            outgoing.url,
            headers=outgoing.headers,
            stream=httpx.ByteStream(outgoing.body),
            extensions={
                "target": outgoing.target,
                "deadline": deadline.at,
                "timeout": {
                    "pool": left,
                    "connect": min(left, patience.connect or left),
                    "read": min(left, patience.read or left),
                    "write": left,
                },
            },
        )
        began = time.monotonic()
        try:
            response = await self._send(request)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            _raise_typed(error, outgoing, deadline)
        _log.debug("%s: HTTP %d in %.1f ms", outgoing.label, response.status_code, (time.monotonic() - began) * 1000)
        return Answer(response.status_code, response.headers, response.content, outgoing.label)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        if self._http_client is not None:
            return await self._http_client.send(request, follow_redirects=False)
        route = (await self._routes.get()).route(request.url)
        response = await route.handle_async_request(request)
        try:
            await response.aread()
        finally:
            await response.aclose()
        return response

    def _make_routes(self) -> AsyncRoutes:
        return AsyncRoutes(self._verify, self._proxy)


class AsyncRoutes:
    """By which way a host is reached: straight through the pool, or through a proxy."""

    def __init__(self, verify: bool | str | ssl.SSLContext, proxy: str | None) -> None:
        self._ssl_context = partial(ssl_context, verify)
        self._proxy = proxy
        self._pool = AsyncPool(self._ssl_context, MAX_CONNECTIONS)
        self._proxied: dict[str, httpx.AsyncHTTPTransport] = {}

    def route(self, url: httpx.URL) -> httpx.AsyncBaseTransport:
        """Return what carries requests to that URL."""
        proxy = self._proxy or environment_proxy(url.scheme, url.host)
        if proxy is None:
            return self._pool
        if proxy not in self._proxied:
            self._proxied[proxy] = httpx.AsyncHTTPTransport(
                proxy=httpx.Proxy(proxy),
                verify=self._ssl_context(),
                limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
            )
        return self._proxied[proxy]

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
    if isinstance(error, httpx.TimeoutException):
        late = deadline.exceeded(f"{what} at {host}")
        late.action, late.hint = what, "It may have been executed all the same."
        raise late from error
    if isinstance(error, (httpx.DecodingError, httpx.LocalProtocolError, httpx.StreamError)):
        raise ReplyError(f"The answer of {host} to {what} cannot be read: {error}.", action=what) from error
    raise ConnectionLost(
        f"{what}: the connection to {host} was lost: {error}.", hint="It may have been executed.", action=what
    ) from error
