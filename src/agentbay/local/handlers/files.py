"""The file tools: the texts are those of the MCP file system server, which clients parse."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from agentbay._wire.tools import (
    CreateDirectory,
    DeleteFile,
    EditFile,
    GetFileChange,
    GetFileInfo,
    ListDirectory,
    MoveFile,
    ReadFile,
    ReadMultipleFiles,
    SearchFiles,
    ToolReply,
    WriteFile,
)
from agentbay.local.dispatch import runs
from agentbay.local.sandbox.host import FileOperationFailed
from agentbay.local.session import Session
from agentbay.local.tooling import check_text, failed, said

_READ_LIMIT = 256 << 20  # bytes of one answer, which is held in memory several times over
_LONGEST_CHARACTER = 4  # bytes of UTF-8
_DONE = "True"
_PATHS = ("path", "source", "destination", "pattern", "exclude_patterns")

_T = TypeVar("_T")
_Handler = Callable[[Session, _T], Awaitable[ToolReply]]


def _failing_to(what: str) -> Callable[[_Handler[_T]], _Handler[_T]]:
    """Answer a refused operation in the service's words: `Failed to WHAT: PATH, error: REASON`."""

    def decorate(handler: _Handler[_T]) -> _Handler[_T]:
        @functools.wraps(handler)
        async def guarded(session: Session, tool: _T) -> ToolReply:
            try:
                check_text(*(getattr(tool, name, None) for name in _PATHS))
                return await handler(session, tool)
            except FileOperationFailed as error:
                return failed(f"Failed to {what}: {error.path}, error: {error.strerror}")
            except ValueError as error:  # a path with NUL, or text that is no Unicode
                return failed(f"Failed to {what}, error: {error}")

        return guarded

    return decorate


@runs(ReadFile)
@_failing_to("get file status")
async def read_file(session: Session, tool: ReadFile) -> ToolReply:
    if tool.offset < 0 or tool.length < 0:
        return failed("offset and length must not be negative")
    wanted = min(tool.length or _READ_LIMIT, _READ_LIMIT)
    more = _LONGEST_CHARACTER - 1
    _, data = await session.call("read", {"path": tool.path, "offset": tool.offset, "length": wanted + more})
    if not tool.length and len(data) > wanted:
        return failed(f"The rest of {tool.path} is more than {_READ_LIMIT >> 20} MiB; read it with offset and length")
    if tool.format == "binary":
        return said(base64.b64encode(data[:wanted]).decode())
    return said(characters(data, wanted, inside=tool.offset > 0))


def characters(data: bytes, length: int, *, inside: bool) -> str:
    """Return the characters whose first byte is one of the first `length`, so that pieces add up to the whole.

    `data` goes on for up to 3 bytes more, if there are; `inside` tells that it may begin amid a character.
    """
    start, end = 0, min(length, len(data))
    while inside and start < min(len(data), _LONGEST_CHARACTER - 1) and _continues(data[start]):
        start += 1
    while end < min(len(data), length + _LONGEST_CHARACTER - 1) and _continues(data[end]):
        end += 1
    return data[start : max(start, end)].decode("utf-8", "replace")


def _continues(byte: int) -> bool:
    return byte & 0xC0 == 0x80


@runs(WriteFile)
@_failing_to("write file")
async def write_file(session: Session, tool: WriteFile) -> ToolReply:
    if tool.mode not in ("overwrite", "append"):
        return failed(f"Invalid write mode: {tool.mode}. Must be 'overwrite' or 'append'.")
    await session.call("write", {"path": tool.path, "mode": tool.mode}, tool.content.encode())
    return said(_DONE)


@runs(ListDirectory)
@_failing_to("list directory")
async def list_directory(session: Session, tool: ListDirectory) -> ToolReply:
    """List with the names whole in the structured part; in a line of text a name with a line break cannot be."""
    result, _ = await session.call("list", {"path": tool.path})
    entries: list[dict[str, Any]] = result["entries"]
    lines = [f"{'[DIR]' if entry['is_directory'] else '[FILE]'} {entry['name']}" for entry in entries]
    structured = [
        {"name": entry["name"], "isDirectory": entry["is_directory"], "size": entry["size"]} for entry in entries
    ]
    return said("\n".join(lines), {"entries": structured})


