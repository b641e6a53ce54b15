"""Push and pull: transfers of directories that send only what differs.

They use the session's tools.
"""

from __future__ import annotations

import base64
import errno
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from .. import _local_tree as disk, _local_unpack as unpacking
from .._concurrency import AsyncCallable, async_run_blocking, async_sleep
from .._display import progress as show_progress
from .._transport import tree_scripts as scripts
from .._transport.command import read_command_result, read_raw_command
from .._transport.deadline import Deadline
from .._transport.file_errors import file_text_or_raise, make_file_error, read_file_error
from .._transport.files import READ_CHUNK_BYTES, WRITE_CHUNK_BYTES, decode_base64
from .._transport.ignore_rules import gitignore_matcher
from .._transport.poll import poll_delays
from .._transport.tree_plan import (
    KIND_DIRECTORY,
    TEMPORARY_PREFIX,
    TransferPlan,
    TreeEntry,
    TreeScan,
    iter_parents,
    plan_transfer,
    topmost,
)
from .._wire.tools import DeleteFile, ReadFile, Shell, WriteFile, mark_internal
from ..errors import AgentBayError, FileError, PathNotFoundError
from ..models.tree import TreeProgress, TreeReport
from .callbacks import invoke_callback
from .waiting import clean_up

if TYPE_CHECKING:
    from .._transport.reply import Reply
    from .._wire.schema import Tool
    from .._wire.tools import ToolReply
    from .filesystem import AsyncFileSystem

