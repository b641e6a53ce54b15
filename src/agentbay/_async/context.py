"""Contexts: stores of files that outlive sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from .._arguments import checked_arguments
from .._concurrency import async_sleep
from .._transport.contexts import to_context
from .._transport.deadline import Deadline, time_limit
from .._transport.poll import LAST_POLL_SECONDS
from .._wire.context_store import (
    ClearContext,
    DeleteContext,
    GetContext,
    ListContexts,
    ModifyContext,
)
from ..errors import ClearanceTimeoutError, InvalidArgumentError, NotFoundError
from ..models.base import OperationResult
from ..models.context_results import (
    ClearContextResult,
    Context,
    ContextListParams,
    ContextListResult,
    ContextResult,
)
from .context_files import AsyncContextFiles
from .error_boundary import folded

if TYPE_CHECKING:
    from .._transport.reply import Reply
    from .._wire.context_store import ContextData
    from .client import AsyncAgentBay


@checked_arguments()
class AsyncContextService(AsyncContextFiles):
    """Create, find, list, change and delete contexts and their files.

    Paths in a context are the absolute paths that its files have in a session that uses it.

    Attributes:
        agent_bay: The client.
    """

    _instead = "Make a new client there."

    def __init__(self, agent_bay: AsyncAgentBay) -> None:
        self.agent_bay = agent_bay

    @folded(ContextListResult)
    async def list(self, params: ContextListParams | None = None, *, timeout: float | None = None) -> ContextListResult:
        """List contexts, one page at a time.

        To read all, use `iter_contexts`.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: ListContexts
        """
        with time_limit(timeout):
            return await self._list_page(params or ContextListParams())

    async def iter_contexts(
        self, limit: int | None = None, session_id: str | None = None, *, timeout: float | None = None
    ) -> AsyncIterator[Context]:
        """Iterate over all contexts, one call per page.

        Args:
            limit: How many per page; None means 10.
            session_id: Only those of this session.
            timeout: Seconds that each call may take; None is the client's time limit.

        Raises:
            AgentBayError: If a page cannot be read.

        Wire: ListContexts
        """
        token: str | None = None
        while True:
            with time_limit(timeout):
                page = await self._list_page(ContextListParams(limit, token, session_id))
            for context in page.contexts:
                yield context
            token = page.next_token
            if not token:
                return

    async def _list_page(self, params: ContextListParams) -> ContextListResult:
        limit = 10 if params.max_results is None else params.max_results
        if limit < 1:
            raise InvalidArgumentError(f"max_results must be at least 1, not {limit}")
        action = ListContexts(
            max_results=limit, next_token=params.next_token or None, session_id=params.session_id or None
        )
        reply = await self._transport.call(action)
        return ContextListResult(
            request_id=reply.request_id,
            success=True,
            contexts=[to_context(found) for found in reply.data or ()],
            next_token=reply.next_token,
            max_results=reply.max_results or limit,
            total_count=reply.total_count,
        )

    async def get(
        self,
        name: str | None = None,
        create: bool = False,
        context_id: str | None = None,
        *,
        timeout: float | None = None,
    ) -> ContextResult:
        """Find a context by its name or its id.

        Args:
            name: Its name.
            create: Create one of that name if there is none.
            context_id: Its id, instead of a name.
            timeout: Seconds it may take; None is the client's time limit.

        Returns:
            A failed result if there is none.

        Raises:
            InvalidArgumentError: If neither is given, or an id together with `create`. Blank ones are a failed result.

        Wire: GetContext
        """
        with time_limit(timeout):
            if name is None and context_id is None:
                raise InvalidArgumentError("Either context_id or name must be provided")
            if create and context_id:
                raise InvalidArgumentError("context_id cannot be used together with create=True")
            return await self._get(name, create, context_id)

    @folded(ContextResult)
    async def create(self, name: str, *, timeout: float | None = None) -> ContextResult:
        """Create a context, or find the one of that name.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: GetContext
        """
        with time_limit(timeout):
            if not isinstance(name, str) or not name.strip():
                raise InvalidArgumentError("name is required")
            return await self._find_context(name, True, None)

    @folded(ContextResult)
    async def _get(self, name: str | None, create: bool, context_id: str | None) -> ContextResult:
        if not (name or "").strip() and not (context_id or "").strip():
            raise InvalidArgumentError("Either context_id or name must be provided; both are blank")
        return await self._find_context(name, create, context_id)

    async def _find_context(self, name: str | None, create: bool, context_id: str | None) -> ContextResult:
        reply = await self._call_get_context(name, create, context_id, None)
        context = to_context(reply.data_or_raise(), name or "")
        return ContextResult(request_id=reply.request_id, success=True, context_id=context.id, context=context)

    async def _call_get_context(
        self, name: str | None, create: bool, context_id: str | None, deadline: Deadline | None
    ) -> Reply[ContextData]:
        action = GetContext(
            allow_create=create,
            name=name or None,
            context_id=context_id or None,
            login_region_id=self.agent_bay.region_id if create else None,
        )
        reply = await self._transport.call(action, deadline)
        if reply.data is None or not reply.data.id:  # some services answer so instead of refusing
            raise NotFoundError(
                f"Context {context_id or name} not found", 200, action=reply.action, request_id=reply.request_id
            )
        return reply

    @folded(OperationResult, unless_http_error=True, data=False)
    async def update(self, context: Context, *, timeout: float | None = None) -> OperationResult:
        """Rename a context to the name that `context` has now.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            APIError: If the service refuses with an HTTP error.

        Wire: ModifyContext
        """
        with time_limit(timeout):
            reply = await self._transport.call(ModifyContext(id=context.id, name=context.name))
            return OperationResult(request_id=reply.request_id, success=True, data=True)

    @folded(OperationResult, unless_http_error=True, data=False)
    async def delete(self, context: Context, *, timeout: float | None = None) -> OperationResult:
        """Delete a context and its files.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            APIError: If the service refuses with an HTTP error.

        Wire: DeleteContext
        """
        with time_limit(timeout):
            reply = await self._transport.call(DeleteContext(id=context.id))
            return OperationResult(request_id=reply.request_id, success=True, data=True)

    async def clear(self, context_id: str, timeout: int = 60, poll_interval: float = 2.0) -> ClearContextResult:
        """Delete the files of a context and wait until they are gone.

        The context itself stays, with its id.

        Args:
            context_id: The context.
            timeout: Seconds to wait.
            poll_interval: Seconds between two polls of its state.

        Returns:
            A failed result if the service refuses, or does not tell the state.

        Raises:
            ClearanceTimeoutError: If it takes too long.
            APIError: If the service refuses to begin, with an HTTP error.

        Wire: ClearContext, GetContext
        """
        deadline = Deadline(timeout)
        begun = await self._clear(context_id, deadline.capped(self.agent_bay.timeout, at_least=LAST_POLL_SECONDS))
        while begun.success:
            # Taken before the poll, so that one more poll follows when the time runs out during a pause.
            left = deadline.remaining()
            step = deadline.capped(self.agent_bay.timeout, at_least=LAST_POLL_SECONDS)
            state = await self._get_clear_state(context_id, step)
            if not state.success and not (state.exception and state.exception.retryable):
                return state
            if state.status == "available":
                return ClearContextResult(
                    request_id=begun.request_id, success=True, status="available", context_id=context_id
                )
            if left <= 0:
                raise ClearanceTimeoutError(
                    f"Context {context_id} is still {state.status or 'unreachable'} after {timeout:g} s.",
                    request_id=begun.request_id,
                )
            await async_sleep(min(poll_interval, left))
        return begun

    async def clear_async(self, context_id: str, *, timeout: float | None = None) -> ClearContextResult:
        """Begin to delete the files of a context, without waiting.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            APIError: If the service refuses with an HTTP error.

        Wire: ClearContext
        """
        with time_limit(timeout):
            return await self._clear(context_id, None)

    start_clear = clear_async

    @folded(ClearContextResult, unless_http_error=True)
    async def _clear(self, context_id: str, deadline: Deadline | None) -> ClearContextResult:
        reply = await self._transport.call(ClearContext(id=context_id), deadline)
        return ClearContextResult(request_id=reply.request_id, success=True, status="clearing", context_id=context_id)

    async def get_clear_status(self, context_id: str, *, timeout: float | None = None) -> ClearContextResult:
        """Return the state of a context.

        It is "available" when the context is idle, otherwise "clearing", "in-use" or "pre-available".

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: GetContext
        """
        with time_limit(timeout):
            return await self._get_clear_state(context_id, None)

    @folded(ClearContextResult)
    async def _get_clear_state(self, context_id: str, deadline: Deadline | None) -> ClearContextResult:
        reply = await self._call_get_context(None, False, context_id, deadline)
        found = reply.data_or_raise()
        return ClearContextResult(
            request_id=reply.request_id, success=True, status=found.state or "clearing", context_id=found.id
        )
