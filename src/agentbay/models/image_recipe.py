"""Images that are described in Python, and built when they are needed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from .._arguments import check_variable, checked_arguments, refusal
from ..errors import InvalidArgumentError

# Such commands would be read as something else in one line of a Dockerfile.
_NEEDS_HEREDOC = re.compile(r"\s|--|\[|#|.*(\n|<<|\\$)", re.DOTALL)
_COPIES = ".agentbay-copies"  # where the copied files lie in the context
_Copy = tuple[str, str]  # path in the context, path on this machine


@checked_arguments()
class Image:
    """An image to be built: a base, and steps on top of it.

    Each method returns a new `Image`, so that one can be the start of several. `agent_bay.images.build(image, name=)`
    builds it, and `CreateSessionParams(image_id=image)` builds it when the session is created. Steps that were done
    before are not done again.

    Args:
        base: Name of an image in the store of the runtime, or its reference in a registry; "scratch" is an empty one.
    """

    def __init__(self, base: str) -> None:
        if not base.strip() or base != "".join(base.split()):
            raise InvalidArgumentError(f"base must be the name of an image, not {base!r:.60}")
        self._lines: tuple[str, ...] = (f"FROM {base}",)
        self._copies: tuple[_Copy, ...] = ()

    @property
    def dockerfile(self) -> str:
        """The Dockerfile that says the same."""
        return "".join(f"{line}\n" for line in self._lines)

    @property
    def copies(self) -> tuple[tuple[str, str], ...]:
        """The files that it copies: their paths in the Dockerfile and on this machine."""
        return self._copies

    def run(self, *commands: str | Sequence[str]) -> Image:
        """Run commands, each as a step of its own.

        Args:
            commands: Scripts of the image's shell, or programs with their arguments as lists.
        """
        return self._with(*(_run_line(command) for command in commands))

    def copy(self, source: str | os.PathLike[str], target: str) -> Image:
        """Copy a file, or what is in a folder.

        Args:
            source: Path on this machine.
            target: Path in the image; with a / at the end it is a directory, into which a file is put.
        """
        local = Path(source)
        place = f"{_COPIES}/{len(self._copies)}/{local.resolve().name or 'root'}"
        made = self._with(f"COPY {json.dumps([place, target])}")
        made._copies = (*self._copies, (place, os.fspath(local)))
        return made

    def env(self, envs: Mapping[str, str] | None = None, **more: str) -> Image:
        """Set environment variables of the following steps and of sessions."""
        return self._with(*(_env_line(name, value) for name, value in {**(envs or {}), **more}.items()))

    def workdir(self, path: str) -> Image:
        """Set the directory where the following steps and sessions start.

        It is made if it is missing.
        """
        return self._with(f"WORKDIR {_quote(path)}")

    def user(self, name: str) -> Image:
        """Set the user of the following steps and of sessions, by name or number."""
        return self._with(f"USER {_quote(name)}")

    def label(self, labels: Mapping[str, str]) -> Image:
        """Give it labels."""
        return self._with(*(f"LABEL {_quote(name)}={_quote(value)}" for name, value in labels.items()))

    def entrypoint(self, argv: Sequence[str]) -> Image:
        """Set the program that starts with each session, in the background."""
        return self._with(f"ENTRYPOINT {json.dumps(list(argv))}")

    def cmd(self, argv: Sequence[str]) -> Image:
        """Set the arguments of the entry point.

        Without an entry point, a container would run them as its command, and a session does not.
        """
        return self._with(f"CMD {json.dumps(list(argv))}")

    def __repr__(self) -> str:
        return f"Image({self._lines[0].removeprefix('FROM ')!r}) with {len(self._lines) - 1} steps"

    def _with(self, *lines: str) -> Image:
        made = Image.__new__(type(self))
        made._lines, made._copies = (*self._lines, *lines), self._copies
        return made


def _run_line(command: str | Sequence[str]) -> str:
    if isinstance(command, (list, tuple)) and all(isinstance(word, str) for word in command):
        return f"RUN {json.dumps(command)}"
    if not isinstance(command, str):
        raise refusal("commands", "strings, or lists of strings", command)
    if not _NEEDS_HEREDOC.match(command):
        return f"RUN {command}"
    end = "END"
    while end in command.splitlines():
        end += "_"
    return f"RUN <<'{end}'\n{command}\n{end}"


def _env_line(name: str, value: str) -> str:
    check_variable("envs", name, value)
    return f"ENV {name}={_quote(value)}"


def _quote(text: str) -> str:
    """Return a text as one word, in which no variable is replaced.

    Raises:
        InvalidArgumentError: A Dockerfile cannot hold it.
    """
    if "\n" in text or "\r" in text:
        raise InvalidArgumentError(f"{text!r:.60} has a line end, which a Dockerfile cannot hold here")
    escaped = re.sub(r'(["\\$])', r"\\\1", text)
    return f'"{escaped}"'
