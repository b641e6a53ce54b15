"""Skills of a local folder, which sessions load."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentbay import AsyncAgentBay, ConfigurationError, CreateSessionParams, InvalidRequestError

SKILL = "---\nname: {}\ndescription: |\n  Reads {} files.\n---\n# How\n"


def make_folder(parent: Path) -> Path:
    """Make a folder with two skills, one of them with a program, a link and what cannot be copied."""
    folder = parent / "skills"
    for name in ("pdf", "bücher"):
        (folder / name / "scripts").mkdir(parents=True)
        (folder / name / "SKILL.md").write_text(SKILL.format(name, name), encoding="utf-8")
    program = folder / "pdf" / "scripts" / "run"
    program.write_text("#!/bin/sh\necho ran\n", encoding="utf-8")
    program.chmod(0o755)
    (folder / "pdf" / "scripts" / "alias").symlink_to("run")
    (folder / "pdf" / "outside").symlink_to(parent / "secret")
    (parent / "secret").write_text("of this machine", encoding="utf-8")
    os.mkfifo(folder / "pdf" / "fifo")
    (folder / "no-skill").mkdir()
    return folder


async def test_skills_are_listed_and_loaded(tmp_path: Path) -> None:
    """The metadata calls tell the skills, and a session has those that it loads."""
    folder = make_folder(tmp_path)
    async with AsyncAgentBay.local(skills=str(folder), strict=True) as bay:
        found = await bay.beta_skills.get_metadata()
        assert found.skills_root_path == "/home/wuying/skills"
        assert [(skill.name, skill.description) for skill in found.skills] == [
            ("bücher", "Reads bücher files."),
            ("pdf", "Reads pdf files."),
        ]
        assert [skill.name for skill in (await bay.beta_skills.get_metadata(skill_names=["pdf"])).skills] == ["pdf"]
        assert [skill.skill_id for skill in (await bay.beta_skills.get_metadata(skill_ids=["pdf"])).skills] == ["pdf"]
        (folder / "new").mkdir()
        (folder / "new" / "SKILL.md").write_text(SKILL.format("new", "new"), encoding="utf-8")
        async with bay.session(CreateSessionParams(load_skills=True)) as session:
            listed = await session.command.run("cd ~/skills && ls && pdf/scripts/alias && ls pdf && cat pdf/outside")
            assert listed.stdout.split() == ["bücher", "new", "pdf", "ran", "SKILL.md", "outside", "scripts"]
            assert "No such file" in listed.stderr
            read = await session.file_system.read_file("/home/wuying/skills/pdf/SKILL.md")
            assert read.content == SKILL.format("pdf", "pdf")
            (await session.command.run("echo mine > ~/skills/pdf/SKILL.md")).check()
        async with bay.session(CreateSessionParams(load_skills=True, skill_names=["pdf"])) as session:
            assert (await session.command.run("ls ~/skills")).stdout.split() == ["pdf"]
        async with bay.session() as session:
            assert (await session.command.run("ls -A ~/skills")).exit_code != 0
    assert (folder / "pdf" / "SKILL.md").read_text(encoding="utf-8") == SKILL.format("pdf", "pdf")


async def test_a_skill_that_cannot_be_loaded(tmp_path: Path) -> None:
    """A name that there is not, and a skill that was broken meanwhile, refuse the session."""
    folder = make_folder(tmp_path)
    async with AsyncAgentBay.local(skills=str(folder), strict=True) as bay:
        params = CreateSessionParams(load_skills=True, skill_names=["pdf", "word"])
        with pytest.raises(InvalidRequestError, match="no skill 'word'; there are bücher, pdf") as refused:
            await bay.create(params)
        assert refused.value.code == "InvalidSkill.Local"
        (folder / "pdf" / "SKILL.md").write_text("# no front matter", encoding="utf-8")
        with pytest.raises(InvalidRequestError, match=r"SKILL\.md: it must begin with its name"):
            await bay.create(CreateSessionParams(load_skills=True))
        assert not (await bay.list()).session_ids


async def test_what_takes_an_option_or_the_cloud(bay: AsyncAgentBay) -> None:
    """Without the option, skills are refused with its name; bindings and networks say what serves."""
    with pytest.raises(InvalidRequestError, match="--skills DIR") as refused:
        await bay.beta_skills.get_metadata()
    assert refused.value.code == "SkillsNotSupported.Local"
    created = await bay.create(CreateSessionParams(load_skills=True))
    assert "--skills DIR" in created.error_message
    bound = await bay.beta_skills.bind_context([{"context_id": "c", "skill_ids": ["pdf"]}])
    assert "load_skills=True" in bound.error_message
    unbound = await bay.beta_skills.unbind_context([{"context_id": "c", "skill_ids": ["pdf"]}])
    assert "load_skills=True" in unbound.error_message
    assert "--allow-host" in (await bay.beta_network.describe("net-1")).error_message
    assert "--allow-host" in (await bay.beta_network.get_network_bind_token()).error_message


async def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    """The runtime does not start without the folder that it was told."""
    async with AsyncAgentBay.local(skills=str(tmp_path / "none"), strict=True) as bay:
        with pytest.raises(ConfigurationError, match=r"skills .*/none: No such file or directory"):
            await bay.list()
