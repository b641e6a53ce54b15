"""Transfers of single files between this machine and a session.

They pass through a context that the service keeps for that.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, TypeVar

from .._arguments import checked_arguments
from .._concurrency import AsyncCallable, async_run_blocking, async_sleep
from .._local_files import LocalSource, LocalTarget, check_target
from .._transport.contexts import get_file_transfer_state
from .._transport.deadline import Deadline, time_limit
from .._transport.file_errors import read_file_error
from .._transport.poll import poll_delays
from .._transport.presigned import MAX_REDIRECTS
from .._wire.contexts import GetAndLoadInternalContext, GetContextInfo, InternalContext, SyncContext
from .._wire.tools import ReadFile, WriteFile
from ..errors import AgentBayError, FileError, WaitTimeoutError
from ..models.transfer import DownloadResult, UploadResult
from .direct_transfer import fetch_file_directly, send_file_directly
from .error_boundary import fold_error, folded
from .presigned import ByteProgressCallback, TransferSettings, fetch_file, send_file, verify_stored_size
from .waiting import poll_transfers

if TYPE_CHECKING:
    from .client import AsyncAgentBay
    from .session import AsyncSession

ResultT = TypeVar("ResultT", UploadResult, DownloadResult)


@checked_arguments()
class AsyncFileTransfer:
    """Send files of any size into a session and fetch them from it.

    Args:
        agent_bay: The client.
        session: The session.
        http_timeout: Seconds for which a transfer may stand still.
        follow_redirects: Whether redirects of the storage are followed.
    """

    def __init__(
        self,
        agent_bay: AsyncAgentBay,
        session: AsyncSession,
        *,
        http_timeout: float = 60.0,
        follow_redirects: bool = True,
    ) -> None:
        self._agent_bay = agent_bay
        self._session = session
        self._idle_timeout = http_timeout
        self._max_redirects = MAX_REDIRECTS if follow_redirects else 0
        self._internal_context_cache: InternalContext | None = None

    @property
    def strict(self) -> bool:
        """Whether a failed operation raises instead of returning a failed result."""
        return self._session.strict

    async def upload(
        self,
        local_path: str | os.PathLike[str],
        remote_path: str,
        *,
        content_type: str | None = None,
        wait: bool = True,
        wait_timeout: float = 30.0,
        poll_interval: float = 1.5,
        progress_cb: ByteProgressCallback | None = None,
        timeout: float | None = None,
    ) -> UploadResult:
        """Send a file into the session.

        Args:
            local_path: The file on this machine.
            remote_path: Its absolute path in the session.
            content_type: MIME type to store it with.
            wait: Wait until the session has it.
            wait_timeout: Seconds to wait for that, after the storage has it.
            poll_interval: Longest time between two polls, seconds.
            progress_cb: Called with the bytes so far. What it raises ends the transfer.
            timeout: Seconds for all of it; None is as long as something moves.

        Wire: GetAndLoadInternalContext, GetContextFileUploadUrl, SyncContext, GetContextInfo
        """
        fields: dict[str, Any] = {"path": remote_path}

        async def work() -> None:
            is_direct = self._session._takes_raw_calls(WriteFile)
            source = await async_run_blocking(LocalSource, local_path)
            settings = self._make_transfer_settings(progress_cb)
            try:
                if is_direct:
                    moved = await send_file_directly(self._session, settings, source, remote_path)
                    fields.update(http_status=moved.status, etag=moved.etag, bytes_sent=moved.size)
                    return
                await self._upload_to_storage(source, remote_path, content_type, settings, fields)
            finally:
                source.close()
            # The wire names directions as the session sees them: what this machine uploads, the session downloads.
            await self._sync_file(
                remote_path, "download", Deadline(wait_timeout) if wait else None, poll_interval, fields
            )

        with time_limit(timeout):
            return await self._run_folded(UploadResult, work, fields)

    async def download(
        self,
        remote_path: str,
        local_path: str | os.PathLike[str],
        *,
        overwrite: bool = True,
        wait: bool = True,
        wait_timeout: float = 300.0,
        poll_interval: float = 1.5,
        progress_cb: ByteProgressCallback | None = None,
        timeout: float | None = None,
    ) -> DownloadResult:
        """Fetch a file from the session.

        On this machine it appears whole or not at all.

        Args:
            remote_path: Its absolute path in the session.
            local_path: Its path on this machine; parent directories are created.
            overwrite: Whether to replace an existing file.
            wait: Wait until the storage has the current version; otherwise fetch the version it has.
            wait_timeout: Seconds to wait for that.
            poll_interval: Longest time between two polls, seconds.
            progress_cb: Called with the bytes so far. What it raises ends the transfer.
            timeout: Seconds for all of it; None is as long as something moves.

        Wire: GetAndLoadInternalContext, SyncContext, GetContextInfo, GetContextFileDownloadUrl
        """
        fields: dict[str, Any] = {"path": remote_path, "local_path": os.fspath(local_path)}

        async def work() -> None:
            # Checked before the service is asked to copy, which can take minutes, and once more when the file is put in
            # place.
            await async_run_blocking(check_target, local_path, overwrite=overwrite)
            is_direct = self._session._takes_raw_calls(ReadFile)
            if not is_direct:
                deadline = Deadline(wait_timeout) if wait else None
                await self._sync_file(remote_path, "upload", deadline, poll_interval, fields)
            target = await async_run_blocking(LocalTarget, local_path, overwrite=overwrite)
            settings = self._make_transfer_settings(progress_cb)
            try:
                if is_direct:
                    moved = await fetch_file_directly(self._session, settings, target, remote_path)
                    fields.update(http_status=moved.status, bytes_received=moved.size)
                else:
                    await self._download_from_storage(target, remote_path, settings, fields)
                await async_run_blocking(target.commit)
            finally:
                target.discard()

        with time_limit(timeout):
            return await self._run_folded(DownloadResult, work, fields)

    @folded(None)
    async def context_path(self, *, timeout: float | None = None) -> str | None:
        """Return the session's directory for transfers, or None if unknown.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: GetAndLoadInternalContext
        """
        with time_limit(timeout):
            return (await self._get_internal_context()).context_path

    async def _upload_to_storage(
        self,
        source: LocalSource,
        path: str,
        content_type: str | None,
        settings: TransferSettings,
        fields: dict[str, Any],
    ) -> None:
        context_id = (await self._get_internal_context()).context_id
        made = (await self._agent_bay.context.get_file_upload_url(context_id, path)).unwrap()
        fields["request_id_upload_url"] = made.request_id
        label = f"upload of {path}"
        moved = await send_file(settings, made.url, source, label, content_type)
        fields.update(http_status=moved.status, etag=moved.etag, bytes_sent=moved.size)
        # A storage whose ETag is no MD5 proves nothing, so at least the size is compared.
        if not moved.is_verified:
            made = (await self._agent_bay.context.get_file_download_url(context_id, path)).unwrap()
            await verify_stored_size(settings._replace(progress=None), made.url, moved.size, label)

    async def _download_from_storage(
        self, target: LocalTarget, path: str, settings: TransferSettings, fields: dict[str, Any]
    ) -> None:
        context_id = (await self._get_internal_context()).context_id
        made = (await self._agent_bay.context.get_file_download_url(context_id, path)).unwrap()
        fields["request_id_download_url"] = made.request_id
        moved = await fetch_file(settings, made.url, target, f"download of {path}")
        fields.update(http_status=moved.status, bytes_received=moved.size)

    async def _sync_file(
        self, path: str, mode: str, deadline: Deadline | None, poll_interval: float, fields: dict[str, Any]
    ) -> None:
        """Have the service copy the file between session and storage.

        With a deadline, wait until that has ended.
        """
        context_id = (await self._get_internal_context()).context_id
        session_id = self._session.session_id
        action = SyncContext(session_id=session_id, context_id=context_id, path=path, mode=mode)
        fields["request_id_sync"] = (await self._agent_bay.client.call(action)).request_id
        if deadline is None:
            return
        asked = GetContextInfo(session_id=session_id, context_id=context_id, path=path, task_type=mode)
        for delay in poll_delays(deadline, first=min(0.05, poll_interval), factor=1.6, cap=poll_interval):
            transfers = await poll_transfers(self._agent_bay.client, asked, deadline)
            state = get_file_transfer_state(transfers or (), mode, context_id, path)
            if state.errors:
                raise read_file_error(f"Task error: {'; '.join(state.errors)}", path)
            if state.is_found and not state.is_pending:
                return
            await async_sleep(delay)
        direction = "into" if mode == "download" else "out of"
        raise WaitTimeoutError(
            f"The service did not copy {path} {direction} the session within {deadline.seconds:g} s."
        )

    async def _get_internal_context(self) -> InternalContext:
        if self._internal_context_cache is None:
            action = GetAndLoadInternalContext(session_id=self._session.session_id, context_types=["file_transfer"])
            reply = await self._agent_bay.client.call(action)
            usable = (item for item in reply.data or () if item.context_id and item.context_path)
            self._internal_context_cache = next(usable, None)
            if self._internal_context_cache is None:
                raise FileError("Response contains no data", action=reply.action, request_id=reply.request_id)
        return self._internal_context_cache

    async def _run_folded(self, result: type[ResultT], work: AsyncCallable[None], fields: dict[str, Any]) -> ResultT:
        try:
            await work()
        except AgentBayError as error:
            return fold_error(self, result, error, **{"http_status": error.status_code, **fields})
        return result(success=True, **fields)

    def _make_transfer_settings(self, progress: ByteProgressCallback | None) -> TransferSettings:
        # A file may be of any size, so only standing still is limited, not the whole time.
        return TransferSettings(
            self._agent_bay.client, Deadline(math.inf), self._idle_timeout, self._max_redirects, progress
        )
