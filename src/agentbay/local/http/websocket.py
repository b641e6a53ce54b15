"""The WebSocket of a session: frames become requests to handlers."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

from agentbay._wire.converter import MalformedError
from agentbay._wire.frames import LIMIT_HEADER, MAX_REQUEST_FRAME_BYTES, Frame, decode_frame
from agentbay.errors import AgentBayError
from agentbay.local.handlers.registry import TARGETS
from agentbay.local.http.asgi import Receive, Send
from agentbay.local.http.direct import require_session_token
from agentbay.local.large_json_decoder import load_json
from agentbay.local.lazy_imports import import_in_thread
from agentbay.local.runtime import Runtime
from agentbay.local.sessions.hub import WebSocketClient, WebSocketRequest
from agentbay.local.sessions.session import Session
from agentbay.local.worker_thread import run_by_size

_logger = logging.getLogger(__name__)

_MAX_ACTIVE_REQUESTS = 256  # of one client; further ones wait
_MAX_WAITING_REQUESTS, _MAX_WAITING_BYTES = 256, 16 << 20  # then nothing is read, which is back pressure for the client
_MAX_UNREAD_CHARACTERS = 1 << 20  # of a client's later messages to requests that have not read them
_TOO_MUCH_UNREAD = "The request was ended: more than 1 MiB of later messages had not been read."
# These have no answer that could refuse; the kernel keeps them until the programs run again.
_ALLOWED_WHILE_PAUSED = frozenset({"pty.input", "pty.resize"})
_PING = {"type": "ping"}  # the heartbeat of clients in other languages
_MAX_PING_CHARACTERS = 100


def authorize_websocket(runtime: Runtime, session_id: str, headers: Mapping[str, str]) -> Session:
    """Return the session whose WebSocket is asked for.

    Raises:
        AgentBayError: The token is wrong, or the session is not running.
    """
    session = runtime.sessions.find(session_id)
    require_session_token(session, headers)
    session.lifecycle.require_running()
    session.lifecycle.touch()
    return session


async def serve_websocket_client(session: Session, receive: Receive, send: Send) -> None:
    """Serve one client until it disconnects or the session ends."""

    async def deliver(text: str) -> None:
        await send({"type": "websocket.send", "text": text})

    client = WebSocketClient(deliver)
    connection = _WebSocketConnection(session, client)
    for module in TARGETS.modules:  # now, as requests that do not wait are done in order
        await import_in_thread(module)
    limit = (LIMIT_HEADER.encode(), str(MAX_REQUEST_FRAME_BYTES).encode())
    await send({"type": "websocket.accept", "headers": [limit]})
    # Events go to the clients in this table, and none may be sent before the handshake is answered.
    session.hub.clients[client] = None
    reading = asyncio.ensure_future(connection.read(receive))
    session_ended = asyncio.ensure_future(session.hub.closed.wait())
    try:
        await asyncio.wait({reading, session_ended}, return_when=asyncio.FIRST_COMPLETED)
        if not client.disconnected.is_set():
            client.disconnected.set()
            await send({"type": "websocket.close", "code": 1001, "reason": "The session has ended."})
    except OSError:  # it disconnected at this very moment
        pass
    finally:
        client.disconnected.set()
        del session.hub.clients[client]
        await connection.close(reading, session_ended)


class _WebSocketConnection:
    """The connection of one client, with its requests under way."""

    def __init__(self, session: Session, client: WebSocketClient) -> None:
        self._session, self._client = session, client
        self._active_requests: dict[str, tuple[asyncio.Task[None], WebSocketRequest]] = {}  # by invocation id
        # They wait here instead of in the socket, where they would hide the frame that cancels another request.
        self._waiting_requests: dict[str, tuple[Frame, WebSocketRequest, int]] = {}
        self._waiting_bytes = 0

    async def read(self, receive: Receive) -> None:
        """Read frames until the client disconnects."""
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self._client.disconnected.set()
                return
            if message["type"] == "websocket.receive":
                await self._handle_frame(message.get("text") or message.get("bytes") or "")
            while len(self._waiting_requests) >= _MAX_WAITING_REQUESTS or self._waiting_bytes >= _MAX_WAITING_BYTES:
                tasks = [task for task, _ in self._active_requests.values()]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    async def close(self, *tasks: asyncio.Future[Any]) -> None:
        """Cancel these tasks and all requests under way."""
        self._waiting_requests.clear()
        ending: list[asyncio.Future[Any]] = [*tasks, *(task for task, _ in self._active_requests.values())]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def _handle_frame(self, text: str | bytes) -> None:
        try:
            frame = await run_by_size(len(text), decode_frame, text, load_json)
        except MalformedError as error:
            # Heartbeats return before touch(): as activity, they would keep the session of an idle client alive.
            if not _is_ping(text):
                _logger.warning("a frame was ignored: %s", error)
            return
        self._session.lifecycle.touch()
        is_cancel = (frame.data or {}).get("phase") == "cancel"
        if frame.id in self._active_requests:
            task, request = self._active_requests[frame.id]
            if is_cancel:
                task.cancel()
            elif not self._keep_follow_up(request, frame, len(text)):
                task.cancel()
                await request.send_answer(error=_TOO_MUCH_UNREAD)
        elif frame.id in self._waiting_requests:
            request = self._waiting_requests[frame.id][1]
            if is_cancel:
                self._take_waiting(frame.id)
            elif not self._keep_follow_up(request, frame, len(text)):
                self._take_waiting(frame.id)
                await request.send_answer(error=_TOO_MUCH_UNREAD)
        elif not is_cancel:  # the request that it cancels may be done already
            request = WebSocketRequest(self._client, frame)
            if self._waiting_requests or len(self._active_requests) >= _MAX_ACTIVE_REQUESTS:
                self._waiting_requests[frame.id] = frame, request, len(text)
                self._waiting_bytes += len(text)
            else:
                self._start(frame, request)

    def _keep_follow_up(self, request: WebSocketRequest, frame: Frame, characters: int) -> bool:
        """Keep a message for a request, unless too much waits."""
        requests = [other for _, other in self._active_requests.values()]
        requests += [other for _, other, _ in self._waiting_requests.values()]
        if sum(other.unread_characters for other in requests) + characters > _MAX_UNREAD_CHARACTERS:
            return False
        if frame.data is not None:
            request.add_follow_up(frame.data, characters)
        return True

    def _take_waiting(self, frame_id: str) -> tuple[Frame, WebSocketRequest]:
        frame, request, size = self._waiting_requests.pop(frame_id)
        self._waiting_bytes -= size
        return frame, request

    def _start(self, frame: Frame, request: WebSocketRequest) -> None:
        task = asyncio.create_task(self._run_handler(frame, request))
        self._active_requests[frame.id] = (task, request)
        task.add_done_callback(lambda _: self._on_done(frame.id))

    def _on_done(self, frame_id: str) -> None:
        del self._active_requests[frame_id]
        if self._waiting_requests:
            self._start(*self._take_waiting(next(iter(self._waiting_requests))))

    async def _run_handler(self, frame: Frame, request: WebSocketRequest) -> None:
        try:
            handler = await TARGETS.find(frame.target)
            if handler is None or frame.data is None:
                reason = f"There is no target {frame.target!r:.80}." if handler is None else "The frame has no data."
                await request.send_answer(error=reason)
                return
            if request.method not in _ALLOWED_WHILE_PAUSED:
                self._session.lifecycle.require_running()
            await handler.run(self._session, request)
        except (AgentBayError, MalformedError) as error:
            await request.send_answer(error=str(error))
        except Exception:  # the boundary, as for HTTP requests: a bug must be an answer, and in the log
            _logger.exception("%s of %s failed", request.method, frame.target)
            await request.send_answer(error="The local runtime failed; its log says why.")


def _is_ping(text: str | bytes) -> bool:
    try:
        return len(text) < _MAX_PING_CHARACTERS and bool(json.loads(text) == _PING)
    except (ValueError, RecursionError):
        return False
