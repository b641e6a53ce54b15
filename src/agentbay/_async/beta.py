"""Skills and networks of the cloud, which the service calls beta."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._arguments import checked_arguments
from .._transport.deadline import time_limit
from .._wire import beta_actions as wire
from ..errors import InvalidArgumentError, NotFoundError
from ..models.base import OperationResult
from ..models.beta import NetworkResult, NetworkStatusResult, SkillInfo, SkillsMetadataResult
from .error_boundary import folded

if TYPE_CHECKING:
    from .client import AsyncAgentBay

_SKILLS_ROOT = "/home/wuying/skills"


class AsyncBetaService:
    """Base of the beta services of a client."""

    def __init__(self, agent_bay: AsyncAgentBay) -> None:
        self._agent_bay = agent_bay

    @property
    def strict(self) -> bool:
        """Whether a failed operation raises instead of returning a failed result."""
        return self._agent_bay.strict


@checked_arguments()
class AsyncBetaSkills(AsyncBetaService):
    """Look up skills, and bind them to contexts."""

    async def get_metadata(
        self,
        image_id: str | None = None,
        skill_names: Sequence[str] | None = None,
        skill_ids: Sequence[str] | None = None,
        *,
        timeout: float | None = None,
    ) -> SkillsMetadataResult:
        """List skills.

        Args:
            image_id: Those that this image offers; None is the service's choice.
            skill_names: Only those in these groups.
            skill_ids: Instead, those with these ids.
            timeout: Seconds it may take; None is the client's time limit.

        Returns:
            The skills, and the directory in which sessions find them. With `skill_ids` that is
            `AGENTBAY_OFFICIAL_SKILLS_ROOT` of the environment, or `/home/wuying/skills`.

        Raises:
            AgentBayError: If the service refuses.

        Wire: GetSkillMetaData, ListSkillMetaData
        """
        with time_limit(timeout):
            client = self._agent_bay.client
            if skill_ids is not None:
                listed = (await client.call(wire.ListSkillMetaData(skill_id_list=list(skill_ids)))).data_or_raise()
                root = os.environ.get("AGENTBAY_OFFICIAL_SKILLS_ROOT") or _SKILLS_ROOT
                return SkillsMetadataResult(_skills(listed), root)
            groups = list(skill_names) if skill_names else None
            reply = await client.call(wire.GetSkillMetaData(image_id=image_id or None, skill_group_ids=groups))
            found = reply.data_or_raise()
            return SkillsMetadataResult(_skills(found.meta_data_list), found.skill_path)

    @folded(OperationResult)
    async def bind_context(
        self, items: Sequence[Mapping[str, Any]], *, timeout: float | None = None
    ) -> OperationResult:
        """Bind skills to contexts, whose sessions then have them.

        Args:
            items: Dicts with `context_id`, `skill_ids` and optionally `path`, the directory in the context.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: BindContextSkillAsync
        """
        with time_limit(timeout):
            made = [_binding(item) for item in items]
            action = wire.BindContextSkillAsync(
                context_skill_bind_items=made, login_region_id=self._agent_bay.region_id or None
            )
            reply = await self._agent_bay.client.call(action)
            return OperationResult(request_id=reply.request_id, success=True, data=True)

    @folded(OperationResult)
    async def unbind_context(
        self, items: Sequence[Mapping[str, Any]], *, timeout: float | None = None
    ) -> OperationResult:
        """Take skills away from contexts.

        Args:
            items: Dicts with `context_id`, `skill_ids` and optionally `path`, as for `bind_context`.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: UnbindContextSkillAsync
        """
        with time_limit(timeout):
            made = [_binding(item) for item in items]
            action = wire.UnbindContextSkillAsync(
                context_skill_unbind_items=made, login_region_id=self._agent_bay.region_id or None
            )
            reply = await self._agent_bay.client.call(action)
            return OperationResult(request_id=reply.request_id, success=True, data=True)


@checked_arguments()
class AsyncBetaNetwork(AsyncBetaService):
    """Networks that sessions share with machines of the user's own."""

    @folded(NetworkResult)
    async def get_network_bind_token(
        self, network_id: str | None = None, *, timeout: float | None = None
    ) -> NetworkResult:
        """Make a token with which a machine joins a network.

        Args:
            network_id: The network; None makes one.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CreateNetwork
        """
        with time_limit(timeout):
            action = wire.CreateNetwork(
                login_region_id=self._agent_bay.region_id or None, network_id=network_id or None
            )
            reply = await self._agent_bay.client.call(action)
            made = reply.data_or_raise()
            return NetworkResult(
                request_id=reply.request_id, success=True, network_id=made.network_id, network_token=made.network_token
            )

    @folded(NetworkStatusResult)
    async def describe(self, network_id: str, *, timeout: float | None = None) -> NetworkStatusResult:
        """Tell whether a machine has joined a network.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: DescribeNetwork
        """
        with time_limit(timeout):
            if not network_id:
                raise InvalidArgumentError("network_id is required")
            try:
                reply = await self._agent_bay.client.call(wire.DescribeNetwork(network_id=network_id))
            except NotFoundError as error:
                raise NotFoundError(f"Network {network_id} not found", **error.context()) from error
            return NetworkStatusResult(request_id=reply.request_id, success=True, online=reply.data_or_raise().online)


class AsyncBeta:
    """The beta services of a client, by the names of the official documentation."""

    def __init__(self, agent_bay: AsyncAgentBay) -> None:
        self._agent_bay = agent_bay

    @property
    def skills(self) -> AsyncBetaSkills:
        """Skills, the same as `beta_skills` of the client."""
        return self._agent_bay.beta_skills

    @property
    def network(self) -> AsyncBetaNetwork:
        """Networks, the same as `beta_network` of the client."""
        return self._agent_bay.beta_network


def _skills(entries: Sequence[wire.SkillEntry]) -> list[SkillInfo]:
    return [SkillInfo(entry.name, entry.description, entry.skill_id) for entry in entries if entry.name]


def _binding(item: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("context_id", "skill_ids"):
        if not item.get(name):
            raise InvalidArgumentError(
                f"{name} is required in each item, as in {{'context_id': ..., 'skill_ids': [...]}}"
            )
    made: dict[str, Any] = {"ContextId": item["context_id"], "SkillIds": list(item["skill_ids"])}
    if item.get("path"):
        made["Path"] = item["path"]
    return made
