"""The services that action handlers work with."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from agentbay._lazy_attrs import define
from agentbay.local.contexts.service import ContextService
from agentbay.local.images.service import ImageService
from agentbay.local.listening import ServerAddress
from agentbay.local.network.provider import NetworkProvider
from agentbay.local.sessions.table import SessionTable
from agentbay.local.skills import SkillFolder

if TYPE_CHECKING:
    from agentbay.local.builds.service import BuildService


@define(frozen=True, slots=False)
class Runtime:
    """What an action handler can reach.

    Attributes:
        address: Where clients reach it; its URLs begin with it.
        direct_calls_enabled: Whether sessions offer a URL for direct tool calls.
        make_builds: Makes what builds images.
        skill_folder: Where the skills are that sessions can load, or None.
    """

    sessions: SessionTable
    context_service: ContextService
    images: ImageService
    make_builds: Callable[[], BuildService]
    networks: NetworkProvider
    address: ServerAddress
    direct_calls_enabled: bool = True
    skill_folder: SkillFolder | None = None

    @cached_property
    def builds(self) -> BuildService:
        """What builds images."""
        return self.make_builds()

    async def close_builds(self) -> None:
        """End all builds."""
        if "builds" in vars(self):
            await self.builds.close()

    def health_info(self) -> dict[str, str]:
        """Return what `/healthz` tells anybody: the isolation and default network of sessions."""
        return {"isolation": self.sessions.isolation, "network": self.networks.default}
