"""Code: the tool, and the same as a stream."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar

from agentbay._wire.converter import unstructure
from agentbay._wire.schema import Tool
from agentbay._wire.tools import (
    CodeContextEntry,
    CreateCodeContext,
    ListCodeContexts,
    RemoveCodeContext,
    RestartCodeContext,
    RunCode,
    ToolReply,
)
from agentbay.local.dispatch import runs, serves
from agentbay.local.hub import Exchange
from agentbay.local.kernels import languages
from agentbay.local.kernels.table import CodeRefused, ContextFacts
from agentbay.local.kernels.transcript import Transcript
from agentbay.local.session import Session
from agentbay.local.tooling import failed, said

_T = TypeVar("_T", bound=Tool)
_ALIASES = {"py": "python", "python3": "python", "js": "javascript", "node": "javascript", "nodejs": "javascript"}
_LARGEST_FRAME = 1 << 20  # bytes: a longer one ends the connection of the published client
_ENVELOPE = 4096  # bytes of a frame that are not the result itself


def _answering(handler: Callable[[Session, _T], Awaitable[ToolReply]]) -> Callable[[Session, _T], Awaitable[ToolReply]]:
    @wraps(handler)
    async def answer(session: Session, tool: _T) -> ToolReply:
        try:
            return await handler(session, tool)
        except CodeRefused as refusal:
            return failed(str(refusal))

    return answer


@runs(RunCode)
@_answering
async def run_code(session: Session, tool: RunCode) -> ToolReply:
    transcript = Transcript()
    context, limit = _context(tool.language, tool.context), _limit(tool.timeout_s)
    await session.run_code(context, tool.code, timeout=limit, transcript=transcript)
    return said(transcript.text(secrets.token_hex(16)), transcript.beside(), is_error=transcript.failed)


@runs(CreateCodeContext)
@_answering
async def create_context(session: Session, tool: CreateCodeContext) -> ToolReply:
    facts = await session.create_code_context(_context(tool.language, None), tool.name)
    return said(json.dumps(_entry(facts)))


@runs(ListCodeContexts)
async def list_contexts(session: Session, tool: ListCodeContexts) -> ToolReply:
    session.check_running()
    return said(json.dumps([_entry(facts) for facts in session.kernels.list()]))


@runs(RestartCodeContext)
@_answering
async def restart_context(session: Session, tool: RestartCodeContext) -> ToolReply:
    await session.restart_code_context(tool.name)
    return said("restarted")


@runs(RemoveCodeContext)
@_answering
async def remove_context(session: Session, tool: RemoveCodeContext) -> ToolReply:
    await session.remove_code_context(tool.name)
    return said("removed")


@serves(RunCode.server)
async def serve(session: Session, exchange: Exchange) -> None:
    params = exchange.params
    if exchange.method == "run_code":
        await _stream(session, exchange, params)
    elif exchange.method == "interrupt_code":
        try:
            interrupted = session.kernels.interrupt(_context(params.get("language"), params.get("context")))
        except CodeRefused as refusal:
            await exchange.answer(error=str(refusal))
        else:
            await exchange.answer(result={"interrupted": interrupted})
    else:
        await exchange.answer(error=f"There is no method {exchange.method!r:.80}.")


async def _stream(session: Session, exchange: Exchange, params: dict[str, Any]) -> None:
    try:
        transcript = await _run_live(session, exchange, params)
    except CodeRefused as refusal:
        await exchange.end(status="failed", executionError=str(refusal))
    else:
        await _end(exchange, transcript)


async def _run_live(session: Session, exchange: Exchange, params: dict[str, Any]) -> Transcript:
    code, largest = params.get("code"), params.get("largestFrame")
    if not isinstance(code, str):
        raise CodeRefused("code must be a text.")
    context, limit = _context(params.get("language"), params.get("context")), _limit(params.get("timeoutS", 60))
    transcript = _Live(largest if isinstance(largest, int) else _LARGEST_FRAME)
    running = asyncio.create_task(session.run_code(context, code, timeout=limit, transcript=transcript))
    running.add_done_callback(lambda _: transcript.close())
    try:
        await transcript.pass_on(exchange)
        await running
    finally:
        running.cancel()
    return transcript


async def _end(exchange: Exchange, transcript: Transcript) -> None:
    if transcript.error is not None:
        name, value, traceback = (transcript.error[key] for key in ("name", "value", "traceback"))
        if traceback:
            await exchange.event("stderr", chunk=traceback)
        await exchange.event("error", error={"code": name, "message": value, "traceback": traceback})
    facts: dict[str, Any] = {"executionTime": round(transcript.seconds, 6)}
    if transcript.count is not None:
        facts["executionCount"] = transcript.count
    if transcript.timed_out:
        facts["timedOut"] = True
    if transcript.truncated:
        facts["truncated"] = True
    status = "failed" if transcript.failed else "finished"
    await exchange.end(status=status, executionError=transcript.message or None, **facts)


class _Live(Transcript):
    """Tells what happens while it happens."""

    def __init__(self, largest: int) -> None:
        super().__init__()
        self._largest = largest - _ENVELOPE
        self._events: asyncio.Queue[tuple[str, dict[str, Any]] | None] = asyncio.Queue()

    def tell(self, event: str, **facts: Any) -> None:
        self._events.put_nowait((event, facts))

    def close(self) -> None:
        """Say that nothing more will happen."""
        self._events.put_nowait(None)

    async def pass_on(self, exchange: Exchange) -> None:
        """Send all until `close`."""
        while (item := await self._events.get()) is not None:
            event, facts = item
            if event == "result":
                facts = {"result": self._fitting(facts["result"])}
            await exchange.event(event, **facts)

    def _fitting(self, item: dict[str, Any]) -> dict[str, Any]:
        """Write a result with its forms in both places where clients look, in one if that is too much for a frame."""
        main = {"isMainResult": item["isMainResult"]}
        mime = {key: value for key, value in item.items() if key != "isMainResult"}
        size = len(json.dumps(mime))
        if size > self._largest:
            return {**main, "mime": {"text/plain": f"[left out: {size} bytes are more than a frame may have]"}}
        return {**main, **mime, "mime": mime} if 2 * size <= self._largest else {**main, "mime": mime}


def _entry(facts: ContextFacts) -> dict[str, Any]:
    entry: dict[str, Any] = unstructure(CodeContextEntry(name=facts.name, language=facts.language))
    return entry


def _context(language: object, context: object) -> str:
    """Return the name of the context that is meant: the one of a language is called like it."""
    if context is not None:
        if language is not None:
            raise CodeRefused("Give a language or a context, not both: a context has its language.")
        return str(context)
    name = _canonical(language)
    if not languages.known(name):
        raise CodeRefused(f"Unsupported language: {language!r:.80}. It must be one of {', '.join(languages.NAMES)}.")
    return name


def _limit(seconds: object) -> float:
    if not isinstance(seconds, (int, float)) or not 0 < seconds < 1 << 31:
        raise CodeRefused(f"The time limit must be a positive number of seconds, not {seconds!r:.80}.")
    return seconds


def _canonical(language: object) -> str:
    name = str(language).strip().lower()
    return _ALIASES.get(name, name)
