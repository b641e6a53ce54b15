"""JavaScript in a page of the session's browser, over the DevTools protocol."""

from __future__ import annotations

import asyncio
import json
from itertools import count
from typing import Any

from mcp.server.mcpserver.exceptions import ToolError
from websockets.asyncio.client import ClientConnection, connect

_SECONDS = 30.0
_MAX_BYTES = 16 << 20


async def evaluate(url: str, expression: str) -> str:
    """Evaluate an expression in the open page and return its value as text.

    Raises:
        ToolError: The expression fails, or takes too long.
    """
    try:
        async with asyncio.timeout(_SECONDS), connect(url, max_size=_MAX_BYTES) as socket:
            calls = count(1)
            targets = (await _call(socket, next(calls), "Target.getTargets"))["targetInfos"]
            page = next((target for target in targets if target["type"] == "page"), None)
            if page is None:
                raise ToolError("The browser shows no page; open one first.")
            attach = {"targetId": page["targetId"], "flatten": True}
            attached = await _call(socket, next(calls), "Target.attachToTarget", attach)
            evaluate = {"expression": expression, "awaitPromise": True, "returnByValue": True, "userGesture": True}
            answer = await _call(socket, next(calls), "Runtime.evaluate", evaluate, sessionId=attached["sessionId"])
    except TimeoutError:
        raise ToolError(f"The expression took longer than {_SECONDS:g} s.") from None
    if failure := answer.get("exceptionDetails"):
        raise ToolError(failure.get("exception", {}).get("description") or failure.get("text", "It failed."))
    value = answer["result"].get("value")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


async def _call(
    socket: ClientConnection, number: int, method: str, params: dict[str, Any] | None = None, **more: str
) -> dict[str, Any]:
    await socket.send(json.dumps({"id": number, "method": method, "params": params or {}, **more}))
    async for frame in socket:
        message = json.loads(frame)
        if message.get("id") == number:
            if "error" in message:
                raise ToolError(f"The browser refused {method}: {message['error'].get('message')}")
            result: dict[str, Any] = message["result"]
            return result
    raise ToolError("The browser has closed the connection.")
