"""Requests to process 1 of a sandbox, and what they are made of."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from agentbay.local.sandbox.shared import ipc
from agentbay.local.sandbox.shared.file_protocol import FileRequest, ReadFile
from agentbay.local.sandbox.shared.ipc import Message


def command_message(
    argv: Sequence[str], cwd: str | None, env: Mapping[str, str] | None, *, reports_start: bool = False
) -> Message:
    """Return the request that starts a command."""
    return {
        "do": "run_command",
        "argv": list(argv),
        "cwd": cwd,
        "env": dict(env or {}),
        "reports_start": reports_start,
    }


def content_bytes(request: FileRequest[Any]) -> int:
    """Return how much of a file a request asks for."""
    return request.length if isinstance(request, ReadFile) else 0


def file_operation_message(request: FileRequest[Any]) -> Message:
    """Return the request for a file operation."""
    return {"do": "run_file_operation", "operation": type(request).__name__, "fields": request.to_json()}


def make_error_fd(output: int, error: int, *, merge: bool) -> int:
    """Return a descriptor for standard error.

    If it shall go to standard output, that is a second one for the same pipe.
    """
    if not merge:
        return error
    os.close(error)  # nothing else writes to that pipe, so its reader is at its end
    return os.dup(output)


def make_input_fd(content: bytes | bytearray | None) -> int:
    """Return a descriptor from which a content, or nothing, is read."""
    if content is None:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    return ipc.make_memfd(content)


def check_strings(argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Raise ValueError for what no process can be given."""
    if not argv or not argv[0]:
        raise ValueError("a command needs a name")
    if any("\0" in text for text in (*argv, *env, *env.values())):
        raise ValueError("arguments and environment cannot hold NUL")
    for name in env:
        if not name or "=" in name:
            raise ValueError(f"not a name for an environment variable: {name!r}")
