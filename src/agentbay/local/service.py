"""The service: sessions, contexts, dashboard, application and web server put together."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from agentbay._wire.converter import structure
from agentbay._wire.form import read_fields
from agentbay._wire.sessions import CreatedSessionData, CreateMcpSession
from agentbay._wire.tools import CallMcpTool, Shell, ToolReply
from agentbay.errors import ConfigurationError
from agentbay.local.agent.session_agent import ModelSettings
from agentbay.local.agent.task import TaskLimits
from agentbay.local.contexts.service import ContextService
from agentbay.local.handlers.registry import ACTIONS, TARGETS
from agentbay.local.handlers.tool_calls import RAW_TOOLS, TOOLS, read_catalogue_file
from agentbay.local.http import envelope
from agentbay.local.http.app import Application
from agentbay.local.http.origin_check import OriginCheck
from agentbay.local.http.web_server import WebServer
from agentbay.local.images.service import ImageService
from agentbay.local.lazy_imports import import_in_thread
from agentbay.local.listening import ServerAddress
from agentbay.local.network.provider import NetworkProvider
from agentbay.local.options import MODEL_KEY_VARIABLE, Options
from agentbay.local.runtime import Runtime
from agentbay.local.sandbox.service.manager import Limits, SandboxManager
from agentbay.local.sessions.images import DEFAULT_IMAGE
from agentbay.local.sessions.table import SessionTable
from agentbay.local.skills import SkillError, SkillFolder
from agentbay.local.state_dir import StateDirectory

if TYPE_CHECKING:
    from agentbay.local.builds.service import BuildService
    from agentbay.local.dashboard.routes import Dashboard

_IDLE_IMPORT_SECONDS = 1.0  # before the remaining modules are imported; short programs have ended by then
_LAST_UPLOADS_SECONDS = 5.0  # for the last uploads of sessions after a second signal


@asynccontextmanager
async def running_service(
    sandboxes: SandboxManager,
    state_dir: StateDirectory,
    address: ServerAddress,
    options: Options,
    key: str,
    skip_drain: asyncio.Event,
    end_now: asyncio.Event,
) -> AsyncIterator[tuple[Callable[[], Dashboard], asyncio.Task[None]]]:
    """Serve at an address, and yield the dashboard's maker and the server's task.

    At the end, new calls are refused, calls under way may finish within `options.drain` seconds or until `skip_drain`,
    and then all sessions are ended with their last uploads, for which `end_now` leaves a few seconds.
    """
    async with _open_runtime(sandboxes, state_dir, address, options) as runtime:
        origin_check = OriginCheck(key, address)

        @cache
        def dashboard() -> Dashboard:
            from agentbay.local.dashboard.routes import Dashboard  # with its first request, since few runtimes need it

            return Dashboard(runtime, origin_check)

        application = Application(runtime, origin_check, dashboard)
        server = WebServer(application, options)
        # The leftovers are moved away now, which is quick. Removing large trees is not, and goes on in a thread.
        sweeping = asyncio.create_task(asyncio.to_thread(state_dir.remove_leftovers, state_dir.trash_leftovers()))
        serving = asyncio.create_task(server.serve(address.listeners))
        loading = asyncio.create_task(_import_when_idle(application))
        try:
            await _wait_until_ready(server, serving)
            yield dashboard, serving
        finally:
            loading.cancel()
            runtime.sessions.begin_close()
            await _drain(application, options.drain, skip_drain)
            await runtime.close_builds()
            await _close_sessions(runtime.sessions, sandboxes, end_now)
            application.close_streams()
            # The server stops last: until then, new calls get the error of a shutdown instead of a refused connection.
            server.stop()
            await asyncio.gather(serving, sweeping)


@asynccontextmanager
async def _open_runtime(
    sandboxes: SandboxManager, state_dir: StateDirectory, address: ServerAddress, options: Options
) -> AsyncIterator[Runtime]:
    """Yield what answers calls, and close its stores at the end."""
    max_sessions, limits = _limit_total(sandboxes, options), _session_limits(options)
    skill_folder = _open_skills(options)
    networks, model = _open_networks(options, address), _open_model(options)
    images = _open_images(sandboxes, state_dir, options)
    sessions = SessionTable(
        sandboxes,
        state_dir,
        limits,
        max_sessions,
        networks=networks,
        model=model,
        images=images.store,
        start_ahead=_may_start_ahead(options),
    )
    contexts = ContextService(state_dir, sandboxes.owner, options.context_store)

    def make_builds() -> BuildService:
        from agentbay.local.builds.service import BuildService  # with the first build, since few runtimes build

        return BuildService(images, sandboxes, networks, state_dir, limits)

    with_links = options.link_url == "on"
    try:
        yield Runtime(sessions, contexts, images, make_builds, networks, address, with_links, skill_folder)
    finally:
        await contexts.close()
        await images.close()
        if model is not None:
            await model.model.close()


async def _wait_until_ready(server: WebServer, serving: asyncio.Task[None]) -> None:
    """Wait until the server listens, or has failed to."""
    listening = asyncio.create_task(server.ready.wait())
    await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
    listening.cancel()


async def _import_when_idle(application: Application) -> None:
    """Import what the start left out, between calls."""
    await asyncio.sleep(_IDLE_IMPORT_SECONDS)
    tables = [*ACTIONS.modules, *TOOLS.modules, *RAW_TOOLS.modules, *TARGETS.modules]
    for module in ("http.web_server_websocket", "network.proxy_request", "network.system_proxy", *tables):
        await application.wait_until_idle()
        await import_in_thread(module)


async def _drain(application: Application, seconds: float, skip_drain: asyncio.Event) -> None:
    waits = {asyncio.create_task(application.wait_until_idle()), asyncio.create_task(skip_drain.wait())}
    _, pending = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()


async def _close_sessions(sessions: SessionTable, sandboxes: SandboxManager, end_now: asyncio.Event) -> None:
    """End all sessions with their uploads, or kill them soon after `end_now`."""
    closing = asyncio.create_task(sessions.close())
    waiting_for_end = asyncio.create_task(end_now.wait())
    await asyncio.wait({closing, waiting_for_end}, return_when=asyncio.FIRST_COMPLETED)
    waiting_for_end.cancel()
    await asyncio.wait({closing}, timeout=_LAST_UPLOADS_SECONDS)
    if not closing.done():
        # The uploads under way fail without their sandboxes, so that `closing` ends.
        await sandboxes.close()
    await closing


def _limit_total(sandboxes: SandboxManager, options: Options) -> int | None:
    """Limit all sessions together, and return how many there may be.

    Raises:
        ConfigurationError: An option needs control groups that this user cannot make here.
    """
    for name in ("session_cpus", "cpus"):
        if getattr(options, name) is not None and "cpu" not in sandboxes.controllers:
            raise ConfigurationError(
                f"--{name.replace('_', '-')} needs control groups (cpu), which this user cannot make here.",
                hint="What holds without them: --max-sessions, and limits of memory, processes and disk.",
            )
    sandboxes.limit_total(Limits(options.processes, total_memory_bytes=options.memory, cpu_quota=options.cpus))
    if options.processes is None or "pids" in sandboxes.controllers:
        return options.max_sessions
    return min(_max_sessions_by_processes(options, options.processes), options.max_sessions or sys.maxsize)


def _max_sessions_by_processes(options: Options, processes: int) -> int:
    """Return how many sessions fit if each uses all processes it may have."""
    if options.isolation != "auto":
        raise ConfigurationError(
            f"--processes needs control groups (pids) or namespaces, and --isolation {options.isolation} has neither "
            "here.",
            hint="Leave it out, or start the runtime as root.",
        )
    if processes < options.session_processes:
        raise ConfigurationError(
            f"--processes {processes} is less than one session may have (--session-processes "
            f"{options.session_processes}); without control groups, each counts with all of them.",
            hint="Lower --session-processes too.",
        )
    return processes // options.session_processes


def _open_networks(options: Options, address: ServerAddress) -> NetworkProvider:
    return NetworkProvider(
        options.session_network, options.allow_host, address.port, isolated=options.isolation == "auto"
    )


def _open_images(sandboxes: SandboxManager, state_dir: StateDirectory, options: Options) -> ImageService:
    return ImageService(
        state_dir, sandboxes.owner, default_registry=options.image_registry or "", mirror=options.image_mirror or ""
    )


def _open_model(options: Options) -> ModelSettings | None:
    """Return the model for tasks in words.

    Raises:
        ConfigurationError: A package is missing.
    """
    if not options.model_url or not options.model:
        return None
    from agentbay.local.agent.model import Model, missing_package_message

    if message := missing_package_message():
        raise ConfigurationError(f"--model-url: {message}")
    model = Model(options.model_url, options.model, os.environ.get(MODEL_KEY_VARIABLE, ""))
    return ModelSettings(model, TaskLimits(options.task_steps, options.task_time, options.task_tokens))


def _may_start_ahead(options: Options) -> bool:
    """Return whether browsers and desktops may be started before sessions ask for them.

    Not if all sessions share a limit: a waiting browser would use up part of it.
    """
    return options.start_ahead == "on" and (options.memory, options.processes) == (None, None)


def _open_skills(options: Options) -> SkillFolder | None:
    """Return the folder of skills.

    Raises:
        ConfigurationError: It or a skill in it cannot be read.
    """
    if options.skills is None:
        return None
    folder = SkillFolder(options.skills)
    try:
        folder.skills()
    except SkillError as error:
        raise ConfigurationError(f"--skills {options.skills}: {error}.") from error
    return folder


def _session_limits(options: Options) -> Limits:
    limits = Limits(
        processes=options.session_processes,
        open_files=options.session_open_files,
        disk_bytes=options.session_disk,
        cpu_quota=options.session_cpus,
        output_bytes=options.output_limit,
    )
    if options.session_memory is None:
        return limits
    return replace(limits, total_memory_bytes=options.session_memory)


def warm_up() -> None:
    """Compile the converters that the first requests need, so that these need not wait."""
    read_catalogue_file(DEFAULT_IMAGE)
    envelope.success_response(CreateMcpSession.spec, CreatedSessionData(), "")
    envelope.success_response(CallMcpTool.spec, structure({"content": []}, ToolReply), "")
    structure({"command": ""}, Shell)
    read_fields(CreateMcpSession, {})
