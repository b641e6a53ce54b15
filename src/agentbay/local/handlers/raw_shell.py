"""Commands whose input and output are raw bytes."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import ExitStack

from agentbay._wire.raw_calls import RESULT_LENGTH
from agentbay._wire.tools import Shell, ToolReply
from agentbay.local.handlers.command_input import check_command, directory_failure
from agentbay.local.handlers.files import MAX_READ_BYTES, failure_result
from agentbay.local.handlers.handler_tables import RawBody, RawReply, raw_tool_handler
from agentbay.local.handlers.results import error_result
from agentbay.local.sandbox.service.command_stream import CommandStream
from agentbay.local.sandbox.service.manager import DirectoryNotEntered, FileOperationFailed
from agentbay.local.sessions.history import HistoryEntry
from agentbay.local.sessions.session import Session

_NOT_STARTED_EXIT_CODE, _KILLED_EXIT_CODE = 126, 137  # as shells report it


@raw_tool_handler(Shell)
async def run_raw_command(session: Session, tool: Shell, body: RawBody) -> ToolReply | RawReply:
    """Run a script with the body as its input.

    The session's disk must have room for that much.
    """
    if tool.timeout_ms <= 0 or tool.argv is not None or tool.stdin is not None or tool.merge_stderr:
        return error_result("A raw call has a command and a time limit, and its input as the body.")
    envs = tool.envs or {}
    with ExitStack() as until_sent:
        try:
            check_command(tool, *envs, *envs.values())
            entry = until_sent.enter_context(session.history.record_shell(tool.command))
            sandbox = until_sent.enter_context(session.using())
            await sandbox.watchdog.reserve(body.size, "")
            env = {**session.environment, **envs}
            stream = CommandStream(sandbox, tool.command, tool.timeout_ms / 1000, cwd=tool.cwd, env=env)
            until_sent.callback(stream.close)
            await stream.write(body.pieces)
        except FileOperationFailed as error:
            return failure_result("run command", error)
        except ValueError as error:
            return error_result(str(error))
        pieces = _send(stream, entry, until_sent.pop_all())
        await anext(pieces)  # begun, so that closing it closes the rest even if nothing is sent
        return RawReply(None, pieces, {})


async def _send(stream: CommandStream, entry: HistoryEntry, until_sent: ExitStack) -> AsyncGenerator[bytes, None]:
    with until_sent:
        yield b""
        left = MAX_READ_BYTES
        try:
            async for piece in stream.pieces():
                yield piece[:left]
                left -= len(piece)
                if left < 0:
                    raise ValueError(f"It writes more than the {MAX_READ_BYTES >> 20} MiB that one answer can hold")
            code, errors = stream.exit_code, stream.error_text()
        except TimeoutError:
            code, errors = _KILLED_EXIT_CODE, "The command took longer than its time limit"
        except ValueError as error:
            code, errors = _KILLED_EXIT_CODE, str(error)
        except DirectoryNotEntered as error:
            code, errors = _NOT_STARTED_EXIT_CODE, directory_failure(error)[0]
        entry.set_result(exit_code=code, note="")
        text = json.dumps({"exitCode": code, "stderr": errors}).encode()
        yield text + RESULT_LENGTH.pack(len(text))
