"""The file tools with the texts of the MCP file system server."""

from __future__ import annotations

import errno
import functools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

from agentbay._wire import tools as wire
from agentbay.local.handlers.handler_tables import tool_handler
from agentbay.local.handlers.results import check_no_nul, error_result, text_result
from agentbay.local.large_json_decoder import decode_utf8, encode_utf8
from agentbay.local.large_json_encoder import DecodedText, base64_text, decoded_text, dump_json, encode_pieces
from agentbay.local.sandbox.service.manager import FileOperationFailed, Sandbox
from agentbay.local.sandbox.shared import file_protocol as operations
from agentbay.local.sessions.session import Session
from agentbay.local.sessions.watching.file_changes import take_snapshot
from agentbay.local.worker_thread import run_by_size

MAX_READ_BYTES = 256 << 20  # of one answer, which is held in memory several times over
_MAX_CHARACTER_BYTES = 4  # bytes of UTF-8
_ENTRY_BYTES = 200  # about what an entry of a directory takes in its listing
_SUCCESS_TEXT = "True"
_FIRST_SECOND, _LAST_SECOND = -62135596800, 253402300799  # of the years 1 and 9999; a file may have any time
_PATH_FIELDS = ("path", "source", "destination", "pattern", "exclude_patterns")

_T = TypeVar("_T")
_ToolHandler = Callable[[Session, _T], Awaitable[wire.ToolReply]]
_FileHandler = Callable[[Sandbox, _T], Awaitable[wire.ToolReply]]


def _errors_as_results(what: str) -> Callable[[_FileHandler[_T]], _ToolHandler[_T]]:
    """Run a handler in the session's sandbox, with file errors as results."""

    def decorate(handler: _FileHandler[_T]) -> _ToolHandler[_T]:
        @functools.wraps(handler)
        async def guarded(session: Session, tool: _T) -> wire.ToolReply:
            try:
                check_no_nul(*(getattr(tool, name, None) for name in _PATH_FIELDS))
                with session.using() as sandbox:
                    return await handler(sandbox, tool)
            except FileOperationFailed as error:
                return failure_result(what, error)
            except ValueError as error:  # a path with NUL, or text that is no Unicode
                return error_result(f"Failed to {what}, error: {error}")

        return guarded

    return decorate


def failure_result(what: str, error: FileOperationFailed) -> wire.ToolReply:
    """Make the result of a file operation that failed."""
    # Clients find the class of the error by its name: in the text, the path could hold the words of another one.
    details = {"code": errno.errorcode.get(error.errno or 0, ""), "path": error.path}
    text = f"Failed to {what}: {error.path}, error: {error.strerror}"
    return error_result(text, structured={"error": details})


@tool_handler(wire.ReadFile)
@_errors_as_results("get file status")
async def read_file(sandbox: Sandbox, tool: wire.ReadFile) -> wire.ToolReply:
    if tool.offset < 0 or tool.length < 0:
        return error_result("offset and length must not be negative")
    length = min(tool.length or MAX_READ_BYTES, MAX_READ_BYTES)
    more = _MAX_CHARACTER_BYTES - 1
    _, data = await sandbox.run_file_operation(operations.ReadFile(tool.path, tool.offset, length + more))
    if not tool.length and len(data) > length:
        return too_much_result(tool.path)
    if tool.format == "binary":
        return text_result(base64_text(memoryview(data)[:length]))
    return text_result(decoded_text(whole_characters(data, length, inside=tool.offset > 0)))


def too_much_result(path: str) -> wire.ToolReply:
    """Make the result of a call that would read too much at once."""
    return error_result(
        f"The rest of {path} is more than {MAX_READ_BYTES >> 20} MiB, which one answer cannot hold. Give the "
        "tool offset and length, or copy the file: with pull, download_file or a command"
    )


