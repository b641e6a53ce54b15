"""Streamed transfers to and from presigned URLs, verified at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from .._concurrency import async_invoke, async_run_blocking
from .._local_files import BLOCK_BYTES, LocalSource, LocalTarget
from .._transport.deadline import Deadline
from .._transport.presigned import (
    MAX_REDIRECTS,
    is_checksum_equal,
    make_get,
    make_put,
    redirect_target,
    size_from_headers,
    storage_error,
)
from .._transport.request import HttpRequest
from ..errors import FileError, NotFoundError, ReplyError
from ..models.transfer import ByteProgressCallback as ByteProgressCallback

if TYPE_CHECKING:
    import httpx

    from .connection_pool import AsyncPoolResponse
    from .transport import AsyncTransport

_ERROR_BODY_BYTES = 4096  # how much of an error's body is read


class TransferOutcome(NamedTuple):
    """What a transfer moved.

    `is_verified` says that the storage's checksum equals that of the bytes sent.
    """

    status: int
    size: int
    etag: str = ""
    is_verified: bool = False


class TransferSettings(NamedTuple):
    """How to make a transfer.

    Attributes:
        transport: The transport that carries it.
        deadline: When it must have ended.
        idle_timeout: Seconds in which at least one block must move.
        max_redirects: How many redirects are followed.
        progress: Called with the bytes so far after each block; what it raises ends the transfer.
    """

    transport: AsyncTransport
    deadline: Deadline
    idle_timeout: float
    max_redirects: int = MAX_REDIRECTS
    progress: ByteProgressCallback | None = None


class AsyncFileChunks:
    """The blocks of a local file, as an asynchronous iterator."""

    def __init__(self, source: LocalSource, settings: TransferSettings, label: str) -> None:
        self._source, self._settings, self._label = source, settings, label

    def __aiter__(self) -> AsyncFileChunks:
        return self

    async def __anext__(self) -> bytes:
        # The next block is asked for when the one before was sent, so only then the progress is true.
        if self._settings.progress is not None and self._source.sent:
            await async_invoke(self._settings.progress, self._source.sent)
        # A storage that takes blocks steadily never meets the idle timeout, so each block checks the whole time.
        self._settings.deadline.remaining_or_raise(self._label)
        block = await async_run_blocking(self._source.read)
        if not block:
            raise StopAsyncIteration
        return block

    async def rewind(self) -> None:
        """Start again at the first block."""
        await async_run_blocking(self._source.rewind)


async def send_file(
    settings: TransferSettings, url: str, source: LocalSource, label: str, content_type: str | None = None
) -> TransferOutcome:
    """Send a file to a presigned URL.

    Raises:
        AgentBayError: If the storage did not take it; typed by what happened.
    """
    ask = partial(make_put, size=source.size, label=label, content_type=content_type)
    blocks = AsyncFileChunks(source, settings, label)

    async def attempt() -> TransferOutcome:
        async with _follow_redirects(settings, ask, url, (200, 201, 204), blocks) as response:
            etag = response.headers.get("etag", "")
            return TransferOutcome(response.status_code, source.sent, etag, is_checksum_equal(etag, source.md5))

    return await settings.transport.retry(attempt, settings.deadline)


async def fetch_file(
    settings: TransferSettings, url: str, target: LocalTarget, label: str, size: int | None = None
) -> TransferOutcome:
    """Fetch a presigned URL into a local file, without committing it.

    Raises:
        AgentBayError: If it did not arrive whole; typed by what happened.
        FileError: If it has not the size that it shall have.
    """

    async def attempt() -> TransferOutcome:
        # Each attempt starts with an empty file, or the blocks of a broken attempt would stay in front of the new ones.
        await async_run_blocking(target.rewind)
        async with _follow_redirects(settings, partial(make_get, label=label), url, (200,)) as response:
            # Raw, because decoding a Content-Encoding would yield other bytes than the storage keeps, and another size.
            async for block in response.aiter_raw(BLOCK_BYTES):
                await async_run_blocking(target.write, block)
                # A storage that sends steadily never meets the idle timeout, so each block checks the whole time.
                settings.deadline.remaining_or_raise(label)
                if settings.progress is not None:
                    await async_invoke(settings.progress, target.received)
            return TransferOutcome(response.status_code, target.received, response.headers.get("etag", ""))

    moved = await settings.transport.retry(attempt, settings.deadline)
    if size is not None and size != moved.size:
        raise FileError(f"The {label} gave {moved.size} bytes, not the {size} that the file has.")
    return moved


async def verify_stored_size(settings: TransferSettings, url: str, size: int, label: str) -> None:
    """Check that the storage has a file of that size.

    Only the first byte is fetched.

    Raises:
        FileError: If it has not.
    """

    async def attempt() -> int:
        # 416 is the answer for an empty file, which has no first byte. 200 comes from a storage that ignores Range.
        async with _follow_redirects(
            settings, partial(make_get, label=label, first_byte=True), url, (200, 206, 416)
        ) as response:
            stored = size_from_headers(response.status_code, response.headers)
            # Without Content-Length, as in a chunked answer, only counting tells the size.
            return sum([len(part) async for part in response.aiter_raw()]) if stored is None else stored

    try:
        found = await settings.transport.retry(attempt, settings.deadline)
    except NotFoundError as error:
        raise FileError(f"The {label} was acknowledged, but the storage does not have the file.") from error
    if found != size:
        raise FileError(f"The {label} was acknowledged, but the storage has {found} bytes of {size}.")


@asynccontextmanager
async def _follow_redirects(
    settings: TransferSettings,
    ask: Callable[[str], HttpRequest],
    url: str,
    fine: tuple[int, ...],
    content: AsyncFileChunks | None = None,
) -> AsyncIterator[AsyncPoolResponse | httpx.Response]:
    """Send a request, follow redirects, and yield the unread response.

    A status that is not in `fine` raises.
    """
    outgoing = ask(url)
    # Redirects are followed here and not by httpx, which can neither rewind a streamed body nor refuse to leave TLS.
    for _ in range(settings.max_redirects + 1):
        if content is not None:
            # The host that redirects may have taken part of the body already, and the next one needs all of it.
            await content.rewind()
        async with settings.transport.send_streamed(
            outgoing, content, settings.deadline, settings.idle_timeout
        ) as response:
            if response.status_code in fine:
                yield response
                return
            url = redirect_target(outgoing, response.status_code, response.headers)
            if not url:
                body = await read_beginning(response, _ERROR_BODY_BYTES)
                raise storage_error(outgoing, response.status_code, response.headers, body)
            outgoing = ask(url)
    raise ReplyError(f"The storage redirected the {outgoing.label} too often.", action=outgoing.label)


async def read_beginning(response: AsyncPoolResponse | httpx.Response, size: int) -> bytes:
    """Read up to `size` bytes of an answer."""
    found = b""
    async for part in response.aiter_raw():
        found += part
        # The sender is not trusted to end it: an endless one must not fill the memory.
        if len(found) >= size:
            break
    return found[:size]
