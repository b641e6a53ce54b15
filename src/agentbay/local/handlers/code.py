"""Code: the tool, and the same as a stream."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any

from agentbay._wire.tools import RunCode, ToolReply
from agentbay.local.dispatch import runs, serves
from agentbay.local.hub import Exchange
from agentbay.local.kernels.transcript import Transcript
from agentbay.local.session import Session
from agentbay.local.tooling import failed, said

_ALIASES = {"py": "python", "python3": "python", "js": "javascript", "node": "javascript", "nodejs": "javascript"}
_LANGUAGES = ("python", "javascript", "r", "java")
_LARGEST_FRAME = 1 << 20  # bytes: a longer one ends the connection of the published client
_ENVELOPE = 4096  # bytes of a frame that are not the result itself


@runs(RunCode)
async def run_code(session: Session, tool: RunCode) -> ToolReply:
    if objection := _objection(tool.language, tool.timeout_s):
        return failed(objection)
    transcript = Transcript()
    await session.run_code(_canonical(tool.language), tool.code, timeout=tool.timeout_s, transcript=transcript)
    return said(transcript.text(secrets.token_hex(16)), transcript.beside(), is_error=transcript.failed)


@serves(RunCode.server)
async def serve(session: Session, exchange: Exchange) -> None:
    params = exchange.params
    if exchange.method == "run_code":
        await _stream(session, exchange, params)
    elif exchange.method == "interrupt_code":
        language = params.get("language", "python")
        if objection := _objection(language, 1):
            await exchange.answer(error=objection)
        else:
            await exchange.answer(result={"interrupted": session.kernels.interrupt(_canonical(language))})
    else:
        await exchange.answer(error=f"There is no method {exchange.method!r:.80}.")


async def _stream(session: Session, exchange: Exchange, params: dict[str, Any]) -> None:
    code, language, limit = params.get("code"), params.get("language"), params.get("timeoutS", 60)
    objection = "code must be a text." if not isinstance(code, str) else _objection(language, limit)
    if objection or not isinstance(code, str):
        await exchange.end(status="failed", executionError=objection)
        return
    largest = params.get("largestFrame")
    transcript = _Live(largest if isinstance(largest, int) else _LARGEST_FRAME)
    work = session.run_code(_canonical(language), code, timeout=limit, transcript=transcript)
    running = asyncio.create_task(work)
    running.add_done_callback(lambda _: transcript.close())
    try:
        await transcript.pass_on(exchange)
        await running
    finally:
        running.cancel()
    await _end(exchange, transcript)


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


def _objection(language: object, limit: object) -> str:
    if not isinstance(language, str) or _canonical(language) not in _LANGUAGES:
        return f"Unsupported language: {language!r:.80}. It must be one of {', '.join(_LANGUAGES)}"
    if not isinstance(limit, (int, float)) or not 0 < limit < 1 << 31:
        return f"The time limit must be a positive number of seconds, not {limit!r:.80}"
    return ""


def _canonical(language: object) -> str:
    name = str(language).strip().lower()
    return _ALIASES.get(name, name)
