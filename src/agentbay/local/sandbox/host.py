"""The door: a zygote, and the sandboxes that come from it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Self

from agentbay.local.sandbox import ladder, launcher, limits
from agentbay.local.sandbox.cgroups import Cgroups, Group
from agentbay.local.sandbox.channel import Channel
from agentbay.local.sandbox.errors import (
    FileOperationFailed,
    IsolationUnavailable,
    NotGiven,
    SandboxError,
    SandboxGone,
)
from agentbay.local.sandbox.guard import Guard
from agentbay.local.sandbox.launcher import Zygote
from agentbay.local.sandbox.processes import Running
from agentbay.local.sandbox.sandbox import Sandbox
from agentbay.local.sandbox.spec import Bind, Completed, Isolation, Limits, Network, SandboxSpec, Usage
from agentbay.local.sandbox.syscalls import SetupFailed, step
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


class _Embryo(NamedTuple):
    socket: socket.socket
    group: Group | None


class SandboxHost:
    """Makes sandboxes; everything it has made dies with it, or with this process."""

    def __init__(self, zygote: Zygote, isolation: Isolation = "namespaces") -> None:
        loop = asyncio.get_running_loop()
        self.isolation: Isolation = isolation
        owner = launcher.sandbox_owner() if isolation == "namespaces" else None
        self.owner = owner or (os.geteuid(), os.getegid())
        self._zygote = zygote
        self._sandboxes: set[Sandbox] = set()
        self._closed = False
        self.cgroups = Cgroups.find()
        self._reserve: _Embryo | None = None
        self._ready: asyncio.Future[bool] = loop.create_future()
        self._channel = Channel(zygote.socket, self._on_message, self._on_hang_up)

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
        self._drop_reserve()
        self._channel.close()
        self._zygote.stop()
        if self.cgroups:
            self.cgroups.close()

    async def _create(self, spec: SandboxSpec) -> Sandbox:
        if self._closed:
            raise SandboxGone("the sandbox host is closed")
        shared = self.cgroups is not None and "cpu" in self.cgroups.controllers
        plan = launcher.plan(spec, 0 if shared else limits.niceness(spec.limits.cpu_share), self.isolation)
        launcher.prepare(plan)
        embryo = self._take_embryo(spec.limits)
        sandbox = Sandbox(embryo.socket, Guard(spec, embryo.group), self._forget)
        self._sandboxes.add(sandbox)
        sandbox.begin(plan)
        with contextlib.suppress(SetupFailed, OSError):  # the next sandbox will meet it again, and say so
            self._reserve = self._conceive()
        try:
            await sandbox.wait_ready()
        except BaseException:
            await sandbox.close()
            raise
        return sandbox

    def _conceive(self) -> _Embryo:
        """Have a process forked that waits, in control groups of its own, to be told which sandbox it is to be.

        One is kept in reserve: to enter a control group takes the kernel up to 20 ms in which nothing else happens.
        """
        with step("cgroup"):
            group = self.cgroups.make() if self.cgroups else None
            doors = group.doors() if group else []
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.send({}, [theirs.detach(), *doors])
        return _Embryo(ours, group)

    def _take_embryo(self, wanted: Limits) -> _Embryo:
        self._reserve = embryo = self._reserve or self._conceive()
        if embryo.group:
            try:
                with step("cgroup"):
                    embryo.group.limit(wanted)
            except SetupFailed:
                self._drop_reserve()
                raise
        self._reserve = None
        return embryo

    def _drop_reserve(self) -> None:
        if self._reserve:
            self._reserve.socket.close()
            if self.cgroups and self._reserve.group:
                self.cgroups.discard(self._reserve.group)
            self._reserve = None

    def _forget(self, sandbox: Sandbox) -> None:
        self._sandboxes.discard(sandbox)
        if self.cgroups and sandbox.guard.group:
            self.cgroups.discard(sandbox.guard.group)

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
                    self._drop_reserve()
                    self.cgroups = None
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
