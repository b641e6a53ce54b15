"""What every handler may use."""

from __future__ import annotations

from dataclasses import dataclass

from agentbay.local.contexts.service import ContextService
from agentbay.local.listening import ServerAddress
from agentbay.local.network.provider import NetworkProvider
from agentbay.local.sessions.table import SessionTable


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime at work.

    Attributes:
        place: Where clients reach it.
        offers_links: Whether sessions say where tools can be called directly.
    """

    sessions: SessionTable
    context_service: ContextService
    networks: NetworkProvider
    address: ServerAddress
    direct_calls_enabled: bool = True

    def health_info(self) -> dict[str, str]:
        """What anybody may know: how sessions are isolated, and the network of those that do not say."""
        return {"isolation": self.sessions.isolation, "network": self.networks.default}
