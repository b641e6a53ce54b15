"""Connections to what the egress policy allows, directly or through the machine's own proxy.

A name is resolved once, and the connection goes to an address that was checked (against DNS rebinding). Whatever the
policy allows, the runtime's own port is never reached.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import ipaddress
import socket
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Iterable
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from agentbay.local.network.egress_policy import EgressPolicy, EgressRule, HostPort
from agentbay.local.outbound.address_check import NotPublicAddress, is_public_address, resolve

_CONNECT_TIMEOUT_SECONDS = 15.0  # for each address
_MAX_HEAD_BYTES = 64 << 10

Streams = tuple[StreamReader, StreamWriter]


class ProxyError(Exception):
    """A request that the egress proxy refuses or cannot carry out.

    Attributes:
        status: The HTTP status of the answer, whose text is the message.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class UpstreamConnection(NamedTuple):
    """A connection that carries one request.

    Attributes:
        via_proxy: It leads to the machine's own proxy, which wants the whole URL in a request line.
        proxy_authorization: The credentials for that proxy, or b"".
    """

    reader: StreamReader
    writer: StreamWriter
    via_proxy: bool = False
    proxy_authorization: bytes = b""


class EgressDialer:
    """Connects to hosts that the egress policy allows.

    Args:
        rules: What is allowed from the start.
        own_port: The port that the runtime itself listens on; 0 if none.
        load_more_rules: Called once, in a thread, before anything is refused: for rules that take long to find out.
    """

    def __init__(
        self, rules: Iterable[EgressRule], *, own_port: int, load_more_rules: Callable[[], Iterable[EgressRule]] = tuple
    ) -> None:
        self._policy, self._own_port, self._load_more_rules = EgressPolicy(rules), own_port, load_more_rules
        self._more_rules_loaded: asyncio.Future[None] | None = None
        self._narrower: EgressPolicy | None = None

    def narrowed_to(self, rules: Iterable[EgressRule]) -> EgressDialer:
        """Return a dialer for what these rules allow too."""
        narrowed = copy.copy(self)
        narrowed._narrower = EgressPolicy(rules)
        return narrowed

    async def rules_beyond(self, rules: Iterable[EgressRule]) -> list[EgressRule]:
        """Return those of the rules that cover nothing that is allowed."""
        beyond = [rule for rule in rules if not self._policy.overlaps(rule)]
        if beyond:
            await self._load_rules_once()
        return [rule for rule in beyond if not self._policy.overlaps(rule)]

    async def connect(self, destination: HostPort, *, scheme: str) -> UpstreamConnection:
        """Connect for a request.

        Args:
            scheme: "http", or "https" for a tunnel.

        Raises:
            ProxyError: The policy does not allow it, or the connection failed.
        """
        rule = await self._require_rule(destination)
        proxy = _find_system_proxy(destination, scheme)
        if proxy is None:
            return UpstreamConnection(*await self._connect_directly(destination, rule))
        if destination.port == self._own_port:  # the other proxy might resolve the name to this machine
            raise ProxyError(403, f"{destination}: the port of the runtime itself is closed")
        if rule.is_pattern:
            # The other proxy resolves the name again, so this check stops private names, but not DNS rebinding.
            await self._resolve(destination, rule)
        return await _connect_via_proxy(proxy, destination, scheme)

    async def _require_rule(self, destination: HostPort) -> EgressRule:
        narrower = None
        if self._narrower is not None and (narrower := self._narrower.find_rule(destination)) is None:
            raise ProxyError(403, f"{destination} is not among the hosts that this session may reach (network=)")
        if not (rule := self._policy.find_rule(destination)):
            await self._load_rules_once()
            rule = self._policy.find_rule(destination)
        if rule is None:
            raise _not_allowed(destination, f"{destination} is not allowed")
        # The pattern of either covers public addresses only.
        return narrower if narrower is not None and narrower.is_pattern else rule

    async def _load_rules_once(self) -> None:
        if self._more_rules_loaded is None:
            self._more_rules_loaded = asyncio.ensure_future(self._add_more_rules())
        # All requests share this future: one that is cancelled must not cancel it for the others.
        await asyncio.shield(self._more_rules_loaded)

    async def _add_more_rules(self) -> None:
        self._policy.add(await asyncio.to_thread(self._load_more_rules))

    async def _connect_directly(self, destination: HostPort, rule: EgressRule) -> Streams:
        addresses = await self._resolve(destination, rule)
        if destination.port == self._own_port and any(map(_is_local_address, addresses)):
            raise ProxyError(403, f"{destination} is the runtime itself")
        reason = ""
        for address in addresses:
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT_SECONDS):
                    return await asyncio.open_connection(address, destination.port, limit=_MAX_HEAD_BYTES)
            except TimeoutError:
                reason = f"no answer within {_CONNECT_TIMEOUT_SECONDS:.0f} seconds"
            except OSError as error:
                reason = error.strerror or str(error)
        raise ProxyError(502, f"{destination} cannot be reached: {reason}")

    async def _resolve(self, destination: HostPort, rule: EgressRule) -> list[str]:
        try:
            return await resolve(destination.host, destination.port, public_only=rule.is_pattern)
        except OSError as error:
            raise ProxyError(502, f"{destination.host} cannot be resolved: {error.strerror}") from error
        except NotPublicAddress as error:
            raise _not_allowed(destination, str(error)) from error


