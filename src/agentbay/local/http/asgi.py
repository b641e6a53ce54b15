"""As much of ASGI as the service needs: a request read whole, a response sent whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, MutableMapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

_REJECT_TIMEOUT_SECONDS = 5.0  # seconds for a client to take the refusal of a WebSocket

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class BodyTooLarge(Exception):
    """The body is longer than the service takes."""


class ClientDisconnected(Exception):
    """The client is gone; nobody waits for an answer."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks; header names are lower case, and `reached` is the address of this machine that it came to."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    local_address: str = ""

    @property
    def content_type(self) -> str:
        """The type of the body without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Response:
    """What the service answers."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    stream: AsyncGenerator[bytes, None] | None = None  # in place of the body
    length: int | None = None  # of what the stream yields, if that is known
    on_undelivered: Callable[[], object] | None = (
        None  # what is to be done if the client has gone before it could be answered
    )


def json_response(value: object, status: int = 200) -> Response:
    """Write an answer as JSON."""
    # A file name that is no UTF-8 holds lone surrogates; written by backslashreplace they are JSON's own escapes.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Response(status, text.encode("utf-8", "backslashreplace"))


def parse_request(scope: Scope) -> Request:
    """Read everything but the body."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    reached = (scope.get("server") or ("",))[0]
    return Request(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), headers, reached)


async def read_body(receive: Receive, limit: int) -> bytes:
    """Read the body.

    Raises:
        BodyTooLarge: It has more than `limit` bytes. It is read to its end all the same, so that the client gets to
            see the answer instead of a broken connection.
        Disconnected: The client went away in the midst of it.
    """
    body, size, more = bytearray(), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= limit:
            body += chunk
        more = message.get("more_body", False)
    if size > limit:
        raise BodyTooLarge
    return bytes(body)


async def cancel_on_disconnect(work: Coroutine[Any, Any, Response], receive: Receive) -> Response:
    """Do the work for as long as the client waits for it; when it goes away, cancel the work, or undo it.

    Raises:
        Disconnected: The client went away first.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(wait_for_disconnect(receive))
    wanted = False
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        wanted = not gone.done()
    finally:
        gone.cancel()
        if not wanted:
            task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)  # nobody is left to tell of an error
            if isinstance(outcome, Response) and outcome.on_undelivered:
                outcome.on_undelivered()
    if not wanted:
        raise ClientDisconnected
    return task.result()


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_response(send: Send, response: Response, kind: str = "http") -> None:
    """Send an answer."""
    headers = [
        (b"content-type", response.content_type.encode()),
        (b"cache-control", b"no-store"),  # answers carry tokens
        *response.headers,
    ]
    if response.stream is None or response.length is not None:
        length = len(response.body) if response.length is None else response.length
        headers.append((b"content-length", str(length).encode()))
    await send({"type": f"{kind}.response.start", "status": response.status, "headers": headers})
    if response.stream is not None:
        async with aclosing(response.stream):
            async for piece in response.stream:
                await send({"type": f"{kind}.response.body", "body": piece, "more_body": True})
    await send({"type": f"{kind}.response.body", "body": response.body})


async def reject_websocket(receive: Receive, send: Send, response: Response) -> None:
    """Send an answer instead of opening a WebSocket."""
    await send_response(send, response, "websocket.http")
    # uvicorn takes it for a mistake if the application is done before the connection is; it says "disconnect" for the
    # refusal, and again for the connection
    with suppress(TimeoutError):
        async with asyncio.timeout(_REJECT_TIMEOUT_SECONDS):
            for _ in range(2):
                await receive()
