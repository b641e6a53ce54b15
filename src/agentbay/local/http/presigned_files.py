"""The route of presigned URLs, by which files of contexts are uploaded and downloaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator
from typing import IO, Protocol

from agentbay.local.api_errors import invalid_request
from agentbay.local.contexts.backend import StagingDirectory
from agentbay.local.contexts.errors import file_not_found
from agentbay.local.contexts.service import ContextService
from agentbay.local.contexts.url_signing import verify_token
from agentbay.local.http.asgi import BodyTooLarge, Receive, Request, Response, ResponseAborted, iter_body_blocks

PATH_PREFIX = "/objects/"
MAX_FILE_BYTES = 5 << 30  # as object stores accept in one request
_CHUNK_BYTES = 1 << 20


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...


async def serve_presigned_file(contexts: ContextService, request: Request, receive: Receive) -> Response:
    """Write or read the file that a presigned URL names.

    Raises:
        AgentBayError: The URL does not allow that, or there is no such file.
        BodyTooLarge: The file is larger than `MAX_FILE_BYTES`.
    """
    token = request.path.removeprefix(PATH_PREFIX).partition("/")[0]
    context_id, key = verify_token(token, contexts.url_signing_key, request.method)
    request.mark_authenticated()
    if request.method == "PUT":
        return await _put(contexts, context_id, key, request, receive)
    return await _get(contexts, context_id, key, head=request.method == "HEAD")


async def _put(contexts: ContextService, context_id: str, key: str, request: Request, receive: Receive) -> Response:
    if int(request.headers.get("content-length") or 0) > MAX_FILE_BYTES:
        raise BodyTooLarge(MAX_FILE_BYTES)
    # Asked before the body, so that no client sends gigabytes for a context that does not exist.
    await contexts.run_in_thread(contexts.store.find, context_id)
    with contexts.store.staging() as staging:
        name, digest = await _receive_body(contexts, staging, receive)
        await contexts.run_in_thread(contexts.store.commit, context_id, staging, [["put", key, name, None, False]])
    return Response(200, b"", headers=((b"etag", f'"{digest}"'.encode()),))


async def _receive_body(contexts: ContextService, staging: StagingDirectory, receive: Receive) -> tuple[str, str]:
    """Write the body into a staged file and return its name and SHA-256."""
    name, fd = staging.create_file()
    digest, size = hashlib.sha256(), 0
    try:
        async for block in iter_body_blocks(receive):
            size += len(block)
            if size > MAX_FILE_BYTES:
                raise BodyTooLarge(MAX_FILE_BYTES)
            await contexts.run_in_thread(_write, staging, fd, digest, block)
        staging.finish(fd)
    except OSError as error:
        raise invalid_request(f"The file cannot be kept: {error.strerror}.", "InsufficientStorage") from error
    finally:
        os.close(fd)
    return name, digest.hexdigest()


def _write(staging: StagingDirectory, fd: int, digest: _Digest, data: bytes) -> None:
    digest.update(data)
    staging.write(fd, data)


async def _get(contexts: ContextService, context_id: str, key: str, *, head: bool) -> Response:
    file, size = await contexts.run_in_thread(_open, contexts, context_id, key)
    # Shown instead of saved, a file of HTML would run its scripts in the origin of the dashboard.
    headers = ((b"content-disposition", b"attachment"),)
    if head:
        file.close()
    stream = None if head else _read_chunks(contexts, file, size)
    return Response(200, b"", "application/octet-stream", headers=headers, stream=stream, length=size)


def _open(contexts: ContextService, context_id: str, key: str) -> tuple[IO[bytes], int]:
    with contexts.store.open_reader(context_id) as reader:
        try:
            file = reader.open(contexts.store.resolve_key(context_id, key))
        except FileNotFoundError:
            raise file_not_found(key, 404) from None  # as object stores do
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return file, size


async def _read_chunks(contexts: ContextService, file: IO[bytes], size: int) -> AsyncGenerator[bytes, None]:
    # A file can grow or shrink through a mount meanwhile. The answer's head has promised `size` bytes.
    try:
        left = size
        while left:
            piece = await contexts.run_in_thread(file.read, min(_CHUNK_BYTES, left))
            if not piece:
                raise ResponseAborted
            left -= len(piece)
            yield piece
    finally:
        file.close()
