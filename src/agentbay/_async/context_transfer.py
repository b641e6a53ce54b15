"""Files and directories of this machine, to and from a context."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .._concurrency import async_blocking
from .._disk import LocalSource, LocalTarget, local_files
from .._transport.contexts import below
from .._transport.deadline import Deadline
from .._transport.presigned import IDLE_SECONDS
from ..errors import NotFoundError
from ..models.context_results import ContextTransfer
from .presigned import Progress, Way, check_size, fetch_file, send_file

if TYPE_CHECKING:
    from .context import AsyncContextService


class _Remote(NamedTuple):
    """A file of a context; `name` is its path below what was asked for, or ""."""

    path: str
    name: str
    size: int | None


class _Sum:
    """Progress of several files as one."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self.done = progress, 0

    def tell(self, current: int) -> None:
        if self._progress is not None:
            self._progress(self.done + current)


async def upload(
    service: AsyncContextService,
    context_id: str,
    local_path: str | os.PathLike[str],
    path: str,
    progress: Progress | None,
    timeout: float | None,
) -> ContextTransfer:
    """Copy local files into a context, one after the other."""
    total = _Sum(progress)
    way = _way(service, total, timeout)
    sent = []
    for file in await async_blocking(local_files, local_path):
        place = f"{path.rstrip('/')}/{file.name}" if file.name else path
        source = await async_blocking(LocalSource, file.path)
        try:
            await _send(service, way, context_id, source, place)
        finally:
            source.close()
        total.done += source.size
        sent.append(place)
    return ContextTransfer(tuple(sorted(sent)), total.done)


async def _send(service: AsyncContextService, way: Way, context_id: str, source: LocalSource, place: str) -> None:
    label = f"upload of {place}"
    url = (await service.get_file_upload_url(context_id, place)).unwrap().url
    moved = await send_file(way, url, source, label)
    if not moved.proven:
        url = (await service.get_file_download_url(context_id, place)).unwrap().url
        await check_size(way, url, source.size, label)


async def download(
    service: AsyncContextService,
    context_id: str,
    path: str,
    local_path: str | os.PathLike[str],
    overwrite: bool,
    progress: Progress | None,
    timeout: float | None,
) -> ContextTransfer:
    """Copy files of a context to this machine, one after the other."""
    total = _Sum(progress)
    way = _way(service, total, timeout)
    root = Path(local_path)
    fetched = []
    async for file in _remote_files(service, way, context_id, path):
        target = await async_blocking(LocalTarget, root / file.name if file.name else root, overwrite=overwrite)
        try:
            url = (await service.get_file_download_url(context_id, file.path)).unwrap().url
            moved = await fetch_file(way, url, target, f"download of {file.path}", file.size)
            await async_blocking(target.commit)
        finally:
            target.discard()
        total.done += moved.size
        fetched.append(file.path)
    return ContextTransfer(tuple(sorted(fetched)), total.done)


async def _remote_files(service: AsyncContextService, way: Way, context_id: str, path: str) -> AsyncIterator[_Remote]:
    """All files below a folder, or the file itself if it has no entries, as a file has none."""
    folders, found = [("", path)], False
    while folders:
        prefix, folder = folders.pop()
        try:
            async for entry in service.iter_files(context_id, folder):
                way.deadline.check(f"The download of {path}")
                found = True
                place = below(folder, entry.file_name)
                name = f"{prefix}{place.rpartition('/')[2]}"
                if entry.is_folder:
                    folders.append((f"{name}/", place))
                else:
                    yield _Remote(place, name, entry.size)
        except NotFoundError:
            if found:
                raise
    if not found:
        yield _Remote(path, "", None)


def _way(service: AsyncContextService, total: _Sum, timeout: float | None) -> Way:
    deadline = Deadline(math.inf if timeout is None else timeout)
    return Way(service.agent_bay.client, deadline, IDLE_SECONDS, progress=total.tell)
