"""Waiting for operations that the service has begun."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .._concurrency import AsyncCallable, async_shield, async_sleep
from .._transport.deadline import Deadline, without_time_limit
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
    from .._wire.sessions import SessionDetail
    from ..models.context import ContextStatusData
    from .transport import AsyncTransport

_ENDED_STATUSES = frozenset({"DELETED", "FINISH"})
_PAUSED_STATUSES = frozenset({"PAUSING", "PAUSED", "RESUMING"})
_STATE_TIMEOUT_SECONDS = 2.0  # for the state of a session whose call has reached its deadline
_STATE_TIMEOUT_SHARE = 0.2  # of the call's own time, at most
_PAUSE_POLL_SECONDS = 2.0  # between two looks at the state of a paused session


class PauseExtension:
    """Gives a call back the time for which its session was paused.

    Args:
        transport: The transport that asks for the session's state.
        session_id: The session.
        deadline: The deadline of the call, which is moved.

    Attributes:
        deadline: The same.
    """

    def __init__(self, transport: AsyncTransport, session_id: str, deadline: Deadline) -> None:
        self._transport, self._session_id, self.deadline = transport, session_id, deadline
        # Kept here, because the deadline itself moves with every pause.
        self._start = deadline.at - deadline.seconds
        self._was_paused = False

    async def extend(self) -> float:
        """Move the deadline by the time spent paused, and return it."""
        try:
            # A service that does not answer must not hold up the end of the call by much.
            patience = Deadline(min(_STATE_TIMEOUT_SECONDS, self.deadline.seconds * _STATE_TIMEOUT_SHARE))
            reply = await self._transport.call(GetSessionDetail(session_id=self._session_id), patience)
            self._move_deadline(reply.data_or_raise())
        except AgentBayError:  # the call itself then ends at its deadline
            pass
        return self.deadline.at

    async def is_over(self) -> bool:
        """Return whether the deadline has passed, not counting time spent paused."""
        return self.deadline.remaining() <= 0 and await self.extend() <= time.monotonic()

    def _move_deadline(self, detail: SessionDetail) -> None:
        now, deadline = time.monotonic(), self.deadline
        if detail.pauses is not None:
            # The service tells ages, not times, because its clock and this one need not agree. The part of a pause
            # before the call began is not the call's.
            spans = [(max(now - pause.began_ago, self._start), now - pause.ended_ago) for pause in detail.pauses]
            lost_seconds = sum(max(ended - began, 0.0) for began, ended in spans)
            deadline.move(max(deadline.at, self._start + deadline.seconds + lost_seconds))
        elif self._was_paused and detail.status not in _PAUSED_STATUSES:
            deadline.move(now + deadline.seconds)  # how long the pause was is not known
        self._was_paused = detail.status in _PAUSED_STATUSES
        if self._was_paused:
            # The pause is not over, so its length is not known yet. The call waits a little and then asks again.
            deadline.move(max(deadline.at, now + _PAUSE_POLL_SECONDS))


async def wait_until_gone(transport: AsyncTransport, session_id: str, deadline: Deadline) -> None:
    """Wait until a session has ended.

    Raises:
        AgentBayError: If that cannot be found out, or takes too long.
    """
    for delay in poll_delays(deadline, first=0.02, factor=1.6, cap=1.0):
        try:
            found = await transport.call(GetSessionDetail(session_id=session_id), deadline.capped(transport.timeout))
            if found.data_or_raise().status in _ENDED_STATUSES:
                return
        except NotFoundError:
            # What the service no longer knows has ended.
            return
        except AgentBayError as error:
            # One poll that fails for the moment does not end the waiting, because the operation goes on without it.
            if not error.retryable:
                raise
        await async_sleep(delay)
    raise WaitTimeoutError(
        f"Session {session_id} was still there {deadline.seconds:g} s after the request to delete it."
    )


async def wait_for_state(
    transport: AsyncTransport, session_id: str, wanted: str, deadline: Deadline, poll_interval: float
) -> str:
    """Wait until a session is in a state, and return it.

    Raises:
        AgentBayError: If it will never be, or takes too long.
    """
    status = "unknown"
    for delay in poll_delays(deadline, first=min(0.02, poll_interval), factor=1.6, cap=poll_interval):
        try:
            found = await transport.call(GetSession(session_id=session_id), deadline.capped(transport.timeout))
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


async def sync_contexts(transport: AsyncTransport, action: SyncContext, deadline: Deadline) -> Reply[None]:
    """Copy between contexts and a session, and wait for the end.

    The direction is an upload if the action names none.

    Raises:
        AgentBayError: If it failed, cannot be found out, or takes too long.
    """
    reply = await transport.call(action, deadline.capped(transport.timeout))
    await wait_for_sync(transport, action, deadline)
    return reply


async def wait_for_sync(transport: AsyncTransport, action: SyncContext, deadline: Deadline) -> None:
    """Wait until the copy that an action began has ended.

    Raises:
        AgentBayError: If it failed, cannot be found out, or takes too long.
    """
    asked = GetContextInfo(session_id=action.session_id, context_id=action.context_id, path=action.path)
    await wait_for_transfers(transport, asked, action.mode or "upload", deadline)


async def wait_for_transfers(transport: AsyncTransport, asked: GetContextInfo, mode: str, deadline: Deadline) -> None:
    """Wait until all transfers of one direction have ended.

    If a few answers list none, there are none.

    Raises:
        AgentBayError: If one failed, this cannot be found out, or takes too long.
    """
    from .._transport.contexts import get_transfer_state  # sessions without contexts need none of it

    answers = 0
    for delay in poll_delays(deadline, first=0.1, factor=1.5, cap=5.0):
        transfers = await poll_transfers(transport, asked, deadline)
        if transfers is not None:  # a poll that failed says nothing about them
            answers += 1
            state = get_transfer_state(transfers, mode)
            if state.is_finished(answers):
                if state.errors:
                    raise SessionError(f"In session {asked.session_id} {'; '.join(state.errors)}.")
                return
        await async_sleep(delay)
    what = asked.path or asked.context_id or f"the contexts of session {asked.session_id}"
    raise WaitTimeoutError(f"The {mode} of {what} did not end within {deadline.seconds:g} s.")


async def poll_transfers(
    transport: AsyncTransport, asked: GetContextInfo, deadline: Deadline
) -> list[ContextStatusData] | None:
    """Return the state of transfers, or None after a temporary failure.

    Raises:
        AgentBayError: If asking again would not help.
    """
    try:
        found = await transport.call(asked, deadline.capped(transport.timeout))
    except AgentBayError as error:
        if not error.retryable:
            raise
        return None
    return found.data.transfers() if found.data is not None else []


async def wait_for_contexts(
    transport: AsyncTransport, session_id: str, awaited: frozenset[str], deadline: Deadline
) -> SessionError | None:
    """Wait until every awaited context has arrived.

    Returns the error if one does not.
    """
    missing = awaited
    if not missing:
        return None
    for delay in poll_delays(deadline, first=0.05, factor=1.5, cap=5.0):
        try:
            found = await transport.call(GetContextInfo(session_id=session_id), deadline.capped(transport.timeout))
            missing, wrong = check_awaited_contexts(awaited, found.data_or_raise().transfers())
        except (APIError, TransportError, ReplyError) as error:
            wrong = [] if error.retryable else [str(error)]
        if wrong:
            # Returned and not raised, because the result must hold the session, which exists and has to be deleted.
            return SessionError(f"Session {session_id} was created, but not its contexts: {wrong[0]}")
        if not missing:
            return None
        await async_sleep(delay)
    late = ", ".join(sorted(missing))
    return SessionError(
        f"Session {session_id} was created, but contexts did not arrive in {deadline.seconds:g} s: {late}"
    )


async def clean_up(undo: AsyncCallable[object]) -> None:
    """Undo what an operation began, whatever ended it.

    Neither a cancellation nor the time limit of the operation ends this.
    """
    with without_time_limit():
        await async_shield(undo)