def whole_characters(data: bytes | bytearray, length: int, *, inside: bool) -> memoryview:
    """Return the characters that begin in the first `length` bytes of data, as UTF-8.

    Args:
        data: Up to 3 bytes longer than `length`, for the rest of the last character.
        inside: The data may begin within a character.
    """
    start, end = 0, min(length, len(data))
    while inside and start < min(len(data), _MAX_CHARACTER_BYTES - 1) and _is_continuation_byte(data[start]):
        start += 1
    while end < min(len(data), length + _MAX_CHARACTER_BYTES - 1) and _is_continuation_byte(data[end]):
        end += 1
    return memoryview(data)[start : max(start, end)]


def _is_continuation_byte(byte: int) -> bool:
    return byte & 0xC0 == 0x80


@tool_handler(wire.WriteFile)
@_errors_as_results("write file")
async def write_file(sandbox: Sandbox, tool: wire.WriteFile) -> wire.ToolReply:
    if tool.mode not in ("overwrite", "append"):
        return error_result(f"Invalid write mode: {tool.mode}. Must be 'overwrite' or 'append'.")
    content = await run_by_size(len(tool.content), encode_utf8, tool.content)
    await sandbox.run_file_operation(operations.WriteFile(tool.path, append=tool.mode == "append"), input=content)
    return text_result(_SUCCESS_TEXT)


@tool_handler(wire.ListDirectory)
@_errors_as_results("list directory")
async def list_directory(sandbox: Sandbox, tool: wire.ListDirectory) -> wire.ToolReply:
    """List a directory, with names whole only in the structured part."""
    reply, _ = await sandbox.run_file_operation(operations.ListDirectory(tool.path))
    return await run_by_size(len(reply.entries) * _ENTRY_BYTES, _listing, reply.entries)


def _listing(entries: list[operations.EntryStatus]) -> wire.ToolReply:
    lines = [f"{'[DIR]' if entry['is_directory'] else '[FILE]'} {entry['name']}" for entry in entries]
    structured = [
        {"name": entry["name"], "isDirectory": entry["is_directory"], "size": entry["size"]} for entry in entries
    ]
    return text_result("\n".join(lines), {"entries": structured})


@tool_handler(wire.GetFileInfo)
@_errors_as_results("get file status")
async def get_file_info(sandbox: Sandbox, tool: wire.GetFileInfo) -> wire.ToolReply:
    info, _ = await sandbox.run_file_operation(operations.StatPath(tool.path))
    lines = {
        "size": info.size,
        "created": _time(info.ctime),
        "modified": _time(info.mtime),
        "accessed": _time(info.atime),
        "isDirectory": _truth(info.is_directory),
        "isFile": _truth(info.is_file),
        "permissions": info.permissions,
    }
    return text_result("\n".join(f"{key}: {value}" for key, value in lines.items()))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(min(max(seconds, _FIRST_SECOND), _LAST_SECOND), UTC).isoformat()


def _truth(value: object) -> str:
    return "true" if value else "false"


@tool_handler(wire.CreateDirectory)
@_errors_as_results("create directory")
async def create_directory(sandbox: Sandbox, tool: wire.CreateDirectory) -> wire.ToolReply:
    await sandbox.run_file_operation(operations.MakeDirectory(tool.path))
    return text_result(_SUCCESS_TEXT)


@tool_handler(wire.DeleteFile)
@_errors_as_results("delete file")
async def delete_file(sandbox: Sandbox, tool: wire.DeleteFile) -> wire.ToolReply:
    await sandbox.run_file_operation(operations.RemovePath(tool.path, recursive=True))
    return text_result(_SUCCESS_TEXT)


@tool_handler(wire.MoveFile)
@_errors_as_results("move file")
async def move_file(sandbox: Sandbox, tool: wire.MoveFile) -> wire.ToolReply:
    try:
        await sandbox.run_file_operation(operations.MovePath(tool.source, tool.destination))
    except FileOperationFailed as error:
        if error.errno != errno.EXDEV:
            raise
        # Measured beforehand: a copy that exceeds the session's disk would be killed, and leave what it has written.
        room = await sandbox.watchdog.measure_room()
        await sandbox.run_file_operation(operations.MoveAcross(tool.source, tool.destination, room))
    return text_result(_SUCCESS_TEXT)


