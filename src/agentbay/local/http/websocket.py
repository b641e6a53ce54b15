"""The WebSocket of a session: frames in, exchanges out."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

from agentbay._wire.converter import MalformedError
from agentbay._wire.frames import Frame, decode_frame
from agentbay.errors import AgentBayError, AuthenticationError
from agentbay.local.handlers.registry import HandlerRegistry
from agentbay.local.http.asgi import Receive, Send
from agentbay.local.ids import is_same_secret
from agentbay.local.runtime import Runtime
from agentbay.local.sessions.hub import WebSocketClient, WebSocketRequest
from agentbay.local.sessions.session import Session

_logger = logging.getLogger(__name__)

_MAX_ACTIVE_REQUESTS = 256  # requests of one client under way; further frames wait
_ALLOWED_WHILE_PAUSED = frozenset(
    {"pty.input", "pty.resize"}
)  # have no answer that could refuse, and wait for the programs
_PING = {"type": "ping"}  # the heartbeat of clients in other languages


def authorize_websocket(runtime: Runtime, session_id: str, headers: Mapping[str, str]) -> Session:
    """Return the session for whose WebSocket somebody asks.

    Raises:
        AgentBayError: It is refused.
    """
    session = runtime.sessions.find(session_id)
    if not is_same_secret(headers.get("x-access-token", ""), session.token.encode()):
        raise AuthenticationError("The X-Access-Token is not this session's.", 401, code="InvalidAccessToken")
    session.lifecycle.require_running()
    session.lifecycle.touch()
    return session


async def serve_websocket_client(session: Session, registry: HandlerRegistry, receive: Receive, send: Send) -> None:
    """Serve one client until it goes away or the session ends."""

    async def deliver(text: str) -> None:
        await send({"type": "websocket.send", "text": text})

    peer = WebSocketClient(deliver)
    conversation = _WebSocketConnection(session, registry, peer)
    await send({"type": "websocket.accept"})
    session.hub.clients[peer] = None
    reading = asyncio.ensure_future(conversation.read(receive))
    ended = asyncio.ensure_future(session.hub.closed.wait())
    try:
        await asyncio.wait({reading, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not peer.disconnected.is_set():
            peer.disconnected.set()
            await send({"type": "websocket.close", "code": 1001, "reason": "The session has ended."})
    except OSError:  # gone in this very moment
        pass
    finally:
        peer.disconnected.set()
        del session.hub.clients[peer]
        await conversation.close(reading, ended)


class _WebSocketConnection:
    """What one client has under way."""

    def __init__(self, session: Session, registry: HandlerRegistry, peer: WebSocketClient) -> None:
        self._session, self._registry, self._client = session, registry, peer
        self._active_requests: dict[str, tuple[asyncio.Task[None], WebSocketRequest]] = {}

    async def read(self, receive: Receive) -> None:
        """Take frames until the client goes away."""
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self._client.disconnected.set()
                return
            if message["type"] == "websocket.receive":
                await self._handle_frame(message.get("text") or message.get("bytes") or "")
            if len(self._active_requests) >= _MAX_ACTIVE_REQUESTS:
                tasks = [task for task, _ in self._active_requests.values()]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    async def close(self, *tasks: asyncio.Future[Any]) -> None:
        """Cancel what is under way."""
        ending: list[asyncio.Future[Any]] = [*tasks, *(task for task, _ in self._active_requests.values())]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def _handle_frame(self, text: str | bytes) -> None:
        try:
            frame = decode_frame(text)
        except MalformedError as error:
            if not _is_ping(text):
                _logger.warning("a frame was ignored: %s", error)
            return
        self._session.lifecycle.touch()
        if frame.id in self._active_requests:
            self._handle_follow_up(frame, *self._active_requests[frame.id])
        elif (frame.data or {}).get("phase") != "cancel":  # one that comes too late cancels nothing
            exchange = WebSocketRequest(self._client, frame)
            task = asyncio.create_task(self._run_handler(frame, exchange))
            self._active_requests[frame.id] = (task, exchange)
            task.add_done_callback(lambda _: self._active_requests.pop(frame.id, None))

    def _handle_follow_up(self, frame: Frame, task: asyncio.Task[None], exchange: WebSocketRequest) -> None:
        if frame.data is not None and frame.data.get("phase") == "cancel":
            task.cancel()
        elif frame.data is not None:
            exchange.follow_ups.put_nowait(frame.data)

    async def _run_handler(self, frame: Frame, exchange: WebSocketRequest) -> None:
        try:
            handler = self._registry.targets.get(frame.target)
            if handler is None or frame.data is None:
                why = f"There is no target {frame.target!r:.80}." if handler is None else "The frame has no data."
                await exchange.send_answer(error=why)
                return
            if exchange.method not in _ALLOWED_WHILE_PAUSED:
                self._session.lifecycle.require_running()
            await handler.run(self._session, exchange)
        except (AgentBayError, MalformedError) as error:
            await exchange.send_answer(error=str(error))
        except Exception:  # the boundary, as for requests: a bug must be an answer, and in the log
            _logger.exception("%s of %s failed", exchange.method, frame.target)
            await exchange.send_answer(error="The local runtime failed; its log says why.")


def _is_ping(text: str | bytes) -> bool:
    try:
        return bool(json.loads(text) == _PING)
    except (ValueError, RecursionError):
        return False
