"""The contexts of a session: synchronization and bindings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._arguments import checked_arguments
from .._concurrency import async_sleep, async_start_background
from .._transport.contexts import to_binding, total_poll_seconds
from .._transport.deadline import Deadline, operation_deadline, time_limit
from .._transport.poll import poll_delays
from .._wire.contexts import (
    BindContexts,
    DescribeSessionContexts,
    GetContextInfo,
    SyncContext,
    write_mount,
    write_sync,
)
from ..errors import AgentBayError, InvalidArgumentError, SessionError, WaitTimeoutError
from ..models.context import BetaContextMount, ContextSync
from ..models.context_results import (
    ContextBindingsResult,
    ContextBindResult,
    ContextInfoResult,
    ContextSyncResult,
)
from .callbacks import invoke_callback
from .error_boundary import folded
from .waiting import sync_contexts, wait_for_sync, wait_for_transfers

if TYPE_CHECKING:
    from .session import AsyncSession
    from .transport import AsyncTransport

_BIND_TIMEOUT_SECONDS = 120.0  # until the service lists what was bound
_DOWNLOAD_TIMEOUT_SECONDS = 675.0  # as long as the published client waits


@checked_arguments()
class AsyncContextManager:
    """Copy and bind the contexts of a session.

    Methods return a failed result if the service refuses in an ordinary answer, or if a transfer fails; they raise if
    it answers with an HTTP error or not at all.

    Attributes:
        session: The session.
    """

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    @property
    def strict(self) -> bool:
        """Whether a failed operation raises instead of returning a failed result."""
        return self.session.strict

    @folded(ContextInfoResult, unless_http_error=True)
    async def info(
        self,
        context_id: str | None = None,
        path: str | None = None,
        task_type: str | None = None,
        *,
        timeout: float | None = None,
    ) -> ContextInfoResult:
        """Return the state of the transfers between contexts and session.

        Args:
            context_id: Only those of this context.
            path: Only those of this path of the session.
            task_type: Only "upload" or "download".
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            APIError: If the service refuses with an HTTP error.

        Wire: GetContextInfo
        """
        with time_limit(timeout):
            action = GetContextInfo(
                session_id=self.session.session_id,
                context_id=context_id or None,
                path=path or None,
                task_type=task_type or None,
            )
            reply = await self._transport.call(action)
            transfers = reply.data.transfers() if reply.data is not None else []
            return ContextInfoResult(request_id=reply.request_id, context_status_data=transfers)

    async def sync(
        self,
        context_id: str | None = None,
        path: str | None = None,
        mode: str | None = None,
        max_retries: int = 150,
        retry_interval: int = 500,
        *,
        callback: Callable[[bool], object] | None = None,
        timeout: float | None = None,
    ) -> ContextSyncResult:
        """Copy between contexts and the session, and wait for the end.

        Args:
            context_id: The context; None is all that the session has.
            path: The path of the session; None is all.
            mode: "upload" to the context, or "download" from it; None is an upload.
            max_retries: With `retry_interval`, how long to wait: the time of so many polls.
            retry_interval: Milliseconds between the first polls; each interval is a tenth longer, up to 5 s.
            callback: Called once with whether all went well. The method then returns as soon as the copying has begun.
                What it raises is logged.
            timeout: Seconds it may take; None is what the polls take.

        Returns:
            A failed result if a transfer failed or took too long; it names the path and the reason.

        Raises:
            APIError: If the service refuses with an HTTP error.

        Wire: SyncContext, GetContextInfo
        """
        with time_limit(timeout):
            if callback is None:
                return await self._sync_and_wait(context_id, path, mode, max_retries, retry_interval)
            try:
                begun = await self._sync_in_background(context_id, path, mode, max_retries, retry_interval, callback)
            except BaseException:
                # The callback is promised to be called once, also if the copying could not even begin.
                await invoke_callback(callback, False)
                raise
            if not begun.success:
                await invoke_callback(callback, False)
            return begun

    @folded(ContextSyncResult, unless_http_error=True)
    async def _sync_and_wait(
        self, context_id: str | None, path: str | None, mode: str | None, polls: int, interval: int
    ) -> ContextSyncResult:
        deadline = operation_deadline(total_poll_seconds(polls, interval / 1000))
        reply = await sync_contexts(self._transport, self._make_sync_action(context_id, path, mode), deadline)
        return ContextSyncResult(request_id=reply.request_id, success=True)

    @folded(ContextSyncResult, unless_http_error=True)
    async def _sync_in_background(
        self,
        context_id: str | None,
        path: str | None,
        mode: str | None,
        polls: int,
        interval: int,
        callback: Callable[[bool], object],
    ) -> ContextSyncResult:
        action = self._make_sync_action(context_id, path, mode)
        reply = await self._transport.call(action)

        async def follow() -> None:  # it outlives this call, and its time limit
            deadline = Deadline(total_poll_seconds(polls, interval / 1000))
            try:
                await wait_for_sync(self._transport, action, deadline)
            except AgentBayError:
                await invoke_callback(callback, False)
            else:
                await invoke_callback(callback, True)

        async_start_background(follow)
        return ContextSyncResult(request_id=reply.request_id, success=True)

    @folded(ContextBindResult, unless_http_error=True)
    async def bind(
        self, *contexts: ContextSync | BetaContextMount, wait_for_completion: bool = True, timeout: float | None = None
    ) -> ContextBindResult:
        """Bind contexts to the running session.

        Args:
            *contexts: What to copy or to mount, and where; each path can be used once.
            wait_for_completion: Wait until everything is bound and what is copied has arrived.
            timeout: Seconds it may take; None is 120, and 675 until the files are there.

        Returns:
            A failed result if the service refuses, or if something did not arrive; it names the path and the reason.

        Raises:
            APIError: If the service refuses with an HTTP error.

        Wire: BindContexts, DescribeSessionContexts, GetContextInfo
        """
        with time_limit(timeout):
            if not contexts:
                raise InvalidArgumentError("No contexts provided")
            items = [_make_persistence_item(context) for context in contexts]
            session_id = self.session.session_id
            reply = await self._transport.call(BindContexts(session_id=session_id, persistence_data_list=items))
            syncs = [context for context in contexts if isinstance(context, ContextSync)]
            if wait_for_completion and syncs:
                try:
                    await self._wait_for_downloads(syncs)
                except SessionError as error:
                    message = f"The contexts were bound, but did not arrive: {error.message}"
                    # The same class, so that a timeout can still be told from a failed transfer.
                    raise type(error)(message, **error.context()) from error
            return ContextBindResult(request_id=reply.request_id, success=True)

    async def _wait_for_downloads(self, syncs: list[ContextSync]) -> None:
        await self._wait_for_bindings({sync.context_id for sync in syncs})
        deadline = operation_deadline(_DOWNLOAD_TIMEOUT_SECONDS)
        for sync in syncs:
            asked = GetContextInfo(session_id=self.session.session_id, context_id=sync.context_id, path=sync.path)
            await wait_for_transfers(self._transport, asked, "download", deadline)

    async def _wait_for_bindings(self, missing: set[str]) -> None:
        deadline = operation_deadline(_BIND_TIMEOUT_SECONDS)
        for delay in poll_delays(deadline, first=0.05, factor=1.5, cap=2.0):
            try:
                reply = await self._describe_bindings(deadline.capped(self.session.timeout))
                missing = missing - {item.context_id for item in reply.bindings}
            except AgentBayError as error:
                if not error.retryable:
                    raise
            if not missing:
                return
            await async_sleep(delay)
        raise WaitTimeoutError(f"not listed within {deadline.seconds:g} s: {', '.join(sorted(missing))}")

    @folded(ContextBindingsResult, unless_http_error=True)
    async def list_bindings(self, *, timeout: float | None = None) -> ContextBindingsResult:
        """List the contexts that are bound to the session.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            APIError: If the service refuses with an HTTP error.

        Wire: DescribeSessionContexts
        """
        with time_limit(timeout):
            return await self._describe_bindings(Deadline(self.session.timeout))

    async def _describe_bindings(self, deadline: Deadline) -> ContextBindingsResult:
        reply = await self._transport.call(DescribeSessionContexts(session_id=self.session.session_id), deadline)
        return ContextBindingsResult(
            request_id=reply.request_id, success=True, bindings=[to_binding(item) for item in reply.data or ()]
        )

    def _make_sync_action(self, context_id: str | None, path: str | None, mode: str | None) -> SyncContext:
        if mode and mode not in ("upload", "download"):
            raise InvalidArgumentError(f"mode must be 'upload' or 'download', not {mode!r}")
        return SyncContext(
            session_id=self.session.session_id,
            context_id=context_id or None,
            path=path or None,
            mode=mode or None,
        )

    @property
    def _transport(self) -> AsyncTransport:
        return self.session.agent_bay.client


def _make_persistence_item(context: ContextSync | BetaContextMount) -> dict[str, Any]:
    if isinstance(context, ContextSync):
        return write_sync(context, escaped=True)
    if isinstance(context, BetaContextMount):
        return write_mount(context)
    raise TypeError(f"A context to bind is a ContextSync or a BetaContextMount, not {context!r}.")
