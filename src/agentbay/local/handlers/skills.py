"""Skills of the local folder, and refusals of what only the cloud has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agentbay._wire import beta_actions as wire
from agentbay.errors import InvalidRequestError
from agentbay.local.api_errors import invalid_request, network_not_supported
from agentbay.local.handlers.handler_tables import action_handler
from agentbay.local.runtime import Runtime
from agentbay.local.sessions import images
from agentbay.local.skills import SKILLS_PATH, Skill, SkillError


@action_handler(wire.GetSkillMetaData)
async def get_skills(runtime: Runtime, action: wire.GetSkillMetaData) -> wire.SkillMetaData:
    images.resolve_image(action.image_id, runtime.images.store)  # every image has the same skills, but it must be one
    wanted = set(action.skill_group_ids or ())
    found = [skill for skill in await choose_skills(runtime, ()) if not wanted or skill.name in wanted]
    return wire.SkillMetaData(skill_path=SKILLS_PATH, meta_data_list=[_entry(skill) for skill in found])


@action_handler(wire.ListSkillMetaData)
async def list_skills(runtime: Runtime, action: wire.ListSkillMetaData) -> list[wire.SkillEntry]:
    """List skills by their ids, which are their names here."""
    return [_entry(skill) for skill in await choose_skills(runtime, ()) if skill.name in action.skill_id_list]


@action_handler(wire.BindContextSkillAsync)
async def bind_skills(runtime: Runtime, action: wire.BindContextSkillAsync) -> None:
    raise _binding_not_supported()


@action_handler(wire.UnbindContextSkillAsync)
async def unbind_skills(runtime: Runtime, action: wire.UnbindContextSkillAsync) -> None:
    raise _binding_not_supported()


@action_handler(wire.CreateNetwork)
async def create_network(runtime: Runtime, action: wire.CreateNetwork) -> None:
    raise network_not_supported()


@action_handler(wire.DescribeNetwork)
async def describe_network(runtime: Runtime, action: wire.DescribeNetwork) -> None:
    raise network_not_supported()


async def choose_skills(runtime: Runtime, names: Sequence[str]) -> list[Skill]:
    """Return the skills of these names, or all of them for no name.

    Raises:
        InvalidRequestError: The runtime has no folder of skills, there is no skill of a name, or one cannot be read.
    """
    if runtime.skill_folder is None:
        raise invalid_request(
            "This runtime has no skills. Start it with --skills DIR, a folder with a SKILL.md in each subdirectory.",
            "SkillsNotSupported.Local",
        )
    try:
        return await asyncio.to_thread(runtime.skill_folder.choose, names)
    except SkillError as error:
        raise invalid_request(f"Skills: {error}.", "InvalidSkill.Local") from error


def _binding_not_supported() -> InvalidRequestError:
    return invalid_request(
        "The local runtime binds no skills to contexts: only the cloud does. Create the session with load_skills=True.",
        "SkillBindingNotSupported.Local",
    )


def _entry(skill: Skill) -> wire.SkillEntry:
    return wire.SkillEntry(name=skill.name, description=skill.description, skill_id=skill.name)
