"""The list of sessions, by pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from .._arguments import checked_arguments
from .._transport.deadline import Deadline
from .._transport.sessions import make_list_session, to_session_dict
from ..errors import InvalidArgumentError
from ..models.session import SessionListResult, SessionStatus
from .error_boundary import fold_error, folded

if TYPE_CHECKING:
    from .transport import AsyncTransport


@checked_arguments()
class AsyncSessionList:
    """List the sessions of a client that have not ended."""

    client: AsyncTransport
    strict: bool

    @property
    def timeout(self) -> float:
        """Seconds that an operation without a time limit of its own may take."""
        return self.client.settings.timeout

    @folded(SessionListResult)
    async def list(
        self,
        labels: Mapping[str, str] | None = None,
        page: int | None = None,
        limit: int | None = None,
        status: str | SessionStatus | None = None,
        image_id: str | None = None,
    ) -> SessionListResult:
        """List sessions that have not ended, one page at a time.

        Args:
            labels: Only sessions that carry all of these.
            page: Which page, from 1; every page before it costs a call as well. To read all, use `iter_sessions`.
            limit: How many per page; None means 10.
            status: Only sessions in this state.
            image_id: Only sessions of this image.

        Wire: ListSession
        """
        number = 1 if page is None else page
        if number < 1:
            raise InvalidArgumentError(f"Cannot reach page {page}: Page number must be >= 1")
        deadline = Deadline(self.timeout)
        result = await self._list_page(labels, limit, status, image_id, "", deadline)
        for _ in range(number - 1):
            if not result.next_token:
                error = InvalidArgumentError(
                    f"Cannot reach page {page}: No more pages available", request_id=result.request_id
                )
                counts = {"max_results": result.max_results, "total_count": result.total_count}
                return fold_error(self, SessionListResult, error, **counts)
            result = await self._list_page(labels, limit, status, image_id, result.next_token, deadline)
        return result

    async def iter_sessions(
        self,
        labels: Mapping[str, str] | None = None,
        limit: int | None = None,
        status: str | SessionStatus | None = None,
        image_id: str | None = None,
    ) -> AsyncIterator[dict[str, str]]:
        """Iterate over all sessions that have not ended, one call per page.

        Args:
            labels: Only sessions that carry all of these.
            limit: How many per page; None means 10.
            status: Only sessions in this state.
            image_id: Only sessions of this image.

        Yields:
            A dict per session, as in `SessionListResult.session_ids`.

        Raises:
            AgentBayError: If a page cannot be read.

        Wire: ListSession
        """
        token = ""
        while True:
            result = await self._list_page(labels, limit, status, image_id, token)
            for item in result.session_ids:
                yield item
            token = result.next_token
            if not token:
                return

    async def _list_page(
        self,
        labels: Mapping[str, str] | None,
        limit: int | None,
        status: str | SessionStatus | None,
        image_id: str | None,
        token: str,
        deadline: Deadline | None = None,
    ) -> SessionListResult:
        reply = await self.client.call(make_list_session(labels, limit, status, image_id, token), deadline)
        return SessionListResult(
            request_id=reply.request_id,
            success=True,
            session_ids=[to_session_dict(item) for item in reply.data or ()],
            next_token=reply.next_token,
            max_results=reply.max_results or limit or 10,
            total_count=reply.total_count,
        )
