"""Sandboxes whose browser or desktop was started before a session asks for them.

A browser takes a third of a second to start, and a desktop a quarter. So once a session has used one, the next session
of the same image name finds one running. Nothing is reused: each of these sandboxes is made like any other, serves one
session, and ends with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from agentbay.local.browser.browser import BrowserFailed, SessionBrowser
from agentbay.local.desktop.connection import DesktopFailed
from agentbay.local.desktop.desktop import SessionDesktop
from agentbay.local.ids import make_id
from agentbay.local.network.provider import NetworkProvider
from agentbay.local.sandbox.service.manager import (
    Limits,
    NetworkMode,
    Sandbox,
    SandboxError,
    SandboxManager,
    SandboxSpec,
)
from agentbay.local.sandbox.service.unmapped_memory import available_memory
from agentbay.local.state_dir import StateDirectory, remove_tree

if TYPE_CHECKING:
    from agentbay.local.network.proxy import EgressProxy

_QUIET_SECONDS = 1.0  # after a use, so that starting ahead takes no processor from the session that has just begun
_KEPT_SECONDS = 600.0  # unused for so long, a sandbox is ended and its memory freed
_MAX_KEPT = 2  # image names; a sandbox takes up to 250 MiB
_MIN_AVAILABLE_BYTES = 1 << 30  # with less memory available on the machine, nothing is started ahead
_logger = logging.getLogger(__name__)

Use = Literal["browser", "desktop"]


class PrestartedSandbox(NamedTuple):
    """A sandbox that belongs to no session yet, with what runs in it."""

    session_id: str
    directory: Path
    spec: SandboxSpec
    host_mounts: str
    sandbox: Sandbox
    egress_proxy: EgressProxy | None
    browser: SessionBrowser
    desktop: SessionDesktop


class PrestartedSandboxes:
    """Keeps one sandbox for each image name that is in use.

    Those are the names whose sessions have used a browser or a desktop lately.

    Args:
        enabled: False keeps none.
    """

    def __init__(
        self,
        sandboxes: SandboxManager,
        state_dir: StateDirectory,
        networks: NetworkProvider,
        limits: Limits,
        *,
        enabled: bool,
    ) -> None:
        self._sandboxes, self._state_dir, self._networks, self._limits = sandboxes, state_dir, networks, limits
        self._enabled = enabled
        self._uses: dict[str, set[Use]] = {}  # by image name, the one used last at the end
        self._kept: dict[str, PrestartedSandbox] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}  # to start a sandbox, or to end an unused one
        self._starting: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()  # the starting ones, and those that end sandboxes

    def programs_for(self, image_id: str) -> tuple[SessionBrowser, SessionDesktop]:
        """Return the browser and the desktop of a new session, not started."""
        return (
            SessionBrowser(on_used=partial(self._note, image_id, "browser")),
            SessionDesktop(on_used=partial(self._note, image_id, "desktop")),
        )

    def take(self, image_id: str, network: NetworkMode, environment: Mapping[str, str]) -> PrestartedSandbox | None:
        """Return a sandbox with this network and these variables, or None.

        The caller owns it from then on.
        """
        kept = self._kept.pop(image_id, None)
        if kept is None:
            return None
        self._schedule(image_id)
        # A session must see what the host has mounted since the sandbox was started.
        wanted = network, environment, _host_mounts()
        if kept.sandbox.alive and (kept.spec.network, kept.spec.env, kept.host_mounts) == wanted:
            return kept
        self._spawn(self._dispose(kept))
        return None

    async def close(self) -> None:
        """End all that are kept."""
        self._enabled = False
        for timer in self._timers.values():
            timer.cancel()
        for task in self._starting:
            task.cancel()
        for image_id in list(self._kept):
            self._give_up(image_id)
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _note(self, image_id: str, use: Use) -> None:
        """Note that a session of this image name has used something."""
        self._uses[image_id] = {*self._uses.pop(image_id, ()), use}
        for forgotten in list(self._uses)[:-_MAX_KEPT]:
            del self._uses[forgotten]
            self._give_up(forgotten)
        if image_id not in self._kept:
            self._schedule(image_id)

    def _schedule(self, image_id: str) -> None:
        self._set_timer(image_id, _QUIET_SECONDS, self._begin)

    def _set_timer(self, image_id: str, seconds: float, function: Any) -> None:
        if timer := self._timers.pop(image_id, None):
            timer.cancel()
        if self._enabled:
            self._timers[image_id] = asyncio.get_running_loop().call_later(seconds, function, image_id)

    def _begin(self, image_id: str) -> None:
        if available_memory() >= _MIN_AVAILABLE_BYTES:
            task = self._spawn(self._start(image_id))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _start(self, image_id: str) -> None:
        made = await self._make(image_id, self._uses.get(image_id, set()))
        if made is None:
            return
        if not self._enabled or image_id in self._kept or image_id not in self._uses:
            await self._dispose(made)
            return
        self._kept[image_id] = made
        self._set_timer(image_id, _KEPT_SECONDS, self._give_up)

    async def _make(self, image_id: str, uses: set[Use]) -> PrestartedSandbox | None:
        """Make a sandbox and start what its sessions use.

        Return None if something fails.
        """
        session_id, network = make_id("session-", 21), self._networks.default
        made: PrestartedSandbox | None = None
        try:
            environment = await self._networks.package_client_environment(network)
            directory = self._state_dir.new_session(session_id)
        except OSError as error:
            _logger.info("nothing is started ahead for %s: %s", image_id, error.strerror)
            return None
        try:
            mounts = _host_mounts()
            spec = SandboxSpec(root=directory, limits=self._limits, network=network, env=environment)
            sandbox = await self._sandboxes.create(spec)
            listener = sandbox.take_proxy_listener()
            proxy = self._networks.start_proxy(listener) if listener else None
            programs = self.programs_for(image_id)
            made = PrestartedSandbox(session_id, directory, spec, mounts, sandbox, proxy, *programs)
            if "browser" in uses:
                await made.browser.start_ahead(sandbox)
            if "desktop" in uses:
                await made.desktop.start_ahead(sandbox)
        except BaseException as error:
            self._spawn(self._dispose(made) if made else self._remove(directory))
            if not isinstance(error, (BrowserFailed, DesktopFailed, SandboxError)):
                raise
            # The next session that asks for it meets the same, and tells its user.
            _logger.info("nothing is started ahead for %s: %s", image_id, error)
            return None
        return made

    def _give_up(self, image_id: str) -> None:
        if timer := self._timers.pop(image_id, None):
            timer.cancel()
        if kept := self._kept.pop(image_id, None):
            self._spawn(self._dispose(kept))

    async def _dispose(self, unused: PrestartedSandbox) -> None:
        if unused.egress_proxy is not None:
            unused.egress_proxy.close()
        await unused.sandbox.close()
        unused.desktop.close()
        await self._remove(unused.directory)

    async def _remove(self, directory: Path) -> None:
        try:
            await asyncio.to_thread(remove_tree, self._state_dir.move_to_trash(directory))
        except OSError as error:
            _logger.warning("files of %s are left: %s", directory.name, error.strerror)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _host_mounts() -> str:
    return Path("/proc/self/mounts").read_text("utf-8", "surrogateescape")
