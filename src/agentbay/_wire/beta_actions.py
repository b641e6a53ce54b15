"""Actions on skills and on networks, which the service calls beta."""

from __future__ import annotations

from typing import Any

from .schema import JSON_UNESCAPED, Action, action, pascal_payload, wire_field


@pascal_payload
class SkillEntry:
    """One skill."""

    name: str = ""
    description: str = ""
    skill_id: str = ""


@pascal_payload
class SkillMetaData:
    """The skills of an image, and the directory in which sessions find them."""

    skill_path: str = ""
    meta_data_list: list[SkillEntry] = wire_field(factory=list)


@action("GetSkillMetaData", idempotent=True)
class GetSkillMetaData(Action[SkillMetaData]):
    """List the skills that an image offers."""

    image_id: str | None = None
    skill_group_ids: list[str] | None = wire_field(codec=JSON_UNESCAPED, default=None)


@action("ListSkillMetaData", idempotent=True)
class ListSkillMetaData(Action[list[SkillEntry]]):
    """List skills by their ids."""

    skill_id_list: list[str] = wire_field(codec=JSON_UNESCAPED)


@action("BindContextSkillAsync", idempotent=True)
class BindContextSkillAsync(Action[None]):
    """Bind skills to contexts, whose sessions then have them."""

    context_skill_bind_items: list[dict[str, Any]] = wire_field(codec=JSON_UNESCAPED)
    login_region_id: str | None = None


@action("UnbindContextSkillAsync", idempotent=True)
class UnbindContextSkillAsync(Action[None]):
    """Take skills away from contexts."""

    context_skill_unbind_items: list[dict[str, Any]] = wire_field(codec=JSON_UNESCAPED)
    login_region_id: str | None = None


@pascal_payload
class NetworkData:
    """A network, and the token with which a machine joins it."""

    network_id: str = ""
    network_token: str = wire_field(default="", repr=False)


@action("CreateNetwork")
class CreateNetwork(Action[NetworkData]):
    """Make a network, or a new token for one."""

    login_region_id: str | None = None
    network_id: str | None = None


@pascal_payload
class NetworkStatus:
    """Whether a machine has joined a network."""

    online: bool = False


@action("DescribeNetwork", idempotent=True)
class DescribeNetwork(Action[NetworkStatus]):
    """Ask whether a machine has joined a network."""

    network_id: str
