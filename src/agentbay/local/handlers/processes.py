"""The tools for background processes."""

from __future__ import annotations

import json
import secrets
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar

from agentbay._wire import process_tools as wire
from agentbay._wire.schema import Tool
from agentbay._wire.tools import ENCODINGS, ToolReply
from agentbay.local.handlers.command_input import check_command, decode_data, directory_failure, read_input
from agentbay.local.handlers.handler_tables import RawBody, RawReply, ToolHandler, raw_tool_handler, tool_handler
from agentbay.local.handlers.results import text_result
from agentbay.local.large_json_encoder import JsonText, base64_text, decoded_text, is_large
from agentbay.local.sandbox.service.manager import STREAMS, DirectoryNotEntered, InputClosed, ResourceCreationFailed
from agentbay.local.sessions.background import ProcessRefused
from agentbay.local.sessions.session import Session
from agentbay.local.worker_thread import run_by_size

_T = TypeVar("_T", bound=Tool)
_REFUSALS = (ProcessRefused, ResourceCreationFailed, ValueError)
_MAX_RAW_INPUT_BYTES = 64 << 20  # in one call, which holds it in memory
_Function = Callable[[Session, _T], Awaitable[dict[str, Any]]]


def _process_tool(cls: type[_T]) -> Callable[[_Function[_T]], ToolHandler]:
    """Mark the function that does the work of a process tool.

    What it returns is the answer, and a refusal becomes an error result.
    """

    def wrap(function: _Function[_T]) -> ToolHandler:
        @wraps(function)
        async def run(session: Session, tool: _T) -> ToolReply:
            return await _answer(function(session, tool))

        return tool_handler(cls)(run)

    return wrap


async def _answer(work: Awaitable[dict[str, Any]]) -> ToolReply:
    try:
        answer = await work
    except DirectoryNotEntered as error:
        words, structured = directory_failure(error)
        return text_result(words, structured, is_error=True)
    except _REFUSALS as refused:
        return text_result(str(refused), is_error=True)
    return text_result(JsonText(answer) if is_large(answer) else json.dumps(answer, ensure_ascii=False))


@_process_tool(wire.StartProcess)
async def start(session: Session, tool: wire.StartProcess) -> dict[str, Any]:
    envs, process_id = tool.envs or {}, tool.process_id or secrets.token_hex(8)
    check_command(tool, tool.label, *envs, *envs.values())
    stdin = await run_by_size(len(tool.stdin or ""), read_input, tool)
    with session.using() as sandbox:
        process = await session.background.start(
            sandbox,
            process_id,
            tool.argv or tool.command,
            label=tool.command if tool.label is None else tool.label,
            cwd=tool.cwd,
            env={**session.environment, **envs},
            stdin=stdin,
            merge_stderr=bool(tool.merge_stderr),
        )
    return {"processId": process_id, "pid": process.pid}


@_process_tool(wire.ListProcesses)
async def list_processes(session: Session, tool: wire.ListProcesses) -> dict[str, Any]:
    with session.using():
        entries = [
            {
                "processId": process_id,
                "pid": process.pid,
                "command": label,
                "exitCode": process.exit_code,
                "startedAt": process.started_at,
                "stdoutBytes": process.stores["stdout"].size,
                "stderrBytes": process.stores["stderr"].size,
            }
            for process_id, label, process in session.background.list()
        ]
    return {"processes": entries}


@_process_tool(wire.ReadProcessOutput)
async def read_output(session: Session, tool: wire.ReadProcessOutput) -> dict[str, Any]:
    result, data = await _read_output(session, tool)
    text = base64_text(data) if _is_base64(tool.encoding) else decoded_text(data)
    return {**result, "data": text}


@raw_tool_handler(wire.ReadProcessOutput)
async def read_raw_output(session: Session, tool: wire.ReadProcessOutput, body: RawBody) -> ToolReply | RawReply:
    try:
        result, data = await _read_output(session, tool)
    except _REFUSALS as refused:
        return text_result(str(refused), is_error=True)
    return RawReply(len(data), _once(data), result)


