"""The part of ASGI that the service needs: requests and responses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, MutableMapping
from contextlib import aclosing, suppress
from typing import Any

from agentbay._lazy_attrs import define
from agentbay.local import large_json_encoder
from agentbay.local.api_errors import invalid_request, request_timeout
from agentbay.local.worker_thread import run_in_worker

MARK_AUTHENTICATED = "agentbay.mark_authenticated"  # in the state of the scope
# A body may take this long, and longer only at this rate: a slower one could hold its connection for ever.
_BODY_GRACE_SECONDS = 30.0
_MIN_BODY_BYTES_PER_SECOND = 64 << 10
_REJECT_TIMEOUT_SECONDS = 5.0  # for a client to take the refusal of a WebSocket

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def _do_nothing(*_: object) -> None:
    pass


class BodyTooLarge(Exception):
    """The request body is longer than the service accepts, which is `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


class ClientDisconnected(Exception):
    """The client disconnected before it got its answer."""


class ResponseAborted(Exception):
    """A response that has begun cannot be completed.

    The web server then closes the connection, so that the client does not mistake a part for the whole.
    """


@define(frozen=True, slots=False)
class Request:
    """A request without its body.

    Attributes:
        headers: By lower-case name; of a name that occurs twice, the last value.
        local_address: The address of this machine that the client connected to; "" on a unix socket.
        mark_authenticated: To be called when the client has shown a valid secret, so that its connection may stay.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    local_address: str = ""
    mark_authenticated: Callable[[], object] = _do_nothing

    @property
    def content_type(self) -> str:
        """The media type of the body, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@define(frozen=True, slots=False)
class Response:
    """An answer of the service.

    Attributes:
        stream: Yields the body in pieces, in place of `body`.
        length: The number of bytes that the stream yields; None if it is not known before.
        on_undelivered: Called if the client disconnected before it could be answered.
    """

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    stream: AsyncGenerator[bytes, None] | None = None
    length: int | None = None
    on_undelivered: Callable[[], object] | None = None


def json_response(value: object, status: int = 200) -> Response:
    """Encode a value as JSON, in a stream of pieces if large."""
    if large_json_encoder.is_large(value):
        return Response(status, b"", stream=_encode_large(value))
    # A file name that is not UTF-8 has lone surrogates; backslashreplace writes them as JSON's own escapes.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Response(status, text.encode("utf-8", "backslashreplace"))


async def _encode_large(value: object) -> AsyncGenerator[bytes, None]:
    pieces = large_json_encoder.encode_pieces(value)
    while (piece := await run_in_worker(next, pieces, None)) is not None:
        yield piece.encode("utf-8", "backslashreplace")


def parse_request(scope: Scope) -> Request:
    """Read the head of a request from its ASGI scope.

    Raises:
        InvalidRequestError: It has two Host headers; programs differ in which one they read.
    """
    if sum(name == b"host" for name, _ in scope["headers"]) > 1:
        raise invalid_request("A request must not have more than one Host header.", "InvalidHeader.Host")
    # Header values are bytes of any encoding. Latin-1 maps each byte to a character, so that decoding never fails.
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    local_address = (scope.get("server") or ("",))[0]
    mark_authenticated = scope.get("state", {}).get(MARK_AUTHENTICATED, _do_nothing)
    query = scope["query_string"].decode("latin-1")
    return Request(scope["method"], scope["path"], query, headers, local_address, mark_authenticated)


def require_json(request: Request) -> None:
    """Raise InvalidRequestError unless the body is declared as JSON, against CSRF.

    A page of another site can post a form or plain text, but JSON only after a CORS preflight request.
    """
    if request.content_type != "application/json":
        raise invalid_request("The body must be JSON (application/json).", "InvalidContentType")


async def read_body(receive: Receive, limit: int, on_chunk: Callable[[bytearray], object] = _do_nothing) -> bytearray:
    """Read the whole body.

    Args:
        limit: Bytes that the body may have.
        on_chunk: Called with what has been read so far; may raise to refuse the rest.

    Raises:
        BodyTooLarge: The body is longer. Up to twice as much is read all the same, so that the client sees the answer
            instead of a broken connection.
        ClientDisconnected: The client disconnected before the end of the body.
        AgentBayError: The body came too slowly.
    """
    body, size, more = bytearray(), 0, True
    loop = asyncio.get_running_loop()
    began = loop.time()
    while more and size <= 2 * limit:
        try:
            async with asyncio.timeout_at(began + _BODY_GRACE_SECONDS + size / _MIN_BODY_BYTES_PER_SECOND):
                message = await receive()
        except TimeoutError:
            raise request_timeout() from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= limit:
            body += chunk
            on_chunk(body)
        else:
            body.clear()
        more = message.get("more_body", False)
    if size > limit:
        raise BodyTooLarge(limit)
    return body


async def iter_body(receive: Receive) -> AsyncGenerator[bytes]:
    """Yield the body as it arrives.

    Raises:
        ClientDisconnected: The client disconnected before the end of the body.
    """
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        if chunk := message.get("body", b""):
            yield chunk
        more = message.get("more_body", False)


async def iter_body_blocks(receive: Receive, block_bytes: int = 1 << 20) -> AsyncGenerator[bytes]:
    """Yield the body in blocks of a size.

    Larger blocks suit a writer that hands each one to a thread.

    Raises:
        ClientDisconnected: The client disconnected before the end of the body.
    """
    block = bytearray()
    async for chunk in iter_body(receive):
        block += chunk
        if len(block) >= block_bytes:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)


async def cancel_on_disconnect(work: Coroutine[Any, Any, Response], receive: Receive) -> Response:
    """Run `work`, and cancel it if the client disconnects first.

    Work that was done although the client has disconnected is undone by the `on_undelivered` of its response.

    Raises:
        ClientDisconnected: The client disconnected first.
    """
    task, disconnect = asyncio.ensure_future(work), asyncio.ensure_future(wait_for_disconnect(receive))
    delivered = False
    try:
        await asyncio.wait({task, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        # Both can be done at once. The client is gone then, although the work has a result.
        delivered = not disconnect.done()
    finally:
        disconnect.cancel()
        if not delivered:
            task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)  # no client is left to read an error
            if isinstance(outcome, Response) and outcome.on_undelivered:
                outcome.on_undelivered()
    if not delivered:
        raise ClientDisconnected
    return task.result()


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_response(send: Send, response: Response, kind: str = "http") -> None:
    """Send a response.

    Args:
        kind: The prefix of the ASGI messages: "http", or "websocket.http" to refuse a WebSocket.
    """
    headers = [
        (b"content-type", response.content_type.encode()),
        (b"cache-control", b"no-store"),  # answers carry tokens
        *response.headers,
    ]
    # Without a length, uvicorn sends the body in chunked transfer coding.
    if response.stream is None or response.length is not None:
        length = len(response.body) if response.length is None else response.length
        headers.append((b"content-length", str(length).encode()))
    await send({"type": f"{kind}.response.start", "status": response.status, "headers": headers})
    if response.stream is not None:
        # Closed here and not by the garbage collector, because a stream holds a file or counts as an open one.
        async with aclosing(response.stream):
            async for piece in response.stream:
                await send({"type": f"{kind}.response.body", "body": piece, "more_body": True})
    await send({"type": f"{kind}.response.body", "body": response.body})


async def send_while_connected(send: Send, receive: Receive, response: Response) -> None:
    """Send a response whose stream ends when the client disconnects.

    The web server silently accepts data for a client that is gone, and a sparse file can be a stream of terabytes.
    """
    sending = asyncio.ensure_future(send_response(send, response))
    disconnect = asyncio.ensure_future(wait_for_disconnect(receive))
    try:
        await asyncio.wait({sending, disconnect}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        disconnect.cancel()
        if not sending.done():
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    if not sending.cancelled():
        sending.result()


async def reject_websocket(receive: Receive, send: Send, response: Response) -> None:
    """Answer with a response instead of opening a WebSocket."""
    await send_response(send, response, "websocket.http")
    # uvicorn logs an error if the application returns before the connection is closed. It sends "disconnect" once for
    # the refusal and once for the connection.
    with suppress(TimeoutError):
        async with asyncio.timeout(_REJECT_TIMEOUT_SECONDS):
            for _ in range(2):
                await receive()
