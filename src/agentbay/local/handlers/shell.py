"""The shell tool."""

from __future__ import annotations

import secrets
import time
from typing import Any

from agentbay._wire.tools import Shell, ToolReply
from agentbay.local.handlers.dispatch import tool_handler
from agentbay.local.handlers.results import check_no_nul, error_result, text_result
from agentbay.local.json_stream import DecodedText, decoded_text, dump_json
from agentbay.local.sandbox.service.manager import Completed
from agentbay.local.sessions.session import Session


@tool_handler(Shell)
async def shell(session: Session, tool: Shell) -> ToolReply:
    if tool.timeout_ms <= 0:
        return error_result(f"timeout_ms must be positive, not {tool.timeout_ms}")
    envs = tool.envs or {}
    began = time.monotonic()
    try:
        check_no_nul(tool.command, tool.cwd, *envs, *envs.values())
        completed = await _run(session, tool, envs)
    except ValueError as error:  # text with NUL or lone surrogates, which no process can be given
        return error_result(str(error))
    if completed.timed_out:
        return _timeout_result(completed, tool.timeout_ms)
    return _exit_result(completed, session.refused_hosts(began) if completed.exit_code else [])


async def _run(session: Session, tool: Shell, envs: dict[str, str]) -> Completed:
    with session.history.record_shell(tool.command) as entry:
        limit = tool.timeout_ms / 1000
        env = {**session.environment, **envs}
        with session.using() as sandbox:
            argv, script = sandbox.shell_arguments(tool.command)
            completed = await sandbox.run(
                argv, cwd=tool.cwd, env=env, script=script, timeout=limit, follow=entry.set_output_source
            )
        late = f"timed out after {tool.timeout_ms} ms" if completed.timed_out else ""
        entry.set_output_source(lambda size: (bytes(completed.stdout[-size:]), bytes(completed.stderr[-size:])))
        entry.set_result(exit_code=completed.exit_code, note=late)
    return completed


def _exit_result(completed: Completed, refused_hosts: list[str]) -> ToolReply:
    body: dict[str, Any] = {**_output(completed), "exit_code": completed.exit_code}
    if completed.exit_code:
        body["traceId"] = secrets.token_hex(16)
    structured: dict[str, Any] = {"truncated": True} if completed.truncated else {}
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


def _output(completed: Completed) -> dict[str, str | DecodedText]:
    return {"stdout": decoded_text(completed.stdout), "stderr": decoded_text(completed.stderr)}
