"""The requests that an egress proxy gets.

CONNECT makes a tunnel. The head of any other request is parsed strictly and written anew, one request a connection. So
the proxy and the server behind it cannot disagree about its destination or its end (request smuggling).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import h11

from agentbay.local.api_errors import PROXY_ERROR_PREFIX
from agentbay.local.fair_share import FairShare, SessionTurns
from agentbay.local.headers import Headers, drop_hop_by_hop
from agentbay.local.network.dialer import EgressDialer, ProxyError, UpstreamConnection
from agentbay.local.network.egress_policy import HostPort, parse_host_port

_logger = logging.getLogger(__name__)

_HEAD_TIMEOUT_SECONDS = 30.0
_IDLE_TIMEOUT_SECONDS = 600.0  # without a byte in either direction
_HALF_CLOSED_TIMEOUT_SECONDS = 30.0  # the same, once one side has closed
_MAX_HEAD_BYTES = 64 << 10
_CHUNK_BYTES = 1 << 16

_END_OF_MESSAGE = (h11.EndOfMessage, h11.ConnectionClosed, h11.PAUSED)


async def serve(
    connection: socket.socket, dialer: EgressDialer, note_refusal: Callable[[HostPort], None], turns: SessionTurns
) -> None:
    """Answer the request of a connection, then close it."""
    writer: StreamWriter | None = None
    try:
        reader, writer = await asyncio.open_connection(sock=connection, limit=_MAX_HEAD_BYTES)
        async with asyncio.timeout(_IDLE_TIMEOUT_SECONDS) as idle:
            await _ProxyRequest(reader, writer, dialer, note_refusal, idle, turns).run()
    except (OSError, TimeoutError):  # one side has gone, or was idle for too long
        pass
    finally:
        connection.close() if writer is None else _close_gracefully(writer)


def _close_gracefully(writer: StreamWriter) -> None:
    """Close once everything is sent, or when the other side takes too long."""
    writer.close()
    if writer.transport.get_write_buffer_size():
        asyncio.get_running_loop().call_later(_HALF_CLOSED_TIMEOUT_SECONDS, writer.transport.abort)


class _ProxyRequest:
    """One request and its answer."""

    def __init__(
        self,
        reader: StreamReader,
        writer: StreamWriter,
        dialer: EgressDialer,
        note_refusal: Callable[[HostPort], None],
        idle: asyncio.Timeout,
        turns: SessionTurns,
    ) -> None:
        self._reader, self._writer, self._dialer, self._idle = reader, writer, dialer, idle
        self._note_refusal = note_refusal
        self._client = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        self._loop = asyncio.get_running_loop()
        self._idle_timeout_seconds = _IDLE_TIMEOUT_SECONDS
        self._requests_share, self._answers_share = FairShare(turns), FairShare(turns)

    async def run(self) -> None:
        try:
            async with asyncio.timeout(_HEAD_TIMEOUT_SECONDS):
                request = await self._next(self._client, self._reader, self._requests_share)
        except (TimeoutError, h11.RemoteProtocolError) as error:
            await self._send_error(
                ProxyError(400, f"no request that could be read: {str(error) or 'it took too long'}")
            )
            return
        if not isinstance(request, h11.Request):  # the connection closed at once
            return
        upstream: UpstreamConnection | None = None
        try:
            destination, path = _read_target(request)
            tunnel = request.method == b"CONNECT"
            upstream = await self._connect(destination, "https" if tunnel else "http")
            await (self._tunnel(upstream) if tunnel else self._forward_request(request, destination, path, upstream))
        except ProxyError as error:
            _logger.info("refused: %s", error)
            await self._send_error(error)
        finally:
            if upstream is not None:
                _close_gracefully(upstream.writer)

    async def _connect(self, destination: HostPort, scheme: str) -> UpstreamConnection:
        try:
            return await self._dialer.connect(destination, scheme=scheme)
        except ProxyError as error:
            if error.status == HTTPStatus.FORBIDDEN:
                self._note_refusal(destination)
            raise

    async def _send_error(self, error: ProxyError) -> None:
        # In the status line too: many programs show nothing else of an answer to CONNECT.
        text = f"{PROXY_ERROR_PREFIX}{error}"
        body = f"{text}.\n".encode()
        head = f"HTTP/1.1 {error.status} {text}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self._writer.write(head.encode("ascii", "replace") + body)
        await self._writer.drain()

    async def _tunnel(self, upstream: UpstreamConnection) -> None:
        self._writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        early, _ = self._client.trailing_data
        upstream.writer.write(early)
        await asyncio.gather(self._relay(self._reader, upstream.writer), self._relay(upstream.reader, self._writer))

    async def _relay(self, reader: StreamReader, writer: StreamWriter) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            self._reset_idle_timer()
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        self._idle_timeout_seconds = _HALF_CLOSED_TIMEOUT_SECONDS
        self._reset_idle_timer()

    async def _forward_request(
        self, request: h11.Request, destination: HostPort, path: str, upstream: UpstreamConnection
    ) -> None:
        server = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
        headers: Headers = [
            (b"host", str(destination).encode().removesuffix(b":80")),
            *_end_to_end_headers(request.headers),
        ]
        if upstream.proxy_authorization:
            headers.append((b"proxy-authorization", upstream.proxy_authorization))
        target = f"http://{destination}{path}" if upstream.via_proxy else path
        head = h11.Request(method=request.method, target=target, headers=headers)
        upstream.writer.write(server.send(head) or b"")
        sending = self._loop.create_task(self._send_body(server, upstream.writer))
        try:
            await self._send_answer(server, upstream.reader)
        except h11.RemoteProtocolError as error:
            raise ProxyError(502, f"the answer of {destination} could not be read: {error}") from error
        finally:  # some servers answer before they have read the whole body
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send_body(self, server: h11.Connection, writer: StreamWriter) -> None:
        share = self._requests_share
        while not isinstance(event := await self._next(self._client, self._reader, share), _END_OF_MESSAGE):
            with share:
                writer.write(server.send(event) or b"")
            await writer.drain()
        writer.write(server.send(h11.EndOfMessage()) or b"")
        await writer.drain()

    async def _send_answer(self, server: h11.Connection, reader: StreamReader) -> None:
        share = self._answers_share
        while not isinstance(event := await self._next(server, reader, share), _END_OF_MESSAGE):
            if isinstance(event, h11.Response | h11.InformationalResponse):
                event = type(event)(
                    status_code=event.status_code, reason=event.reason, headers=_end_to_end_headers(event.headers)
                )
            with share:
                self._writer.write(self._client.send(event) or b"")
            await self._writer.drain()
        self._writer.write(self._client.send(h11.EndOfMessage()) or b"")
        await self._writer.drain()

    async def _next(self, parser: h11.Connection, reader: StreamReader, share: FairShare) -> Any:
        while True:
            await share.give_way()
            with share:
                event = parser.next_event()
            if event is not h11.NEED_DATA:
                return event
            parser.receive_data(await reader.read(_CHUNK_BYTES))
            self._reset_idle_timer()

    def _reset_idle_timer(self) -> None:
        self._idle.reschedule(self._loop.time() + self._idle_timeout_seconds)


def _read_target(request: h11.Request) -> tuple[HostPort, str]:
    """Return the destination of a request, and the path to ask for there."""
    target = request.target.decode("ascii", "replace")
    framing = [name for name, _ in request.headers if name in (b"content-length", b"transfer-encoding")]
    # Servers differ in which of two lengths they believe, which is what request smuggling uses.
    if len(framing) > 1:
        raise ProxyError(400, "a request with more than one length is not passed on")
    try:
        if request.method == b"CONNECT":
            return parse_host_port(target), ""
        parts = urlsplit(target)
        if parts.scheme == "http":
            path = target.partition("://")[2].partition("#")[0].removeprefix(parts.netloc)
            return parse_host_port(parts.netloc, 80), path if path.startswith("/") else f"/{path}"
    except ValueError as error:
        raise ProxyError(400, str(error)) from error
    raise ProxyError(400, "this is a proxy: it takes CONNECT HOST:PORT, and http:// URLs")


def _end_to_end_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    # h11 writes the message anew by the headers that frame its body, so these stay.
    kept = drop_hop_by_hop(
        headers, dropped=frozenset({b"host"}), kept=frozenset({b"content-length", b"transfer-encoding"})
    )
    return [*kept, (b"connection", b"close")]
