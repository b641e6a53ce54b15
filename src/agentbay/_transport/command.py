"""Read the text of the shell tool: a command's exit code and output."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Mapping
from typing import Any

from .._arguments import check_variable, refusal
from .._wire.raw_calls import RESULT_LENGTH
from .._wire.tools import ToolReply
from ..errors import CommandError, CommandTimeoutError, FileError, ReplyError
from ..models.command import CommandResult, network_hint
from .file_errors import file_text_or_raise, is_system_error, tool_file_error
from .reply import Reply

NOT_STARTED_EXIT_CODE = 126  # as shells report it
DEFAULT_COMMAND_TIMEOUT_MS = 50_000  # milliseconds until a command is killed


def read_command_result(reply: Reply[ToolReply]) -> CommandResult:
    """Read a shell reply: JSON with exit code and output, or the bare output.

    Raises:
        FileError: If the command was not started, since its directory cannot be entered.
    """
    tool = reply.data_or_raise()
    text, failed = tool.text, tool.is_error
    if failed and is_system_error(tool):  # its directory could not be entered
        raise tool_file_error(tool, _text((_parse_wrapped_output(text) or {}).get("stderr")).strip(), reply.request_id)
    wrapped = _parse_wrapped_output(text)
    if wrapped is None:
        return _raw_result(reply, text) if not failed else _not_run_result(reply, text)
    fields = {**wrapped, **_structured_output(tool)}
    stdout, stderr = _text(fields.get("stdout")), _text(fields.get("stderr"))
    truncated = fields.get("truncated") is True
    code, refused_hosts = _exit_code(wrapped), read_refused_hosts(fields)
    if fields.get("timedOut") or (code == -1 and failed):
        message = _text(wrapped.get("errorMessage"))
        return _timeout_result(reply.request_id, message, stdout, stderr, truncated=truncated)
    if failed and code == 0:
        code = 1
    return CommandResult(
        request_id=reply.request_id,
        success=code == 0,
        output=stdout + stderr,
        error_message="" if code == 0 else _failure_message(wrapped, stderr, code, refused_hosts),
        exit_code=code,
        stdout=stdout,
        stderr=stderr,
        trace_id=_text(wrapped.get("traceId")),
        truncated=truncated,
        refused_hosts=refused_hosts,
        stdout_bytes=_exact_output(fields, "stdoutBytes"),
        stderr_bytes=_exact_output(fields, "stderrBytes"),
    )


def finished_command_result(exit_code: int, stdout: bytes, stderr: bytes) -> CommandResult:
    """Return the result of a command whose output was followed."""
    texts = [data.decode("utf-8", "replace") for data in (stdout, stderr)]
    return CommandResult(
        success=exit_code == 0,
        output="".join(texts),
        error_message="" if exit_code == 0 else _failure_message({}, texts[1], exit_code, []),
        exit_code=exit_code,
        stdout=texts[0],
        stderr=texts[1],
        stdout_bytes=stdout,
        stderr_bytes=stderr,
    )


def command_timeout_result(stdout: bytes, stderr: bytes) -> CommandResult:
    """Return the result of a followed command that ran out of time."""
    texts = [data.decode("utf-8", "replace") for data in (stdout, stderr)]
    return _timeout_result("", "", *texts)


def may_be_directory_failure(result: CommandResult, cwd: str) -> bool:
    """Return whether a command may have failed because its directory cannot be entered."""
    is_told = isinstance(result.exception, FileError)
    unsaid = isinstance(result.exception, CommandError) and not isinstance(result.exception, CommandTimeoutError)
    code_of_shells = result.exit_code == NOT_STARTED_EXIT_CODE and not result.stdout
    return not is_told and (code_of_shells or (unsaid and cwd in result.error_message))


def check_environment(envs: Mapping[str, str] | None) -> dict[str, str] | None:
    """Return a command's environment variables.

    Raises:
        ValueError: If a name or value is not a string.
        InvalidArgumentError: If it is no dict, or no program could be started with a variable.
    """
    if envs is not None and not isinstance(envs, Mapping):
        raise refusal("envs", "a dict of strings or None", envs)
    wrong = [
        f"{name!r}: {value!r}"
        for name, value in (envs or {}).items()
        if not (isinstance(name, str) and isinstance(value, str))
    ]
    if wrong:
        raise ValueError(
            "Invalid environment variables: all keys and values must be strings. "
            f"Found invalid entries: {', '.join(wrong)}"
        )
    for name, value in (envs or {}).items():
        check_variable("envs", name, value)
    return None if envs is None else dict(envs)


def _parse_wrapped_output(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        # The output of a command, which need not be JSON.
        return None
    if not isinstance(value, dict):
        return None
    streams = [isinstance(value.get(name), str) for name in ("stdout", "stderr")]
    return value if all(streams) or (_is_int(value.get("exit_code")) and any(streams)) else None


def _structured_output(reply: ToolReply) -> dict[str, Any]:
    # The local runtime sends the output of a command that timed out here, since the published client discards it.
    found = reply.structured_content or {}
    return {
        name: found[name]
        for name in ("stdout", "stderr", "timedOut", "truncated", "refusedHosts", "stdoutBytes", "stderrBytes")
        if name in found
    }


def _failure_message(wrapped: Mapping[str, Any], stderr: str, code: int, refused_hosts: list[str]) -> str:
    message = stderr or _text(wrapped.get("errorMessage")) or f"The command exited with {code}."
    return with_network_hint(message, refused_hosts)


def read_refused_hosts(fields: Mapping[str, Any]) -> list[str]:
    """Return the hosts that the network refused, as a command or code reports them."""
    found = fields.get("refusedHosts")
    return [str(host) for host in found] if isinstance(found, list) else []


def with_network_hint(message: str, refused_hosts: list[str]) -> str:
    """Append to a message how to allow the hosts that were refused."""
    hint = network_hint(refused_hosts)
    return f"{message.rstrip()}\n{hint}" if hint else message


def _exit_code(wrapped: dict[str, Any]) -> int:
    for name in ("exit_code", "errorCode"):
        if _is_int(wrapped.get(name)):
            return int(wrapped[name])
    return 0


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _exact_output(fields: Mapping[str, Any], name: str) -> bytes | None:
    """Return the exact bytes of an output stream that is not UTF-8.

    The local runtime sends them as base64 in the structured answer. None means that it sent none.
    """
    try:
        return base64.b64decode(fields[name], validate=True) if name in fields else None
    except (TypeError, ValueError):
        # The text of the same output is there still, so damaged base64 is no reason to fail.
        return None


def _raw_result(reply: Reply[ToolReply], text: str) -> CommandResult:
    return CommandResult(request_id=reply.request_id, success=True, output=text, stdout=text)


def _not_run_result(reply: Reply[ToolReply], text: str) -> CommandResult:
    message = text or "Failed to execute command"
    if "[timeout]" in text:
        return _timeout_result(reply.request_id, message, "", "")
    error = CommandError(message, request_id=reply.request_id)
    return CommandResult(
        request_id=reply.request_id, output=text, stdout=text, error_message=message, exit_code=1, exception=error
    )


def _timeout_result(
    request_id: str, message: str, stdout: str, stderr: str, *, truncated: bool = False
) -> CommandResult:
    error = CommandTimeoutError(
        message or "The command ran out of time and was killed.",
        request_id=request_id,
        hint="Give it a longer timeout.",
        stdout=stdout,
        stderr=stderr,
        truncated=truncated,
    )
    return CommandResult(
        request_id=request_id,
        error_message=error.message,
        exit_code=-1,
        exception=error,
        truncated=truncated,
    )


def read_raw_command(reply: Reply[ToolReply]) -> tuple[bytes, int, str]:
    """Return output, exit code and standard error of a raw command.

    Raises:
        FileError: If it was refused, for example because the disk is full.
        ReplyError: If the answer cannot be read.
    """
    file_text_or_raise(reply)
    content, size = reply.content, RESULT_LENGTH.size
    try:
        (length,) = RESULT_LENGTH.unpack(content[-size:])
        end = len(content) - size - length
        fields = json.loads(content[max(end, 0) : -size])
        return content[:end], int(fields["exitCode"]), str(fields["stderr"])
    except (struct.error, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ReplyError("The answer of a command cannot be read.", request_id=reply.request_id) from error


def command_limit_ms(timeout_ms: float | None, timeout: float | None) -> int:
    """Return the whole milliseconds until a command is killed.

    Args:
        timeout_ms: Milliseconds; None is the default.
        timeout: Seconds, which take precedence.
    """
    wanted = timeout_ms if timeout is None else timeout * 1000
    # Rounding down could make 0 of a fraction.
    return DEFAULT_COMMAND_TIMEOUT_MS if wanted is None else max(1, math.ceil(wanted))
