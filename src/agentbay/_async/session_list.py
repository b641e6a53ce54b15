"""The list of sessions, by pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from .._arguments import checked_arguments
from .._concurrency import AsyncMethod, async_paged
from .._transport.deadline import Deadline, time_limit
from .._transport.sessions import make_list_session, to_session_dict
from ..errors import InvalidArgumentError
from ..models.session import SessionListResult, SessionStatus
from .error_boundary import fold_error, folded

if TYPE_CHECKING:
    from .transport import AsyncTransport


class AsyncSessionPage(SessionListResult):
    """One page of sessions, whose iteration goes on with the pages after it."""

    _read_page: AsyncMethod[str, [], SessionListResult]

    async def __aiter__(self) -> AsyncIterator[dict[str, str]]:
        """Iterate over the sessions of this page and of all that follow.

        Raises:
            AgentBayError: If a page could not be read.
        """
        page: SessionListResult = self.unwrap()
        while True:
            for item in page.session_ids:
                yield item
            if not page.next_token:
                return
            page = await self._read_page(page.next_token)

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy elsewhere has no client, and is this page alone.
        return partial(SessionListResult, **attrs.asdict(self, recurse=False)), ()


@checked_arguments()
class AsyncSessionList:
    """List the sessions of a client that have not ended."""

    client: AsyncTransport
    strict: bool

    @property
    def timeout(self) -> float:
        """Seconds that an operation without a time limit of its own may take."""
        return self.client.timeout

    @async_paged(dict[str, str])
    @folded(AsyncSessionPage)
    async def list(
        self,
        labels: Mapping[str, str] | None = None,
        page: int | None = None,
        limit: int | None = None,
        status: str | SessionStatus | None = None,
        image_id: str | None = None,
        *,
        timeout: float | None = None,
    ) -> SessionListResult:
        """List sessions that have not ended, one page at a time.

        Iterate over the call for the sessions of that page and all pages after it, one call per page, as dicts. Its
        length is that of the page.

        Args:
            labels: Only sessions that carry all of these.
            page: Which page, from 1; every page before it costs a call as well.
            limit: How many per page; None means 10.
            status: Only sessions in this state.
            image_id: Only sessions of this image.
            timeout: Seconds for this page; None is the client's time limit.

        Wire: ListSession
        """
        with time_limit(timeout):
            number = 1 if page is None else page
            if number < 1:
                raise InvalidArgumentError(f"Cannot reach page {page}: Page number must be >= 1")
            deadline = Deadline(self.timeout)
            result = await self._list_page(labels, limit, status, image_id, "", timeout, deadline)
            for _ in range(number - 1):
                if not result.next_token:
                    error = InvalidArgumentError(
                        f"Cannot reach page {page}: No more pages available", request_id=result.request_id
                    )
                    counts = {"max_results": result.max_results, "total_count": result.total_count}
                    return fold_error(self, AsyncSessionPage, error, **counts)
                result = await self._list_page(labels, limit, status, image_id, result.next_token, timeout, deadline)
            return result

    async def iter_sessions(
        self,
        labels: Mapping[str, str] | None = None,
        limit: int | None = None,
        status: str | SessionStatus | None = None,
        image_id: str | None = None,
        *,
        timeout: float | None = None,
    ) -> AsyncIterator[dict[str, str]]:
        """Iterate over all sessions that have not ended, one call per page.

        Args:
            labels: Only sessions that carry all of these.
            limit: How many per page; None means 10.
            status: Only sessions in this state.
            image_id: Only sessions of this image.
            timeout: Seconds that each call may take; None is the client's time limit.

        Yields:
            A dict per session, as in `SessionListResult.session_ids`.

        Raises:
            AgentBayError: If a page cannot be read.

        Wire: ListSession
        """
        async for item in await self._list_page(labels, limit, status, image_id, "", timeout):
            yield item

    async def _list_page(
        self,
        labels: Mapping[str, str] | None,
        limit: int | None,
        status: str | SessionStatus | None,
        image_id: str | None,
        token: str,
        timeout: float | None,
        deadline: Deadline | None = None,
    ) -> AsyncSessionPage:
        with time_limit(timeout):
            reply = await self.client.call(make_list_session(labels, limit, status, image_id, token), deadline)
        page = AsyncSessionPage(
            request_id=reply.request_id,
            success=True,
            session_ids=[to_session_dict(item) for item in reply.data or ()],
            next_token=reply.next_token,
            max_results=reply.max_results or limit or 10,
            total_count=reply.total_count,
        )
        page._read_page = partial(self._list_page, labels, limit, status, image_id, timeout=timeout)
        return page
