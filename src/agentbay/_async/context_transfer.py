"""Copies of local files and directories to and from a context."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .._concurrency import async_run_blocking
from .._local_files import LocalSource, LocalTarget, list_local_files
from .._transport.contexts import child_path
from .._transport.deadline import Deadline
from .._transport.presigned import IDLE_TIMEOUT_SECONDS
from ..errors import NotFoundError
from ..models.context_results import ContextTransfer
from .presigned import ByteProgressCallback, TransferSettings, fetch_file, send_file, verify_stored_size

if TYPE_CHECKING:
    from .context_files import AsyncContextFiles


class _RemoteFile(NamedTuple):
    """A file of a context and its path below the folder asked for.

    `name` is "" if the file itself was asked for.
    """

    path: str
    name: str
    size: int | None


class _CombinedProgress:
    """The progress of several files as one number of bytes."""

    def __init__(self, progress: ByteProgressCallback | None) -> None:
        self._progress, self.bytes_done = progress, 0

    def report(self, current: int) -> object:
        return None if self._progress is None else self._progress(self.bytes_done + current)


async def upload_to_context(
    service: AsyncContextFiles,
    context_id: str,
    local_path: str | os.PathLike[str],
    path: str,
    progress: ByteProgressCallback | None,
) -> ContextTransfer:
    """Copy local files into a context, one after the other."""
    total = _CombinedProgress(progress)
    settings = _make_transfer_settings(service, total)
    sent = []
    for file in await async_run_blocking(list_local_files, local_path):
        remote_path = f"{path.rstrip('/')}/{file.name}" if file.name else path
        source = await async_run_blocking(LocalSource, file.path)
        try:
            await _upload_file(service, settings, context_id, source, remote_path)
        finally:
            source.close()
        total.bytes_done += source.size
        sent.append(remote_path)
    return ContextTransfer(tuple(sorted(sent)), total.bytes_done)


async def _upload_file(
    service: AsyncContextFiles, settings: TransferSettings, context_id: str, source: LocalSource, remote_path: str
) -> None:
    label = f"upload of {remote_path}"
    url = (await service.get_file_upload_url(context_id, remote_path)).unwrap().url
    moved = await send_file(settings, url, source, label)
    # A storage whose ETag is no MD5 proves nothing, so at least the size is compared.
    if not moved.is_verified:
        url = (await service.get_file_download_url(context_id, remote_path)).unwrap().url
        await verify_stored_size(settings, url, source.size, label)


async def download_from_context(
    service: AsyncContextFiles,
    context_id: str,
    path: str,
    local_path: str | os.PathLike[str],
    overwrite: bool,
    progress: ByteProgressCallback | None,
) -> ContextTransfer:
    """Copy files of a context to this machine, one after the other."""
    total = _CombinedProgress(progress)
    settings = _make_transfer_settings(service, total)
    root = Path(local_path)
    fetched = []
    async for file in _remote_files(service, settings, context_id, path):
        target = await async_run_blocking(LocalTarget, root / file.name if file.name else root, overwrite=overwrite)
        try:
            url = (await service.get_file_download_url(context_id, file.path)).unwrap().url
            moved = await fetch_file(settings, url, target, f"download of {file.path}", file.size)
            await async_run_blocking(target.commit)
        finally:
            target.discard()
        total.bytes_done += moved.size
        fetched.append(file.path)
    return ContextTransfer(tuple(sorted(fetched)), total.bytes_done)


async def _remote_files(
    service: AsyncContextFiles, settings: TransferSettings, context_id: str, path: str
) -> AsyncIterator[_RemoteFile]:
    """Yield all files below a folder, or the file itself.

    A path without entries is a file, since the service lists a file as an empty folder.
    """
    folders, found = [("", path)], False
    while folders:
        prefix, folder = folders.pop()
        try:
            async for entry in service.iter_files(context_id, folder):
                settings.deadline.remaining_or_raise(f"The download of {path}")
                found = True
                # Names from the service are not trusted: one such as `..` would write outside of the local directory.
                remote_path = child_path(folder, entry.file_name)
                name = f"{prefix}{remote_path.rpartition('/')[2]}"
                if entry.is_folder:
                    folders.append((f"{name}/", remote_path))
                else:
                    yield _RemoteFile(remote_path, name, entry.size)
        except NotFoundError:
            # A path of a file is no folder, so the service may not find it. Once entries were seen, it is a real
            # failure.
            if found:
                raise
    if not found:
        yield _RemoteFile(path, "", None)


def _make_transfer_settings(service: AsyncContextFiles, total: _CombinedProgress) -> TransferSettings:
    return TransferSettings(service.agent_bay.client, Deadline(math.inf), IDLE_TIMEOUT_SECONDS, progress=total.report)
