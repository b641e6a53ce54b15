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

from agentbay.local.egress import is_public
from agentbay.local.network.rules import Place, Rule, Rules

_logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 15.0  # for each address
_LARGEST_HEAD = 64 << 10

Streams = tuple[StreamReader, StreamWriter]


class Refusal(Exception):
    """A request that is not carried out; `status` and text are the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Route(NamedTuple):
    """A connection for a request.

    Attributes:
        proxied: It leads to the machine's own proxy, which must be told the whole URL.
        authorization: What that proxy wants to see, or b"".
    """

    reader: StreamReader
    writer: StreamWriter
    proxied: bool = False
    authorization: bytes = b""


class Reach:
    """What sandboxes may reach.

    Args:
        rules: What is allowed from the start.
        own_port: Where the runtime itself listens; 0 if on no port.
        more: Asked once, in a thread, before anything is refused; what it takes long to find out.
    """

    def __init__(self, rules: Iterable[Rule], *, own_port: int, more: Callable[[], Iterable[Rule]] = tuple) -> None:
        self._rules, self._own_port, self._more = Rules(rules), own_port, more
        self._asked: asyncio.Future[None] | None = None

    async def connect(self, place: Place, *, scheme: str) -> Route:
        """Connect to a place for a request of that scheme; the route of an "https" one is a tunnel to it.

        Raises:
            Refusal: It may not be reached, or cannot.
        """
        rule = await self._rule(place)
        proxy = _proxy_of_this_machine(place, scheme)
        if proxy is None:
            return Route(*await self._connect_directly(place, rule))
        if place.port == self._own_port:  # a name that another resolves might be that of this machine
            raise Refusal(403, f"{place}: the port of the runtime itself is closed")
        return await _connect_through(proxy, place, scheme)

    async def _rule(self, place: Place) -> Rule:
        if not (rule := self._rules.matching(place)):
            if self._asked is None:
                self._asked = asyncio.ensure_future(self._ask())
            await asyncio.shield(self._asked)
            rule = self._rules.matching(place)
        if rule is None:
            raise _not_allowed(place, f"{place} is not allowed")
        return rule

    async def _ask(self) -> None:
        self._rules.add(await asyncio.to_thread(self._more))

    async def _connect_directly(self, place: Place, rule: Rule) -> Streams:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Refusal(502, f"{place.host} cannot be resolved: {error.strerror}") from error
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
        raise Refusal(502, f"{place} cannot be reached: {why}")

    def _check_address(self, place: Place, address: str, rule: Rule) -> None:
        if place.port == self._own_port and _is_ours(address):
            raise Refusal(403, f"{place} is the runtime itself")
        if rule.is_pattern and not is_public(address):
            raise _not_allowed(place, f"{place.host} is not a public address")


def _not_allowed(place: Place, why: str) -> Refusal:
    return Refusal(403, f"{why}; to allow it, start the runtime with --allow-host {place}")


def _is_ours(address: str) -> bool:
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
        return is_public(socket.inet_ntoa(socket.inet_aton(host)))  # also 127.1, 0x7f000001 and 2130706433
    with contextlib.suppress(ValueError):
        return is_public(str(ipaddress.ip_address(host)))
    return "." in host and not host.endswith((".localhost", ".local", ".internal"))


def _proxy_of_this_machine(place: Place, scheme: str) -> SplitResult | None:
    """Return the proxy through which this machine's own programs would go, by the usual variables."""
    if proxy_bypass(str(place)) or not _may_be_public(place.host):  # what is near needs no proxy
        return None
    proxies = getproxies()
    url = proxies.get(scheme) or proxies.get("all")
    return urlsplit(url if "://" in url else f"http://{url}") if url else None


async def _connect_through(proxy: SplitResult, place: Place, scheme: str) -> Route:
    """Connect to the machine's proxy; for "https" have it open a tunnel."""
    if proxy.scheme not in ("http", "https") or not proxy.hostname:
        raise Refusal(502, f"the machine's own proxy is of the kind {proxy.scheme}, which is not supported")
    tls = ssl.create_default_context() if proxy.scheme == "https" else None
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(
                proxy.hostname, proxy.port or (443 if tls else 80), ssl=tls, limit=_LARGEST_HEAD
            )
    except (TimeoutError, OSError) as error:
        raise Refusal(502, "the machine's own proxy cannot be reached") from error
    login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}" if proxy.username else ""
    authorization = b"Basic " + base64.b64encode(login.encode()) if login else b""
    if scheme == "https":
        try:
            await _open_tunnel(reader, writer, place, authorization)
        except BaseException:
            writer.close()
            raise
    return Route(reader, writer, True, authorization)


async def _open_tunnel(reader: StreamReader, writer: StreamWriter, place: Place, authorization: bytes) -> None:
    head = f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n".encode()
    writer.write(head + (b"Proxy-Authorization: " + authorization + b"\r\n" if authorization else b"") + b"\r\n")
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            answer = await reader.readuntil(b"\r\n\r\n")
    except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise Refusal(502, "the machine's own proxy gave no answer") from error
    status = answer.split(b" ", 2)[1:2]
    if not status or not status[0].startswith(b"2"):
        said = answer.split(b"\r\n", 1)[0].decode("latin-1")
        raise Refusal(502, f"the machine's own proxy answered {said}")
