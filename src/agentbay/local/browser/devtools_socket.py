"""The WebSocket to a session's browser.

Code of the session can take the browser's place, and send what takes long to parse: empty frames, pings. So the bytes
are parsed here, in small pieces, between which other sessions get their turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from agentbay.local.fair_share import FairShare, SessionTurns

_MAX_MESSAGE_BYTES = 32 << 20  # a screenshot of a long page, as base64
_PIECE_BYTES = 1 << 12
_MAX_UNSENT_BYTES = 1 << 20  # of answers to pings
_HANDSHAKE_SECONDS = 30.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class DevToolsSocket:
    """A WebSocket over the streams to a port of the session."""

    def __init__(self, streams: Streams, url: str) -> None:
        self._reader, self._writer = streams
        self._protocol = ClientProtocol(parse_uri(url), max_size=_MAX_MESSAGE_BYTES)
        self.share = FairShare(SessionTurns())

    @classmethod
    async def open(cls, streams: Streams, url: str) -> DevToolsSocket:
        """Make the handshake.

        Raises:
            OSError: The other side has closed the connection.
            TimeoutError: It does not answer.
            WebSocketException: It answers otherwise.
        """
        opened = cls(streams, url)
        protocol = opened._protocol
        protocol.send_request(protocol.connect())
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            while protocol.state is State.CONNECTING and protocol.handshake_exc is None:
                await opened._receive()
        if protocol.handshake_exc is not None:
            raise protocol.handshake_exc
        return opened

    async def send(self, text: str) -> None:
        """Send a message.

        Raises:
            OSError: The connection has ended.
            WebSocketException: The same.
        """
        self._protocol.send_text(text.encode())
        self._flush()
        await self._writer.drain()

    async def messages(self) -> AsyncIterator[bytes]:
        """Yield the messages until the connection ends."""
        message = bytearray()
        while True:
            for event in self._protocol.events_received():
                if not isinstance(event, Frame) or event.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                    continue
                message += event.data
                if event.fin:
                    yield bytes(message)
                    message.clear()
            if self._protocol.close_expected() or self._protocol.state is State.CLOSED:
                return
            try:
                await self._receive()
            except OSError:
                return

    def abort(self) -> None:
        """Disconnect without a closing handshake.

        A browser that is frozen would not answer it.
        """
        self._writer.transport.abort()

    async def _receive(self) -> None:
        self._flush()
        await self.share.give_way()
        data = await self._reader.read(_PIECE_BYTES)
        with self.share:
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
        self._flush()
        if not data and self._protocol.handshake_exc is None:
            raise ConnectionResetError

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._writer.write(data)
        if self._writer.transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            self.abort()
            raise ConnectionAbortedError
