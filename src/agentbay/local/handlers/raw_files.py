"""Files of any size in and out of a session, as raw bytes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import ExitStack

from agentbay._wire.tools import ReadFile, ToolReply, WriteFile
from agentbay.local.handlers.files import MAX_READ_BYTES, failure_result, too_much_result
from agentbay.local.handlers.handler_tables import RawBody, RawReply, raw_tool_handler
from agentbay.local.handlers.results import check_no_nul, error_result, text_result
from agentbay.local.sandbox.service.file_streams import FileStream, write_stream
from agentbay.local.sandbox.service.manager import FileOperationFailed
from agentbay.local.sessions.session import Session

_WHOLE = 1 << 62  # bytes, more than any file has


@raw_tool_handler(WriteFile)
async def write_raw_file(session: Session, tool: WriteFile, body: RawBody) -> ToolReply:
    if tool.mode not in ("overwrite", "append") or tool.content:
        return error_result("A raw call has mode overwrite or append, and its content as the body.")
    try:
        check_no_nul(tool.path)
        with session.using() as sandbox:
            await write_stream(sandbox, tool.path, body.pieces, body.size, append=tool.mode == "append")
    except FileOperationFailed as error:
        return failure_result("write file", error)
    except ValueError as error:
        return error_result(f"Failed to write file, error: {error}")
    return text_result("True")


@raw_tool_handler(ReadFile)
async def read_raw_file(session: Session, tool: ReadFile, body: RawBody) -> ToolReply | RawReply:
    """Send a file, of any size if the length says so."""
    if tool.offset < 0 or tool.length < 0:
        return error_result("offset and length must not be negative")
    with ExitStack() as until_sent:
        try:
            check_no_nul(tool.path)
            sandbox = until_sent.enter_context(session.using())
            stream = FileStream(sandbox, tool.path, tool.offset, tool.length or _WHOLE)
            until_sent.callback(stream.close)
            await stream.open()
        except FileOperationFailed as error:
            return failure_result("get file status", error)
        except ValueError as error:
            return error_result(f"Failed to get file status, error: {error}")
        if not tool.length and stream.size > MAX_READ_BYTES:
            return too_much_result(tool.path)
        pieces = _send(stream, until_sent.pop_all())
        await anext(pieces)  # begun, so that closing it closes the rest even if nothing is sent
        return RawReply(stream.size, pieces, {})


async def _send(stream: FileStream, until_sent: ExitStack) -> AsyncGenerator[bytes, None]:
    with until_sent:
        yield b""
        async for piece in stream.pieces():
            yield piece