@runs(GetFileInfo)
@_failing_to("get file status")
async def get_file_info(session: Session, tool: GetFileInfo) -> ToolReply:
    info, _ = await session.call("stat", {"path": tool.path})
    lines = {
        "size": info["size"],
        "created": _time(info["ctime"]),
        "modified": _time(info["mtime"]),
        "accessed": _time(info["atime"]),
        "isDirectory": _truth(info["is_directory"]),
        "isFile": _truth(info["is_file"]),
        "permissions": info["permissions"],
    }
    return said("\n".join(f"{key}: {value}" for key, value in lines.items()))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _truth(value: object) -> str:
    return "true" if value else "false"


@runs(CreateDirectory)
@_failing_to("create directory")
async def create_directory(session: Session, tool: CreateDirectory) -> ToolReply:
    await session.call("mkdir", {"path": tool.path})
    return said(_DONE)


@runs(DeleteFile)
@_failing_to("delete file")
async def delete_file(session: Session, tool: DeleteFile) -> ToolReply:
    await session.call("remove", {"path": tool.path, "recursive": True})
    return said(_DONE)


@runs(MoveFile)
@_failing_to("move file")
async def move_file(session: Session, tool: MoveFile) -> ToolReply:
    await session.call("move", {"source": tool.source, "target": tool.destination})
    return said(_DONE)


@runs(SearchFiles)
@_failing_to("search files")
async def search_files(session: Session, tool: SearchFiles) -> ToolReply:
    excluded = [pattern for pattern in (tool.exclude_patterns or "").split(",") if pattern]
    result, _ = await session.call("search", {"path": tool.path, "pattern": tool.pattern, "exclude": excluded})
    return said("\n".join(result["matches"]) or "No matches found", {"matches": result["matches"]})


@runs(EditFile)
@_failing_to("edit file")
async def edit_file(session: Session, tool: EditFile) -> ToolReply:
    edits = [(edit.old_text, edit.new_text) for edit in tool.edits]
    if not all(old for old, _ in edits):
        return failed("oldText must not be empty")
    payload = json.dumps(edits).encode()
    result, _ = await session.call("edit", {"path": tool.path, "dry_run": tool.dry_run}, payload)
    return said(result["diff"] or _DONE, {"diff": result["diff"]})


@runs(ReadMultipleFiles)
@_failing_to("read files")
async def read_multiple_files(session: Session, tool: ReadMultipleFiles) -> ToolReply:
    """Read each; the structured part has the contents whole, in the text the form's own separators may occur."""
    check_text(*tool.paths)
    left, texts, files = _READ_LIMIT, list[str](), list[dict[str, str]]()
    for path in tool.paths:
        try:
            _, data = await session.call("read", {"path": path, "length": left + 1})
        except FileOperationFailed as error:
            reason = f"Failed to read file: {error.path}, error: {error.strerror}"
            texts.append(f"{path}: Error - {reason}")
            files.append({"path": path, "error": reason})
            continue
        left -= len(data)
        if left < 0:
            return failed(f"The files are more than {_READ_LIMIT >> 20} MiB together; read them one by one")
        texts.append(f"{path}:\n{data.decode('utf-8', 'replace')}\n")
        files.append({"path": path, **_content(data)})
    return said("\n---\n".join(texts), {"files": files})


def _content(data: bytes) -> dict[str, str]:
    try:
        return {"content": data.decode()}
    except UnicodeDecodeError as error:
        return {"error": f"The file is not UTF-8 text: it has the byte {data[error.start]:#04x} at {error.start}"}


@runs(GetFileChange)
@_failing_to("get file change")
async def get_file_change(session: Session, tool: GetFileChange) -> ToolReply:
    return said(json.dumps(await session.changes.since_last(session.call, tool.path), ensure_ascii=False))
