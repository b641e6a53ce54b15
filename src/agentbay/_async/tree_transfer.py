"""Push and pull: transfers of directories that send only what differs.

They use the session's tools.
"""

from __future__ import annotations

import base64
import secrets
import tempfile
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .. import _local_tree as disk
from .._concurrency import async_run_blocking, async_sleep
from .._display import progress as show_progress
from .._transport import tree_plan as trees
from .._transport.command import read_command_result
from .._transport.deadline import Deadline
from .._transport.files import READ_CHUNK_BYTES, WRITE_CHUNK_BYTES, decode_base64
from .._transport.poll import poll_delays
from .._wire.tools import DeleteFile, ReadFile, Shell, WriteFile, mark_internal
from ..errors import AgentBayError, FileError
from ..models.tree import TreeProgress, TreeReport
from .callbacks import invoke_callback
from .service import text_or_raise

if TYPE_CHECKING:
    from .._wire.schema import Tool
    from .filesystem import AsyncFileSystem

_ARCHIVE_CHUNK_BYTES, _DIRECT_ARCHIVE_CHUNK_BYTES = (
    WRITE_CHUNK_BYTES // 4 * 3,
    3 << 20,
)  # bytes of an archive in one call; multiples of 3, for base64
_COMMAND_TIMEOUT_SECONDS = 600.0  # seconds that the session may take to list, pack or unpack
_CHUNK_TIMEOUT_SECONDS = 60.0  # seconds that one piece may take
_TREE_RETRY_SECONDS = 120.0  # seconds for which a lost connection is tried again


