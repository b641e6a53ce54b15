"""A connection to a session's browser by the DevTools protocol (CDP).

The browser runs code of the session, so nothing that it sends is trusted: messages have a limit, fields are checked.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

from websockets.exceptions import WebSocketException

from agentbay.local.browser.devtools_socket import DevToolsSocket
from agentbay.local.browser.errors import DevToolsError, DevToolsTimeout
from agentbay.local.large_json_decoder import load_json
from agentbay.local.sandbox.service.manager import Sandbox
from agentbay.local.worker_thread import run_by_size

_CALL_TIMEOUT_SECONDS = 30.0

EventFunction = Callable[[str, dict[str, Any], str], None]


class DevTools:
    """A connection to the browser, which carries commands to all of its pages.

    Args:
        on_event: Called with the name, the parameters and the CDP session of each event.
    """

    def __init__(self, websocket: DevToolsSocket, on_event: EventFunction) -> None:
        self._websocket, self._on_event = websocket, on_event
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, sandbox: Sandbox, port: int, path: str, on_event: EventFunction) -> DevTools:
        """Connect to the browser that listens on a port of the session.

        Raises:
            DevToolsError: It does not answer.
        """
        try:
            streams = await asyncio.open_connection(sock=await sandbox.connect(port))
            websocket = await DevToolsSocket.open(streams, f"ws://127.0.0.1:{port}{path}")
        except (OSError, TimeoutError, WebSocketException) as error:
            raise DevToolsError(f"the browser does not answer: {type(error).__name__}") from error
        return cls(websocket, on_event)

    async def close(self) -> None:
        """Disconnect."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._websocket.abort()

    async def call(
        self, method: str, session: str = "", *, timeout: float = _CALL_TIMEOUT_SECONDS, **params: Any
    ) -> dict[str, Any]:
        """Send a command, and return its result.

        Args:
            session: The CDP session of a page; "" is the browser itself.

        Raises:
            DevToolsError: The browser refuses, has gone, or does not answer in time.
        """
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        try:
            async with asyncio.timeout(timeout):
                await self._websocket.send(json.dumps(message))
                return await answer
        except TimeoutError as error:
            raise DevToolsTimeout(f"the browser did not answer within {timeout:.0f} seconds ({method})") from error
        except (WebSocketException, OSError) as error:
            raise DevToolsError("the browser has ended") from error
        finally:
            self._waiting.pop(number, None)

    async def _read(self) -> None:
        try:
            async for text in self._websocket.messages():
                message = await run_by_size(len(text), _parse, text)
                with self._websocket.share:
                    self._take(message)
        finally:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(DevToolsError("the browser has ended"))

    def _take(self, message: dict[str, Any]) -> None:
        answer = self._waiting.get(message.get("id", 0)) if isinstance(message.get("id"), int) else None
        if answer is not None and not answer.done():
            error, result = message.get("error"), message.get("result")
            if isinstance(error, dict):
                answer.set_exception(DevToolsError(f"the browser refuses: {error.get('message')!s:.300}"))
            else:
                answer.set_result(result if isinstance(result, dict) else {})
        elif isinstance(message.get("method"), str):
            params, session = message.get("params"), message.get("sessionId")
            self._on_event(
                message["method"],
                params if isinstance(params, dict) else {},
                session if isinstance(session, str) else "",
            )


def _parse(text: bytes) -> dict[str, Any]:
    """Parse a message, or return an empty one if it is no object."""
    try:
        message = load_json(text)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}
