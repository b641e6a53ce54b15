"""How the service connects to registries.

Registries redirect the service to their login servers and blob storage. A registry is trusted no further than its own
address: one of the internet must not lead the service to a server of this machine or its network, which may trust
whoever reaches it (server-side request forgery, SSRF).
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from agentbay.local.outbound.address_check import is_public_address

_MACHINE, _NETWORK, _INTERNET = range(3)  # what an address belongs to


class RegistryTransport(httpx.BaseTransport):
    """Sends requests for one registry, through the machine's own proxy where it has one."""

    def __init__(self) -> None:
        self._direct = _CheckedTransport()
        self._proxied = {
            scheme: httpx.HTTPTransport(proxy=url if "://" in url else f"http://{url}")
            for scheme, url in getproxies().items()
            if scheme in ("http", "https", "all")
        }

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        transport = self._proxied.get(request.url.scheme) or self._proxied.get("all")
        if transport is None or proxy_bypass(request.url.netloc.decode("ascii")):
            transport = self._direct
        return transport.handle_request(request)

    def close(self) -> None:
        """Close the connections."""
        for transport in (self._direct, *self._proxied.values()):
            transport.close()


class _CheckedTransport(httpx.HTTPTransport):
    def __init__(self) -> None:
        super().__init__()
        # httpx itself takes no backend.
        self._pool = httpcore.ConnectionPool(ssl_context=httpx.create_ssl_context(), network_backend=_CheckedBackend())


class _CheckedBackend(httpcore.SyncBackend):
    """Refuses addresses more private than that of the first connection."""

    def __init__(self) -> None:
        self._nearest: int | None = None

    def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        # To an address that was checked, and not to the name: against DNS rebinding.
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(error.strerror or str(error)) from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        nearest = min(map(_belongs_to, addresses))
        if self._nearest is None:
            self._nearest = nearest
        if nearest < self._nearest:
            raise httpcore.ConnectError(f"it leads to {host}, a server of this machine or its network")
        failure: Exception | None = None
        for address in addresses:
            try:
                return super().connect_tcp(address, port, *args, **kwargs)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure


def _belongs_to(address: str) -> int:
    if is_public_address(address):
        return _INTERNET
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    parsed = mapped or parsed
    # Link-local addresses are those of the metadata of a cloud's machine.
    is_own = parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified or parsed.is_multicast
    return _MACHINE if is_own else _NETWORK