async def _once(data: bytes) -> AsyncGenerator[bytes, None]:
    yield data


async def _read_output(session: Session, tool: wire.ReadProcessOutput) -> tuple[dict[str, Any], bytes]:
    """Return output of a process, and where it stands."""
    _check_range("offset", tool.offset, 0, 1 << 62)
    _check_range("maxBytes", tool.max_bytes, 1, wire.MAX_OUTPUT_BYTES)
    _check_range("waitMs", tool.wait_ms, 0, wire.MAX_WAIT_MS)
    if tool.stream not in STREAMS:
        raise ValueError(f"stream must be stdout or stderr, not {tool.stream!r:.80}")
    process = session.background.find(tool.process_id)
    store = process.stores[tool.stream]
    with session.using():
        await process.wait_for_output(store, tool.offset, tool.wait_ms / 1000)
        # Taken before the size: the size that comes with an exit code must be the last one.
        code = process.exit_code
        size = store.size
        data = await store.read(tool.offset, tool.max_bytes)
    if tool.offset >= size and store.loss:
        raise ProcessRefused(f"Output of process {tool.process_id} from byte {size} on is lost: {store.loss}.")
    return {"exitCode": code, "size": size, "nextOffset": tool.offset + len(data)}, data


@_process_tool(wire.WaitProcess)
async def wait(session: Session, tool: wire.WaitProcess) -> dict[str, Any]:
    _check_range("timeoutMs", tool.timeout_ms, 0, wire.MAX_WAIT_MS)
    process = session.background.find(tool.process_id)
    with session.using():
        return {"exitCode": await process.wait(tool.timeout_ms / 1000)}


@_process_tool(wire.WriteProcessInput)
async def write_input(session: Session, tool: wire.WriteProcessInput) -> dict[str, Any]:
    return await _write_input(session, tool, decode_data(tool.data, tool.encoding))


@raw_tool_handler(wire.WriteProcessInput)
async def write_raw_input(session: Session, tool: wire.WriteProcessInput, body: RawBody) -> ToolReply:
    if body.size > _MAX_RAW_INPUT_BYTES:
        return text_result(f"One call takes up to {_MAX_RAW_INPUT_BYTES >> 20} MiB of input", is_error=True)
    # Whole before any of it is written: the answer to a call tells how much the process took.
    data = b"".join([piece async for piece in body.pieces])
    return await _answer(_write_input(session, tool, data))


async def _write_input(session: Session, tool: wire.WriteProcessInput, data: bytes) -> dict[str, Any]:
    _check_range("timeoutMs", tool.timeout_ms, 0, wire.MAX_WAIT_MS)
    process = session.background.find(tool.process_id)
    with session.using():
        try:
            sent = await process.stdin.write(data, tool.timeout_ms / 1000) if data else 0
        except InputClosed:
            raise ProcessRefused(f"Process {tool.process_id} does not take input any more.") from None
        if tool.close and sent == len(data):
            process.stdin.close()
    return {"sentBytes": sent}


@_process_tool(wire.SignalProcess)
async def send_signal(session: Session, tool: wire.SignalProcess) -> dict[str, Any]:
    _check_range("signal", tool.signal, 1, signal.NSIG - 1)
    process = session.background.find(tool.process_id)
    with session.using():
        process.signal(tool.signal)
    return {}


@_process_tool(wire.RemoveProcess)
async def remove(session: Session, tool: wire.RemoveProcess) -> dict[str, Any]:
    with session.using():
        if tool.kill:
            await session.background.cancel(tool.process_id)
        else:
            session.background.remove(tool.process_id)
    return {}


def _is_base64(encoding: str) -> bool:
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding must be {' or '.join(ENCODINGS)}, not {encoding!r:.80}")
    return encoding == "base64"


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} must be {least} to {most}, not {value}")