class AsyncTreeTransfer:
    """One push or pull."""

    def __init__(
        self,
        files: AsyncFileSystem,
        local: Path,
        remote: str,
        ignored: Callable[[str, bool], bool],
        checksum: bool,
        progress: disk.TreeProgressCallback | None,
    ) -> None:
        self._session = files.session
        self._has_direct_link = bool(files.session.link_url and files.session.token)
        self._local, self._remote = local, remote
        self._ignored, self._checksum, self._progress = ignored, checksum, progress
        self._last_progress = TreeProgress(0, 0, 0, 0)

    async def push(self, delete: bool) -> TreeReport:
        """Make the session's directory equal to the local one."""
        if not await async_run_blocking(self._local.is_dir):
            raise FileError(f"{self._local} is not a directory.")
        here, there = await self._list_both()
        plan = trees.plan_transfer(here, there, delete=delete)
        await self._report_progress(0, plan, 0)
        if plan.deleted:
            staged = await self._stage_paths(plan.deleted)
            await self._run_command(trees.delete_script(self._remote, staged))
        if not there and not plan.copied:
            await self._run_command(f"mkdir -p -- {trees.quote_path(self._remote)}")
        done = 0
        for batch in plan.batches:
            size = sum(here[path].size for path in batch)
            archive = await async_run_blocking(disk.Archive, self._local, batch)
            try:
                staged = await self._stage_archive(archive, plan, size)
            finally:
                archive.close()
            await self._run_command(trees.unpack_script(self._remote, staged, secrets.token_hex(8)))
            done += len(batch)
            await self._report_progress(done, plan, self._last_progress.bytes_done + size)
        return TreeReport(copied=plan.copied, deleted=plan.deleted, unchanged=plan.unchanged, bytes=plan.bytes)

    async def pull(self, delete: bool) -> TreeReport:
        """Make the local directory equal to the session's."""
        here, there = await self._list_both()
        plan = trees.plan_transfer(there, here, delete=delete)
        await self._report_progress(0, plan, 0)
        await async_run_blocking(self._local.mkdir, parents=True, exist_ok=True)
        await async_run_blocking(disk.delete_paths, self._local, plan.deleted)
        report = TreeReport(deleted=plan.deleted, unchanged=plan.unchanged, bytes=plan.bytes)
        done = 0
        for batch in plan.batches:
            with tempfile.TemporaryFile() as file:
                await self._fetch_batch(batch, file)
                report.skipped += await async_run_blocking(disk.unpack_archive, self._local, file, set(batch))
            done += len(batch)
            await self._report_progress(
                done, plan, self._last_progress.bytes_done + sum(there[path].size for path in batch)
            )
        report.copied = sorted(set(plan.copied) - set(report.skipped))
        return report

    async def _list_both(self) -> tuple[trees.Tree, trees.Tree]:
        """List both directories, without what is ignored."""
        here: trees.Tree = {}
        if await async_run_blocking(self._local.exists):
            here = await async_run_blocking(disk.scan_tree, self._local, self._ignored, digests=self._checksum)
        out = f"/tmp/{trees.TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        await self._run_command(trees.list_script(self._remote, out, digests=self._checksum))
        with tempfile.TemporaryFile() as file:
            await self._download_and_delete(out, file)
            file.seek(0)
            there = trees.read_tree_listing(await async_run_blocking(file.read))
        trees.check_paths(there)
        return here, trees.without_ignored(there, self._ignored)

    async def _stage_archive(self, archive: disk.Archive, plan: trees.TransferPlan, size: int) -> str:
        """Upload an archive to a temporary file of the session.

        Pieces that an earlier attempt has uploaded, also by another program, are not sent again.
        """
        staged = f"/tmp/{trees.TEMPORARY_PREFIX}{archive.digest[:32]}"
        step = _DIRECT_ARCHIVE_CHUNK_BYTES if self._has_direct_link else _ARCHIVE_CHUNK_BYTES
        before = self._last_progress
        retry_until = Deadline(_TREE_RETRY_SECONDS)
        pauses = poll_delays(retry_until, first=0.1, factor=2.0, cap=5.0)
        offset = await self._get_staged_size(staged, step, archive.size)
        while offset < archive.size:
            piece = await async_run_blocking(archive.read, offset, step)
            text = base64.b64encode(piece).decode()
            call = WriteFile(path=staged, content=text, mode="append" if offset else "overwrite")
            try:
                await self._run_tool(call)
            except AgentBayError as error:  # it may have been written: the next look at the size decides
                pause = next(pauses, None)
                if not error.retryable or pause is None:
                    raise
                await async_sleep(pause)
                offset = await self._get_staged_size(staged, step, archive.size)
                continue
            offset += len(piece)
            await self._report_progress(before.files_done, plan, before.bytes_done + size * offset // archive.size)
        self._last_progress = before
        return staged

    async def _get_staged_size(self, staged: str, step: int, size: int) -> int:
        """Return how many bytes of an archive were uploaded in whole pieces."""
        out = await self._run_command(f"wc -c < {staged} 2>/dev/null || echo 0")
        written = int(out.split()[-1])
        if written == -(-size // 3) * 4:
            return size
        whole, rest = divmod(written, step // 3 * 4)
        return whole * step if not rest and whole * step < size else 0

    async def _fetch_batch(self, batch: list[str], file: IO[bytes]) -> None:
        out = f"/tmp/{trees.TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        await self._run_command(trees.pack_script(self._remote, await self._stage_paths(batch), out))
        await self._download_and_delete(out, file)

    async def _stage_paths(self, paths: Iterable[str]) -> str:
        staged = f"/tmp/{trees.TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        text = trees.encode_paths(paths)
        step = _DIRECT_ARCHIVE_CHUNK_BYTES if self._has_direct_link else WRITE_CHUNK_BYTES
        for start in range(0, len(text), step):
            await self._run_tool(WriteFile(path=staged, content=text[start : start + step], mode="append"))
        return staged

    async def _download_and_delete(self, path: str, file: IO[bytes]) -> None:
        """Fetch a file of the session and remove it there."""
        offset, step = 0, _DIRECT_ARCHIVE_CHUNK_BYTES if self._has_direct_link else READ_CHUNK_BYTES
        while True:
            text = await self._run_tool_with_retry(ReadFile(path=path, offset=offset, length=step, format="binary"))
            piece = decode_base64(text)
            await async_run_blocking(file.write, piece)
            offset += len(piece)
            if len(piece) < step:
                break
        await self._run_tool(DeleteFile(path=path))

    async def _run_tool_with_retry(self, tool: Tool) -> str:
        """Call an idempotent tool, and again if the answer was lost."""
        retry_until = Deadline(_TREE_RETRY_SECONDS)
        for pause in poll_delays(retry_until, first=0.1, factor=2.0, cap=5.0):
            try:
                return await self._run_tool(tool)
            except AgentBayError as error:
                if not error.retryable or retry_until.remaining() <= pause:
                    raise
                await async_sleep(pause)
        raise retry_until.exceeded_error(tool.tool)

    async def _run_tool(self, tool: Tool) -> str:
        return text_or_raise(
            await self._session._run_tool(tool, timeout=max(_CHUNK_TIMEOUT_SECONDS, self._session.timeout)), FileError
        )

    async def _run_command(self, command: str) -> str:
        call = Shell(command=mark_internal(command), timeout_ms=int(_COMMAND_TIMEOUT_SECONDS * 1000))
        reply = await self._session._run_tool(call, timeout=_COMMAND_TIMEOUT_SECONDS + 10)
        result = read_command_result(reply)
        if not result.success:
            if result.exception is not None:
                raise result.exception
            raise FileError(f"{self._remote}: {result.error_message.strip()}", request_id=reply.request_id)
        return result.stdout

    async def _report_progress(self, files: int, plan: trees.TransferPlan, size: int) -> None:
        self._last_progress = TreeProgress(files, len(plan.copied), size, plan.bytes)
        if self._progress is not None:
            await invoke_callback(self._progress, self._last_progress)


async def transfer_tree(
    files: AsyncFileSystem,
    way: str,
    local: Any,
    remote: str,
    ignore: Iterable[str],
    delete: bool,
    checksum: bool,
    progress: disk.TreeProgressCallback | bool | None,
) -> TreeReport:
    """Push or pull a directory."""
    if isinstance(ignore, str):
        raise TypeError("ignore must be a list of patterns, not one pattern")
    with show_progress(f"{way} {remote}") if progress is True else nullcontext(progress or None) as tell:
        work = AsyncTreeTransfer(files, Path(local), remote, trees.gitignore_matcher(ignore), checksum, tell)
        return await (work.push(delete) if way == "push" else work.pull(delete))
