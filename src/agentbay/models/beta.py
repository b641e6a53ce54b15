"""Skills and networks: what the beta services return."""

from __future__ import annotations

from .._lazy_attrs import define, field
from .base import BaseResult, list_or_empty


@define(slots=False)
class SkillInfo:
    """A skill, whose `skill_id` is "" where the service does not send it."""

    name: str
    description: str
    skill_id: str = ""


@define(slots=False)
class SkillsMetadataResult:
    """Skills, and the directory in which sessions find them."""

    skills: list[SkillInfo] = field(default=None, converter=list_or_empty)
    skills_root_path: str = ""


@define(slots=False)
class NetworkResult(BaseResult):
    """A network, and the token with which a machine joins it."""

    network_id: str = ""
    network_token: str = field(default="", repr=False)
    error_message: str = ""


@define(slots=False)
class NetworkStatusResult(BaseResult):
    """Whether a machine has joined a network, in `online`."""

    online: bool = False
    error_message: str = ""
