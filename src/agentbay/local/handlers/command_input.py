"""What the tools for commands have in common: arguments, input and directory."""

from __future__ import annotations

import base64
import binascii
import errno
import os
from typing import TYPE_CHECKING, Any

from agentbay._wire.tools import ENCODINGS, Shell
from agentbay.local.handlers.results import check_no_nul
from agentbay.local.sandbox.service.manager import DirectoryNotEntered

if TYPE_CHECKING:
    from agentbay._wire.process_tools import StartProcess


def check_command(tool: Shell | StartProcess, *texts: str | None) -> None:
    """Check what a command is started with.

    Raises:
        ValueError: If a text has NUL, or there is no program.
    """
    check_no_nul(tool.command, tool.cwd, *texts, *(tool.argv or ()))
    if tool.argv is not None and not (tool.argv and tool.argv[0]):
        raise ValueError("argv must begin with the name of a program")


def read_input(tool: Shell | StartProcess) -> bytes | None:
    """Return the input of a command, or None if none was given.

    Raises:
        ValueError: If it cannot be decoded.
    """
    if tool.stdin is None:
        return None
    return decode_data(tool.stdin, "utf-8" if tool.stdin_encoding is None else tool.stdin_encoding)


def decode_data(data: str, encoding: str) -> bytes:
    """Return the bytes of a text in one of two encodings.

    Raises:
        ValueError: If it is in neither.
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding must be {' or '.join(ENCODINGS)}, not {encoding!r:.80}")
    if encoding == "utf-8":
        return data.encode()
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError(f"data is not base64: {error}") from error


def directory_failure(error: DirectoryNotEntered) -> tuple[str, dict[str, Any]]:
    """Return the words for the failure, and the object for newer clients."""
    reason = error.strerror or os.strerror(error.errno or 0)
    code = errno.errorcode.get(error.errno or 0, "")
    return f"cd: {error.path}: {reason}", {"error": {"code": code, "path": error.path}}
