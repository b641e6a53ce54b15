"""The web server's protocol for WebSockets: uvicorn's, whose connection an application can take over."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from agentbay.local.http.port_websocket import TAKE_OVER, Streams

_READ_BUFFER_BYTES = 1 << 16


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, with an extension by which a reverse proxy gets the raw connection."""

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if not self.close_sent:  # the handshake is valid, and the task of the application begins later
            extensions: dict[str, Any] = self.scope.setdefault("extensions", {})
            extensions[TAKE_OVER] = self._take_over

    def _take_over(self) -> Streams:
        """Return the connection as streams, before the handshake is answered."""
        self.handshake_complete = self.close_sent = True  # so that uvicorn sends nothing
        reader = asyncio.StreamReader(limit=_READ_BUFFER_BYTES, loop=self.loop)
        protocol = _TakenOver(self, reader)
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        return reader, asyncio.StreamWriter(self.transport, protocol, reader, self.loop)


class _TakenOver(asyncio.StreamReaderProtocol):
    """Reads the connection for the application, and tells uvicorn when it is lost."""

    def __init__(self, owner: WebSocketProtocol, reader: asyncio.StreamReader) -> None:
        super().__init__(reader, loop=owner.loop)
        self._owner = owner

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # At its shutdown, uvicorn waits until this set is empty.
        self._owner.connections.discard(self._owner)
