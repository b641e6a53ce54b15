"""The WebSocket clients of a session, their requests, and the session's lasting resources."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from agentbay._wire.frames import CLIENT_SOURCE, Frame
from agentbay.local.fair_share import SessionTurns
from agentbay.local.large_json_encoder import encode_pieces, is_large
from agentbay.local.worker_thread import run_in_worker

SendText = Callable[[str], Awaitable[None]]


class SessionResource(Protocol):
    """A resource bound to the session, which outlives a connection."""

    def close(self) -> None:
        """Release the resource."""


class WebSocketClient:
    """A connected client."""

    def __init__(self, send_text: SendText) -> None:
        self._send_text = send_text
        self._send_lock = asyncio.Lock()  # frames keep their order, also while the client reads nothing
        self.disconnected = asyncio.Event()

    async def send(self, frame: Frame) -> None:
        """Send a frame, and wait while the client reads nothing (back pressure).

        To a client that has disconnected, nothing is sent.
        """
        async with self._send_lock:
            if self.disconnected.is_set():
                return
            try:
                await self._send_text(await _encode(frame))
            except (OSError, RuntimeError):  # raised by the web server when the client disconnects
                self.disconnected.set()


async def _encode(frame: Frame) -> str:
    if not is_large(frame.data):
        return frame.encode()
    pieces = await run_in_worker(lambda: [*encode_pieces(frame.to_json())])
    return "".join(pieces).encode("utf-8", "backslashreplace").decode()


class WebSocketHub:
    """The connected clients and the lasting resources of a session.

    A client that reconnects goes on using its terminals without announcing it, so events go to all clients.
    """

    def __init__(self) -> None:
        self.clients: dict[WebSocketClient, None] = {}
        self.resources: dict[str, SessionResource] = {}
        self.active_port_requests = 0  # HTTP requests and WebSockets through links
        self.turns = SessionTurns()  # shared by its connections through links, whose data the service parses
        self.closed = asyncio.Event()

    async def broadcast(self, source: str, data: Mapping[str, Any]) -> None:
        """Send to every client, without letting a slow one delay the others."""
        frame = Frame(uuid.uuid4().hex, CLIENT_SOURCE, dict(data), source)
        await asyncio.gather(*(client.send(frame) for client in self.clients))

    def close(self) -> None:
        """Release all resources, and disconnect the clients."""
        for resource in list(self.resources.values()):
            resource.close()
        self.resources.clear()
        self.closed.set()


class WebSocketRequest:
    """A request of a client, and the ways to answer it.

    Attributes:
        data: The request.
        unread_characters: Length of the follow-ups that wait for `next_follow_up`.
    """

    def __init__(self, client: WebSocketClient, frame: Frame) -> None:
        self.client, self.data = client, frame.data or {}
        self.unread_characters = 0
        self._follow_ups: asyncio.Queue[tuple[dict[str, Any], int]] = asyncio.Queue()
        self._id, self._target = frame.id, frame.target
        self._sequence = itertools.count(1)

    @property
    def method(self) -> str:
        """The name of the method, or "" if there is none."""
        method = self.data.get("method")
        return method if isinstance(method, str) else ""

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the method."""
        params = self.data.get("params")
        return params if isinstance(params, dict) else {}

    def add_follow_up(self, data: dict[str, Any], characters: int) -> None:
        """Keep a later message of the client within the same request."""
        self.unread_characters += characters
        self._follow_ups.put_nowait((data, characters))

    async def next_follow_up(self) -> dict[str, Any]:
        """Wait for the next message of the client within the same request."""
        data, characters = await self._follow_ups.get()
        self.unread_characters -= characters
        return data

    async def send_answer(self, **data: Any) -> None:
        """Send the answer to a call."""
        await self._send({"method": self.method, **data})

    async def send_event(self, kind: str, **data: Any) -> None:
        """Send an event of a stream."""
        await self._phase("event", {"eventType": kind, **data})

    async def send_end(self, **data: Any) -> None:
        """Send the end of a stream."""
        await self._phase("end", data)

    async def push(self, data: Mapping[str, Any]) -> None:
        """Send an unsolicited event to this client only."""
        await self.client.send(Frame(uuid.uuid4().hex, CLIENT_SOURCE, dict(data), self._target))

    async def _phase(self, phase: str, data: dict[str, Any]) -> None:
        head = {"method": self.method, "mode": "stream", "phase": phase, "seq": next(self._sequence)}
        await self._send({**head, **data})

    async def _send(self, data: dict[str, Any]) -> None:
        await self.client.send(Frame(self._id, CLIENT_SOURCE, data, self._target))
