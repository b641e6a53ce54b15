"""Connections to what the egress policy allows, directly or through the machine's own proxy.

A name is resolved once, and the connection goes to an address that was checked (against DNS rebinding). Whatever the
policy allows, the runtime's own port is never reached.
"""

from __future__ import annotations

import asyncio
import copy
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from agentbay.local.lazy_imports import import_in_thread
from agentbay.local.network.egress_policy import EgressPolicy, EgressRule, HostPort
from agentbay.local.outbound.address_check import NotPublicAddress, resolve

CONNECT_TIMEOUT_SECONDS = 15.0  # for each address
MAX_HEAD_BYTES = 64 << 10

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
        """Return a dialer that connects only where these rules allow it as well."""
        narrowed = copy.copy(self)
        narrowed._narrower = EgressPolicy(rules)
        return narrowed

    async def rules_beyond(self, rules: Iterable[EgressRule]) -> list[EgressRule]:
        """Return the rules that lie wholly outside of what is allowed."""
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
        system_proxy = await import_in_thread("network.system_proxy")  # now, as urllib.request takes long to import
        proxy = system_proxy.find(destination, scheme)
        if proxy is None:
            return UpstreamConnection(*await self._connect_directly(destination, rule))
        if destination.port == self._own_port:  # the other proxy might resolve the name to this machine
            raise ProxyError(403, f"{destination}: the port of the runtime itself is closed")
        if rule.is_pattern:
            # The other proxy resolves the name again, so this check stops private names, but not DNS rebinding.
            await self._resolve(destination, rule)
        through_proxy: UpstreamConnection = await system_proxy.connect(proxy, destination, scheme)
        return through_proxy

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
                async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                    return await asyncio.open_connection(address, destination.port, limit=MAX_HEAD_BYTES)
            except TimeoutError:
                reason = f"no answer within {CONNECT_TIMEOUT_SECONDS:.0f} seconds"
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