@tool_handler(wire.SearchFiles)
@_errors_as_results("search files")
async def search_files(sandbox: Sandbox, tool: wire.SearchFiles) -> wire.ToolReply:
    excluded = [pattern for pattern in (tool.exclude_patterns or "").split(",") if pattern]
    reply, _ = await sandbox.run_file_operation(operations.SearchTree(tool.path, tool.pattern, excluded))
    return text_result("\n".join(reply.matches) or "No matches found", {"matches": reply.matches})


@tool_handler(wire.EditFile)
@_errors_as_results("edit file")
async def edit_file(sandbox: Sandbox, tool: wire.EditFile) -> wire.ToolReply:
    edits = [(edit.old_text, edit.new_text) for edit in tool.edits]
    if not all(old for old, _ in edits):
        return error_result("oldText must not be empty")
    size = sum(len(old) + len(new) for old, new in edits)
    payload = await run_by_size(size, _edit_payload, edits)
    request = operations.EditFile(tool.path, tool.dry_run)
    try:
        reply, _ = await sandbox.run_file_operation(request, input=payload)
    except FileOperationFailed as error:
        if error.errno != errno.ENOSPC:
            raise
        # Measured only for large files. As for moves: what exceeds the disk would be killed, and leave a part.
        request = operations.EditFile(tool.path, tool.dry_run, await sandbox.watchdog.measure_room())
        reply, _ = await sandbox.run_file_operation(request, input=payload)
    return text_result(reply.diff or _SUCCESS_TEXT, {"diff": reply.diff})


def _edit_payload(edits: list[tuple[str, str]]) -> bytes:
    return b"".join(piece.encode("utf-8", "backslashreplace") for piece in encode_pieces(edits))


@tool_handler(wire.ReadMultipleFiles)
@_errors_as_results("read files")
async def read_multiple_files(sandbox: Sandbox, tool: wire.ReadMultipleFiles) -> wire.ToolReply:
    """Read files, with contents whole only in the structured part."""
    check_no_nul(*tool.paths)
    left, texts, files = MAX_READ_BYTES, list[str](), list[dict[str, str]]()
    for path in tool.paths:
        try:
            _, data = await sandbox.run_file_operation(operations.ReadFile(path, length=left + 1))
        except FileOperationFailed as error:
            reason = f"Failed to read file: {error.path}, error: {error.strerror}"
            texts.append(f"{path}: Error - {reason}")
            files.append({"path": path, "error": reason})
            continue
        left -= len(data)
        if left < 0:
            return error_result(f"The files are more than {MAX_READ_BYTES >> 20} MiB together; read them one by one")
        text, content = await run_by_size(len(data), _decode_file, data)
        texts.append(f"{path}:\n{text}\n")
        files.append({"path": path, **content})
    text = await run_by_size(MAX_READ_BYTES - left, "\n---\n".join, texts)
    return text_result(text, {"files": files})


def _decode_file(data: bytearray) -> tuple[str, dict[str, str]]:
    """Return a file's text with replacement characters, and its strict content or error."""
    try:
        text = decode_utf8(data)
        return text, {"content": text}
    except UnicodeDecodeError as error:
        reason = f"The file is not UTF-8 text: it has the byte {data[error.start]:#04x} at {error.start}"
        return "".join(DecodedText(data).text_pieces()), {"error": reason}


@tool_handler(wire.GetFileChange)
async def get_file_change(session: Session, tool: wire.GetFileChange) -> wire.ToolReply:
    @_errors_as_results("get file change")
    async def compare(sandbox: Sandbox, tool: wire.GetFileChange) -> wire.ToolReply:
        take = functools.partial(take_snapshot, sandbox)
        changes = await session.file_changes.changes_since_last_call(take, tool.path)
        return text_result(dump_json(changes))

    return await compare(session, tool)
