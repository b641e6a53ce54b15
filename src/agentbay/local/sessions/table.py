"""The table of all sessions of a runtime."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentbay._wire.sessions import SessionDetail
from agentbay.errors import AgentBayError, SessionNotFoundError
from agentbay.local.agent.session_agent import ModelSettings, SessionAgent
from agentbay.local.api_errors import (
    internal_error,
    invalid_request,
    session_not_found,
    shutting_down,
    storage_full,
    too_many_sessions,
)
from agentbay.local.ids import make_id
from agentbay.local.images.errors import ImageError, unusable_image
from agentbay.local.images.store import Image, ImageStore
from agentbay.local.network.provider import NetworkProvider
from agentbay.local.sandbox.service.manager import (
    BindMount,
    Limits,
    OverlayUnavailable,
    Sandbox,
    SandboxError,
    SandboxManager,
    SandboxSpec,
    SharedLayer,
    WritableUnavailable,
)
from agentbay.local.sessions import image_spec
from agentbay.local.sessions.lifecycle import SessionState
from agentbay.local.sessions.lifetime import Lifetime
from agentbay.local.sessions.mount_points import MountPoints
from agentbay.local.sessions.prepared_directories import PreparedDirectories
from agentbay.local.sessions.records import SessionRecords
from agentbay.local.sessions.session import Session
from agentbay.local.sessions.session_options import SandboxOptions, make_directory
from agentbay.local.sessions.started_ahead import AheadPool, StartedAhead
from agentbay.local.skills import Skill, SkillError, install_skills
from agentbay.local.state_dir import StateDirectory, remove_tree

if TYPE_CHECKING:
    from agentbay.local.contexts.session_contexts import SessionContexts
    from agentbay.local.kernels.python_forker import PythonKernelForker

_logger = logging.getLogger(__name__)

_DELETE_WAIT_SECONDS = 0.25  # a deletion that ends in this time is answered as done: the client need not ask again
_MIN_EXPIRY_CHECK_SECONDS = 0.05  # between two checks of a session that is about to expire


class SessionTable:
    """Creates, finds and deletes sessions.

    Args:
        sandboxes: Makes the sandbox of each session.
        limits: The limits of each session.
        max_sessions: How many sessions there may be at a time; None is no limit.
        networks: The networks that sessions can have.
        images: Keeps the layers that sessions use.
        model: The model that carries out tasks; None if there is none.
        start_ahead: Whether browsers and desktops are started before sessions ask for them.
    """

    def __init__(
        self,
        sandboxes: SandboxManager,
        state_dir: StateDirectory,
        limits: Limits | None = None,
        max_sessions: int | None = None,
        *,
        networks: NetworkProvider,
        images: ImageStore,
        model: ModelSettings | None = None,
        start_ahead: bool = False,
    ) -> None:
        self._sandboxes, self._state_dir, self._networks, self._images = sandboxes, state_dir, networks, images
        self._model = model
        self._limits, self._max_sessions = limits or Limits(), max_sessions
        self._records = SessionRecords(state_dir.path / "sessions.db", durable=not state_dir.temporary)
        self._sessions: dict[str, Session] = {}
        self._creating_count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._mount_points = MountPoints(sandboxes, state_dir, images)
        isolated = sandboxes.isolation == "namespaces"
        self._directories = {
            has_layers: PreparedDirectories(
                state_dir, partial(sandboxes.prepare_root, has_layers=has_layers) if isolated else None, self.start_task
            )
            for has_layers in (False, True)
        }
        self._ahead = AheadPool(sandboxes, state_dir, networks, self._limits, enabled=start_ahead)

    @property
    def isolation(self) -> str:
        """The isolation mode of the sandboxes."""
        return self._sandboxes.isolation

    @property
    def sandboxes(self) -> SandboxManager:
        """The manager that makes the sandboxes."""
        return self._sandboxes

    @cached_property
    def _python_forker(self) -> PythonKernelForker:
        from agentbay.local.kernels.python_forker import PythonKernelForker  # with the first code

        return PythonKernelForker(self._state_dir.path / "cache")

    @property
    def closing(self) -> bool:
        """Whether the runtime is shutting down."""
        return self._closing

    def find(self, session_id: str) -> Session:
        """Return a session that can be used.

        Raises:
            SessionNotFoundError: There is no such session, or it has ended.
        """
        session = self._sessions.get(session_id)
        if session is None or not session.lifecycle.is_usable:
            raise session_not_found()
        return session

    def detail(self, session_id: str) -> SessionDetail:
        """Describe a session, also while it is deleted and for a day after.

        Raises:
            SessionNotFoundError: There is no such session.
        """
        if session_id in self._sessions:
            return self._sessions[session_id].detail()
        if ended := self._records.find_ended(session_id):
            return ended
        raise session_not_found()

    def matching(self, condition: Callable[[Session], bool]) -> list[Session]:
        """Return the usable sessions that meet the condition, by creation."""
        return [session for session in self._sessions.values() if session.lifecycle.is_usable and condition(session)]

    async def create(
        self,
        *,
        image_id: str,
        labels: Mapping[str, str],
        lifetime: Lifetime,
        contexts: SessionContexts,
        image: Image | None = None,
        shared: Sequence[SharedLayer] = (),
        skills: Sequence[Skill] = (),
        options: SandboxOptions | None = None,
        **facts: str,
    ) -> Session:
        """Create a session, with these skills in it.

        On failure or cancellation nothing of it is left.

        Raises:
            InvalidRequestError: An option cannot be given.
            QuotaExceededError: There are as many sessions as there may be.
            ServerError: It could not be created.
        """
        if self._closing:
            raise shutting_down()
        if self._max_sessions is not None and len(self._sessions) + self._creating_count >= self._max_sessions:
            raise too_many_sessions(self._max_sessions)
        # Counted before the first await, or calls at the same time would all find room for one more session.
        self._creating_count += 1
        try:
            session = await self._make(
                image_id=image_id,
                image=image and self._mount_points.add_to(image),
                shared=shared,
                labels=labels,
                lifetime=lifetime,
                contexts=contexts,
                skills=skills,
                options=options or SandboxOptions(),
                **facts,
            )
        finally:
            self._creating_count -= 1
        if image is not None and self._mount_points.is_due(image):
            self.start_task(self._make_mount_points(session, image))
        if image_id.startswith("code") and self._python_forker.ready:
            self.start_task(session.kernels.prestart(session.sandbox, "python", session.environment))
        self.start_task(self._delete_when_sandbox_dies(session))
        self._schedule_expiry(session)
        _logger.info("created %s", session.session_id)
        return session

    async def _sandbox_spec(self, session: Session, options: SandboxOptions, binds: Sequence[BindMount]) -> SandboxSpec:
        network = self._networks.network_for_policy(session.policy_id)
        spec = SandboxSpec(
            root=session.directory,
            binds=binds,
            limits=self._limits,
            network=network,
            env=await self._networks.package_client_environment(network),
            directory=options.directory,
            writable=options.writable,
        )
        image = session.image
        if image is None:
            return spec
        if image.base and self._sandboxes.has_overlays:
            return replace(image_spec.apply_snapshot(spec, image, self._images), shared=session.shared)
        if image.base:
            return await asyncio.to_thread(image_spec.restore_directories, spec, image, self._images)
        from agentbay.local.kernels.given_ipython import make_given_ipython  # it imports importlib.metadata

        caches = self._state_dir.path / "cache"
        given = await asyncio.to_thread(make_given_ipython, caches) if image.programs.python else None
        return replace(image_spec.apply_image(spec, image, self._images, given), shared=session.shared)

    async def _create_sandbox(self, session: Session, options: SandboxOptions, binds: Sequence[BindMount]) -> Sandbox:
        session.spec = await self._sandbox_spec(session, options, binds)
        try:
            sandbox = await self._sandboxes.create(session.spec)
        except OverlayUnavailable:  # the files of the snapshot are copied instead
            session.spec = await self._sandbox_spec(session, options, binds)
            sandbox = await self._sandboxes.create(session.spec)
        session.is_layered = bool(session.spec.image or session.spec.layers)
        return sandbox

    async def _make_mount_points(self, session: Session, image: Image) -> None:
        await self._mount_points.make(image, await self._sandbox_spec(session, SandboxOptions(), []))

    async def _make(
        self,
        *,
        image_id: str,
        image: Image | None,
        shared: Sequence[SharedLayer],
        contexts: SessionContexts,
        skills: Sequence[Skill],
        options: SandboxOptions,
        **fields: Any,
    ) -> Session:
        if image_id.startswith("code"):
            self._python_forker.start_zygote()
        ahead = None
        if image is None and contexts.is_empty and options == SandboxOptions():
            ahead = await self._take_ahead(image_id, fields["policy_id"])
        browser, desktop = (ahead.browser, ahead.desktop) if ahead else self._ahead.programs_for(image_id)
        session_id = ahead.session_id if ahead else make_id("session-", 21)
        session = Session(
            directory=ahead.directory if ahead else self._make_directory(session_id, has_layers=image is not None),
            session_id=session_id,
            image_id=image_id,
            image=image,
            start_python=lambda *given: self._python_forker.start(*given),
            agent=SessionAgent(self._model),
            browser=browser,
            desktop=desktop,
            **fields,
        )
        session.options, session.shared = options, tuple(shared)
        try:
            await self._set_up(session, ahead, contexts, skills)
        except BaseException as error:
            # A client that disconnects cancels the creation, which must not leave anything either.
            self.start_task(self._dispose(session))
            if explained := _explain_failure(error):
                raise explained from error
            raise
        self._sessions[session_id] = session
        return session

    async def _set_up(
        self, session: Session, ahead: StartedAhead | None, contexts: SessionContexts, skills: Sequence[Skill]
    ) -> None:
        """Give a session its sandbox, and fill it."""
        if ahead:
            session.spec = ahead.spec
            session.start(ahead.sandbox, ahead.egress_proxy)
        self._images.acquire(session.kept_layers)
        session.contexts = contexts
        binds = await contexts.prepare(session.session_id, session.directory)
        if not ahead:
            await self._start_sandbox(session, binds)
        sandbox = session.sandbox
        if session.options.directory:
            await make_directory(sandbox, session.options.directory)
        await contexts.start(sandbox)
        await install_skills(sandbox, skills)
        # close() has listed the sessions to delete already, and would miss this one.
        if self._closing:
            raise shutting_down()
        session.creation_number = self._records.add(session)

    def _make_directory(self, session_id: str, *, has_layers: bool) -> Path:
        try:
            return self._directories[has_layers].take(session_id)
        except OSError as error:
            raise storage_full(error) from error

    async def _take_ahead(self, image_id: str, policy_id: str) -> StartedAhead | None:
        """Return a sandbox that was made ahead and fits, or None."""
        network = self._networks.network_for_policy(policy_id)
        environment = await self._networks.package_client_environment(network)
        return self._ahead.take(image_id, network, environment)

    async def _start_sandbox(self, session: Session, binds: Sequence[BindMount]) -> None:
        """Make the sandbox of a session, and let the session run in it."""
        options = session.options
        sandbox = await self._create_sandbox(session, options, binds)
        listener = sandbox.take_proxy_listener()
        session.start(sandbox, self._networks.start_proxy(listener, options.allowed) if listener else None)

    def set_labels(self, session: Session, labels: Mapping[str, str]) -> None:
        """Replace the labels of a session, in memory and on disk."""
        # On disk first: if the disk is full, this raises, and memory stays as it was.
        self._records.set_labels(session.session_id, labels)
        session.labels = dict(labels)

    def change_lifetime(self, session: Session, lifetime: Lifetime) -> None:
        """Change when a session ends by itself."""
        session.lifecycle.change_lifetime(lifetime)
        self._schedule_expiry(session)

    async def pause(self, session: Session) -> None:
        """Freeze a session, even if the client does not wait for it."""
        session.lifecycle.transition_to(SessionState.PAUSING)
        # Without the shield, a disconnect could cancel the freezing half-way, and the state would be PAUSED all the
        # same.
        await asyncio.shield(self.start_task(self._run_and_record(session, session.pause)))

    async def resume(self, session: Session) -> None:
        """Thaw a session, even if the client does not wait for it."""
        session.lifecycle.transition_to(SessionState.RESUMING)
        await asyncio.shield(self.start_task(self._run_and_record(session, session.resume)))

    async def delete(self, session: Session) -> None:
        """Begin to delete a session, paused or not.

        Mostly it has ended when this returns, since that takes milliseconds.
        """
        await asyncio.wait({self._start_deleting(session, "")}, timeout=_DELETE_WAIT_SECONDS)

    def delete_undelivered(self, session_ids: Iterable[str]) -> None:
        """Begin to delete sessions whose client disconnected before they were ready."""
        for session_id in session_ids:
            with suppress(SessionNotFoundError):  # somebody has deleted it meanwhile
                self._start_deleting(self.find(session_id), "Its client went away before it was ready.")

    def begin_close(self) -> None:
        """Accept no more calls, and let those under way continue."""
        self._closing = True

    async def close(self) -> None:
        """Create no more sessions, and delete all there are."""
        self.begin_close()
        for directories in self._directories.values():
            directories.close()
        for session in self.matching(lambda _: True):
            self._start_deleting(session, "The runtime was stopped.")
        # In a loop, since tasks start further ones, such as the removal of files.
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._ahead.close()
        if "_python_forker" in vars(self):
            self._python_forker.close()
        self._records.close()

    async def _run_and_record(self, session: Session, change: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await change()
        finally:
            if session.lifecycle.is_usable:
                self._records.save_state(session)

    def _start_deleting(self, session: Session, reason: str) -> asyncio.Task[None]:
        session.lifecycle.transition_to(SessionState.DELETING)
        session.end_reason = reason
        self._records.save_state(session)
        return self.start_task(self._finish_deleting(session))

    async def _finish_deleting(self, session: Session) -> None:
        await self._dispose(session)
        session.lifecycle.transition_to(SessionState.FINISH)
        del self._sessions[session.session_id]
        self._records.save_state(session)
        _logger.info("ended %s", session.session_id)

    async def _dispose(self, session: Session) -> None:
        """Upload the contexts, kill every process, and remove the files in the background."""
        if session.contexts is not None:
            if session.contexts.bindings:
                await session.save_browser_profile()
            await session.contexts.finish(partial(self._remake_sandbox, session))
        await session.dispose()
        self._images.release(session.kept_layers)
        self.discard(session.directory)

    async def _remake_sandbox(self, session: Session, spec: SandboxSpec) -> Sandbox:
        """Create a sandbox with the files of a session."""
        if session.spec is not None and session.is_layered:
            layers = self._images.layer_paths(session.layers)
            if session.spec.image:
                root = replace(session.spec.image, layers=layers)
                spec = replace(session.spec, image=root, network="none", binds=spec.binds)
            else:
                spec = replace(spec, layers=layers)
        return await self._sandboxes.create(spec)

    def discard(self, directory: Path) -> None:
        """Move a directory out of the way, and remove it in the background."""
        try:
            trash = self._state_dir.move_to_trash(directory)
        except OSError as error:
            _logger.warning("%s is left: %s", directory.name, error.strerror)
        else:
            self.start_task(self._remove_files(trash))

    async def _remove_files(self, directory: Path) -> None:
        try:
            await asyncio.to_thread(remove_tree, directory)
        except OSError as error:
            _logger.warning("%s is left: %s", directory.name, error.strerror)

    async def _delete_when_sandbox_dies(self, session: Session) -> None:
        await session.sandbox.wait_closed()
        if session.lifecycle.is_usable:
            _logger.warning("%s: its first process died", session.session_id)
            self._start_deleting(session, "The first process of the session died.")

    def _schedule_expiry(self, session: Session) -> None:
        if session.expiry_timer is not None:
            session.expiry_timer.cancel()
        left = session.lifecycle.seconds_until_expiry()
        if left is not None:
            session.expiry_timer = asyncio.get_running_loop().call_later(
                max(left, _MIN_EXPIRY_CHECK_SECONDS), self._delete_if_expired, session
            )

    def _delete_if_expired(self, session: Session) -> None:
        left = session.lifecycle.seconds_until_expiry()
        if not session.lifecycle.is_usable or self._closing:
            return
        # Activity only notes its time and moves no timer, so the session may have some time left.
        if left is not None and left <= 0:
            self._start_deleting(session, "Its time was up.")
        else:
            self._schedule_expiry(session)

    def start_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a background task, for which the end of the runtime waits."""
        task = asyncio.create_task(work)
        # The event loop itself holds tasks by weak references only.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _explain_failure(error: BaseException) -> AgentBayError | None:
    """Return the error that tells why a session was not made.

    None means that the error itself is passed on.
    """
    if isinstance(error, SkillError):
        return internal_error(f"The skills could not be copied into the session: {error}")
    if isinstance(error, WritableUnavailable):
        return invalid_request(f"writable: {error}.", "WritableNotSupported.Local")
    if isinstance(error, ImageError):
        return unusable_image(error)
    if isinstance(error, SandboxError):
        return internal_error(f"The session could not be made: {error}")
    return None
