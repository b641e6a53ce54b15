"""Waiting for operations that the service has begun."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._concurrency import async_sleep
from .._transport.contexts import get_transfer_state
from .._transport.deadline import Deadline
from .._transport.poll import poll_delays
from .._transport.sessions import check_awaited_contexts
from .._wire.contexts import GetContextInfo, SyncContext
from .._wire.sessions import GetSession, GetSessionDetail
from ..errors import (
    AgentBayError,
    APIError,
    ConflictError,
    NotFoundError,
    ReplyError,
    SessionError,
    TransportError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from .._transport.reply import Reply
    from ..models.context import ContextStatusData
    from .transport import AsyncTransport

_ENDED_STATUSES = frozenset({"DELETED", "FINISH"})


async def wait_until_gone(client: AsyncTransport, session_id: str, deadline: Deadline) -> None:
    """Wait until a session has ended.

    Raises:
        AgentBayError: If that cannot be found out, or takes too long.
    """
    for delay in poll_delays(deadline, first=0.02, factor=1.6, cap=1.0):
        try:
            found = await client.call(GetSessionDetail(session_id=session_id), deadline.capped(client.settings.timeout))
            if found.data_or_raise().status in _ENDED_STATUSES:
                return
        except NotFoundError:
            return
        except AgentBayError as error:
            if not error.retryable:
                raise
        await async_sleep(delay)
    raise WaitTimeoutError(
        f"Session {session_id} was still there {deadline.seconds:g} s after the request to delete it."
    )


async def wait_for_state(
    client: AsyncTransport, session_id: str, wanted: str, deadline: Deadline, poll_interval: float
) -> str:
    """Wait until a session is in a state, and return it.

    Raises:
        AgentBayError: If it will never be, or takes too long.
    """
    status = "unknown"
    for delay in poll_delays(deadline, first=min(0.02, poll_interval), factor=1.6, cap=poll_interval):
        try:
            found = await client.call(GetSession(session_id=session_id), deadline.capped(client.settings.timeout))
            status = found.data_or_raise().status
        except AgentBayError as error:
            if not error.retryable:
                raise
        if status == wanted:
            return status
        if status in _ENDED_STATUSES or status == "DELETING":
            raise ConflictError(f"Session {session_id} is {status}, it will not be {wanted}.")
        await async_sleep(delay)
    raise WaitTimeoutError(f"Session {session_id} was {status}, not {wanted}, after {deadline.seconds:g} s.")


async def sync_contexts(client: AsyncTransport, action: SyncContext, deadline: Deadline) -> Reply[None]:
    """Copy between contexts and a session, and wait for the end.

    The direction is an upload if the action names none.

    Raises:
        AgentBayError: If it failed, cannot be found out, or takes too long.
    """
    reply = await client.call(action, deadline.capped(client.settings.timeout))
    await wait_for_sync(client, action, deadline)
    return reply


async def wait_for_sync(client: AsyncTransport, action: SyncContext, deadline: Deadline) -> None:
    """Wait until the copy that an action began has ended.

    Raises:
        AgentBayError: If it failed, cannot be found out, or takes too long.
    """
    asked = GetContextInfo(session_id=action.session_id, context_id=action.context_id, path=action.path)
    await wait_for_transfers(client, asked, action.mode or "upload", deadline)


async def wait_for_transfers(client: AsyncTransport, asked: GetContextInfo, mode: str, deadline: Deadline) -> None:
    """Wait until all transfers of one direction have ended.

    If a few polls list none, there are none.

    Raises:
        AgentBayError: If one failed, this cannot be found out, or takes too long.
    """
    for polls, delay in enumerate(poll_delays(deadline, first=0.1, factor=1.5, cap=5.0), 1):
        transfers = await poll_transfers(client, asked, deadline)
        state = None if transfers is None else get_transfer_state(transfers, mode)
        if state is not None and state.is_finished(polls):
            if state.errors:
                raise SessionError(f"In session {asked.session_id} {'; '.join(state.errors)}.")
            return
        await async_sleep(delay)
    what = asked.path or asked.context_id or f"the contexts of session {asked.session_id}"
    raise WaitTimeoutError(f"The {mode} of {what} did not end within {deadline.seconds:g} s.")


async def poll_transfers(
    client: AsyncTransport, asked: GetContextInfo, deadline: Deadline
) -> list[ContextStatusData] | None:
    """Return the state of transfers, or None after a temporary failure.

    Raises:
        AgentBayError: If asking again would not help.
    """
    try:
        found = await client.call(asked, deadline.capped(client.settings.timeout))
    except AgentBayError as error:
        if not error.retryable:
            raise
        return None
    return found.data.transfers() if found.data is not None else []


async def wait_for_contexts(
    client: AsyncTransport, session_id: str, awaited: frozenset[str], deadline: Deadline
) -> SessionError | None:
    """Wait until every awaited context has arrived.

    Returns the error if one does not.
    """
    missing = awaited
    for delay in poll_delays(deadline, first=0.05, factor=1.5, cap=5.0):
        if not missing:
            return None
        try:
            found = await client.call(GetContextInfo(session_id=session_id), deadline.capped(client.settings.timeout))
            missing, wrong = check_awaited_contexts(awaited, found.data_or_raise().transfers())
        except (APIError, TransportError, ReplyError) as error:
            wrong = [] if error.retryable else [str(error)]
        if wrong:
            return SessionError(f"Session {session_id} was created, but not its contexts: {wrong[0]}")
        await async_sleep(delay)
    late = ", ".join(sorted(missing))
    return SessionError(
        f"Session {session_id} was created, but contexts did not arrive in {deadline.seconds:g} s: {late}"
    )
