"""The client: creates, finds and lists sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Unpack

from .._arguments import checked_arguments, recheck
from .._concurrency import async_shield
from .._handles import Handle
from .._transport.deadline import operation_deadline, time_limit, without_time_limit
from .._transport.sessions import blank_label_error, check_session_id, estimate_times, parse_time, to_session_data
from .._transport.tools import to_mcp_tools
from .._wire.params import awaited_contexts, make_create_session
from .._wire.sessions import GetSession, SessionConnection, SessionData
from ..config import Config, Settings, check_proxy, check_verify, requested_log_level, resolve_settings
from ..errors import AgentBayError, InvalidArgumentError, NotFoundError, SessionError, SessionNotFoundError
from ..models.image_recipe import Image
from ..models.params import CreateSessionParams
from ..models.session import (
    DeleteResult,
    GetSessionResult,
    SessionPauseResult,
    SessionResult,
    SessionResumeResult,
)
from .error_boundary import folded
from .session import AsyncSession
from .session_block import AsyncSessionBlock
from .session_list import AsyncSessionList
from .session_options import give_missing_options
from .waiting import clean_up, wait_for_contexts

if TYPE_CHECKING:
    import ssl

    import httpx

    from .._runtime_launcher import RuntimeLauncher
    from .._transport.reply import Reply
    from ..models.local_options import LocalOptions
    from .beta import AsyncBeta, AsyncBetaNetwork, AsyncBetaSkills
    from .context import AsyncContextService
    from .images import AsyncImages
    from .transport import AsyncTransport

_CREATE_TIMEOUT_SECONDS = 180.0  # with the contexts that it waits for


@checked_arguments(timeout=None, proxy=check_proxy, verify=check_verify)
class AsyncAgentBay(AsyncSessionList, Handle):
    """A client of the service.

    Making one does no I/O; connections open with the first call. One client serves any number of sessions, event loops,
    threads and forks. Close it with `close()`, `aclose()` or by using it as a context manager.

    Args:
        api_key: The key; empty means the variable AGENTBAY_API_KEY, then the profile that AGENTBAY_PROFILE names.
        cfg: Where the service is; None means the variables AGENTBAY_REGION_ID, AGENTBAY_ENDPOINT and
            AGENTBAY_TIMEOUT_MS.
        env_file: File with such variables for those that the environment lacks; needs the extra `dotenv`.
        timeout: Seconds one operation may take, retries and their backoff included; None means 60, unless `cfg` or the
            environment says otherwise. Operations with a time limit of their own (a command, a pause) use that instead.
            Every method takes a `timeout=` too, for all that it does.
        max_retries: How often a call is sent again that was never sent, was refused unprocessed, or is idempotent; 0 is
            never.
        http_client: An httpx client to send everything with; whoever made it closes it, and its own settings hold.
        proxy: URL of a proxy for everything; None means the variables HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY.
        verify: True checks certificates against the usual authorities; or the path of a file of authorities (PEM), or
            an `ssl.SSLContext`. False checks nothing.
        strict: Raise where a failed result would be returned.
        max_connections: How many calls may be under way at once in an event loop; None means 100. Further ones wait.
            Commands, code and transfers of files have four times as many connections of their own.

    Raises:
        ConfigurationError: If there is no key, or a value cannot be used.

    Attributes:
        api_key: The key in use.
        region_id: The region in use.
        client: The transport below; for this package's own use.
        strict: Whether failed operations raise.
    """

    _instead = "Make a new client there."

    api_key: str
    region_id: str
    client: AsyncTransport
    strict: bool

    def __init__(
        self,
        api_key: str = "",
        cfg: Config | None = None,
        env_file: str | None = None,
        *,
        timeout: float | None = None,
        max_retries: int = 2,
        http_client: httpx.AsyncClient | None = None,
        proxy: str | None = None,
        verify: bool | str | ssl.SSLContext = True,
        strict: bool = False,
        max_connections: int | None = None,
    ) -> None:
        settings = resolve_settings(api_key, cfg, env_file, timeout)
        self._set_up(settings, None, max_retries, http_client, proxy, verify, strict, max_connections)

    def _set_up(
        self,
        settings: Settings,
        launcher: RuntimeLauncher | None,
        max_retries: int,
        http_client: httpx.AsyncClient | None,
        proxy: str | None,
        verify: bool | str | ssl.SSLContext,
        strict: bool,
        max_connections: int | None,
    ) -> None:
        from .transport import AsyncTransport

        if level := requested_log_level():
            from .._logging import AgentBayLogger

            AgentBayLogger.setup(level, force_reinit=False)
        self.api_key = settings.api_key
        self.region_id = settings.region_id
        self.strict = strict
        self.client = AsyncTransport(
            settings,
            launcher=launcher,
            max_retries=max_retries,
            http_client=http_client,
            proxy=proxy,
            verify=verify,
            max_connections=max_connections,
        )

    @classmethod
    def local(
        cls,
        *,
        timeout: float | None = None,
        max_retries: int = 2,
        strict: bool = False,
        max_connections: int | None = None,
        **options: Unpack[LocalOptions],
    ) -> AsyncAgentBay:
        """Make a client of a private runtime on this machine.

        Its sessions are real, need no account, and nothing leaves the machine.

        The runtime starts with the first call, in a process of its own, and ends when the client is closed or this
        process ends. On Linux it needs the extra `local`; elsewhere docker or podman runs it in a container.

        Args:
            timeout: Seconds one operation may take; None means 60.
            max_retries: As for the class.
            strict: As for the class.
            max_connections: As for the class.
            **options: Those of the runtime, such as `network`, `allow_hosts`, `session_memory`, `max_sessions`; see
                `LocalOptions`.

        Raises:
            ConfigurationError: From the first call, if the runtime cannot start here; says what is missing.
        """
        from .._runtime_launcher import RuntimeLauncher

        launcher = RuntimeLauncher(options)
        made = cls.__new__(cls)
        made._set_up(launcher.settings(timeout), launcher, max_retries, None, None, True, strict, max_connections)
        return made

    def with_options(
        self, *, timeout: float | None = None, max_retries: int | None = None, strict: bool | None = None
    ) -> AsyncAgentBay:
        """Return a client with other limits that shares this one's connections.

        It works until this one is closed. Closing it does nothing.

        Args:
            timeout: Seconds one operation may take; None leaves it as it is.
            max_retries: How often a call is sent again; None leaves it as it is.
            strict: Raise where a failed result would be returned; None leaves it as it is.

        Raises:
            ConfigurationError: If `timeout` is not a positive number.
        """
        made = type(self).__new__(type(self))
        made.api_key, made.region_id = self.api_key, self.region_id
        made.strict = self.strict if strict is None else strict
        made.client = self.client.with_options(timeout, max_retries)
        return made

    def __repr__(self) -> str:
        return f"{type(self).__name__}(region_id={self.region_id!r}, endpoint={self.client.settings.url!r})"

    @cached_property
    def context(self) -> AsyncContextService:
        """Contexts: stores of files that outlive sessions."""
        from .context import AsyncContextService

        return AsyncContextService(self)

    @cached_property
    def images(self) -> AsyncImages:
        """Images of a local runtime, which sessions run."""
        from .images import AsyncImages

        return AsyncImages(self)

    @cached_property
    def beta(self) -> AsyncBeta:
        """Services that are beta: `beta.skills` and `beta.network`."""
        from .beta import AsyncBeta

        return AsyncBeta(self)

    @cached_property
    def beta_skills(self) -> AsyncBetaSkills:
        """Skills, which sessions can load."""
        from .beta import AsyncBetaSkills

        return AsyncBetaSkills(self)

    @cached_property
    def beta_network(self) -> AsyncBetaNetwork:
        """Networks, which sessions share with machines of your own."""
        from .beta import AsyncBetaNetwork

        return AsyncBetaNetwork(self)

    async def __aenter__(self) -> AsyncAgentBay:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, and the private runtime if there is one.

        Calling it again does nothing.
        """
        await self.client.aclose()

    @folded(SessionResult)
    async def create(
        self, params: CreateSessionParams | None = None, *, timeout: float | None = None
    ) -> SessionResult[AsyncSession]:
        """Create a session and wait for the contexts it starts with.

        Args:
            params: Image, labels, contexts and more; None is all defaults.
            timeout: Seconds until it can be used; None is the client's time limit, and 300 for its contexts.

        Returns:
            The session in `session`. If a context did not arrive, the result is a failed one that holds
            the session all the same, so that it can be used or deleted.

        Wire: CreateMcpSession, GetContextInfo
        """
        with time_limit(timeout):
            return await self._create(CreateSessionParams() if params is None else params)

    async def _create(self, params: CreateSessionParams) -> SessionResult[AsyncSession]:
        recheck(params)
        if refused := blank_label_error(params.labels):
            raise InvalidArgumentError(refused)
        image_id = params.image_id or ""
        if isinstance(image_id, Image):
            image_id = (await self.images.build(image_id)).image_id
        deadline = operation_deadline(_CREATE_TIMEOUT_SECONDS)
        try:
            action = make_create_session(params, self.region_id, image_id)
        except ValueError as error:
            raise InvalidArgumentError(f"The session cannot be created: {error}") from error
        reply = await self.client.call(action)
        created = reply.data_or_raise()
        # The service reports some failures inside an answer that looks successful, or answers without an id.
        if created.success is False or not created.session_id:
            why = "SessionId not found in response" if created.success is not False else "Session creation failed"
            raise SessionError(created.err_msg or why, action=reply.action, request_id=reply.request_id)
        session = self._make_session(created)
        session.image_id = session.image_id or image_id
        session.enableBrowserReplay = params.enable_browser_replay
        if session.created_at is None:
            session.created_at, session.expires_at = estimate_times(params)
        await give_missing_options(session, params, created.given_options)
        mobile = params.extra_configs and params.extra_configs.mobile
        if mobile:
            await session.mobile.configure(mobile)
        lost = await wait_for_contexts(self.client, session.session_id, awaited_contexts(params), deadline)
        if mobile and mobile.simulate_config:
            await session.mobile.apply_simulation(mobile.simulate_config)
        return SessionResult(
            request_id=reply.request_id,
            success=lost is None,
            error_message=lost.message if lost else "",
            session=session,
            exception=lost,
        )

    def _make_session(self, connection: SessionConnection) -> AsyncSession:
        session = AsyncSession(self, connection.session_id)
        session.image_id, session.app_instance_id = connection.image_id, connection.app_instance_id
        session.resource_url = connection.resource_url
        session.vpc_id, session.vpc_ip = connection.vpc_id, connection.vpc_ip
        session.token, session.link_url, session.ws_url = connection.token, connection.link_url, connection.ws_url
        session.mcpTools = to_mcp_tools(connection.tool_list)
        session.created_at, session.expires_at = parse_time(connection.create_time), parse_time(connection.expire_time)
        return session

    def session(self, params: CreateSessionParams | None = None, *, timeout: float | None = None) -> AsyncSessionBlock:
        """Create a session for a `with` block and delete it at the end.

        It is deleted whatever happens inside, also if the task is cancelled.

        Args:
            params: Image, labels, contexts and more; None is all defaults.
            timeout: As for `create`.

        Raises:
            AgentBayError: If it could not be created as asked, or not be deleted. An exception from inside the block
                goes before that, with a note about it.
        """
        return AsyncSessionBlock(self._session_block(params, timeout))

    @asynccontextmanager
    async def _session_block(
        self, params: CreateSessionParams | None, timeout: float | None
    ) -> AsyncIterator[AsyncSession]:
        # A cancellation while the answer is under way would leave a session that nobody can delete, since its id is in
        # the answer. `_create` also returns a session whose contexts are missing, where a strict `create` would lose
        # it.
        with time_limit(timeout):
            result = await async_shield(lambda: self._create(params or CreateSessionParams()), self._delete_if_exists)
        try:
            yield result.unwrap().session
        # Not only Exception: CancelledError and KeyboardInterrupt must delete the session too.
        except BaseException as error:
            try:
                await clean_up(lambda: self._delete_if_exists(result))
            except AgentBayError as lost:
                # Raising here would hide the error of the block, which is the one that the program has to handle.
                error.add_note(f"The session was not deleted either: {lost}")
            raise
        await clean_up(lambda: self._delete_if_exists(result))

    async def _delete_if_exists(self, result: SessionResult[AsyncSession]) -> None:
        if result.session is None:
            return
        try:
            with without_time_limit():  # of the creation, whose result this deletes
                deleted = await result.session.delete()
        # A strict client raises this, any other returns it inside the failed result.
        except NotFoundError:
            return
        if not isinstance(deleted.exception, NotFoundError):  # it may have been deleted inside the block
            deleted.unwrap()

    @folded(SessionResult)
    async def get(self, session_id: str, *, timeout: float | None = None) -> SessionResult[AsyncSession]:
        """Find a session by its id.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Returns:
            The session in `session`; a failed result if it does not exist.

        Wire: GetSession
        """
        with time_limit(timeout):
            reply = await self._call_get_session(session_id)
            return SessionResult(
                request_id=reply.request_id, success=True, session=self._make_session(reply.data_or_raise())
            )

    @folded(GetSessionResult)
    async def get_session(self, session_id: str, *, timeout: float | None = None) -> GetSessionResult:
        """Return everything the service knows about a session.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: GetSession
        """
        with time_limit(timeout):
            reply = await self._call_get_session(session_id)
            return GetSessionResult(
                request_id=reply.request_id,
                http_status_code=200,
                code=reply.code,
                success=True,
                data=to_session_data(reply.data_or_raise()),
            )

    async def _call_get_session(self, session_id: str) -> Reply[SessionData]:
        try:
            return await self.client.call(GetSession(session_id=check_session_id(session_id)))
        except NotFoundError as error:
            message = f"Failed to get session {session_id}: Session {session_id} not found"
            raise SessionNotFoundError(message, **error.context()) from error

    async def delete(
        self, session: AsyncSession | str, sync_context: bool = False, *, timeout: float | None = None
    ) -> DeleteResult:
        """Delete a session, like `session.delete()`.

        Args:
            session: The session, or its id.
            sync_context: Upload its contexts first.
            timeout: Seconds it may take; None is the client's time limit.
        """
        if isinstance(session, str):
            session = AsyncSession(self, check_session_id(session))
        return await session.delete(sync_context, timeout=timeout)

    async def pause(self, session: AsyncSession, timeout: int = 600, poll_interval: float = 2.0) -> SessionPauseResult:
        """Pause a session and wait, like `session.pause()`."""
        return await session.pause(timeout, poll_interval)

    async def pause_async(self, session: AsyncSession, *, timeout: float | None = None) -> SessionPauseResult:
        """Begin to pause a session, like `session.pause_async()`.

        Args:
            timeout: Seconds it may take; None is the client's time limit.
        """
        return await session.pause_async(timeout=timeout)

    async def resume(
        self, session: AsyncSession, timeout: int = 600, poll_interval: float = 2.0
    ) -> SessionResumeResult:
        """Resume a session and wait, like `session.resume()`."""
        return await session.resume(timeout, poll_interval)

    async def resume_async(self, session: AsyncSession, *, timeout: float | None = None) -> SessionResumeResult:
        """Begin to resume a session, like `session.resume_async()`.

        Args:
            timeout: Seconds it may take; None is the client's time limit.
        """
        return await session.resume_async(timeout=timeout)

    beta_pause = pause
    beta_resume = resume
