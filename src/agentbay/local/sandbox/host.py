"""The door: a zygote, and the sandboxes that come from it."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from agentbay.local.sandbox import ladder, launcher, limits
from agentbay.local.sandbox.cgroups import Cgroups
from agentbay.local.sandbox.channel import Channel
from agentbay.local.sandbox.errors import (
    FileOperationFailed,
    IsolationUnavailable,
    NotGiven,
    SandboxError,
    SandboxGone,
)
from agentbay.local.sandbox.guard import Guard, Together
from agentbay.local.sandbox.launcher import Zygote
from agentbay.local.sandbox.processes import Running
from agentbay.local.sandbox.reserve import Reserve
from agentbay.local.sandbox.sandbox import Sandbox
from agentbay.local.sandbox.spec import Bind, Completed, Isolation, Limits, Network, SandboxSpec, Usage
from agentbay.local.sandbox.syscalls import SetupFailed
from agentbay.local.sandbox.terminal import Terminal
from agentbay.local.sandbox.wire import Message

__all__ = [
    "Bind",
    "Completed",
    "FileOperationFailed",
    "Isolation",
    "IsolationUnavailable",
    "Limits",
    "Network",
    "NotGiven",
    "Running",
    "Sandbox",
    "SandboxError",
    "SandboxGone",
    "SandboxHost",
    "SandboxSpec",
    "Terminal",
    "Usage",
]

_logger = logging.getLogger(__name__)


class SandboxHost:
    """Makes sandboxes; everything it has made dies with it, or with this process."""

    def __init__(self, zygote: Zygote, isolation: Isolation = "namespaces") -> None:
        loop = asyncio.get_running_loop()
        self.isolation: Isolation = isolation
        self._frame_owner = launcher.sandbox_owner() if isolation == "namespaces" else None
        self.owner = self._frame_owner or (os.geteuid(), os.getegid())
        self._zygote = zygote
        self._sandboxes: set[Sandbox] = set()
        self._closed = False
        self._together: Together | None = None
        self._ready: asyncio.Future[bool] = loop.create_future()
        self._channel = Channel(zygote.socket, self._on_message, self._on_hang_up)
        self._reserve = Reserve(self._channel.send)

    @property
    def cgroups(self) -> Cgroups | None:
        """The control groups of its sandboxes; None where none can be made."""
        return self._reserve.cgroups

    @property
    def controllers(self) -> frozenset[str]:
        """What control groups limit."""
        return self.cgroups.controllers if self.cgroups else frozenset()

    @classmethod
    async def start(cls, *, isolation: Isolation = "namespaces") -> Self:
        """Start a zygote and try out one sandbox.

        Args:
            isolation: "namespaces" for everything; "landlock" and "none" for machines without them, see `exposure`.
                Sandboxes of these have the host's network, whatever their spec says.

        Raises:
            IsolationUnavailable: This machine cannot isolate so; says what is missing.
        """
        launcher.check_machine()
        zygote = launcher.launch()
        host = cls(zygote, isolation)
        try:
            if not await host._ready:
                raise SandboxError(f"the zygote did not start: {zygote.complaint()}")
            await host._try_out()
        except BaseException:
            await host.close()
            raise
        return host

    def bound(self, limits: Limits) -> None:
        """Hold what all sandboxes that are made from now on may use together: by control groups, else memory alone."""
        if self.cgroups:
            self.cgroups.bound(limits)
        if limits.total_memory_bytes is not None and "memory" not in self.controllers:
            self._together = Together(limits.total_memory_bytes)

    async def create(self, spec: SandboxSpec) -> Sandbox:
        """Make a sandbox.

        Raises:
            SandboxError: It could not be made.
        """
        try:
            return await self._create(spec)
        except SetupFailed as failure:
            raise SandboxError(f"the sandbox could not be made: {failure}") from failure

    async def close(self) -> None:
        """Kill all sandboxes and the zygote."""
        self._closed = True
        await asyncio.gather(*(sandbox.close() for sandbox in self._sandboxes))
        self._channel.close()
        self._zygote.stop()
        self._reserve.give_up_groups()

    async def _create(self, spec: SandboxSpec) -> Sandbox:
        if self._closed:
            raise SandboxGone("the sandbox host is closed")
        nice = 0 if "cpu" in self.controllers else limits.niceness(spec.limits.cpu_share)
        frame = launcher.frame(self.isolation, spec.network, self._frame_owner)
        plan = launcher.plan(spec, frame, nice)
        launcher.prepare(plan)
        socket, group = self._reserve.take(frame, spec.limits)
        sandbox = Sandbox(socket, Guard(spec, group, self._together), self._forget)
        self._sandboxes.add(sandbox)
        sandbox.begin(plan)
        try:
            await sandbox.wait_ready()
        except BaseException:
            await sandbox.close()
            raise
        return sandbox

    def _forget(self, sandbox: Sandbox) -> None:
        self._sandboxes.discard(sandbox)
        self._reserve.discard(sandbox.guard.group)

    def give_up_groups(self) -> None:
        """Do without control groups from now on, as on a machine where none can be made."""
        self._reserve.give_up_groups()

    async def _try_out(self) -> None:
        with tempfile.TemporaryDirectory(prefix="agentbay-trial-") as directory:
            spec = SandboxSpec(root=Path(directory))
            try:
                try:
                    sandbox = await self._create(spec)
                except SetupFailed as failure:
                    if failure.step != "cgroup":
                        raise
                    _logger.info("control groups are not used: %s", failure)
                    self.give_up_groups()
                    sandbox = await self._create(spec)
            except SetupFailed as failure:
                raise IsolationUnavailable([ladder.explain(failure)]) from failure
            await sandbox.close()

    def _on_message(self, message: Message, fds: Iterable[int]) -> None:
        self._ready.set_result(message["event"] == "ready")

    def _on_hang_up(self) -> None:
        self._closed = True
        if not self._ready.done():
            self._ready.set_result(False)
