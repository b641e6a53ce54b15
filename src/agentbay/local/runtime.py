"""What every handler may use."""

from __future__ import annotations

from dataclasses import dataclass

from agentbay.local.contexts.desk import Desk
from agentbay.local.listening import Place
from agentbay.local.network.policy import Networks
from agentbay.local.sessions import SessionTable


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime at work.

    Attributes:
        place: Where clients reach it.
        offers_links: Whether sessions say where tools can be called directly.
    """

    sessions: SessionTable
    contexts: Desk
    networks: Networks
    place: Place
    offers_links: bool = True

    def facts(self) -> dict[str, str]:
        """What anybody may know: how sessions are isolated, and the network of those that do not say."""
        return {"isolation": self.sessions.isolation, "network": self.networks.default}
