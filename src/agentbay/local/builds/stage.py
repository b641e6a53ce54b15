"""The state of a stage, and the instructions that change its settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from agentbay.local.builds.dockerfile import Heredoc, Instruction, Stage
from agentbay.local.builds.words import expand, expand_text
from agentbay.local.images.image_config import ImageConfig

_DEFAULT_SHELL = ["/bin/sh", "-c"]
_MAX_SETTINGS, _MAX_SETTINGS_CHARACTERS = 10_000, 2 << 20  # variables and labels; a command can be given no more


@attrs.define
class StageState:
    """The state of a stage between two instructions.

    Attributes:
        chains: Its layers, the lowest first.
        arguments: The values of ARG that apply.
        base_layers: How many of the layers are those of its base image.
    """

    config: ImageConfig
    chains: list[str]
    arguments: dict[str, str] = attrs.field(factory=dict)
    shell: list[str] = attrs.field(factory=lambda: list(_DEFAULT_SHELL))
    base_layers: int = 0

    @property
    def variables(self) -> dict[str, str]:
        """What words of the Dockerfile may use: ENV comes before ARG."""
        return {**self.arguments, **self.config.env}

    def set_config(self, **changes: Any) -> None:
        """Change settings of the image."""
        self.config = attrs.evolve(self.config, **changes)

    def check_size(self, instruction: Instruction) -> None:
        """Raise BuildFailed if there are too many or too large settings."""
        settings = (self.config.env, self.config.labels, self.arguments)
        collect_settings(instruction, (pair for values in settings for pair in values.items()))

    def expand(self, instruction: Instruction, word: str) -> str:
        """Return a word with the values of its variables.

        Raises:
            BuildFailed: A variable is malformed.
        """
        return expand_word(instruction, word, self.variables)


def needed_stages(stages: Sequence[Stage], given: Mapping[str, str]) -> list[int]:
    """Return the numbers of the last stage and those it needs, in order.

    Args:
        given: The values of the ARG before the first FROM.
    """
    uses, known = list[set[int]](), dict[str, int]()
    for number, stage in enumerate(stages):
        names = {instruction.flags.get("from", "").lower() for instruction in stage.instructions}
        names.add(expand_word(stage.start, stage.image, given).lower())
        uses.append({known[name] for name in names if name in known})
        known |= {str(number): number, **({stage.name: number} if stage.name else {})}
    needed = {len(stages) - 1}
    for number in reversed(range(len(stages))):
        if number in needed:
            needed |= uses[number]
    return sorted(needed)


def expand_word(instruction: Instruction, word: str, variables: Mapping[str, str]) -> str:
    """Return a word of an instruction with the values of its variables.

    Raises:
        BuildFailed: A variable is malformed, or they make it too long.
    """
    try:
        return expand(word, variables)
    except ValueError as error:
        raise instruction.error(str(error)) from error


def expand_heredoc(instruction: Instruction, heredoc: Heredoc, variables: Mapping[str, str]) -> str:
    """Return the content of a here-document, with the values of its variables.

    Raises:
        BuildFailed: A variable is malformed, or they make it too long.
    """
    try:
        return heredoc.content if heredoc.is_literal else expand_text(heredoc.content, variables)
    except ValueError as error:
        raise instruction.error(f"the here-document {heredoc.delimiter}: {error}") from error


def collect_settings(instruction: Instruction, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return names and values, of which a name that comes again has the last.

    Raises:
        BuildFailed: They are too many, or too large.
    """
    settings, size = dict[str, str](), 0
    for number, (name, value) in enumerate(pairs, 1):
        size += len(name) + len(value)
        if number > _MAX_SETTINGS or size > _MAX_SETTINGS_CHARACTERS:
            raise instruction.error(
                f"there may be {_MAX_SETTINGS:,} variables and labels, with {_MAX_SETTINGS_CHARACTERS:,} characters"
            )
        settings[name] = value
    return settings


def _read_settings(instruction: Instruction, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the names and values of ENV or LABEL."""
    return collect_settings(instruction, _pairs(instruction, variables))


def _pairs(instruction: Instruction, variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    words = instruction.words()
    if "=" not in words[0]:  # the old form, of one name and all the rest
        name, _, value = instruction.text.partition(" ")
        if not value.strip():
            raise instruction.error("it must have the form NAME=VALUE")
        yield name, expand_word(instruction, value.strip(), variables)
        return
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise instruction.error(f"{word:.80} must have the form NAME=VALUE")
        yield expand_word(instruction, name, variables), expand_word(instruction, value, variables)


def _set_env(instruction: Instruction, state: StageState) -> None:
    state.set_config(env={**state.config.env, **_read_settings(instruction, state.variables)})


def _set_labels(instruction: Instruction, state: StageState) -> None:
    state.set_config(labels={**state.config.labels, **_read_settings(instruction, state.variables)})


def _set_user(instruction: Instruction, state: StageState) -> None:
    state.set_config(user=state.expand(instruction, instruction.text))


def _set_shell(instruction: Instruction, state: StageState) -> None:
    state.shell = instruction.exec_form() or []


def _set_command(instruction: Instruction, state: StageState) -> None:
    form = instruction.exec_form()
    state.set_config(command=[*state.shell, instruction.text] if form is None else form)


def _set_entrypoint(instruction: Instruction, state: StageState) -> None:
    form = instruction.exec_form()
    # As Docker does: the command of the image below was meant for its own entry point.
    state.set_config(entrypoint=[*state.shell, instruction.text] if form is None else form, command=[])


SETTINGS: dict[str, Callable[[Instruction, StageState], None]] = {
    "CMD": _set_command,
    "ENTRYPOINT": _set_entrypoint,
    "ENV": _set_env,
    "LABEL": _set_labels,
    "SHELL": _set_shell,
    "USER": _set_user,
}
