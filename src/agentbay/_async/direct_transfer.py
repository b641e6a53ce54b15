"""Transfers of single files by raw calls to a session's link."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._concurrency import AsyncCallable, async_invoke, async_run_blocking
from .._local_files import BLOCK_BYTES, LocalSource, LocalTarget
from .._transport.file_errors import file_text_or_raise
from .._transport.reply import HttpAnswer, is_raw_answer, read_direct_reply
from .._wire.tools import ReadFile, WriteFile
from ..errors import ConflictError, ReplyError, SessionNotFoundError
from .presigned import AsyncFileChunks, TransferOutcome, TransferSettings, read_beginning

if TYPE_CHECKING:
    import httpx

    from .connection_pool import AsyncPoolResponse
    from .session_tools import AsyncSessionTools

# Of an answer that is no file: the server behind a session's link might send bytes without end.
_MAX_ANSWER_BYTES = 1 << 20
_WHOLE_FILE = 1 << 62  # bytes, more than any file has


async def send_file_directly(
    session: AsyncSessionTools, settings: TransferSettings, source: LocalSource, path: str
) -> TransferOutcome:
    """Send a file into a session.

    Afterwards the session has the whole file, or still the old one.

    Raises:
        AgentBayError: If the session did not take it; typed by what happened.
    """
    outgoing = session._raw_request(WriteFile(path=path, content=""), source.size)
    blocks = AsyncFileChunks(source, settings, outgoing.label)

    async def attempt() -> TransferOutcome:
        await blocks.rewind()
        async with settings.transport.send_streamed(
            outgoing, blocks, settings.deadline, settings.idle_timeout
        ) as response:
            await _raise_refusal(response, outgoing.label, path)
            # The ETag that a storage would give.
            return TransferOutcome(response.status_code, source.sent, f'"{source.md5}"')

    return await _retry(session, settings, attempt)


async def fetch_file_directly(
    session: AsyncSessionTools, settings: TransferSettings, target: LocalTarget, path: str
) -> TransferOutcome:
    """Fetch a file of a session into a local file, without committing it.

    Raises:
        AgentBayError: If it did not arrive whole; typed by what happened.
    """
    outgoing = session._raw_request(ReadFile(path=path, length=_WHOLE_FILE))

    async def attempt() -> TransferOutcome:
        await async_run_blocking(target.rewind)
        async with settings.transport.send_streamed(
            outgoing, None, settings.deadline, settings.idle_timeout
        ) as response:
            if not is_raw_answer(response.status_code, response.headers):
                await _raise_refusal(response, outgoing.label, path)
                raise ReplyError("The session answered a download without the file.", action=outgoing.label)
            async for block in response.aiter_raw(BLOCK_BYTES):
                await async_run_blocking(target.write, block)
                settings.deadline.remaining_or_raise(outgoing.label)
                if settings.progress is not None:
                    await async_invoke(settings.progress, target.received)
            return TransferOutcome(response.status_code, target.received)

    return await _retry(session, settings, attempt)


async def _retry(
    session: AsyncSessionTools, settings: TransferSettings, attempt: AsyncCallable[TransferOutcome]
) -> TransferOutcome:
    try:
        return await settings.transport.retry(attempt, settings.deadline)
    except (ConflictError, SessionNotFoundError) as error:
        error.hint = (await settings.transport.ask_for_hint(session.session_id)).text or error.hint
        raise


async def _raise_refusal(response: AsyncPoolResponse | httpx.Response, label: str, path: str) -> None:
    """Raise the error of an answer, if it is one."""
    body = await read_beginning(response, _MAX_ANSWER_BYTES)
    file_text_or_raise(read_direct_reply(HttpAnswer(response.status_code, response.headers, body, label), ""), path)
