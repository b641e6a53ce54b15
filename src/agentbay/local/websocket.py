"""The WebSocket of a session: frames in, exchanges out."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

from agentbay._wire.converter import Malformed
from agentbay._wire.frames import Frame, decode
from agentbay.errors import AgentBayError, AuthenticationError
from agentbay.local.asgi import Receive, Send
from agentbay.local.dispatch import TARGET_HANDLERS
from agentbay.local.guard import same
from agentbay.local.hub import Exchange, Peer
from agentbay.local.runtime import Runtime
from agentbay.local.session import Session

_logger = logging.getLogger(__name__)

_AT_ONCE = 256  # requests of one client under way; further frames wait
_ALSO_PAUSED = frozenset({"pty.input", "pty.resize"})  # have no answer that could refuse, and wait for the programs
_PING = {"type": "ping"}  # the heartbeat of clients in other languages


def admit(runtime: Runtime, session_id: str, headers: Mapping[str, str]) -> Session:
    """Return the session for whose WebSocket somebody asks.

    Raises:
        AgentBayError: It is refused.
    """
    session = runtime.sessions.find(session_id)
    if not same(headers.get("x-access-token", ""), session.token.encode()):
        raise AuthenticationError("The X-Access-Token is not this session's.", 401, code="InvalidAccessToken")
    session.check_running()
    return session


async def converse(session: Session, receive: Receive, send: Send) -> None:
    """Serve one client until it goes away or the session ends."""

    async def deliver(text: str) -> None:
        await send({"type": "websocket.send", "text": text})

    peer = Peer(deliver)
    conversation = _Conversation(session, peer)
    await send({"type": "websocket.accept"})
    session.hub.peers[peer] = None
    reading = asyncio.ensure_future(conversation.read(receive))
    ended = asyncio.ensure_future(session.hub.closed.wait())
    try:
        await asyncio.wait({reading, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not peer.gone.is_set():
            peer.gone.set()
            await send({"type": "websocket.close", "code": 1001, "reason": "The session has ended."})
    except OSError:  # gone in this very moment
        pass
    finally:
        peer.gone.set()
        del session.hub.peers[peer]
        await conversation.close(reading, ended)


class _Conversation:
    """What one client has under way."""

    def __init__(self, session: Session, peer: Peer) -> None:
        self._session, self._peer = session, peer
        self._under_way: dict[str, tuple[asyncio.Task[None], Exchange]] = {}

    async def read(self, receive: Receive) -> None:
        """Take frames until the client goes away."""
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self._peer.gone.set()
                return
            if message["type"] == "websocket.receive":
                await self._take(message.get("text") or message.get("bytes") or "")
            if len(self._under_way) >= _AT_ONCE:
                tasks = [task for task, _ in self._under_way.values()]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    async def close(self, *tasks: asyncio.Future[Any]) -> None:
        """Cancel what is under way."""
        ending: list[asyncio.Future[Any]] = [*tasks, *(task for task, _ in self._under_way.values())]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def _take(self, text: str | bytes) -> None:
        try:
            frame = decode(text)
        except Malformed as error:
            if not _is_ping(text):
                _logger.warning("a frame was ignored: %s", error)
            return
        self._session.touch()
        if frame.id in self._under_way:
            self._take_further(frame, *self._under_way[frame.id])
        elif (frame.data or {}).get("phase") != "cancel":  # one that comes too late cancels nothing
            exchange = Exchange(self._peer, frame)
            task = asyncio.create_task(self._serve(frame, exchange))
            self._under_way[frame.id] = (task, exchange)
            task.add_done_callback(lambda _: self._under_way.pop(frame.id, None))

    def _take_further(self, frame: Frame, task: asyncio.Task[None], exchange: Exchange) -> None:
        if frame.data is not None and frame.data.get("phase") == "cancel":
            task.cancel()
        elif frame.data is not None:
            exchange.further.put_nowait(frame.data)

    async def _serve(self, frame: Frame, exchange: Exchange) -> None:
        try:
            handler = TARGET_HANDLERS.get(frame.target)
            if handler is None or frame.data is None:
                why = f"There is no target {frame.target!r:.80}." if handler is None else "The frame has no data."
                await exchange.answer(error=why)
                return
            if exchange.method not in _ALSO_PAUSED:
                self._session.check_running()
            await handler(self._session, exchange)
        except (AgentBayError, Malformed) as error:
            await exchange.answer(error=str(error))
        except Exception:  # the boundary, as for requests: a bug must be an answer, and in the log
            _logger.exception("%s of %s failed", exchange.method, frame.target)
            await exchange.answer(error="The local runtime failed; its log says why.")


def _is_ping(text: str | bytes) -> bool:
    try:
        return bool(json.loads(text) == _PING)
    except (ValueError, RecursionError):
        return False
