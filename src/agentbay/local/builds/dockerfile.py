"""Reading the common subset of Dockerfiles, and refusing the rest by line.

The format: https://docs.docker.com/reference/dockerfile/. The parsers on PyPI do not support here-documents, and
silently skip lines that they do not understand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import attrs

from agentbay.local.builds.words import split_words
from agentbay.local.images.errors import BuildFailed

_FLAGS = {  # by instruction: the flags that it may have
    "ADD": {"chmod", "chown"},
    "ARG": set[str](),
    "CMD": set[str](),
    "COPY": {"chmod", "chown", "from", "link"},
    "ENTRYPOINT": set[str](),
    "ENV": set[str](),
    "FROM": {"platform"},
    "LABEL": set[str](),
    "RUN": set[str](),
    "SHELL": set[str](),
    "USER": set[str](),
    "WORKDIR": set[str](),
}
WITHOUT_MEANING = ("EXPOSE", "HEALTHCHECK", "MAINTAINER", "STOPSIGNAL")  # for sessions, which start no service
_WITH_HEREDOCS = ("ADD", "COPY", "RUN")
_MAX_BYTES = 1 << 20
_MAX_INSTRUCTIONS, _MAX_SOURCES, _MAX_HEREDOCS = 2000, 1000, 50
_ESCAPE = "\\"
_DIRECTIVE = re.compile(r"#\s*(\w+)\s*=\s*(\S*)\s*")
_FLAG = re.compile(r"--([a-z-]+)(?:=(\S*))?(?:\s+|$)")
_HEREDOC = re.compile(r"\d*<<(-?)(['\"]?)([A-Za-z_]\w*)\2")


@attrs.frozen
class Heredoc:
    """A here-document.

    Attributes:
        is_literal: Variables in it stay as they are.
    """

    word: str
    delimiter: str
    content: str
    is_literal: bool


@attrs.frozen(kw_only=True)
class Instruction:
    """One instruction.

    Attributes:
        line: The number of its first line, from 1 on.
        flags: Such as `{"from": "builder"}`.
        text: What follows, in one line.
    """

    line: int
    name: str
    flags: dict[str, str] = attrs.field(factory=dict)
    text: str = ""
    heredocs: list[Heredoc] = attrs.field(factory=list)

    def __str__(self) -> str:
        flags = (f"--{name}={value}" if value else f"--{name}" for name, value in self.flags.items())
        return " ".join(part for part in (self.name, *flags, self.text) if part)

    def exec_form(self) -> list[str] | None:
        """Return the words of the JSON form, or None for the shell form."""
        if not self.text.startswith("["):
            return None
        try:
            words = json.loads(self.text)
        except (ValueError, RecursionError):
            return None  # as Docker does: it may be a test of the shell
        return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None

    def words(self) -> list[str]:
        """Split its text into words.

        Raises:
            BuildFailed: A quote is not closed.
        """
        try:
            return split_words(self.text)
        except ValueError as error:
            raise self.error(str(error)) from error

    def error(self, reason: str) -> BuildFailed:
        """Return an error about this instruction, with its line."""
        return BuildFailed(f"Line {self.line}: {self.name}: {reason}.")


@attrs.frozen(kw_only=True)
class Stage:
    """What follows one FROM.

    Attributes:
        image: As FROM names it, with its variables.
        name: After AS, in lower case, or "".
    """

    start: Instruction
    image: str
    name: str
    instructions: list[Instruction] = attrs.field(factory=list)


@attrs.frozen(kw_only=True)
class Dockerfile:
    """A whole Dockerfile.

    Attributes:
        arguments: The ARG before the first FROM.
    """

    arguments: list[Instruction]
    stages: list[Stage]

    def up_to(self, target: str) -> Dockerfile:
        """Return it without what follows a stage, by name or number.

        Raises:
            BuildFailed: There is no such stage.
        """
        known = [{str(number), stage.name} for number, stage in enumerate(self.stages)]
        if number := next((number for number, names in enumerate(known, 1) if target.lower() in names), 0):
            return attrs.evolve(self, stages=self.stages[:number])
        names = ", ".join(stage.name or str(number) for number, stage in enumerate(self.stages))
        raise BuildFailed(f"The Dockerfile has no stage {target!r:.80}. It has {names:.400}.")


def parse_dockerfile(text: str) -> Dockerfile:
    """Read a Dockerfile.

    Raises:
        BuildFailed: Something in it is malformed, or outside of the subset; names the line.
    """
    if len(text) > _MAX_BYTES:
        raise BuildFailed(f"The Dockerfile has {len(text)} characters; {_MAX_BYTES} are allowed.")
    arguments: list[Instruction] = []
    stages: list[Stage] = []
    for number, instruction in enumerate(_read_instructions(text)):
        if number >= _MAX_INSTRUCTIONS:
            raise instruction.error(f"a Dockerfile may have {_MAX_INSTRUCTIONS} instructions")
        _check(instruction)
        if instruction.name == "FROM":
            stages.append(_read_from(instruction))
        elif stages:
            stages[-1].instructions.append(instruction)
        elif instruction.name == "ARG":
            arguments.append(instruction)
        else:
            raise instruction.error("a Dockerfile begins with FROM")
    if not stages:
        raise BuildFailed("The Dockerfile has no FROM, which says on what it builds.")
    return Dockerfile(arguments=arguments, stages=stages)


def _read_instructions(text: str) -> Iterator[Instruction]:
    lines = text.removeprefix("\ufeff").splitlines()
    position = _pass_directives(lines)
    while position < len(lines):
        first = position
        joined, position = _join_lines(lines, position)
        if not joined:
            continue
        name, _, rest = joined.partition(" ") if " " in joined else joined.partition("\t")
        flags, rest = _read_flags(rest.strip())
        made = Instruction(line=first + 1, name=name.upper(), flags=flags, text=rest)
        if made.name in _WITH_HEREDOCS and "<<" in rest:
            heredocs, position = _read_heredocs(made, lines, position)
            made = attrs.evolve(made, heredocs=heredocs)
        yield made


def _pass_directives(lines: list[str]) -> int:
    """Return the number of the first line after the directives."""
    position = 0
    while position < len(lines) and (found := _DIRECTIVE.fullmatch(lines[position].strip())):
        if found[1].lower() == "escape" and found[2] != _ESCAPE:
            raise BuildFailed(f"Line {position + 1}: only {_ESCAPE} can be the escape character, not {found[2]!r:.20}.")
        position += 1
    return position


def _join_lines(lines: list[str], position: int) -> tuple[str, int]:
    """Join a line with those that continue it.

    Comments and empty lines between them are left out.
    """
    joined = ""
    while position < len(lines):
        line = lines[position]
        position += 1
        if line.lstrip().startswith("#") or (joined and not line.strip()):
            if joined:
                continue
            return "", position
        stripped = line.rstrip()
        if not stripped.endswith(_ESCAPE):
            return (joined + line).strip(), position
        joined += stripped.removesuffix(_ESCAPE) or " "
    return joined.strip(), position


def _read_flags(text: str) -> tuple[dict[str, str], str]:
    flags: dict[str, str] = {}
    while found := _FLAG.match(text):
        flags[found[1]] = found[2] or ""
        text = text[found.end() :]
    return flags, text


def _read_heredocs(instruction: Instruction, lines: list[str], position: int) -> tuple[list[Heredoc], int]:
    heredocs = list[Heredoc]()
    for word in instruction.words():
        found = _HEREDOC.fullmatch(word)
        if found is None:
            continue
        content = ""
        while True:
            if position >= len(lines):
                raise instruction.error(f"the here-document {found[3]} has no end")
            line = lines[position].lstrip("\t") if found[1] else lines[position]
            position += 1
            if line == found[3]:
                break
            content += f"{line}\n"
        if len(heredocs) >= _MAX_HEREDOCS:
            raise instruction.error(f"it may have {_MAX_HEREDOCS} here-documents")
        heredocs.append(Heredoc(word, found[3], content, bool(found[2])))
    return heredocs, position


def _check(instruction: Instruction) -> None:
    """Raise BuildFailed if an instruction is outside of the subset."""
    if instruction.name in WITHOUT_MEANING:
        return
    known = _FLAGS.get(instruction.name)
    if known is None:
        raise BuildFailed(
            f"Line {instruction.line}: {instruction.name!r:.40} is not among the instructions that can be built: "
            f"{', '.join(_FLAGS)}."
        )
    if unknown := set(instruction.flags) - known:
        raise instruction.error(f"--{min(unknown)} is not supported")
    if not instruction.text:
        raise instruction.error("its arguments are missing")
    if instruction.name == "SHELL" and not instruction.exec_form():
        raise instruction.error('it must have the form ["program", "argument"]')
    if instruction.name in ("ADD", "COPY"):
        _check_copy(instruction)


def _check_copy(instruction: Instruction) -> None:
    words = instruction.exec_form() or instruction.words()
    if len(words) < 2:
        raise instruction.error("it needs a source and a destination")
    if len(words) > _MAX_SOURCES + 1:
        raise instruction.error(f"it may have {_MAX_SOURCES} sources: copy their directory")
    if instruction.name == "ADD":
        for source in words[:-1]:
            if re.match(r"(https?|ftp|git|ssh)://|git@", source):
                raise instruction.error(f"{source:.200} is no local file: fetch it with RUN")
    if instruction.flags.get("from") == "":
        raise instruction.error("--from must name a stage or an image")
    mode = instruction.flags.get("chmod", "0")
    if not re.fullmatch(r"[0-7]{1,4}", mode):
        raise instruction.error(f"--chmod={mode:.40} is no octal mode, such as 755")


def _read_from(instruction: Instruction) -> Stage:
    words = instruction.words()
    if len(words) == 3 and words[1].upper() == "AS":
        return Stage(start=instruction, image=words[0], name=words[2].lower())
    if len(words) != 1:
        raise instruction.error("it must have the form FROM IMAGE or FROM IMAGE AS NAME")
    return Stage(start=instruction, image=words[0], name="")
