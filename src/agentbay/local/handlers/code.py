"""The code tools, and the stream of a run's output."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar

from agentbay._wire import tools as wire
from agentbay._wire.converter import unstructure
from agentbay._wire.languages import canonical_language
from agentbay._wire.schema import Tool
from agentbay.local.handlers.code_stream import StreamingOutput
from agentbay.local.handlers.handler_tables import target_handler, tool_handler
from agentbay.local.handlers.results import error_result, text_result
from agentbay.local.kernels import languages
from agentbay.local.kernels.execution_output import ExecutionOutput
from agentbay.local.kernels.kernel_manager import CodeContextInfo, CodeRequestRejected
from agentbay.local.sessions.hub import WebSocketRequest
from agentbay.local.sessions.session import Session

_T = TypeVar("_T", bound=Tool)
_DEFAULT_MAX_FRAME_BYTES = 1 << 20  # a longer frame closes the connection of the published client


def _rejections_as_results(
    handler: Callable[[Session, _T], Awaitable[wire.ToolReply]],
) -> Callable[[Session, _T], Awaitable[wire.ToolReply]]:
    @wraps(handler)
    async def answer(session: Session, tool: _T) -> wire.ToolReply:
        try:
            return await handler(session, tool)
        except CodeRequestRejected as rejection:
            return error_result(str(rejection))

    return answer


@tool_handler(wire.RunCode)
@_rejections_as_results
async def run_code(session: Session, tool: wire.RunCode) -> wire.ToolReply:
    output = ExecutionOutput()
    context, limit = _resolve_context(tool.language, tool.context), _check_timeout(tool.timeout_s)
    await session.run_code(context, tool.code, timeout=limit, output=output)
    return text_result(output.to_json(secrets.token_hex(16)), output.structured(), is_error=output.failed)


@tool_handler(wire.CreateCodeContext)
@_rejections_as_results
async def create_context(session: Session, tool: wire.CreateCodeContext) -> wire.ToolReply:
    language = _resolve_context(tool.language, None)
    with session.using() as sandbox:
        info = await session.kernels.create(sandbox, language, tool.name, session.environment)
    return text_result(json.dumps(_entry(info)))


@tool_handler(wire.ListCodeContexts)
async def list_contexts(session: Session, tool: wire.ListCodeContexts) -> wire.ToolReply:
    with session.using():
        return text_result(json.dumps([_entry(info) for info in session.kernels.list()]))


@tool_handler(wire.RestartCodeContext)
@_rejections_as_results
async def restart_context(session: Session, tool: wire.RestartCodeContext) -> wire.ToolReply:
    with session.using():
        await session.kernels.restart(tool.name)
    return text_result("restarted")


@tool_handler(wire.RemoveCodeContext)
@_rejections_as_results
async def remove_context(session: Session, tool: wire.RemoveCodeContext) -> wire.ToolReply:
    with session.using():
        await session.kernels.remove(tool.name)
    return text_result("removed")


@target_handler(wire.RunCode.server)
async def handle_code_request(session: Session, request: WebSocketRequest) -> None:
    params = request.params
    if request.method == "run_code":
        await _stream(session, request, params)
    elif request.method == "interrupt_code":
        try:
            interrupted = session.kernels.interrupt(_resolve_context(params.get("language"), params.get("context")))
        except CodeRequestRejected as rejection:
            await request.send_answer(error=str(rejection))
        else:
            await request.send_answer(result={"interrupted": interrupted})
    else:
        await request.send_answer(error=f"There is no method {request.method!r:.80}.")


async def _stream(session: Session, request: WebSocketRequest, params: dict[str, Any]) -> None:
    try:
        output = await _run_streaming(session, request, params)
    except CodeRequestRejected as rejection:
        await request.send_end(status="failed", executionError=str(rejection))
    else:
        await _send_outcome(request, output)


async def _run_streaming(session: Session, request: WebSocketRequest, params: dict[str, Any]) -> StreamingOutput:
    code, largest = params.get("code"), params.get("largestFrame")
    if not isinstance(code, str):
        raise CodeRequestRejected("code must be a text.")
    context, limit = (
        _resolve_context(params.get("language"), params.get("context")),
        _check_timeout(params.get("timeoutS", 60)),
    )
    output = StreamingOutput(
        largest if isinstance(largest, int) else _DEFAULT_MAX_FRAME_BYTES,
        with_updates=params.get("displayUpdates") is True,
    )
    running = asyncio.create_task(session.run_code(context, code, timeout=limit, output=output))
    # Also if the run fails: send_events would wait for ever otherwise.
    running.add_done_callback(lambda _: output.close())
    try:
        await output.send_events(request)
        await running
    finally:
        # A client that cancels or disconnects cancels this function, and the code must stop with it.
        running.cancel()
    return output


async def _send_outcome(request: WebSocketRequest, output: ExecutionOutput) -> None:
    if output.error is not None:
        name, value, traceback = (output.error[key] for key in ("name", "value", "traceback"))
        if traceback:
            await request.send_event("stderr", chunk=traceback)
        await request.send_event("error", error={"code": name, "message": value, "traceback": traceback})
    fields: dict[str, Any] = {"executionTime": round(output.duration_seconds, 6)}
    if output.execution_count is not None:
        fields["executionCount"] = output.execution_count
    if output.timed_out:
        fields["timedOut"] = True
    if output.truncated:
        fields["truncated"] = True
    if output.refused_hosts:
        fields["refusedHosts"] = output.refused_hosts
    status = "failed" if output.failed else "finished"
    await request.send_end(status=status, executionError=output.error_line or None, **fields)


def _entry(info: CodeContextInfo) -> dict[str, Any]:
    entry: dict[str, Any] = unstructure(wire.CodeContextEntry(name=info.name, language=info.language))
    return entry


def _resolve_context(language: object, context: object) -> str:
    # A language's default context is named like the language.
    if context is not None:
        if language is not None:
            raise CodeRequestRejected("Give a language or a context, not both: a context already has a language.")
        return str(context)
    name = canonical_language(str(language))
    if not languages.is_known(name):
        raise CodeRequestRejected(
            f"Unsupported language: {language!r:.80}. It must be one of {', '.join(languages.LANGUAGES)}."
        )
    return name


def _check_timeout(seconds: object) -> float:
    if not isinstance(seconds, (int, float)) or not 0 < seconds < 1 << 31:
        raise CodeRequestRejected(f"The time limit must be a positive number of seconds, not {seconds!r:.80}.")
    return seconds
