"""A command with its arguments and input.

Some services have a tool that takes all of these. Others take only a command line.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from attrs import frozen

from .._arguments import refusal
from .._wire.schema import Tool
from ..models.tools import McpTool
from .files import to_bytes

MAX_INPUT_BYTES = 8 << 20  # of one call; more goes through a file


@frozen
class CommandLine:
    """A command as the caller gave it.

    Attributes:
        text: The command line for a shell.
        argv: The program and its arguments, if they were given one by one.
        stdin: All of its input, or None.
        merge_stderr: Whether standard error goes where standard output goes.
    """

    text: str
    argv: list[str] | None = None
    stdin: bytes | None = None
    merge_stderr: bool = False

    def tool_fields(self) -> dict[str, Any]:
        """Return the fields for a tool that takes arguments, input and merged streams."""
        encoded = {} if self.stdin is None else _encode_input(self.stdin)
        return {"argv": self.argv, "merge_stderr": self.merge_stderr or None, **encoded}

    def shell_text(self, staged: str | None) -> str:
        """Return the command line for a service whose tool takes only a command line.

        Args:
            staged: The path of a file in the session with the input as base64, if there is input.
        """
        before = ["exec 2>&1"] if self.merge_stderr else []
        if staged is not None:
            plain = f"{staged}.in"
            before += [f"base64 -d < {staged} > {plain} && exec < {plain} && rm -f -- {staged} {plain} || exit 69"]
        elif self.stdin is not None:
            before += ["exec < /dev/null"]
        # `eval` parses the command only after the redirections, so they apply to its syntax errors too. The leading
        # space keeps a command that begins with "-" from being read as an option.
        return "; ".join([*before, f"eval {shlex.quote(f' {self.text}')}"]) if before else self.text


def make_command_line(command: str | Sequence[str], stdin: str | bytes | None, *, merge_stderr: bool) -> CommandLine:
    """Return a command line from a text or a list of arguments.

    Raises:
        InvalidArgumentError: If a list of arguments is empty, or names no program.
    """
    data = None if stdin is None else to_bytes(stdin, "stdin")
    if isinstance(command, str):
        return CommandLine(command, None, data, merge_stderr)
    argv = list(command)
    if not argv or not argv[0]:
        raise refusal("command", "a command line, or a list that begins with the name of a program", argv)
    return CommandLine(shlex.join(argv), argv, data, merge_stderr)


def silent_terminal_command(program: str | None) -> str:
    """Return the command that runs a program in a terminal without echo.

    Args:
        program: As typed at a prompt; None is the session's shell.
    """
    shell = '"${SHELL:-$(command -v bash || command -v sh)}"'
    return shlex.join(["sh", "-c", f"stty -echo; exec {program or shell}"])


def accepts_command_fields(tools: Iterable[McpTool], tool: type[Tool]) -> bool:
    """Return whether a tool of a session takes arguments, input and merged streams."""
    offered = next((entry.input_schema for entry in tools if entry.name == tool.tool), {})
    properties = offered.get("properties")
    return isinstance(properties, dict) and {"argv", "stdin", "mergeStderr"} <= properties.keys()


def _encode_input(data: bytes) -> dict[str, str]:
    try:
        return {"stdin": data.decode()}
    except UnicodeDecodeError:
        return {"stdin": base64.b64encode(data).decode(), "stdin_encoding": "base64"}
