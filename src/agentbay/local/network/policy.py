"""Which network a session has, and what comes with it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast, get_args

from agentbay.local.refusals import invalid
from agentbay.local.sandbox.host import Network

if TYPE_CHECKING:
    from agentbay.local.network.proxy import Door
    from agentbay.local.network.reach import Reach
    from agentbay.local.network.rules import Rule

_CHOICES: tuple[str, ...] = get_args(Network)


class Networks:
    """The networks that the sessions of a runtime can have; a policy's id is the name of one.

    Args:
        default: For sessions that do not say.
        allowed: What sessions with a proxy may reach, beside what this machine's package clients are set up for.
        own_port: Where the runtime itself listens; 0 if on no port.
        isolated: Whether sandboxes have networks of their own.
    """

    def __init__(
        self, default: Network = "none", allowed: Iterable[Rule] = (), own_port: int = 0, *, isolated: bool = True
    ) -> None:
        self.default: Network = default
        self._isolated = isolated
        self._allowed, self._own_port = tuple(allowed), own_port
        self._reach: Reach | None = None
        self._environment: asyncio.Future[dict[str, str]] | None = None

    def choose(self, policy_id: str | None) -> Network:
        """Return the network that a policy's id stands for.

        Raises:
            InvalidRequestError: It is the id of something else.
        """
        if not policy_id:
            return self.default
        network = cast("Network", policy_id)
        if network not in _CHOICES:
            raise invalid(
                f"McpPolicyId: the policies of the local runtime are its networks, {', '.join(_CHOICES)}; "
                f"{policy_id!r:.80} is none of them.",
                "PolicyNotSupported.Local",
            )
        if network != "host" and not self._isolated:
            raise invalid(
                "McpPolicyId: sessions of this runtime are not isolated; they have its machine's network.",
                "PolicyNotSupported.Local",
            )
        return network

    async def environment(self, network: Network) -> dict[str, str]:
        """Return the variables by which package clients in a session find what those of this machine use."""
        if network == "none":
            return {}
        if self._environment is None:
            from agentbay.local.network import machine

            self._environment = asyncio.ensure_future(asyncio.to_thread(machine.environment))
        return await asyncio.shield(self._environment)

    def open(self, listener: socket.socket) -> Door:
        """Serve as the proxy of a session."""
        # imported with the first session that has one: it takes a tenth of the runtime's start
        from agentbay.local.network.proxy import Door
        from agentbay.local.network.reach import Reach

        if self._reach is None:
            self._reach = Reach(self._allowed, own_port=self._own_port, more=_of_this_machine)
        return Door(listener, self._reach)


def _of_this_machine() -> set[Rule]:
    from agentbay.local.network import machine

    return machine.configured() | machine.built_in()
