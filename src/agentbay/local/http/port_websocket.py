"""WebSockets through links: after the handshake, bytes are copied in both directions.

Frames are not parsed, so that a message of any size takes no more memory than a chunk, and a side that reads slowly
stops the other one from sending (back pressure).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import h11

from agentbay.errors import ServerError
from agentbay.local.headers import Headers
from agentbay.local.http.asgi import Scope
from agentbay.local.http.port_headers import request_headers, response_headers
from agentbay.local.http.port_links import ProxyTarget
from agentbay.local.http.port_proxy import (
    CHUNK_BYTES,
    UPSTREAM_TIMEOUT_SECONDS,
    bad_gateway,
    limit_requests,
    open_connection,
)
from agentbay.local.sessions.session import Session

TAKE_OVER = "agentbay.take_over"  # the scope's extension that hands over the client's connection
_FLUSH_SECONDS = 5.0  # for the other side to take what was sent before one side closed the connection
_UPGRADE: Headers = [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def proxy_websocket(target: ProxyTarget, scope: Scope) -> None:
    """Open a WebSocket in the session, and copy bytes until one side closes it.

    Raises:
        AgentBayError: The program in the session did not open the WebSocket.
    """
    with limit_requests(target.session):
        # The program's side opens first: before the client's connection is taken over, a failure can be an HTTP answer.
        upstream = await open_connection(target)
        try:
            answer = await _open_upstream(target, scope, *upstream)
            take_over = cast(Callable[[], Streams], scope["extensions"][TAKE_OVER])
            client = take_over()
            client[1].write(answer)
            await _copy_both_ways(target.session, client, upstream)
        finally:
            upstream[1].transport.abort()


async def _open_upstream(
    target: ProxyTarget, scope: Scope, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bytes:
    """Make the handshake, and return the first bytes for the client."""
    try:
        async with asyncio.timeout(UPSTREAM_TIMEOUT_SECONDS):
            return await _shake_hands(target, scope, reader, writer)
    except (TimeoutError, OSError, h11.RemoteProtocolError, h11.LocalProtocolError) as error:
        raise bad_gateway(target, type(error).__name__) from error


async def _shake_hands(
    target: ProxyTarget, scope: Scope, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bytes:
    connection = h11.Connection(h11.CLIENT)
    # Connection and Upgrade are hop-by-hop: they were dropped with the others, and are made anew for this hop.
    headers = [*request_headers(target, scope), *_UPGRADE]
    request = h11.Request(method="GET", target=target.path_and_query.encode("latin-1"), headers=headers)
    writer.write(connection.send(request) + connection.send(h11.EndOfMessage()))
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(CHUNK_BYTES))
    if not isinstance(event, h11.InformationalResponse) or event.status_code != 101:
        status = event.status_code if isinstance(event, h11.Response) else 502
        message = f"Port {target.port} answered with HTTP {status}."
        raise ServerError(message, status if status >= 400 else 502, code="BadGateway")
    lines = [b"HTTP/1.1 101 Switching Protocols"]
    lines += [name + b": " + value for name, value in [*response_headers(target, 101, event.headers), *_UPGRADE]]
    # A program may send frames right behind its answer, which h11 has read already.
    return b"\r\n".join([*lines, b"", b""]) + connection.trailing_data[0]


async def _copy_both_ways(session: Session, client: Streams, upstream: Streams) -> None:
    directions = [
        asyncio.ensure_future(_copy(session, client[0], upstream[1])),
        asyncio.ensure_future(_copy(session, upstream[0], client[1])),
    ]
    try:
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for direction in directions:
            direction.cancel()
        await asyncio.gather(*directions, return_exceptions=True)
        transport = client[1].transport
        transport.close()  # once the client has taken what was sent to it
        # close() alone would wait for ever for a client that reads nothing.
        asyncio.get_running_loop().call_later(_FLUSH_SECONDS, transport.abort)


async def _copy(session: Session, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while chunk := await source.read(CHUNK_BYTES):
        session.lifecycle.touch()  # traffic counts as activity; an open connection alone does not
        target.write(chunk)
        await target.drain()
