"""Sends requests by httpx, with a user's client or through a proxy."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterator, Mapping
from contextlib import contextmanager

import httpx

from .._concurrency import AsyncCallable, async_with_timeout
from .._transport.connection_errors import Disconnected, NothingSent, Unreadable, WaitTimedOut
from .._transport.deadline import Deadline
from .._transport.reply import HttpAnswer
from .._transport.request import HttpRequest

_NOT_SENT_ERRORS = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.InvalidURL,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)
_LONGEST_READ_SECONDS = 86400.0  # for an answer whose deadline can move


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise the errors of `_transport.connection_errors` for httpx's."""
    try:
        yield
    except _NOT_SENT_ERRORS as error:
        raise NothingSent(str(error)) from error
    except (httpx.TimeoutException, TimeoutError) as error:
        raise WaitTimedOut(str(error)) from error
    except (httpx.DecodingError, httpx.LocalProtocolError, httpx.StreamError) as error:
        raise Unreadable(str(error)) from error
    except httpx.HTTPError as error:
        raise Disconnected(str(error)) from error


async def send_by_httpx(
    sender: httpx.AsyncClient | httpx.AsyncBaseTransport,
    outgoing: HttpRequest,
    limits: Mapping[str, float | None],
    deadline: Deadline,
    extend: AsyncCallable[float] | None,
) -> HttpAnswer:
    """Send a request and read its answer.

    `extend` is asked for a later deadline when that has come.
    """
    if extend is not None:
        # httpx cannot move the limit of a wait that has begun, so the deadline alone ends this one. A synchronous call
        # that is given up leaves a thread behind, which this ends.
        limits = {**limits, "read": _LONGEST_READ_SECONDS}
    with translated_errors():
        body, extensions = httpx.ByteStream(outgoing.body), {"timeout": dict(limits)}
        request = httpx.Request(
            outgoing.method, outgoing.url, headers=outgoing.headers, stream=body, extensions=extensions
        )
        if isinstance(sender, httpx.AsyncClient) and b"Authorization=" in outgoing.target:
            request.extensions["target"] = outgoing.target  # httpx logs URLs, and no key may be in a log
        else:
            request.url = request.url.copy_with(raw_path=outgoing.target)
        # httpx limits each wait, not the whole call, so a peer that sends one byte now and then could keep a call open
        # for ever. Its deadline is enforced from outside, as far as the flavour can.
        return await async_with_timeout(
            deadline.remaining(),
            lambda: _send_and_read(sender, request, outgoing, None if extend else deadline),
            extend,
        )


async def _send_and_read(
    sender: httpx.AsyncClient | httpx.AsyncBaseTransport,
    request: httpx.Request,
    outgoing: HttpRequest,
    deadline: Deadline | None,
) -> HttpAnswer:
    if isinstance(sender, httpx.AsyncClient):
        response = await sender.send(request, stream=True, follow_redirects=False)
    else:
        response = await sender.handle_async_request(request)
    parts = []
    try:
        async for part in response.aiter_bytes():
            parts.append(part)
            # In the synchronous flavour nothing can cancel a call that keeps receiving data, so the loop checks by
            # itself.
            if deadline is not None and deadline.remaining() <= 0:
                raise httpx.ReadTimeout("too late", request=request)
    finally:
        await response.aclose()
    return HttpAnswer(response.status_code, response.headers, b"".join(parts), outgoing.label)


async def send_unread(
    sender: httpx.AsyncClient | httpx.AsyncBaseTransport,
    outgoing: HttpRequest,
    content: AsyncIterable[bytes] | None,
    limits: Mapping[str, float | None],
) -> httpx.Response:
    """Send a streamed request to a presigned URL, and return the unread response."""
    # The target is apart from the URL, which logs may show.
    extensions = {"target": outgoing.target, "timeout": dict(limits)}
    request = httpx.Request(
        outgoing.method, outgoing.url, headers=outgoing.headers, content=content, extensions=extensions
    )
    if isinstance(sender, httpx.AsyncClient):
        # A presigned URL carries its own signature: credentials set on the user's client must not leak to the
        # storage. A redirect is left to the caller, who refuses a downgrade from TLS and rewinds the body.
        return await sender.send(request, stream=True, auth=None, follow_redirects=False)
    return await sender.handle_async_request(request)


def decode_content(answer: HttpAnswer) -> HttpAnswer:
    """Decode the body of an answer that has a Content-Encoding."""
    with translated_errors():
        response = httpx.Response(answer.status, headers=dict(answer.headers), content=answer.body)
        return answer._replace(body=response.content)
