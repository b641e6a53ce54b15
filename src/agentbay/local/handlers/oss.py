"""The storage tools: the service moves bytes between a session's files and object storage, block by block."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from agentbay._wire.tools import (
    OssDownload,
    OssDownloadAnonymous,
    OssEnvInit,
    OssUpload,
    OssUploadAnonymous,
    ToolReply,
)
from agentbay.local import egress
from agentbay.local.dispatch import runs
from agentbay.local.sandbox.host import FileOperationFailed
from agentbay.local.session import Session
from agentbay.local.storage import NoLibrary, Storage, refusal
from agentbay.local.tooling import check_text, failed, said

_BLOCK = 4 << 20
_UPLOADED, _DOWNLOADED = "Upload success", "Download success"


@runs(OssEnvInit)
async def env_init(session: Session, tool: OssEnvInit) -> ToolReply:
    if not tool.access_key_id or not tool.access_key_secret:
        return failed("access_key_id and access_key_secret must not be empty")
    session.storage = Storage(
        tool.access_key_id, tool.access_key_secret, tool.security_token, tool.endpoint or "", tool.region or ""
    )
    return said("OSS environment initialized")


@runs(OssUploadAnonymous)
async def upload_anonymous(session: Session, tool: OssUploadAnonymous) -> ToolReply:
    from agentbay.local.fetch import request

    try:
        size = await _size(session, tool.path)
        async with aclosing(_blocks(session, tool.path, size)) as blocks:
            headers = {"Content-Length": str(size)}
            async with request("PUT", tool.url, headers, blocks) as response:
                await _accept(response)
    except (egress.Refused, FileOperationFailed, ValueError) as error:
        return _failed("Upload", error)
    return said(_UPLOADED)


@runs(OssDownloadAnonymous)
async def download_anonymous(session: Session, tool: OssDownloadAnonymous) -> ToolReply:
    from agentbay.local.fetch import request

    try:
        check_text(tool.path)
        async with request("GET", tool.url, {}) as response:
            await _accept(response)
            await _save(session, tool.path, response.aiter_stream())
    except (egress.Refused, FileOperationFailed, ValueError) as error:
        return _failed("Download", error)
    return said(_DOWNLOADED)


@runs(OssUpload)
async def upload(session: Session, tool: OssUpload) -> ToolReply:
    try:
        storage = _storage(session)
        size = await _size(session, tool.path)
        async with aclosing(_blocks(session, tool.path, size)) as blocks:
            await storage.put(tool.bucket, tool.object, blocks)
    except (egress.Refused, NoLibrary, FileOperationFailed, ValueError) as error:
        return _failed("Upload", error)
    return said(_UPLOADED)


@runs(OssDownload)
async def download(session: Session, tool: OssDownload) -> ToolReply:
    try:
        check_text(tool.path)
        async with aclosing(_storage(session).get(tool.bucket, tool.object)) as blocks:
            await _save(session, tool.path, blocks)
    except (egress.Refused, NoLibrary, FileOperationFailed, ValueError) as error:
        return _failed("Download", error)
    return said(_DOWNLOADED)


def _storage(session: Session) -> Storage:
    if session.storage is None:
        raise egress.Refused("there are no credentials; call oss_env_init first")
    return session.storage


async def _size(session: Session, path: str) -> int:
    check_text(path)
    info, _ = await session.call("stat", {"path": path})
    if not info["is_file"]:
        raise egress.Refused(f"{path} is not a file")
    return int(info["size"])


async def _blocks(session: Session, path: str, size: int) -> AsyncGenerator[bytes, None]:
    sent = 0
    while sent < size:
        _, block = await session.call("read", {"path": path, "offset": sent, "length": min(_BLOCK, size - sent)})
        if not block:
            raise egress.Refused(f"{path} became shorter while it was sent")
        sent += len(block)
        yield block


async def _save(session: Session, path: str, blocks: AsyncIterator[bytes]) -> None:
    """Write to a temporary name beside the file's own, which it gets when it is whole."""
    scratch = os.path.join(os.path.dirname(path), f".agentbay-{secrets.token_hex(8)}")
    try:
        pending = bytearray()
        async for block in blocks:
            pending += block
            if len(pending) >= _BLOCK:
                await session.call("write", {"path": scratch, "mode": "append"}, bytes(pending))
                pending.clear()
        await session.call("write", {"path": scratch, "mode": "append"}, bytes(pending))
        await session.call("move", {"source": scratch, "target": path})
    except BaseException:
        await _discard(session, scratch)
        raise


async def _discard(session: Session, scratch: str) -> None:
    try:
        await session.call("remove", {"path": scratch})
    except FileOperationFailed:  # it was not even begun
        pass


async def _accept(response: Any) -> None:
    if 200 <= response.status < 300:
        return
    said_why = bytearray()
    async for part in response.aiter_stream():
        said_why += part
        if len(said_why) > 4096:
            break
    raise egress.Refused(refusal(response.status, said_why.decode("utf-8", "replace")))


def _failed(what: str, error: Exception) -> ToolReply:
    reason = f"{error.path}: {error.strerror}" if isinstance(error, FileOperationFailed) else str(error)
    return said(f"{what} failed: {reason}", is_error=True)
