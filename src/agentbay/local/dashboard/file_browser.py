"""The file browser of the dashboard: directories, previews of texts, downloads."""

from __future__ import annotations

import codecs
import posixpath
from collections.abc import AsyncGenerator

from agentbay.local.api_errors import invalid_request
from agentbay.local.http.asgi import Response, json_response
from agentbay.local.sandbox.service.manager import FileOperationFailed
from agentbay.local.sandbox.shared.file_protocol import FileRequest, ListDirectory, ReadFile, ReplyT
from agentbay.local.sandbox.shared.sandbox_config import CLIENT_HOME
from agentbay.local.sessions.session import Session

VISIBLE_ROOTS = (CLIENT_HOME, "/tmp")
_MAX_ENTRIES = 2000  # shown of one directory
_PREVIEW_BYTES = 256 << 10
_PIECE_BYTES = 4 << 20  # read from the sandbox at a time


async def list_directory(session: Session, path: str) -> Response:
    """List a directory: subdirectories first, then by name."""
    reply, _ = await _call_file_operation(session, ListDirectory(_check_path(path)))
    entries = sorted(reply.entries, key=lambda entry: (not entry["is_directory"], entry["name"]))
    kept = ("name", "is_directory", "is_symlink", "is_file", "size", "mtime")
    shown = [{name: value for name, value in entry.items() if name in kept} for entry in entries[:_MAX_ENTRIES]]
    return json_response({"entries": shown, "more": len(entries) - len(shown)})


async def read_text_preview(session: Session, path: str) -> Response:
    """Read the beginning of a file, if it is text."""
    reply, data = await _call_file_operation(session, ReadFile(_check_path(path), length=_PREVIEW_BYTES))
    if b"\0" in data:
        return json_response({"size": reply.size, "text": None, "more": 0})
    # The incremental decoder leaves out a character that the end of the preview cuts in two.
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(data)
    return json_response({"size": reply.size, "text": text, "more": max(0, reply.size - len(data))})


async def download(session: Session, path: str) -> Response:
    """Stream a whole file."""
    path = _check_path(path)
    reply, first = await _call_file_operation(session, ReadFile(path, length=_PIECE_BYTES))
    headers = ((b"content-disposition", b"attachment"),)
    stream = _pieces(session, path, reply.size, first)
    return Response(200, b"", "application/octet-stream", headers, stream, length=reply.size)


async def _pieces(session: Session, path: str, size: int, piece: bytearray) -> AsyncGenerator[bytes, None]:
    # If the file becomes shorter meanwhile, the answer has less than its Content-Length, which the browser notices.
    done = 0
    while piece := piece[: size - done]:
        yield bytes(piece)
        done += len(piece)
        if done < size:
            _, piece = await _call_file_operation(session, ReadFile(path, done, _PIECE_BYTES))


def _check_path(path: str) -> str:
    # This is not a boundary against path traversal: links can lead out, and the sandbox's mount namespace decides what
    # can be read. It keeps the dashboard to the user's own files.
    normal = posixpath.normpath(path)
    if "\0" in path or not any(normal == root or normal.startswith(root + "/") for root in VISIBLE_ROOTS):
        raise invalid_request(f"The page shows what is below {' and '.join(VISIBLE_ROOTS)}, not {path!r:.200}.")
    return normal


async def _call_file_operation(session: Session, request: FileRequest[ReplyT]) -> tuple[ReplyT, bytearray]:
    try:
        with session.using(counts_as_activity=False) as sandbox:
            return await sandbox.run_file_operation(request)
    except FileOperationFailed as error:
        raise invalid_request(f"{error.path}: {error.strerror}", "FileNotReadable") from error
