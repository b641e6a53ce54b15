"""Shell scripts of any length as arguments of a program."""

from __future__ import annotations

import os
import re

_MAX_ARGUMENT_BYTES = (128 << 10) - 1  # Linux starts no program with a longer argument (MAX_ARG_STRLEN)
# Closed before the script's own first command, on the same line, so that the shell counts the lines as the caller does.
_CLOSE_SCRIPT = b"exec 3<&-; "
_WORD = r"(?:[\w./:,@%+~$-]|'[^']*'|\"[^\"`\\]*\")(?:[\w./:,@%+=~$-]|'[^']*'|\"[^\"`\\]*\")*"
_SIMPLE_COMMAND = re.compile(rf" *([A-Za-z_./][\w./+-]*)(?: +{_WORD})* *", re.ASCII)
_SHELL_WORDS = frozenset(
    [
        "alias",
        "bg",
        "break",
        "case",
        "cd",
        "chdir",
        "command",
        "continue",
        "do",
        "done",
        "echo",
        "elif",
        "else",
        "esac",
        "eval",
        "exec",
        "exit",
        "export",
        "false",
        "fg",
        "fi",
        "for",
        "function",
        "getopts",
        "hash",
        "if",
        "in",
        "jobs",
        "kill",
        "let",
        "local",
        "printf",
        "pwd",
        "read",
        "readonly",
        "return",
        "select",
        "set",
        "shift",
        "source",
        "test",
        "then",
        "time",
        "times",
        "trap",
        "true",
        "type",
        "typeset",
        "ulimit",
        "umask",
        "unalias",
        "unset",
        "until",
        "wait",
        "while",
        ".",
        ":",
    ]
)


def shell_arguments(script: str) -> tuple[list[str], bytes | None]:
    """Return the arguments of sh for a script, and its descriptor 3.

    The content of that is None for a script that fits into an argument.
    """
    data = os.fsencode(script)
    if len(data) <= _MAX_ARGUMENT_BYTES:
        return ["sh", "-c", script], None
    return ["sh", "-c", ". /proc/self/fd/3"], _CLOSE_SCRIPT + data


def is_simple_command(script: str) -> bool:
    """Return whether a script does no more than start one program.

    The shell may then become that program, and need not wait for it as a process of its own.
    """
    match = _SIMPLE_COMMAND.fullmatch(script)
    return match is not None and match[1] not in _SHELL_WORDS
