"""Skills of a local folder, which sessions load: directories with a `SKILL.md` each."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from agentbay._lazy_attrs import define
from agentbay.local.sandbox.service.manager import Sandbox
from agentbay.local.sandbox.shared.file_protocol import ReceiveTree
from agentbay.local.sandbox.shared.sandbox_config import CLIENT_HOME
from agentbay.local.sandbox.shared.tree_stream import FileContent, TreeStreamWriter

SKILLS_PATH = f"{CLIENT_HOME}/skills"  # where sessions find them
_MAX_SKILL_FILE_BYTES = 1 << 20
_MAX_NAMED_PROBLEMS = 5  # in one message
_NAME = re.compile(r"\w[\w.-]{0,63}")  # a name becomes that of a directory


class SkillError(Exception):
    """A skill cannot be used, for this reason."""


@define(frozen=True, slots=False)
class Skill:
    """A skill, as the front matter of its `SKILL.md` describes it."""

    name: str
    description: str
    directory: Path


class SkillFolder:
    """A folder whose subdirectories with a `SKILL.md` are skills.

    It is read again for each request, so that changes need no restart.
    """

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)

    def skills(self) -> list[Skill]:
        """Read the skills, by name.

        Raises:
            SkillError: The folder or a skill cannot be read, or two skills have one name.
        """
        try:
            directories = sorted(path for path in self._directory.iterdir() if (path / "SKILL.md").is_file())
            found = [_read_skill(path) for path in directories]
        except OSError as error:
            raise SkillError(f"{error.filename or self._directory}: {error.strerror}") from error
        by_name = {skill.name: skill for skill in found}
        for skill in found:
            if (other := by_name[skill.name]) is not skill:
                raise SkillError(f"{skill.directory} and {other.directory} have the same name, {skill.name!r}")
        return [by_name[name] for name in sorted(by_name)]

    def choose(self, names: Sequence[str]) -> list[Skill]:
        """Read the skills of these names, or all of them for no name.

        Raises:
            SkillError: There is no skill of a name, or one cannot be read.
        """
        skills = self.skills()
        there = [skill.name for skill in skills]
        if missing := [name for name in names if name not in there]:
            raise SkillError(f"there is no skill {missing[0]!r:.80}; there are {', '.join(there) or 'none'}")
        return [skill for skill in skills if not names or skill.name in names]


def _read_skill(directory: Path) -> Skill:
    file = directory / "SKILL.md"
    with file.open("rb") as opened:
        content = opened.read(_MAX_SKILL_FILE_BYTES + 1)
    front_matter = _read_front_matter(content, file)
    name, description = front_matter.get("name"), front_matter.get("description")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SkillError(f"{file}: its name must be 1 to 64 letters, digits, '.', '_' or '-', not {name!r:.80}")
    if not isinstance(description, str) or not description.strip():
        raise SkillError(f"{file}: it needs a description")
    return Skill(name, description.strip(), directory)


def _read_front_matter(content: bytes, file: Path) -> dict[object, object]:
    """Return the YAML mapping between the first two lines of `---`."""
    import yaml

    if len(content) > _MAX_SKILL_FILE_BYTES:
        raise SkillError(f"{file}: it is larger than {_MAX_SKILL_FILE_BYTES} bytes")
    try:
        opening, _, rest = content.decode("utf-8-sig").replace("\r\n", "\n").partition("\n")
        header, closing, _ = f"{rest}\n".partition("\n---\n")
        if opening.rstrip() != "---" or not closing:
            raise SkillError(f"{file}: it must begin with its name and description between two lines of ---")
        front_matter = yaml.safe_load(header)
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise SkillError(f"{file}: what is between the lines of --- is no YAML: {_one_line(error)}") from error
    if not isinstance(front_matter, dict):
        raise SkillError(f"{file}: there must be a name and a description between the lines of ---")
    return front_matter


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


async def install_skills(sandbox: Sandbox, skills: Sequence[Skill]) -> None:
    """Copy skills into a session, whose code may then change its copy.

    Raises:
        SkillError: A file cannot be copied.
        SandboxError: The sandbox failed.
    """
    if not skills:
        return
    incoming, outgoing = os.pipe2(os.O_CLOEXEC)
    sending = asyncio.create_task(asyncio.to_thread(_send_and_close, skills, outgoing))
    try:
        received = await sandbox.run_file_operation_with_input(ReceiveTree(SKILLS_PATH, secrets.token_hex(8)), incoming)
    finally:
        unreadable = await sending
    refused = [f"{error['path']}: {error['why']}" for error in received.errors]
    if problems := [*unreadable, *refused]:
        raise SkillError("; ".join(problems[:_MAX_NAMED_PROBLEMS]))


def _send_and_close(skills: Sequence[Skill], fd: int) -> list[str]:
    """Write the skills as a tree stream, and return what could not be read."""
    problems: list[str] = []
    writer = TreeStreamWriter(fd)
    try:
        for skill in skills:
            _send_directory(writer, str(skill.directory), skill.name, problems)
        writer.end()
    except BrokenPipeError:  # the receiver reports why it stopped reading
        pass
    finally:
        os.close(fd)
    return problems


def _send_directory(writer: TreeStreamWriter, source: str, path: str, problems: list[str]) -> None:
    writer.write_record(path=path, kind="dir", mode=0o755)
    try:
        entries = sorted(os.scandir(source), key=lambda entry: entry.name)
    except OSError as error:
        problems.append(f"{source}: {error.strerror}")
        return
    for entry in entries:
        below = f"{path}/{entry.name}"
        if entry.is_symlink():  # it leads to the same place below, or nowhere: never to a file of this machine
            writer.write_record(path=below, kind="link", target=os.readlink(entry.path))
        elif entry.is_dir():
            _send_directory(writer, entry.path, below, problems)
        elif entry.is_file():
            _send_file(writer, entry.path, below, problems)


def _send_file(writer: TreeStreamWriter, source: str, path: str, problems: list[str]) -> None:
    try:
        file = open(source, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW))  # noqa: SIM115
    except OSError as error:
        problems.append(f"{source}: {error.strerror}")
        return
    with file:
        status, content = os.fstat(file.fileno()), FileContent(file.read)
        writer.write_record(path=path, kind="file", mode=status.st_mode & 0o777 | 0o600, mtime=status.st_mtime_ns)
        writer.write_content(content.read)
        writer.write_unchanged_flag(not content.error)
    if content.error:
        problems.append(f"{source}: {content.error}")
