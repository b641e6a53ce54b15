"""The files of a session, for a person who looks: directories, the beginning of a text, and whole files to keep."""

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
_MAX_ENTRIES = 2000  # entries of a directory
_PREVIEW_BYTES = 256 << 10  # bytes of a text
_PIECE_BYTES = 4 << 20


async def list_directory(session: Session, path: str) -> Response:
    """Say what a directory holds: directories first, then by name."""
    reply, _ = await _call_file_operation(session, ListDirectory(_check_path(path)))
    entries = sorted(reply.entries, key=lambda entry: (not entry["is_directory"], entry["name"]))
    kept = ("name", "is_directory", "is_symlink", "is_file", "size", "mtime")
    shown = [{name: value for name, value in entry.items() if name in kept} for entry in entries[:_MAX_ENTRIES]]
    return json_response({"entries": shown, "more": len(entries) - len(shown)})


async def read_text_preview(session: Session, path: str) -> Response:
    """Give the beginning of a file if it is text."""
    reply, data = await _call_file_operation(session, ReadFile(_check_path(path), length=_PREVIEW_BYTES))
    if b"\0" in data:
        return json_response({"size": reply.size, "text": None, "more": 0})
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(data)  # of which no character is cut in two
    return json_response({"size": reply.size, "text": text, "more": max(0, reply.size - len(data))})


async def download(session: Session, path: str) -> Response:
    """Give a whole file, in pieces."""
    path = _check_path(path)
    reply, first = await _call_file_operation(session, ReadFile(path, length=_PIECE_BYTES))
    headers = ((b"content-disposition", b"attachment"),)
    stream = _pieces(session, path, reply.size, first)
    return Response(200, b"", "application/octet-stream", headers, stream, length=reply.size)


async def _pieces(session: Session, path: str, size: int, piece: bytes) -> AsyncGenerator[bytes, None]:
    """Yield `size` bytes; of a file that has become shorter the answer breaks off, which the browser notices."""
    done = 0
    while piece := piece[: size - done]:
        yield piece
        done += len(piece)
        if done < size:
            _, piece = await _call_file_operation(session, ReadFile(path, done, _PIECE_BYTES))


def _check_path(path: str) -> str:
    """Return a path without detours if it is in a place that the page shows.

    Inside the session that is no boundary, its view of the file system is; it keeps the page to what is the user's.
    """
    plain = posixpath.normpath(path)
    if "\0" in path or not any(plain == root or plain.startswith(root + "/") for root in VISIBLE_ROOTS):
        raise invalid_request(f"The page shows what is below {' and '.join(VISIBLE_ROOTS)}, not {path!r:.200}.")
    return plain


async def _call_file_operation(session: Session, request: FileRequest[ReplyT]) -> tuple[ReplyT, bytes]:
    try:
        with session.using(counts_as_activity=False) as sandbox:
            return await sandbox.run_file_operation(request)
    except FileOperationFailed as error:
        raise invalid_request(f"{error.path}: {error.strerror}", "FileNotReadable") from error
