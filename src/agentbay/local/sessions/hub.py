"""What a session has going on over WebSockets: who is connected, what is asked, and what stays when they go."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from agentbay._wire.frames import CLIENT_SOURCE, Frame

SendText = Callable[[str], Awaitable[None]]


class SessionResource(Protocol):
    """Something that stays when a connection goes, and ends with the session."""

    def close(self) -> None:
        """End it."""


class WebSocketClient:
    """A connected client."""

    def __init__(self, deliver: SendText) -> None:
        self._send_text = deliver
        self._send_lock = asyncio.Lock()  # whoever asks first sends first, also while the client takes nothing
        self.disconnected = asyncio.Event()

    async def send(self, frame: Frame) -> None:
        """Send a frame, waiting while the client takes nothing; to one that is gone, do nothing."""
        async with self._send_lock:
            if self.disconnected.is_set():
                return
            try:
                await self._send_text(frame.encode())
            except (OSError, RuntimeError):  # what the web server raises when the client has gone, or is just going
                self.disconnected.set()


class WebSocketHub:
    """The peers of a session, and the things that last.

    A client whose connection breaks comes back and takes up its terminals without saying so: pushes go to all peers.
    """

    def __init__(self) -> None:
        self.clients: dict[WebSocketClient, None] = {}
        self.resources: dict[str, SessionResource] = {}
        self.active_port_requests = 0  # requests to ports under way
        self.closed = asyncio.Event()

    async def broadcast(self, source: str, data: Mapping[str, Any]) -> None:
        """Say something to every peer; one that is slow to take it does not keep the others from it."""
        frame = Frame(uuid.uuid4().hex, CLIENT_SOURCE, dict(data), source)
        await asyncio.gather(*(peer.send(frame) for peer in self.clients))

    def close(self) -> None:
        """End all that lasts, and let go of the peers."""
        for thing in list(self.resources.values()):
            thing.close()
        self.resources.clear()
        self.closed.set()


class WebSocketRequest:
    """A request of a peer, and the ways to answer it.

    Attributes:
        data: What is asked.
        further: What the client says within the same request later.
    """

    def __init__(self, peer: WebSocketClient, frame: Frame) -> None:
        self.client, self.data = peer, frame.data or {}
        self.follow_ups: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._id, self._target = frame.id, frame.target
        self._sequence = itertools.count(1)

    @property
    def method(self) -> str:
        """Which of the target's methods is asked for."""
        method = self.data.get("method")
        return method if isinstance(method, str) else ""

    @property
    def params(self) -> dict[str, Any]:
        """The arguments of the method."""
        params = self.data.get("params")
        return params if isinstance(params, dict) else {}

    async def send_answer(self, **data: Any) -> None:
        """Send the one answer to a call."""
        await self._send({"method": self.method, **data})

    async def send_event(self, kind: str, **data: Any) -> None:
        """Send an event of a stream."""
        await self._phase("event", {"eventType": kind, **data})

    async def send_end(self, **data: Any) -> None:
        """Send the end of a stream."""
        await self._phase("end", data)

    async def push(self, data: Mapping[str, Any]) -> None:
        """Say something unasked, to this peer alone."""
        await self.client.send(Frame(uuid.uuid4().hex, CLIENT_SOURCE, dict(data), self._target))

    async def _phase(self, phase: str, data: dict[str, Any]) -> None:
        head = {"method": self.method, "mode": "stream", "phase": phase, "seq": next(self._sequence)}
        await self._send({**head, **data})

    async def _send(self, data: dict[str, Any]) -> None:
        await self.client.send(Frame(self._id, CLIENT_SOURCE, data, self._target))
