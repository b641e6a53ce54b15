"""The shell tool."""

from __future__ import annotations

import codecs
import secrets
import time
from typing import Any

from agentbay._wire.tools import Shell, ToolReply
from agentbay.local.handlers.command_input import check_command, directory_failure, read_input
from agentbay.local.handlers.handler_tables import tool_handler
from agentbay.local.handlers.results import error_result, text_result
from agentbay.local.large_json_encoder import DecodedText, base64_text, decoded_text, dump_json
from agentbay.local.sandbox.service.manager import Completed, DirectoryNotEntered
from agentbay.local.sessions.session import Session
from agentbay.local.worker_thread import run_by_size

_NOT_STARTED_EXIT_CODE = 126  # as shells report it


@tool_handler(Shell)
async def shell(session: Session, tool: Shell) -> ToolReply:
    if tool.timeout_ms <= 0:
        return error_result(f"timeout_ms must be positive, not {tool.timeout_ms}")
    envs = tool.envs or {}
    began = time.monotonic()
    try:
        check_command(tool, *envs, *envs.values())
        completed = await _run(session, tool, envs)
    except DirectoryNotEntered as error:
        return _not_started_result(error)
    except ValueError as error:  # text with NUL or lone surrogates, which no process can be given
        return error_result(str(error))
    if completed.timed_out:
        return _timeout_result(completed, tool.timeout_ms)
    exact = await _exact_output(completed)
    return _exit_result(completed, session.refused_hosts(began) if completed.exit_code else [], exact)


async def _run(session: Session, tool: Shell, envs: dict[str, str]) -> Completed:
    with session.history.record_shell(tool.command) as entry:
        limit, stdin = tool.timeout_ms / 1000, await run_by_size(len(tool.stdin or ""), read_input, tool)
        env = {**session.environment, **envs}
        with session.using() as sandbox:
            argv, script = (tool.argv, None) if tool.argv else sandbox.shell_arguments(tool.command)
            completed = await sandbox.run(
                argv,
                cwd=tool.cwd,
                env=env,
                stdin=stdin,
                merge_stderr=bool(tool.merge_stderr),
                script=script,
                timeout=limit,
                follow=entry.set_output_source,
            )
        late = f"timed out after {tool.timeout_ms} ms" if completed.timed_out else ""
        entry.set_output_source(lambda size: (bytes(completed.stdout[-size:]), bytes(completed.stderr[-size:])))
        entry.set_result(exit_code=completed.exit_code, note=late)
    return completed


async def _exact_output(completed: Completed) -> dict[str, Any]:
    """Return the bytes of each stream that is no UTF-8 text."""
    streams = {"stdoutBytes": completed.stdout, "stderrBytes": completed.stderr}
    return {
        name: base64_text(data) for name, data in streams.items() if not await run_by_size(len(data), _is_utf8, data)
    }


def _is_utf8(data: bytes | bytearray) -> bool:
    try:
        codecs.utf_8_decode(data, "strict", True)
    except UnicodeDecodeError:
        # Then the bytes travel beside the text.
        return False
    return True


def _not_started_result(error: DirectoryNotEntered) -> ToolReply:
    words, structured = directory_failure(error)
    body = {"stdout": "", "stderr": f"{words}\n", "exit_code": _NOT_STARTED_EXIT_CODE, "traceId": _make_trace_id()}
    return text_result(dump_json(body), structured, is_error=True)


def _exit_result(completed: Completed, refused_hosts: list[str], exact: dict[str, Any]) -> ToolReply:
    body: dict[str, Any] = {**_output(completed), "exit_code": completed.exit_code}
    if completed.exit_code:
        body["traceId"] = _make_trace_id()
    structured: dict[str, Any] = {**exact, "truncated": True} if completed.truncated else exact
    if refused_hosts:
        # Programs such as curl and pip do not show what the proxy answers, so the client cannot read it there.
        structured["refusedHosts"] = refused_hosts
    return text_result(dump_json(body), structured or None, is_error=completed.exit_code != 0)


def _timeout_result(completed: Completed, limit: int) -> ToolReply:
    # Clients in the field expect empty output here. The structured part has the real output, for those that read it.
    body = {"stdout": "", "stderr": "", "exit_code": -1, "errorMessage": f"timed out after {limit} ms"}
    structured: dict[str, Any] = {**_output(completed), "timedOut": True}
    if completed.truncated:
        structured["truncated"] = True
    return text_result(dump_json(body), structured, is_error=True)


def _make_trace_id() -> str:
    return secrets.token_hex(16)


def _output(completed: Completed) -> dict[str, str | DecodedText]:
    return {"stdout": decoded_text(completed.stdout), "stderr": decoded_text(completed.stderr)}
