"""Direct tool calls with raw bytes as the body of the request or answer.

The call itself is JSON in the header `X-Tool-Call`. An answer of raw bytes has its JSON part in the header
`X-Tool-Result`; every other answer is that of an ordinary direct call.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

from agentbay._wire.converter import unstructure
from agentbay._wire.raw_calls import CALL_HEADER, CONTENT_TYPE as CONTENT_TYPE, RESULT_HEADER
from agentbay.errors import AgentBayError
from agentbay.local.api_errors import invalid_request, request_timeout
from agentbay.local.handlers.handler_tables import RawBody, RawReply
from agentbay.local.handlers.tool_calls import call_raw_tool
from agentbay.local.http.asgi import (
    ClientDisconnected,
    Receive,
    Request,
    Response,
    ResponseAborted,
    json_response,
    wait_for_disconnect,
)
from agentbay.local.http.direct import find_authorized_session
from agentbay.local.runtime import Runtime
from agentbay.local.sandbox.service.file_streams import ContentLost

_IDLE_SECONDS = 120.0  # a body may pause for so long


async def serve_raw_call(runtime: Runtime, session_id: str, request: Request, receive: Receive) -> Response:
    """Call a tool with the body of the request, before it has come whole.

    Raises:
        AgentBayError: The call is refused.
        ClientDisconnected: The client disconnected before the end of the body.
    """
    session = find_authorized_session(runtime, session_id, request)
    name, args = _parse_call(request.headers.get(CALL_HEADER, ""))
    body = RawBody(_body_size(request), _receive_pieces(receive))
    reply = await call_raw_tool(session, name, args, body)
    if not isinstance(reply, RawReply):
        return json_response({"data": {"result": unstructure(reply)}})
    headers = ((RESULT_HEADER.encode(), json.dumps(reply.result).encode()),)
    return Response(
        200, b"", CONTENT_TYPE, headers=headers, stream=_until_disconnect(reply.pieces, receive), length=reply.size
    )


def _parse_call(text: str) -> tuple[str, dict[str, Any]]:
    try:
        call = json.loads(text)
        name, args = call["tool"], call["args"]
        if not isinstance(name, str) or not isinstance(args, dict):
            raise ValueError("it has no tool or no args")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise invalid_request(f"The header {CALL_HEADER} cannot be read: {error}.") from error
    return name, args


def _body_size(request: Request) -> int:
    size = request.headers.get("content-length", "")
    if not size.isdecimal():
        raise invalid_request("A raw call must tell its Content-Length.", "MissingContentLength")
    return int(size)


async def _receive_pieces(receive: Receive) -> AsyncGenerator[bytes, None]:
    more = True
    while more:
        try:
            async with asyncio.timeout(_IDLE_SECONDS):
                message = await receive()
        except TimeoutError:
            raise request_timeout() from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        if piece := message.get("body", b""):
            yield piece
        more = message.get("more_body", False)


async def _until_disconnect(pieces: AsyncGenerator[bytes, None], receive: Receive) -> AsyncGenerator[bytes, None]:
    """Yield the pieces of an answer until its client disconnects.

    A sparse file can be practically endless.
    """
    gone = asyncio.ensure_future(wait_for_disconnect(receive))
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                if gone.done():
                    raise ResponseAborted
                yield piece
    except (AgentBayError, ContentLost) as error:
        raise ResponseAborted from error
    finally:
        gone.cancel()
        with suppress(asyncio.CancelledError):
            await gone
