"""A session: its lifecycle, labels, links and tools."""

from __future__ import annotations

import warnings
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from .._arguments import checked_arguments
from .._handles import Handle
from .._mcp_mounts import McpMounts
from .._transport.deadline import Deadline, operation_deadline, time_limit, without_time_limit
from .._transport.sessions import label_error, parse_time, to_session_info
from .._wire import sessions as wire
from .._wire.contexts import SyncContext
from .._wire.schema import Action
from ..errors import (
    AgentBayError,
    APIError,
    InvalidArgumentError,
    NotFoundError,
    NotSupportedError,
    ReplyError,
    SessionError,
    SessionNotFoundError,
    TransportError,
)
from ..models.base import OperationResult
from ..models.params import LifecyclePolicy
from ..models.session import (
    DeleteResult,
    SessionPauseResult,
    SessionResumeResult,
    SessionStatusResult,
)
from ..models.tools import McpTool
from .error_boundary import folded
from .session_snapshots import AsyncSessionSnapshots
from .session_tools import AsyncSessionTools
from .waiting import sync_contexts, wait_for_state, wait_until_gone

if TYPE_CHECKING:
    from .._transport.reply import Reply
    from .client import AsyncAgentBay

DataT = TypeVar("DataT")
_UNKNOWN_ACTION_CODE = "InvalidAction.NotFound"  # of a service that does not have an action
_DELETE_TIMEOUT_SECONDS = 300.0


