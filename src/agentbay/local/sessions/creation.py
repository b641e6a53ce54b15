"""The creation of a session: its directory, its sandbox and what it begins with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from agentbay.errors import AgentBayError
from agentbay.local.agent.session_agent import ModelSettings, SessionAgent
from agentbay.local.api_errors import internal_error, invalid_request, storage_full
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
from agentbay.local.sessions.mount_points import MountPoints
from agentbay.local.sessions.prepared_directories import PreparedDirectories
from agentbay.local.sessions.session import Session
from agentbay.local.sessions.session_options import SandboxOptions, make_directory
from agentbay.local.sessions.started_ahead import PrestartedSandbox, PrestartedSandboxes
from agentbay.local.sessions.time_limits import TimeLimits
from agentbay.local.skills import Skill, SkillError, install_skills
from agentbay.local.state_dir import StateDirectory

if TYPE_CHECKING:
    from agentbay.local.contexts.session_contexts import SessionContexts
    from agentbay.local.kernels.python_forker import PythonKernelForker


class SessionRequest(NamedTuple):
    """What a new session is to be.

    Attributes:
        image_id: The image name that its client sees.
        image: The image that it runs; None for the programs of this machine.
        shared: The layers of the image that count to its disk limit.
        skills: What is copied into it.
    """

    image_id: str
    labels: Mapping[str, str]
    time_limits: TimeLimits
    contexts: SessionContexts
    options: SandboxOptions
    policy_id: str
    region_id: str
    image: Image | None = None
    shared: Sequence[SharedLayer] = ()
    skills: Sequence[Skill] = ()


class SessionMaker:
    """Makes sessions from what was prepared for them.

    Args:
        sandboxes: Makes the sandbox of each session.
        limits: The limits of each session.
        networks: The networks that sessions can have.
        images: Keeps the layers that sessions use.
        model: The model that carries out tasks; None if there is none.
        start_ahead: Whether browsers and desktops are started before sessions ask for them.
        start_task: Begins what the end of the runtime waits for.
    """

    def __init__(
        self,
        sandboxes: SandboxManager,
        state_dir: StateDirectory,
        limits: Limits,
        *,
        networks: NetworkProvider,
        images: ImageStore,
        model: ModelSettings | None,
        start_ahead: bool,
        start_task: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._sandboxes, self._state_dir, self._networks, self._images = sandboxes, state_dir, networks, images
        self._limits, self._model, self._start_task = limits, model, start_task
        self._mount_points = MountPoints(sandboxes, state_dir, images)
        isolated = sandboxes.isolation == "namespaces"
        self._directories = {
            has_layers: PreparedDirectories(
                state_dir, partial(sandboxes.prepare_root, has_layers=has_layers) if isolated else None, start_task
            )
            for has_layers in (False, True)
        }
        self._ahead = PrestartedSandboxes(sandboxes, state_dir, networks, limits, enabled=start_ahead)

    @cached_property
    def _python_forker(self) -> PythonKernelForker:
        from agentbay.local.kernels.python_forker import PythonKernelForker  # with the first code

        return PythonKernelForker(self._state_dir.path / "cache")

    async def begin(self, request: SessionRequest) -> Session:
        """Return a session that `set_up` completes.

        It runs already if its sandbox was started ahead. The caller owns it, also if `set_up` fails.

        Raises:
            ServerError: Its directory could not be made.
        """
        image_id, image = request.image_id, request.image and self._mount_points.add_to(request.image)
        if image_id.startswith("code"):
            self._python_forker.start_zygote()
        ahead = await self._take_ahead(request)
        browser, desktop = (ahead.browser, ahead.desktop) if ahead else self._ahead.programs_for(image_id)
        session_id = ahead.session_id if ahead else make_id("session-", 21)
        session = Session(
            directory=ahead.directory if ahead else self._make_directory(session_id, has_layers=image is not None),
            session_id=session_id,
            image_id=image_id,
            image=image,
            labels=request.labels,
            time_limits=request.time_limits,
            policy_id=request.policy_id,
            region_id=request.region_id,
            start_python=lambda *arguments: self._python_forker.start(*arguments),
            agent=SessionAgent(self._model),
            browser=browser,
            desktop=desktop,
        )
        session.options, session.shared = request.options, tuple(request.shared)
        if ahead:
            session.spec = ahead.spec
            session.start(ahead.sandbox, ahead.egress_proxy)
        return session

    async def _take_ahead(self, request: SessionRequest) -> PrestartedSandbox | None:
        """Return a sandbox that was made ahead and fits, or None."""
        if request.image is not None or not request.contexts.is_empty or request.options != SandboxOptions():
            return None
        network = self._networks.network_for_policy(request.policy_id)
        environment = await self._networks.package_client_environment(network)
        return self._ahead.take(request.image_id, network, environment)

    def _make_directory(self, session_id: str, *, has_layers: bool) -> Path:
        try:
            return self._directories[has_layers].take(session_id)
        except OSError as error:
            raise storage_full(error) from error

    async def set_up(self, session: Session, request: SessionRequest) -> None:
        """Give a session its sandbox, unless it has one, and fill it.

        Raises:
            InvalidRequestError: An option cannot be given.
            ServerError: Something failed.
        """
        self._images.acquire(session.kept_layers)
        session.contexts = request.contexts
        try:
            binds = await request.contexts.prepare(session.session_id, session.directory)
            if session.spec is None:
                await self._start_sandbox(session, binds)
            sandbox = session.sandbox
            if request.options.directory:
                await make_directory(sandbox, request.options.directory)
            await request.contexts.start(sandbox)
            await install_skills(sandbox, request.skills)
        except (SkillError, ImageError, SandboxError) as error:
            raise _explain_failure(error) from error

    async def _start_sandbox(self, session: Session, binds: Sequence[BindMount]) -> None:
        """Make the sandbox of a session, and let the session run in it."""
        sandbox = await self._create_sandbox(session, binds)
        listener = sandbox.take_proxy_listener()
        session.start(sandbox, self._networks.start_proxy(listener, session.options.allowed) if listener else None)

    async def _create_sandbox(self, session: Session, binds: Sequence[BindMount]) -> Sandbox:
        session.spec = await self._sandbox_spec(session, session.options, binds)
        try:
            sandbox = await self._sandboxes.create(session.spec)
        except OverlayUnavailable:  # the files of the snapshot are copied instead
            session.spec = await self._sandbox_spec(session, session.options, binds)
            sandbox = await self._sandboxes.create(session.spec)
        session.is_layered = bool(session.spec.image or session.spec.layers)
        return sandbox

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
        from agentbay.local.kernels.ipython_copy import make_ipython_copy  # it imports importlib.metadata

        caches = self._state_dir.path / "cache"
        ipython = await asyncio.to_thread(make_ipython_copy, caches) if image.programs.python else None
        return replace(image_spec.apply_image(spec, image, self._images, ipython), shared=session.shared)

    def prepare_ahead(self, session: Session, request: SessionRequest) -> None:
        """Begin to make what the session's first code and further sessions will need."""
        if request.image is not None and self._mount_points.claim(request.image):
            self._start_task(self._make_mount_points(session, request.image))
        if session.image_id.startswith("code") and self._python_forker.ready:
            self._start_task(session.kernels.prestart(session.sandbox, "python", session.environment))

    async def _make_mount_points(self, session: Session, image: Image) -> None:
        await self._mount_points.make(image, await self._sandbox_spec(session, SandboxOptions(), []))

    def stop_preparing(self) -> None:
        """Prepare no more directories."""
        for directories in self._directories.values():
            directories.close()

    async def close(self) -> None:
        """End what no session has taken."""
        await self._ahead.close()
        if "_python_forker" in vars(self):
            self._python_forker.close()


def _explain_failure(error: SkillError | ImageError | SandboxError) -> AgentBayError:
    """Return the error that tells a client why a session was not made."""
    if isinstance(error, SkillError):
        return internal_error(f"The skills could not be copied into the session: {error}")
    if isinstance(error, WritableUnavailable):
        return invalid_request(f"writable: {error}.", "WritableNotSupported.Local")
    if isinstance(error, ImageError):
        return unusable_image(error)
    return internal_error(f"The session could not be made: {error}")
