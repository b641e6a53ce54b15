"""The way to each host: the connection pool, or a proxy."""

from __future__ import annotations

import os
from functools import cache, partial
from typing import TYPE_CHECKING

from .._transport.addresses import read_address
from ..errors import ConfigurationError
from .connection_pool import AsyncConnectionPool

if TYPE_CHECKING:
    import ssl

    import httpx

MAX_CONNECTIONS = 100
MAX_LONG_CALLS = 400  # under way at once, such as commands
_LONG_CALLS_PER_CONNECTION = 4


class AsyncTransportRouter:
    """Has the connection pool, and the transports of proxies."""

    def __init__(self, verify: bool | str | ssl.SSLContext, socket: str, max_connections: int | None) -> None:
        self._ssl_context = partial(ssl_context, verify)
        self._most = max_connections or MAX_CONNECTIONS
        self._most_long_calls = _LONG_CALLS_PER_CONNECTION * max_connections if max_connections else MAX_LONG_CALLS
        self.pool = AsyncConnectionPool(self._ssl_context, self._most, self._most_long_calls, socket)
        self._proxy_transports: dict[str, httpx.AsyncHTTPTransport] = {}

    def through(self, proxy: str) -> httpx.AsyncHTTPTransport:
        """Return the httpx transport of a proxy.

        Raises:
            ConfigurationError: It cannot be used.
        """
        if proxy not in self._proxy_transports:
            self._proxy_transports[proxy] = self._make_proxy_transport(proxy)
        return self._proxy_transports[proxy]

    def _make_proxy_transport(self, proxy: str) -> httpx.AsyncHTTPTransport:
        import httpx

        most = self._most + self._most_long_calls
        limits = httpx.Limits(max_connections=most, max_keepalive_connections=self._most)
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
        await self.pool.aclose()
        for transport in self._proxy_transports.values():
            await transport.aclose()


@cache
def ssl_context(verify: bool | str | ssl.SSLContext) -> ssl.SSLContext:
    """Return the TLS context for a way to verify, made once per process.

    Loading the authorities takes tens of milliseconds.

    Raises:
        ConfigurationError: If `verify` names a file that cannot be used.
    """
    context = _make_ssl_context(verify)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _make_ssl_context(verify: bool | str | ssl.SSLContext) -> ssl.SSLContext:
    import ssl  # with the first connection that has TLS, as both take long to import

    import certifi

    if isinstance(verify, ssl.SSLContext):
        return verify
    if verify is False:
        unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
        return unverified
    if verify is True:
        # As httpx and OpenSSL do: the environment goes before the authorities of certifi.
        file, directory = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
        return ssl.create_default_context(cafile=file or (None if directory else certifi.where()), capath=directory)
    try:
        return ssl.create_default_context(cafile=verify)
    except OSError as error:
        raise ConfigurationError(
            f"verify={verify!r} cannot be used: {error}.", hint="Give the path of a file of CA certificates (PEM)."
        ) from error


def choose_proxy(proxy: str | None, socket: str, url: str) -> str | None:
    """Return the proxy for a URL, as given or from the environment.

    It is chosen anew for each request, since NO_PROXY may except some hosts and the environment can change.
    """
    address = read_address(url)
    if socket and address.is_local_socket:
        return None
    return proxy or environment_proxy(address.scheme, address.host)


def environment_proxy(scheme: str, host: str) -> str | None:
    """Return the proxy that the environment names for a host.

    HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY are read. This machine is never reached through a proxy.
    """
    if host in ("localhost", "127.0.0.1", "::1"):
        return None
    import urllib.request  # takes long to import

    proxies = urllib.request.getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    return proxy if proxy and not urllib.request.proxy_bypass(host) else None