ResultT = TypeVar("ResultT")
_DIRECT_BATCH_BYTES = 32 << 20  # of files that travel in one raw call, in memory
_ARCHIVE_CHUNK_BYTES, _DIRECT_ARCHIVE_CHUNK_BYTES = (
    WRITE_CHUNK_BYTES // 4 * 3,
    3 << 20,
)  # bytes of an archive in one call; multiples of 3, for base64
_COMMAND_TIMEOUT_SECONDS = 600.0  # seconds that the session may take to list, pack or unpack
_CHUNK_TIMEOUT_SECONDS = 60.0  # seconds that one piece may take
_MAX_LISTING_BYTES = 1 << 30  # of a listing of the session's directory; a session must not fill the memory here
_STAGE_ATTEMPTS = 5  # how often an archive is sent before the transfer fails
_DISCARD_TIMEOUT_SECONDS = 5.0  # seconds that the session may take to remove what a failed transfer has left
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
        self._takes_raw_calls = files.session._takes_raw_calls(Shell)
        self._local, self._remote = local, remote
        self._ignored, self._checksum, self._progress = ignored, checksum, progress
        self._last_progress = TreeProgress(0, 0, 0, 0)
        self._tokens: list[str] = []  # in the names of everything temporary in the session

    async def push(self, delete: bool) -> TreeReport:
        """Make the session's directory equal to the local one."""
        if not await async_run_blocking(self._local.is_dir):
            number = errno.ENOTDIR if self._local.exists() else errno.ENOENT
            raise make_file_error(f"{self._local} is not a directory.", number=number, path=str(self._local))
        here, there = await self._list_both()
        target = there or TreeScan()
        plan = plan_transfer(here, target, delete=delete)
        report = TreeReport(skipped=sorted({*plan.skipped, *here.left_out}), unchanged=plan.unchanged)
        await self._report_progress(0, plan, 0)
        # What is of another kind must go first, since a rename cannot put a file where a directory is.
        removed = await self._delete_remote(plan.replaced, target)
        # Unpacking creates the directory, but an empty local one has no archive to unpack.
        if there is None and not plan.copied:
            await self._run_command(f"mkdir -p -- {scripts.quote_path(self._remote)}")
        copied: set[str] = set()
        for batch in plan.batches:
            size = sum(here.entries[path].size for path in batch)
            is_direct = self._takes_raw_calls and size <= _DIRECT_BATCH_BYTES
            archive = await async_run_blocking(disk.Archive, self._local, batch, is_zipped=not is_direct)
            try:
                if is_direct:
                    await self._unpack_directly(archive)
                else:
                    await self._send_archive(archive, plan, size)
            finally:
                archive.close()
            copied.update(path for path in batch if path not in archive.missing)
            await self._report_progress(self._last_progress.files_done + len(batch), plan, self._bytes_done + size)
        # Last, so that a transfer that fails on the way has lost nothing that it does not replace.
        removed += await self._delete_remote(plan.extraneous, target)
        return self._finish_report(report, copied, removed, here)

    async def pull(self, delete: bool) -> TreeReport:
        """Make the local directory equal to the session's."""
        here, there = await self._list_both()
        if there is None:
            message = f"{self._remote} does not exist in the session."
            raise make_file_error(message, number=errno.ENOENT, path=self._remote)
        plan = plan_transfer(there, here, delete=delete)
        report = TreeReport(skipped=sorted({*plan.skipped, *there.left_out}), unchanged=plan.unchanged)
        await self._report_progress(0, plan, 0)
        await async_run_blocking(self._local.mkdir, parents=True, exist_ok=True)
        removed = await async_run_blocking(unpacking.delete_paths, self._local, plan.replaced)
        copied: set[str] = set()
        failed = set(there.unreadable)
        for batch in plan.batches:
            wanted = {path: there.entries[path] for path in batch}
            unpacked, missing = await self._pull_batch(wanted, there)
            copied |= unpacked.arrived
            failed |= missing
            report.skipped = sorted({*report.skipped, *unpacked.skipped})
            size = sum(entry.size for entry in wanted.values())
            await self._report_progress(self._last_progress.files_done + len(batch), plan, self._bytes_done + size)
        if failed:
            # Nothing is deleted after a failure: the local copy of an unreadable file may be the only one left.
            names = ", ".join(sorted(failed))
            raise FileError(f"{self._remote}: the session could not read {names}.", hint="The rest was copied.")
        removed += await async_run_blocking(unpacking.delete_paths, self._local, plan.extraneous)
        return self._finish_report(report, copied, removed, there)

    def _finish_report(self, report: TreeReport, copied: set[str], removed: list[str], source: TreeScan) -> TreeReport:
        report.copied, report.deleted = sorted(copied), topmost(removed)
        report.bytes = sum(source.entries[path].size for path in copied)
        return report

    async def _list_both(self) -> tuple[TreeScan, TreeScan | None]:
        """List both directories, or return None for a missing one in the session."""
        here = TreeScan()
        if await async_run_blocking(self._local.exists):
            here = await async_run_blocking(disk.scan_tree, self._local, self._ignored, digests=self._checksum)
        data = await self._fetch_listing()
        if not data:
            return here, None
        there = TreeScan(self._ignored)
        hidden: set[str] = set()
        for path, entry in scripts.read_tree_listing(data).items():
            # As in git, nothing below an ignored directory counts, whatever the other patterns say.
            if any(above in hidden for above in iter_parents(path)) or not there.add(path, entry):
                hidden.add(path)
        return here, there

    async def _fetch_listing(self) -> bytes:
        """Return what `scripts.list_script` writes."""
        out = self._temporary_path()
        script = scripts.list_script(self._remote, out, digests=self._checksum)
        if self._takes_raw_calls:
            return (await self._run_raw_command(lambda: scripts.print_script(script, out)))[0]
        with tempfile.TemporaryFile() as file:
            await self._fetch_output(script, out, file, _MAX_LISTING_BYTES)
            return await async_run_blocking(_read_all, file)

    async def _unpack_directly(self, archive: disk.Archive) -> None:
        """Send an archive to the script that unpacks it.

        It is sent again if the connection is lost.
        """
        content, tokens = await async_run_blocking(archive.read, 0, archive.size), list[str]()

        def make_script() -> str:
            tokens.append(self._new_token())
            return scripts.unpack_stream_script(self._remote, tokens[-1], tokens[:-1])

        await self._run_raw_command(make_script, content)

    async def _pack_directly(self, wanted: dict[str, TreeEntry], there: TreeScan) -> unpacking.UnpackedPaths | None:
        """Copy entries here, or return None if they were changed meanwhile."""
        names = scripts.encode_names(wanted)
        content, exit_code = await self._run_raw_command(
            lambda: scripts.pack_stream_script(self._remote, self._new_token()), names
        )
        if exit_code == scripts.CHANGED_EXIT_CODE:
            return None
        if len(content) > unpacking.archive_limit(wanted):
            raise FileError(f"{self._remote}: the session sends much more than it listed.")
        return await async_run_blocking(
            unpacking.unpack_archive, self._local, BytesIO(content), wanted, there.entries, is_zipped=False
        )

    async def _fetch_large_file(self, wanted: dict[str, TreeEntry], there: TreeScan) -> unpacking.UnpackedPaths | None:
        """Copy the only file of a batch here, piece by piece.

        Pieces need no room in the session. None means that it was changed meanwhile, or has holes, which archives leave
        out.
        """
        [(path, entry)] = wanted.items()
        before, behind = unpacking.archive_frame(path, entry)
        states = set[bytes]()
        with tempfile.TemporaryFile() as file:
            await async_run_blocking(file.write, before)
            for offset in range(0, entry.size, _DIRECT_BATCH_BYTES):
                length = min(_DIRECT_BATCH_BYTES, entry.size - offset)
                make_script = partial(scripts.read_piece_script, self._remote, offset, length)
                output, _ = await self._run_raw_command(make_script, scripts.encode_names(wanted))
                state, _, rest = output.partition(b"\n")
                states |= {state, rest[length:-1]}
                if len(states) > 1 or not scripts.is_whole_file(state, entry.size):
                    return None
                await async_run_blocking(file.write, rest[:length])
            await async_run_blocking(file.write, behind)
            return await async_run_blocking(
                unpacking.unpack_archive, self._local, file, wanted, there.entries, is_zipped=False
            )

    async def _send_archive(self, archive: disk.Archive, plan: TransferPlan, size: int) -> None:
        """Upload and unpack an archive, again if another transfer removed its pieces."""
        for _ in range(_STAGE_ATTEMPTS):
            try:
                staged = await self._stage_archive(archive, plan, size)
            except PathNotFoundError:  # another transfer removed the directory of the pieces while one was written
                continue
            script = scripts.unpack_script(self._remote, staged, self._new_token(), archive.digest)
            if scripts.RESTAGE not in await self._run_command(script):
                return
        raise FileError(f"{self._remote}: what arrived in the session was not what was sent, repeatedly.")

    async def _stage_archive(self, archive: disk.Archive, plan: TransferPlan, size: int) -> str:
        """Upload an archive in numbered pieces, and return their directory in the session.

        Writing a piece is idempotent, so attempts and other programs that send the same archive can share the pieces.
        """
        step = _DIRECT_ARCHIVE_CHUNK_BYTES if self._has_direct_link else _ARCHIVE_CHUNK_BYTES
        # The digest lets an interrupted transfer continue where it was. The step is in the name too, because pieces of
        # different sizes do not fit together.
        self._tokens.append(f"{archive.digest[:32]}-{step:x}")
        staged = f"/tmp/{TEMPORARY_PREFIX}{self._tokens[-1]}"
        before = self._last_progress
        have = scripts.read_pieces(await self._run_command(scripts.pieces_script(staged)))
        for number, offset in enumerate(range(0, archive.size, step)):
            piece = base64.b64encode(await async_run_blocking(archive.read, offset, step)).decode()
            # Comparing sizes is enough to skip a piece: the session checks the digest of the whole before it unpacks.
            if have.get(number) != len(piece):
                await self._run_tool_with_retry(WriteFile(path=scripts.piece_path(staged, number), content=piece))
            done = before.bytes_done + size * min(offset + step, archive.size) // archive.size
            await self._report_progress(before.files_done, plan, done)
        # The caller counts the batch as a whole. Otherwise a repeated upload would count its bytes twice.
        self._last_progress = before
        return staged

    async def _pull_batch(
        self, wanted: dict[str, TreeEntry], there: TreeScan
    ) -> tuple[unpacking.UnpackedPaths, set[str]]:
        """Copy entries here, and return what arrived and what the session could not read."""
        unpacked = None
        if self._takes_raw_calls:
            is_small = sum(entry.size for entry in wanted.values()) <= _DIRECT_BATCH_BYTES
            unpacked = await (self._pack_directly if is_small else self._fetch_large_file)(wanted, there)
        if unpacked is None:
            unpacked = await self._pack_and_fetch(wanted, there)
        missing = wanted.keys() - unpacked.arrived - unpacked.skipped
        if missing:  # what does not exist any more need not be copied
            script = scripts.existing_script(self._remote, await self._stage_paths(missing))
            missing &= set(scripts.decode_paths(await self._run_command(script)))
        return unpacked, missing

    async def _pack_and_fetch(self, wanted: dict[str, TreeEntry], there: TreeScan) -> unpacking.UnpackedPaths:
        """Copy entries here, by an archive that is fetched in pieces."""
        staged, out = await self._stage_paths(wanted), self._temporary_path()
        # `TemporaryFile` leaves nothing behind, however this process ends.
        with tempfile.TemporaryFile() as file:
            limit = unpacking.archive_limit(wanted)
            await self._fetch_output(scripts.pack_script(self._remote, staged, out), out, file, limit)
            return await async_run_blocking(unpacking.unpack_archive, self._local, file, wanted, there.entries)

    async def _delete_remote(self, paths: list[str], target: TreeScan) -> list[str]:
        """Remove entries of the session, children first, and return those that were removed."""
        if not paths:
            return []
        script = scripts.delete_script(self._remote, await self._stage_paths(paths))
        left = set(scripts.decode_paths(await self._run_command(script)))
        failed = sorted(path for path in left & set(paths) if target.entries[path].kind != KIND_DIRECTORY)
        if failed:
            raise FileError(f"{self._remote}: the session could not remove {', '.join(failed)}.")
        return [path for path in paths if path not in left]

    async def _stage_paths(self, paths: Iterable[str]) -> str:
        staged = self._temporary_path()
        text = scripts.encode_paths(paths)
        step = _DIRECT_ARCHIVE_CHUNK_BYTES if self._has_direct_link else WRITE_CHUNK_BYTES
        for start in range(0, len(text), step):
            # Appending is not idempotent: sent again after a lost answer, it could write a piece twice. So it is not
            # retried.
            await self._run_tool(WriteFile(path=staged, content=text[start : start + step], mode="append"))
        return staged

    async def _fetch_output(self, script: str, path: str, file: IO[bytes], limit: int) -> None:
        """Run a script that writes a file, fetch that file, and remove it.

        Raises:
            FileError: If it has more than `limit` bytes.
        """
        await self._run_command(script)
        offset, step = 0, _DIRECT_ARCHIVE_CHUNK_BYTES if self._has_direct_link else READ_CHUNK_BYTES
        while True:
            text = await self._run_tool_with_retry(ReadFile(path=path, offset=offset, length=step, format="binary"))
            piece = decode_base64(text)
            await async_run_blocking(file.write, piece)
            offset += len(piece)
            # The session is not trusted: a file that grows for ever must not fill the disk here.
            if offset > limit:
                raise FileError(f"{self._remote}: the session sends much more than it listed.")
            if len(piece) < step:
                break
        await self._run_tool(DeleteFile(path=path))

    def _new_token(self) -> str:
        self._tokens.append(os.urandom(8).hex())
        return self._tokens[-1]

    def _temporary_path(self) -> str:
        return f"/tmp/{TEMPORARY_PREFIX}{self._new_token()}"

    async def discard(self, keeps_pieces: bool = False) -> None:
        """Remove what the killed scripts of a failed transfer have left."""
        tokens = [token for token in self._tokens if not (keeps_pieces and "-" in token)]
        if not tokens:
            return
        script = scripts.discard_script(self._remote, tokens)
        call = Shell(command=mark_internal(script), timeout_ms=int(_DISCARD_TIMEOUT_SECONDS * 1000))
        with suppress(AgentBayError):  # the failure before it is the one to report
            await self._session._run_tool(call, timeout=_DISCARD_TIMEOUT_SECONDS)

    async def _run_tool_with_retry(self, tool: Tool) -> str:
        return await self._retry(lambda: self._run_tool(tool), tool.tool)

    async def _retry(self, attempt: AsyncCallable[ResultT], label: str) -> ResultT:
        """Make an idempotent call, and again if the answer was lost."""
        retry_until = Deadline(_TREE_RETRY_SECONDS)
        for pause in poll_delays(retry_until, first=0.1, factor=2.0, cap=5.0):
            try:
                return await attempt()
            except AgentBayError as error:
                if not error.retryable or retry_until.remaining() <= pause:
                    raise
                await async_sleep(pause)
        raise retry_until.exceeded_error(label)

    async def _run_tool(self, tool: Tool) -> str:
        limit = max(_CHUNK_TIMEOUT_SECONDS, self._session._transport.settings.timeout)
        return file_text_or_raise(await self._session._run_tool(tool, timeout=limit))

    async def _run_raw_command(self, make_script: Callable[[], str], content: bytes = b"") -> tuple[bytes, int]:
        """Run a script with input, and return its output and exit code.

        The code is 0 or `CHANGED_EXIT_CODE`. Each attempt makes the script anew.
        """

        async def attempt() -> Reply[ToolReply]:
            return await self._call_shell(make_script(), content)

        output, exit_code, errors = read_raw_command(await self._retry(attempt, Shell.tool))
        if exit_code not in (0, scripts.CHANGED_EXIT_CODE):
            raise read_file_error(f"{self._remote}: {errors.strip()}", self._remote)
        return output, exit_code

    async def _call_shell(self, command: str, body: bytes | None = None) -> Reply[ToolReply]:
        # The mark keeps these commands out of the list of commands that the service shows to the user.
        call = Shell(command=mark_internal(command), timeout_ms=int(_COMMAND_TIMEOUT_SECONDS * 1000))
        limit = _COMMAND_TIMEOUT_SECONDS + 10
        return await self._session._run_tool(call, timeout=limit, extend_while_paused=True, body=body)

    async def _run_command(self, command: str) -> str:
        reply = await self._call_shell(command)
        result = read_command_result(reply)
        if not result.success:
            if result.exception is not None:
                raise result.exception
            reason = f"{self._remote}: {result.error_message.strip()}"
            raise read_file_error(reason, self._remote, request_id=reply.request_id)
        return result.stdout

    @property
    def _bytes_done(self) -> int:
        return self._last_progress.bytes_done

    async def _report_progress(self, files: int, plan: TransferPlan, size: int) -> None:
        self._last_progress = TreeProgress(files, len(plan.copied), size, plan.bytes)
        if self._progress is not None:
            await invoke_callback(self._progress, self._last_progress)


def _read_all(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


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
    with show_progress(f"{way} {remote}") if progress is True else nullcontext(progress or None) as tell:
        work = AsyncTreeTransfer(files, Path(local), remote, gitignore_matcher(ignore), checksum, tell)
        try:
            return await (work.push(delete) if way == "push" else work.pull(delete))
        except AgentBayError as error:
            # After a lost connection, the next transfer continues with the pieces that are there.
            await clean_up(partial(work.discard, keeps_pieces=error.retryable))
            raise
