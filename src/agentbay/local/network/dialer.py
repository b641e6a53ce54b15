"""Where a sandbox's request may go, and the connection there.

A name is resolved here and the connection goes to an address that was looked at, whatever the name means a moment
later. Whatever was allowed, the runtime's own port is never reached.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import logging
import socket
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Iterable
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from agentbay.local.network.egress_policy import EgressPolicy, EgressRule, HostPort
from agentbay.local.outbound.address_check import is_public_address

_logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 15.0  # for each address
_LARGEST_HEAD = 64 << 10

Streams = tuple[StreamReader, StreamWriter]


class ProxyError(Exception):
    """A request that is not carried out; `status` and text are the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class UpstreamConnection(NamedTuple):
    """A connection for a request.

    Attributes:
        proxied: It leads to the machine's own proxy, which must be told the whole URL.
        authorization: What that proxy wants to see, or b"".
    """

    reader: StreamReader
    writer: StreamWriter
    via_proxy: bool = False
    proxy_authorization: bytes = b""


class EgressDialer:
    """What sandboxes may reach.

    Args:
        rules: What is allowed from the start.
        own_port: Where the runtime itself listens; 0 if on no port.
        more: Asked once, in a thread, before anything is refused; what it takes long to find out.
    """

    def __init__(
        self, rules: Iterable[EgressRule], *, own_port: int, more: Callable[[], Iterable[EgressRule]] = tuple
    ) -> None:
        self._rules, self._own_port, self._load_more_rules = EgressPolicy(rules), own_port, more
        self._more_rules_loaded: asyncio.Future[None] | None = None

    async def connect(self, place: HostPort, *, scheme: str) -> UpstreamConnection:
        """Connect to a place for a request of that scheme; the route of an "https" one is a tunnel to it.

        Raises:
            Refusal: It may not be reached, or cannot.
        """
        rule = await self._find_rule(place)
        proxy = _find_system_proxy(place, scheme)
        if proxy is None:
            return UpstreamConnection(*await self._connect_directly(place, rule))
        if place.port == self._own_port:  # a name that another resolves might be that of this machine
            raise ProxyError(403, f"{place}: the port of the runtime itself is closed")
        return await _connect_via_proxy(proxy, place, scheme)

    async def _find_rule(self, place: HostPort) -> EgressRule:
        if not (rule := self._rules.find_rule(place)):
            if self._more_rules_loaded is None:
                self._more_rules_loaded = asyncio.ensure_future(self._add_more_rules())
            await asyncio.shield(self._more_rules_loaded)
            rule = self._rules.find_rule(place)
        if rule is None:
            raise _not_allowed(place, f"{place} is not allowed")
        return rule

    async def _add_more_rules(self) -> None:
        self._rules.add(await asyncio.to_thread(self._load_more_rules))

    async def _connect_directly(self, place: HostPort, rule: EgressRule) -> Streams:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ProxyError(502, f"{place.host} cannot be resolved: {error.strerror}") from error
        addresses = [str(entry[4][0]) for entry in found]
        for address in addresses:
            self._check_address(place, address, rule)
        why = ""
        for address in addresses:
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    return await asyncio.open_connection(address, place.port, limit=_LARGEST_HEAD)
            except TimeoutError:
                why = f"no answer within {_CONNECT_SECONDS:.0f} seconds"
            except OSError as error:
                why = error.strerror or str(error)
        raise ProxyError(502, f"{place} cannot be reached: {why}")

    def _check_address(self, place: HostPort, address: str, rule: EgressRule) -> None:
        if place.port == self._own_port and _is_local_address(address):
            raise ProxyError(403, f"{place} is the runtime itself")
        if rule.is_pattern and not is_public_address(address):
            raise _not_allowed(place, f"{place.host} is not a public address")


def _not_allowed(place: HostPort, why: str) -> ProxyError:
    return ProxyError(403, f"{why}; to allow it, start the runtime with --allow-host {place}")


def _is_local_address(address: str) -> bool:
    """Whether an address is one of this machine's: only to those a socket can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _may_be_public(host: str) -> bool:
    with contextlib.suppress(OSError):
        return is_public_address(socket.inet_ntoa(socket.inet_aton(host)))  # also 127.1, 0x7f000001 and 2130706433
    with contextlib.suppress(ValueError):
        return is_public_address(str(ipaddress.ip_address(host)))
    return "." in host and not host.endswith((".localhost", ".local", ".internal"))


def _find_system_proxy(place: HostPort, scheme: str) -> SplitResult | None:
    """Return the proxy through which this machine's own programs would go, by the usual variables."""
    if proxy_bypass(str(place)) or not _may_be_public(place.host):  # what is near needs no proxy
        return None
    proxies = getproxies()
    url = proxies.get(scheme) or proxies.get("all")
    return urlsplit(url if "://" in url else f"http://{url}") if url else None


async def _connect_via_proxy(proxy: SplitResult, place: HostPort, scheme: str) -> UpstreamConnection:
    """Connect to the machine's proxy; for "https" have it open a tunnel."""
    if proxy.scheme not in ("http", "https") or not proxy.hostname:
        raise ProxyError(502, f"the machine's own proxy is of the kind {proxy.scheme}, which is not supported")
    tls = ssl.create_default_context() if proxy.scheme == "https" else None
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(
                proxy.hostname, proxy.port or (443 if tls else 80), ssl=tls, limit=_LARGEST_HEAD
            )
    except (TimeoutError, OSError) as error:
        raise ProxyError(502, "the machine's own proxy cannot be reached") from error
    login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}" if proxy.username else ""
    authorization = b"Basic " + base64.b64encode(login.encode()) if login else b""
    if scheme == "https":
        try:
            await _open_tunnel(reader, writer, place, authorization)
        except BaseException:
            writer.close()
            raise
    return UpstreamConnection(reader, writer, True, authorization)


async def _open_tunnel(reader: StreamReader, writer: StreamWriter, place: HostPort, authorization: bytes) -> None:
    head = f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n".encode()
    writer.write(head + (b"Proxy-Authorization: " + authorization + b"\r\n" if authorization else b"") + b"\r\n")
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            answer = await reader.readuntil(b"\r\n\r\n")
    except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise ProxyError(502, "the machine's own proxy gave no answer") from error
    status = answer.split(b" ", 2)[1:2]
    if not status or not status[0].startswith(b"2"):
        said = answer.split(b"\r\n", 1)[0].decode("latin-1")
        raise ProxyError(502, f"the machine's own proxy answered {said}")
