"""The network of each session, and its egress proxy."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast, get_args

from agentbay.local.api_errors import invalid_request
from agentbay.local.network.dialer import EgressDialer
from agentbay.local.network.proxy import EgressProxy
from agentbay.local.sandbox.service.manager import NetworkMode

if TYPE_CHECKING:
    from agentbay.local.network.egress_policy import EgressRule

_MAX_RULES = 1000  # of one session
_CHOICES: tuple[str, ...] = get_args(NetworkMode)


class NetworkProvider:
    """Provides the network of a session, which a policy id names.

    Args:
        default: The network of sessions without a policy id.
        allowed: Hosts that sessions with a proxy may reach, beside those of this machine's package clients.
        own_port: The port that the runtime itself listens on; 0 if none.
        isolated: Whether sandboxes have network namespaces of their own.
    """

    def __init__(
        self,
        default: NetworkMode = "none",
        allowed: Iterable[EgressRule] = (),
        own_port: int = 0,
        *,
        isolated: bool = True,
    ) -> None:
        self.default: NetworkMode = default
        self._isolated = isolated
        self._allowed, self._own_port = tuple(allowed), own_port
        self._dialer: EgressDialer | None = None
        self._environment: asyncio.Future[dict[str, str]] | None = None

    def network_for_policy(self, policy_id: str | None) -> NetworkMode:
        """Return the network that a policy id names.

        Raises:
            InvalidRequestError: There is no such network, or this runtime cannot provide it.
        """
        if not policy_id:
            return self.default
        network = cast("NetworkMode", policy_id)
        if network not in _CHOICES:
            raise invalid_request(
                f"McpPolicyId: the policies of the local runtime are its networks, {', '.join(_CHOICES)}; "
                f"{policy_id!r:.80} is none of them.",
                "PolicyNotSupported.Local",
            )
        if network != "host" and not self._isolated:
            raise invalid_request(
                "McpPolicyId: sessions of this runtime are not isolated; they have its machine's network.",
                "PolicyNotSupported.Local",
            )
        return network

    async def package_client_environment(self, network: NetworkMode) -> dict[str, str]:
        """Return the variables that lead package clients in a session to this machine's indexes."""
        if network == "none":
            return {}
        if self._environment is None:
            from agentbay.local.network import package_client_settings

            self._environment = asyncio.ensure_future(
                asyncio.to_thread(package_client_settings.package_client_environment)
            )
        # All sessions share this future: a cancelled request must not cancel it for the others.
        return await asyncio.shield(self._environment)

    async def narrow(self, hosts: Iterable[str], policy_id: str | None) -> tuple[EgressRule, ...]:
        """Return the rules of a session that may reach these hosts only.

        Raises:
            InvalidRequestError: A host is malformed, this runtime allows it to no session, or has no proxy for it.
        """
        from agentbay.local.network.egress_policy import parse_rule

        if policy_id not in (None, "", "proxy") or not self._isolated:
            raise invalid_request(
                "network: hosts can be chosen for sessions with an egress proxy only; this one has "
                f"{self.network_for_policy(policy_id)!r}.",
                "NetworkNotSupported.Local",
            )
        try:
            rules = tuple(map(parse_rule, hosts))
        except ValueError as error:
            raise invalid_request(f"network: {error}.", "InvalidParameter.Network") from error
        if len(rules) > _MAX_RULES:
            raise invalid_request(f"network: at most {_MAX_RULES} hosts, not {len(rules)}.", "InvalidParameter.Network")
        for rule in await self._shared_dialer().rules_beyond(rules):
            raise invalid_request(
                f"network: {rule.host:.200} with the ports {', '.join(map(str, rule.ports))} is not allowed by this "
                "runtime, which a session can only narrow; to allow it, start the runtime with --allow-host.",
                "NetworkNotSupported.Local",
            )
        return rules

    def start_proxy(self, listener: socket.socket, allowed: Iterable[EgressRule] | None = None) -> EgressProxy:
        """Start the egress proxy of a session.

        Args:
            allowed: What the session may reach, if that is less than what the runtime allows.
        """
        dialer = self._shared_dialer()
        return EgressProxy(listener, dialer if allowed is None else dialer.narrowed_to(allowed))

    def _shared_dialer(self) -> EgressDialer:
        if self._dialer is None:
            self._dialer = EgressDialer(self._allowed, own_port=self._own_port, load_more_rules=_package_client_rules)
        return self._dialer


def _package_client_rules() -> set[EgressRule]:
    from agentbay.local.network import package_client_settings

    return package_client_settings.configured_rules() | package_client_settings.default_rules()