def _not_allowed(destination: HostPort, reason: str) -> ProxyError:
    return ProxyError(403, f"{reason}; to allow it, start the runtime with --allow-host {destination}")


def _is_local_address(address: str) -> bool:
    """Return whether an address belongs to this machine."""
    # a socket can be bound to an address of this machine only
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


def _find_system_proxy(destination: HostPort, scheme: str) -> SplitResult | None:
    """Return the proxy that this machine's own programs would use, by the usual variables."""
    if proxy_bypass(str(destination)) or not _may_be_public(destination.host):  # local hosts need no proxy
        return None
    proxies = getproxies()
    url = proxies.get(scheme) or proxies.get("all")
    return urlsplit(url if "://" in url else f"http://{url}") if url else None


async def _connect_via_proxy(proxy: SplitResult, destination: HostPort, scheme: str) -> UpstreamConnection:
    """Connect to the machine's own proxy, and let it open a tunnel for "https"."""
    if proxy.scheme not in ("http", "https") or not proxy.hostname:
        raise ProxyError(502, f"the machine's own proxy is of the kind {proxy.scheme}, which is not supported")
    tls = ssl.create_default_context() if proxy.scheme == "https" else None
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(
                proxy.hostname, proxy.port or (443 if tls else 80), ssl=tls, limit=_MAX_HEAD_BYTES
            )
    except (TimeoutError, OSError) as error:
        raise ProxyError(502, "the machine's own proxy cannot be reached") from error
    login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}" if proxy.username else ""
    authorization = b"Basic " + base64.b64encode(login.encode()) if login else b""
    if scheme == "https":
        try:
            await _open_tunnel(reader, writer, destination, authorization)
        except BaseException:
            writer.close()
            raise
    return UpstreamConnection(reader, writer, True, authorization)


async def _open_tunnel(reader: StreamReader, writer: StreamWriter, destination: HostPort, authorization: bytes) -> None:
    head = f"CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n".encode()
    writer.write(head + (b"Proxy-Authorization: " + authorization + b"\r\n" if authorization else b"") + b"\r\n")
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_SECONDS):
            answer = await reader.readuntil(b"\r\n\r\n")
    except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise ProxyError(502, "the machine's own proxy gave no answer") from error
    status = answer.split(b" ", 2)[1:2]
    if not status or not status[0].startswith(b"2"):
        status_line = answer.split(b"\r\n", 1)[0].decode("latin-1")
        raise ProxyError(502, f"the machine's own proxy answered {status_line}")
