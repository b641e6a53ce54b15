"""The storage tools, which stream between a session's files and object storage."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from agentbay._wire import tools as wire
from agentbay.local.handlers.handler_tables import tool_handler
from agentbay.local.handlers.results import check_no_nul, error_result, text_result
from agentbay.local.outbound import destinations
from agentbay.local.outbound.storage import ObstoreMissing, OssClient, describe_http_error
from agentbay.local.sandbox.service.manager import FileOperationFailed, Sandbox
from agentbay.local.sandbox.shared.file_protocol import MovePath, ReadFile, RemovePath, StatPath, WriteFile
from agentbay.local.sessions.session import Session

_BLOCK_BYTES = 4 << 20  # held in memory at a time
_UPLOADED, _DOWNLOADED = "Upload success", "Download success"


@tool_handler(wire.OssEnvInit)
async def env_init(session: Session, tool: wire.OssEnvInit) -> wire.ToolReply:
    if not tool.access_key_id or not tool.access_key_secret:
        return error_result("access_key_id and access_key_secret must not be empty")
    session.oss_client = OssClient(
        tool.access_key_id, tool.access_key_secret, tool.security_token, tool.endpoint or "", tool.region or ""
    )
    return text_result("OSS environment initialized")


@tool_handler(wire.OssUploadAnonymous)
async def upload_anonymous(session: Session, tool: wire.OssUploadAnonymous) -> wire.ToolReply:
    try:
        with session.using() as sandbox:
            await _send(sandbox, tool.path, tool.url)
    except (destinations.TransferFailed, FileOperationFailed, ValueError) as error:
        return _transfer_error("Upload", error)
    return text_result(_UPLOADED)


@tool_handler(wire.OssDownloadAnonymous)
async def download_anonymous(session: Session, tool: wire.OssDownloadAnonymous) -> wire.ToolReply:
    try:
        check_no_nul(tool.path)
        with session.using() as sandbox:
            await _receive(sandbox, tool.path, tool.url)
    except (destinations.TransferFailed, FileOperationFailed, ValueError) as error:
        return _transfer_error("Download", error)
    return text_result(_DOWNLOADED)


@tool_handler(wire.OssUpload)
async def upload(session: Session, tool: wire.OssUpload) -> wire.ToolReply:
    try:
        storage = _require_storage(session)
        with session.using() as sandbox:
            url = await storage.sign("PUT", tool.bucket, tool.object)
            await _send(sandbox, tool.path, url, allowed_as=storage.host)
    except (destinations.TransferFailed, ObstoreMissing, FileOperationFailed, ValueError) as error:
        return _transfer_error("Upload", error)
    return text_result(_UPLOADED)


@tool_handler(wire.OssDownload)
async def download(session: Session, tool: wire.OssDownload) -> wire.ToolReply:
    try:
        check_no_nul(tool.path)
        storage = _require_storage(session)
        with session.using() as sandbox:
            url = await storage.sign("GET", tool.bucket, tool.object)
            await _receive(sandbox, tool.path, url, allowed_as=storage.host)
    except (destinations.TransferFailed, ObstoreMissing, FileOperationFailed, ValueError) as error:
        return _transfer_error("Download", error)
    return text_result(_DOWNLOADED)


async def _send(sandbox: Sandbox, path: str, url: str, *, allowed_as: str = "") -> None:
    from agentbay.local.outbound.fetch import stream_request

    size = await _size(sandbox, path)
    async with aclosing(_blocks(sandbox, path, size)) as blocks:
        headers = {"Content-Length": str(size)}
        async with stream_request("PUT", url, headers, blocks, allowed_as=allowed_as) as response:
            await _check_status(response)


async def _receive(sandbox: Sandbox, path: str, url: str, *, allowed_as: str = "") -> None:
    from agentbay.local.outbound.fetch import stream_request

    async with stream_request("GET", url, {}, allowed_as=allowed_as) as response:
        await _check_status(response)
        await _write_atomically(sandbox, path, response.aiter_stream())


def _require_storage(session: Session) -> OssClient:
    if session.oss_client is None:
        raise destinations.TransferFailed("there are no credentials; call oss_env_init first")
    return session.oss_client


async def _size(sandbox: Sandbox, path: str) -> int:
    check_no_nul(path)
    info, _ = await sandbox.run_file_operation(StatPath(path))
    if not info.is_file:
        raise destinations.TransferFailed(f"{path} is not a file")
    return info.size


async def _blocks(sandbox: Sandbox, path: str, size: int) -> AsyncGenerator[bytes, None]:
    sent = 0
    while sent < size:
        _, block = await sandbox.run_file_operation(ReadFile(path, sent, min(_BLOCK_BYTES, size - sent)))
        if not block:
            raise destinations.TransferFailed(f"{path} became shorter while it was sent")
        sent += len(block)
        yield bytes(block)


async def _write_atomically(sandbox: Sandbox, path: str, blocks: AsyncIterator[bytes]) -> None:
    """Write to a temporary file in the same directory, then rename it."""
    temporary = os.path.join(os.path.dirname(path), f".agentbay-{secrets.token_hex(8)}")
    try:
        pending = bytearray()
        async for block in blocks:
            pending += block
            if len(pending) >= _BLOCK_BYTES:
                await sandbox.run_file_operation(WriteFile(temporary, append=True), input=bytes(pending))
                pending.clear()
        await sandbox.run_file_operation(WriteFile(temporary, append=True), input=bytes(pending))
        await sandbox.run_file_operation(MovePath(temporary, path))
    except BaseException:
        # A client that disconnects cancels the transfer, which must not leave the file either.
        await _remove_temporary_file(sandbox, temporary)
        raise


async def _remove_temporary_file(sandbox: Sandbox, temporary: str) -> None:
    try:
        await sandbox.run_file_operation(RemovePath(temporary))
    except FileOperationFailed:  # it was not even begun
        pass


async def _check_status(response: Any) -> None:
    if 200 <= response.status < 300:
        return
    body = bytearray()
    async for part in response.aiter_stream():
        body += part
        # The server decides how long its error page is, and the message needs only the beginning.
        if len(body) > 4096:
            break
    raise destinations.TransferFailed(describe_http_error(response.status, body.decode("utf-8", "replace")))


def _transfer_error(what: str, error: Exception) -> wire.ToolReply:
    reason = f"{error.path}: {error.strerror}" if isinstance(error, FileOperationFailed) else str(error)
    return text_result(f"{what} failed: {reason}", is_error=True)