@checked_arguments(labels=None)
class AsyncSession(AsyncSessionSnapshots, AsyncSessionTools, Handle):
    """An isolated machine in which commands run and files are kept.

    Made by `create()`, `get()` or `session()` of a client, not by hand.

    Attributes:
        agent_bay: The client it belongs to.
        session_id: Its id, by which any client with the same key can find it again.
        image_id: What runs in it, or "" if not known.
        app_instance_id, vpc_id, vpc_ip: Where the service runs it.
        resource_url: Page that shows it; carries a token.
        token, link_url, ws_url: How its tools are reached without the service in between; "" if they cannot be.
        mcpTools: The tools it is known to offer.
        enableBrowserReplay: Whether its browser is recorded; None if not known.
        created_at: When it was created; None if not known.
        expires_at: When it ends by itself if nothing happens before, as the last answer of `create`, `get` or
            `set_lifecycle` told it. Activity restarts the idle timeout. None if never or not known.
    """

    _instead = "Send its session_id instead, and call get(session_id) there."

    def __init__(self, agent_bay: AsyncAgentBay, session_id: str) -> None:
        self.agent_bay = agent_bay
        self.session_id = session_id
        self.image_id = ""
        self.app_instance_id = ""
        self.resource_url = ""
        self.vpc_id = ""
        self.vpc_ip = ""
        self.token = ""
        self.link_url = ""
        self.ws_url = ""
        self.mcpTools: list[McpTool] = []
        self.enableBrowserReplay: bool | None = None
        self.created_at: datetime | None = None
        self.expires_at: datetime | None = None
        self._mcp_mounts = McpMounts()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(session_id={self.session_id!r}, image_id={self.image_id!r})"

    def _repr_html_(self) -> str:
        """Show the session in a notebook, without a call and without tokens."""
        from .. import _html

        return _html.fact_table("Session", {"id": self.session_id, "image": self.image_id})

    @property
    def _session(self) -> AsyncSession:
        return self

    def with_options(
        self, *, timeout: float | None = None, max_retries: int | None = None, strict: bool | None = None
    ) -> AsyncSession:
        """Return a handle of the same session with other limits for its calls.

        Args:
            timeout: Seconds one operation may take; None leaves it as it is.
            max_retries: How often a call is sent again; None leaves it as it is.
            strict: Raise where a failed result would be returned; None leaves it as it is.
        """
        bay = self.agent_bay.with_options(timeout=timeout, max_retries=max_retries, strict=strict)
        made = type(self)(bay, self.session_id)
        for name, value in vars(self).items():
            if name in vars(made) and name != "agent_bay":
                setattr(made, name, value)
        return made

    async def delete(self, sync_context: bool = False, *, timeout: float | None = None) -> DeleteResult:
        """Delete the session and wait until it is gone.

        Args:
            sync_context: Upload its contexts first. If that fails the session is deleted all the same, and the
                failed result says so.
            timeout: Seconds until it is gone; None is 300.

        Returns:
            A failed result if the service refuses, or does not finish in time.

        Raises:
            SessionError: If the request could not be made, or its answer could not be read.

        Wire: SyncContext, DeleteSessionAsync, GetSessionDetail
        """
        try:
            with time_limit(timeout):
                return await self._delete(sync_context)
        except (TransportError, ReplyError) as error:
            raise self._wrap_error("delete", error) from error

    @folded(DeleteResult, only=(APIError, SessionError))
    async def _delete(self, sync_context: bool) -> DeleteResult:
        deadline = operation_deadline(_DELETE_TIMEOUT_SECONDS)
        # The error of the upload is kept until the end, because a caller who wants the session gone would otherwise be
        # left with one that runs.
        lost = await self._upload_contexts(deadline) if sync_context else None
        try:
            if lost is None:
                reply = await self._end(deadline)
            else:
                with without_time_limit():  # the upload may have used it up, and the session is deleted all the same
                    reply = await self._end(Deadline(_DELETE_TIMEOUT_SECONDS))
        except NotFoundError:
            await self._close_mcp_mounts()
            raise
        # Only when the session is gone: after a refusal it lives on, and so must its terminals and streams.
        await self._close_websocket()
        await self._close_mcp_mounts()
        if lost is not None:
            message = f"Session {self.session_id} was deleted, but its contexts were not uploaded before: {lost}"
            raise SessionError(message, **lost.context())
        return DeleteResult(request_id=reply.request_id, success=True)

    async def _end(self, deadline: Deadline) -> Reply[None]:
        reply = await self._transport.call(wire.DeleteSessionAsync(session_id=self.session_id))
        await wait_until_gone(self._transport, self.session_id, deadline)
        return reply

    @folded(SessionPauseResult)
    async def pause(self, timeout: int = 600, poll_interval: float = 2.0) -> SessionPauseResult:
        """Pause the session and wait until it is paused.

        Its processes are frozen and kept.

        Args:
            timeout: Seconds to wait.
            poll_interval: Longest time between two polls of the state, seconds.

        Wire: PauseSessionAsync, GetSession
        """
        deadline = Deadline(timeout)
        reply = await self._transport.call(
            wire.PauseSessionAsync(session_id=self.session_id), deadline.capped(self.timeout)
        )
        status = await self._wait_for_state("PAUSED", deadline, poll_interval)
        return SessionPauseResult(request_id=reply.request_id, success=True, status=status)

    @folded(SessionPauseResult)
    async def pause_async(self, *, timeout: float | None = None) -> SessionPauseResult:
        """Begin to pause the session, without waiting.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: PauseSessionAsync
        """
        with time_limit(timeout):
            reply = await self._transport.call(wire.PauseSessionAsync(session_id=self.session_id))
            return SessionPauseResult(request_id=reply.request_id, success=True)

    @folded(SessionResumeResult)
    async def resume(self, timeout: int = 600, poll_interval: float = 2.0) -> SessionResumeResult:
        """Resume the paused session and wait until it runs.

        Args:
            timeout: Seconds to wait.
            poll_interval: Longest time between two polls of the state, seconds.

        Wire: ResumeSessionAsync, GetSession
        """
        deadline = Deadline(timeout)
        reply = await self._transport.call(
            wire.ResumeSessionAsync(session_id=self.session_id), deadline.capped(self.timeout)
        )
        status = await self._wait_for_state("RUNNING", deadline, poll_interval)
        return SessionResumeResult(request_id=reply.request_id, success=True, status=status)

    @folded(SessionResumeResult)
    async def resume_async(self, *, timeout: float | None = None) -> SessionResumeResult:
        """Begin to resume the session, without waiting.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: ResumeSessionAsync
        """
        with time_limit(timeout):
            reply = await self._transport.call(wire.ResumeSessionAsync(session_id=self.session_id))
            return SessionResumeResult(request_id=reply.request_id, success=True)

    beta_pause = pause
    beta_resume = resume

    @folded(OperationResult)
    async def keep_alive(self, *, timeout: float | None = None) -> OperationResult:
        """Restart the session's idle time, as any activity does.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: RefreshSessionIdleTime
        """
        with time_limit(timeout):
            reply = await self._transport.call(wire.RefreshSessionIdleTime(session_id=self.session_id))
            return OperationResult(request_id=reply.request_id, success=True)

    @folded(OperationResult)
    async def set_lifecycle(self, policy: LifecyclePolicy, *, timeout: float | None = None) -> OperationResult:
        """Change when the session ends by itself.

        Its idle time and its run time restart. Needs the local runtime.

        Args:
            policy: The new limits.
            timeout: Seconds it may take; None is the client's time limit.

        Returns:
            The new `expires_at` in `data`. On another service, a failed result with a `NotSupportedError`.

        Wire: SetSessionLifecycle
        """
        with time_limit(timeout):
            action = wire.SetSessionLifecycle(
                session_id=self.session_id,
                idle_release_timeout=policy.idle_release_timeout or None,
                max_runtime=policy.max_runtime or None,
                manual_release=policy.manual_release or None,
            )
            try:
                reply = await self._transport.call(action)
            except APIError as error:
                if error.code != _UNKNOWN_ACTION_CODE:
                    raise
                refusal = NotSupportedError("This service cannot change when a session ends.", **error.context())
                refusal.hint = "Create it with another lifecycle_policy, and call keep_alive() before its idle timeout."
                raise refusal from error
            self.expires_at = parse_time(reply.data_or_raise().expire_time)
            return OperationResult(request_id=reply.request_id, success=True, data=self.expires_at)

    @folded(SessionStatusResult)
    async def get_status(self, *, timeout: float | None = None) -> SessionStatusResult:
        """Return the session's state, without counting as activity.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: GetSessionDetail
        """
        with time_limit(timeout):
            try:
                reply = await self._transport.call(wire.GetSessionDetail(session_id=self.session_id))
            except NotFoundError as error:
                raise self._not_found_error(error) from error
            result = SessionStatusResult(request_id=reply.request_id, success=True, status=reply.data_or_raise().status)
            result.http_status_code, result.code = 200, reply.code
            return result

    @folded(OperationResult, only=(InvalidArgumentError,))
    async def set_labels(self, labels: dict[str, str], *, timeout: float | None = None) -> OperationResult:
        """Replace the session's labels.

        Args:
            labels: At least one; neither names nor values may be blank.
            timeout: Seconds it may take; None is the client's time limit.

        Returns:
            A failed result if the labels cannot be used.

        Raises:
            SessionError: If they could not be set.

        Wire: SetLabel
        """
        with time_limit(timeout):
            refused = label_error(labels)
            if refused:
                raise InvalidArgumentError(refused)
            reply = await self._call_as_session_error(
                wire.SetLabel(session_id=self.session_id, labels=labels), "set labels for"
            )
            return OperationResult(request_id=reply.request_id, success=True)

    async def get_labels(self, *, timeout: float | None = None) -> OperationResult:
        """Return the session's labels: `data` is a dict.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            SessionError: If they could not be read.

        Wire: GetLabel
        """
        with time_limit(timeout):
            reply = await self._call_as_session_error(wire.GetLabel(session_id=self.session_id), "get labels for")
            labels = reply.data.labels if reply.data is not None else {}
            return OperationResult(request_id=reply.request_id, success=True, data=labels)

    @folded(OperationResult, only=(SessionNotFoundError,))
    async def info(self, *, timeout: float | None = None) -> OperationResult:
        """Return how to view the session from outside: `data` is a `SessionInfo`.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Returns:
            A failed result if the session does not exist.

        Raises:
            SessionError: If it could not be asked for another reason.

        Wire: GetMcpResource
        """
        with time_limit(timeout):
            try:
                reply, found = await self._call_for_data(wire.GetMcpResource(session_id=self.session_id), "get info of")
            except SessionError as error:
                if isinstance(error.__cause__, NotFoundError):
                    raise self._not_found_error(error.__cause__) from error
                raise
            return OperationResult(
                request_id=reply.request_id, success=True, data=to_session_info(found, self.session_id)
            )

    async def get_link(
        self,
        protocol_type: str | None = None,
        port: int | None = None,
        options: str | None = None,
        *,
        timeout: float | None = None,
    ) -> OperationResult:
        """Make a URL for a port of the session.

        `data` is the URL, which carries a token.

        Args:
            protocol_type: "https" or "wss"; None is "wss", and "https" for a desktop.
            port: 30100 to 30199, on the local runtime any; None is the session's browser or, in the local runtime, a
                page that shows its desktop.
            options: Passed to the service as it is.
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            SessionError: If the service refuses, for instance because of the port.

        Wire: GetLink
        """
        with time_limit(timeout):
            action = wire.GetLink(session_id=self.session_id, protocol_type=protocol_type, port=port, option=options)
            reply, link = await self._call_for_data(action, "get link of")
            if not link.url:
                raise SessionError(
                    f"Failed to get link of session {self.session_id}: the answer has none",
                    action=reply.action,
                    request_id=reply.request_id,
                )
            return OperationResult(request_id=reply.request_id, success=True, data=link.url)

    def get_token(self) -> str:
        """Return `token`, which programs should read instead.

        Deprecated, as in the official package.
        """
        warnings.warn("get_token() is deprecated: read session.token", DeprecationWarning, stacklevel=2)
        return self.token

    def get_link_url(self) -> str:
        """Return `link_url`, which programs should read instead.

        Deprecated, as in the official package.
        """
        warnings.warn("get_link_url() is deprecated: read session.link_url", DeprecationWarning, stacklevel=2)
        return self.link_url

    async def _upload_contexts(self, deadline: Deadline) -> AgentBayError | None:
        try:
            await sync_contexts(self._transport, SyncContext(session_id=self.session_id), deadline)
        except (APIError, TransportError, ReplyError, SessionError) as error:
            return error
        return None

    async def _close_websocket(self) -> None:
        # `ws` is a cached property: asking for it directly would make one, only to close it.
        if "ws" in self.__dict__:  # it was used
            await self.ws.aclose()

    async def _wait_for_state(self, wanted: str, deadline: Deadline, poll_interval: float) -> str:
        return await wait_for_state(self._transport, self.session_id, wanted, deadline, poll_interval)

    async def _call_as_session_error(self, action: Action[DataT], doing: str) -> Reply[DataT]:
        try:
            return await self._transport.call(action)
        except (APIError, TransportError, ReplyError) as error:
            raise self._wrap_error(doing, error) from error

    async def _call_for_data(self, action: Action[DataT], doing: str) -> tuple[Reply[DataT], DataT]:
        reply = await self._call_as_session_error(action, doing)
        try:
            return reply, reply.data_or_raise()
        except ReplyError as error:
            raise self._wrap_error(doing, error) from error

    def _wrap_error(self, doing: str, error: AgentBayError) -> SessionError:
        return SessionError(f"Failed to {doing} session {self.session_id}: {error.message}", **error.context())

    def _not_found_error(self, error: AgentBayError) -> SessionNotFoundError:
        return SessionNotFoundError(f"Session {self.session_id} not found", **error.context())
