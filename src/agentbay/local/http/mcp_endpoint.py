"""The MCP endpoint, as on the cloud: messages by POST, answers as server-sent events.

A program opens the stream of events at `/v2/sse?APIKEY=...&IMAGEID=...`. Its first event names the path that takes
messages. This module is imported with the first stream, since the protocol's package takes long to import.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.server.lowlevel import Server
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCMessage, jsonrpc_message_adapter

from agentbay.errors import NotFoundError
from agentbay.local.api_errors import invalid_request, not_logged_in
from agentbay.local.http.asgi import (
    Receive,
    Request,
    Response,
    Send,
    read_body,
    require_json,
    send_response,
    wait_for_disconnect,
)
from agentbay.local.http.mcp_tools import make_mcp_server
from agentbay.local.http.origin_check import OriginCheck, read_mcp_query
from agentbay.local.large_json_decoder import load_json
from agentbay.local.runtime import Runtime
from agentbay.local.sessions.images import DEFAULT_IMAGE
from agentbay.local.worker_thread import run_by_size

_STREAM_PATH = "/v2/sse"
_MESSAGES_PATH = "/v2/messages/"
_MAX_MESSAGE_BYTES, _MAX_MESSAGE_VALUES = 8 << 20, 50_000
_PING_SECONDS = 15.0  # so that a stream whose client is gone ends

_Incoming = SessionMessage | Exception


class McpEndpoint:
    """The open streams, each with a server of its own."""

    def __init__(self, origin_check: OriginCheck) -> None:
        self._origin_check = origin_check
        self._inboxes: dict[str, MemoryObjectSendStream[_Incoming]] = {}  # by the secret end of the path
        self._streams: set[asyncio.Task[None]] = set()

    async def serve(self, runtime: Runtime, request: Request, receive: Receive, send: Send) -> None:
        """Serve a client until it disconnects, or take a message of one.

        Raises:
            AgentBayError: The request is refused.
        """
        if request.method == "GET" and request.path == _STREAM_PATH:
            await self._serve_stream(runtime, request, receive, send)
        else:
            await send_response(send, await self._take_message(request, receive))

    async def _serve_stream(self, runtime: Runtime, request: Request, receive: Receive, send: Send) -> None:
        if not self._origin_check.has_mcp_key(request.query, request.headers):
            raise not_logged_in()
        request.mark_authenticated()
        server = make_mcp_server(runtime, read_mcp_query(request.query).get("IMAGEID") or DEFAULT_IMAGE)
        task = asyncio.ensure_future(self._run(server, receive, send))
        self._streams.add(task)
        try:
            await asyncio.wait({task})
        finally:
            self._streams.discard(task)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self, server: Server, receive: Receive, send: Send) -> None:
        secret = secrets.token_urlsafe(24)
        self._inboxes[secret], incoming = anyio.create_memory_object_stream[_Incoming]()
        outgoing, answers = anyio.create_memory_object_stream[SessionMessage]()
        events = Response(200, b"", "text/event-stream", stream=_write_events(f"{_MESSAGES_PATH}{secret}", answers))
        works = {
            asyncio.ensure_future(server.run(incoming, outgoing, server.create_initialization_options())),
            asyncio.ensure_future(send_response(send, events)),
            asyncio.ensure_future(wait_for_disconnect(receive)),
        }
        try:
            await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._inboxes[secret]
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
            incoming.close()
            answers.close()

    async def _take_message(self, request: Request, receive: Receive) -> Response:
        inbox = self._inboxes.get(request.path.removeprefix(_MESSAGES_PATH))
        if inbox is None or request.method != "POST":
            raise NotFoundError("There is no such stream of messages.", 404, code="InvalidPath.NotFound")
        request.mark_authenticated()
        require_json(request)
        body = await read_body(receive, _MAX_MESSAGE_BYTES)
        message = await run_by_size(len(body), _parse_message, body)
        try:
            await inbox.send(SessionMessage(message))
        except anyio.BrokenResourceError:
            raise NotFoundError("The stream of these messages has ended.", 404, code="InvalidPath.NotFound") from None
        return Response(202, b"Accepted", "text/plain")

    def close(self) -> None:
        """End all streams."""
        for task in self._streams:
            task.cancel()


def _parse_message(body: bytearray) -> JSONRPCMessage:
    try:
        found = load_json(body, _MAX_MESSAGE_VALUES)
        message: JSONRPCMessage = jsonrpc_message_adapter.validate_python(found, by_name=False)
    except (ValueError, RecursionError) as error:
        raise invalid_request(f"The message cannot be read: {error!s:.300}.") from error
    return message


async def _write_events(path: str, answers: MemoryObjectReceiveStream[SessionMessage]) -> AsyncGenerator[bytes, None]:
    yield b"event: endpoint\r\ndata: " + path.encode() + b"\r\n\r\n"
    while True:
        try:
            async with asyncio.timeout(_PING_SECONDS):
                answer = await answers.receive()
        except TimeoutError:
            yield b": ping\r\n\r\n"
        except anyio.EndOfStream:
            return
        else:
            text = answer.message.model_dump_json(by_alias=True, exclude_unset=True)
            yield b"event: message\r\ndata: " + text.encode("utf-8", "backslashreplace") + b"\r\n\r\n"
