"""What every handler may use."""

from __future__ import annotations

from dataclasses import dataclass

from agentbay.local.contexts.desk import Desk
from agentbay.local.sessions import SessionTable


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime at work.

    Attributes:
        address: Host and port under which it serves, `127.0.0.1:PORT`.
        offers_links: Whether sessions say where tools can be called directly.
    """

    sessions: SessionTable
    contexts: Desk
    address: str
    offers_links: bool = True
