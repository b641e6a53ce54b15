"""Read the answers of the tools for background processes."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from .._wire.tools import ToolReply
from ..errors import CommandError, ReplyError
from .file_errors import is_system_error, tool_file_error
from .reply import Reply

CANCEL_SECONDS = 10.0  # how long killing a process may delay the error of its failed start
REPLY_MARGIN_SECONDS = 15.0  # added to the wait of a call, for its answer to arrive
_PROCESS_ID = re.compile(r"[0-9a-f]{16}|entrypoint")  # the latter starts with a session of the local runtime


class ProcessState(NamedTuple):
    """The state of a background process.

    Attributes:
        exit_code: None while it runs.
        is_lost: Whether it is gone and has left no exit code.
        size: Bytes of the requested stream so far.
        data: The part of them from the requested offset on, as much as one answer holds.
    """

    exit_code: int | None
    is_lost: bool = False
    size: int = 0
    data: bytes = b""


class ProcessEntry(NamedTuple):
    """One background process of a list.

    Attributes:
        command: What was started, perhaps shortened.
        exit_code: None while it runs, or if it has left none.
    """

    id: str
    pid: int
    command: str
    exit_code: int | None


def check_id(process_id: str) -> str:
    """Return a process id, if it has the form of one.

    Raises:
        ValueError: If it has not.
    """
    if not _PROCESS_ID.fullmatch(process_id):
        raise ValueError(f"not the id of a process: {process_id!r}")
    return process_id


def unknown_process_error(process_id: str, request_id: str = "") -> CommandError:
    """Return the error for an id under which the session has no process."""
    return CommandError(
        f"There is no process {process_id} in this session.",
        request_id=request_id,
        hint="command.list() returns those that there are.",
    )


def find_entry(entries: Iterable[ProcessEntry], process_id: str) -> ProcessEntry:
    """Find a process by its id.

    Raises:
        CommandError: There is none.
    """
    for entry in entries:
        if entry.id == process_id:
            return entry
    raise unknown_process_error(process_id)


def read_pid_answer(reply: Reply[ToolReply]) -> int:
    """Read the answer to `start_process`."""
    return _read_whole(reply, _read_object(reply), "pid")


def read_entries(reply: Reply[ToolReply]) -> list[ProcessEntry]:
    """Read the answer to `list_processes`."""
    try:
        return [
            ProcessEntry(
                str(entry["processId"]),
                int(entry["pid"]),
                str(entry["command"]),
                None if entry["exitCode"] is None else int(entry["exitCode"]),
            )
            for entry in _read_object(reply)["processes"]
        ]
    except (LookupError, TypeError, ValueError) as error:
        raise _unreadable(reply) from error


def read_output_answer(reply: Reply[ToolReply]) -> ProcessState:
    """Read the answer to `read_process_output`, or to `wait_process`."""
    answer = _read_object(reply)
    try:
        code, data = answer["exitCode"], reply.content or base64.b64decode(answer.get("data", ""), validate=True)
        return ProcessState(None if code is None else int(code), size=int(answer.get("size", 0)), data=data)
    except (LookupError, TypeError, ValueError, binascii.Error) as error:
        raise _unreadable(reply) from error


def read_sent_bytes(reply: Reply[ToolReply]) -> int:
    """Read the answer to `write_process_input`."""
    return _read_whole(reply, _read_object(reply), "sentBytes")


def check_answer(reply: Reply[ToolReply]) -> None:
    """Raise CommandError if a tool reports a failure."""
    _read_object(reply)


def _read_object(reply: Reply[ToolReply]) -> dict[str, Any]:
    tool = reply.data_or_raise()
    if tool.is_error:
        message = tool.text or "The tool reports a failure and gives no reason."
        if is_system_error(tool):  # the directory of a command could not be entered
            raise tool_file_error(tool, message, reply.request_id)
        raise CommandError(message, request_id=reply.request_id)
    try:
        value = json.loads(tool.text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(reply) from error
    if not isinstance(value, dict):
        raise _unreadable(reply)
    return value


def _read_whole(reply: Reply[ToolReply], answer: dict[str, Any], name: str) -> int:
    if not isinstance(answer.get(name), int):
        raise _unreadable(reply)
    return int(answer[name])


def _unreadable(reply: Reply[ToolReply]) -> ReplyError:
    return ReplyError("The answer about a process cannot be read.", request_id=reply.request_id)
