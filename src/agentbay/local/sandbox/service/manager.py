"""The door: a zygote, and the sandboxes that come from it."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from agentbay.local.sandbox.service import capability_probe, zygote_process
from agentbay.local.sandbox.service.cgroups import CgroupManager
from agentbay.local.sandbox.service.channel import Channel
from agentbay.local.sandbox.service.errors import (
    FileOperationFailed,
    IsolationUnavailable,
    ResourceCreationFailed,
    SandboxError,
    SandboxGone,
)
from agentbay.local.sandbox.service.sandbox import Sandbox
from agentbay.local.sandbox.service.spec import (
    BindMount,
    Completed,
    IsolationMode,
    Limits,
    NetworkMode,
    ResourceUsage,
    SandboxSpec,
)
from agentbay.local.sandbox.service.terminal import Terminal
from agentbay.local.sandbox.service.warm_pool import WarmPool
from agentbay.local.sandbox.service.watchdog import ResourceWatchdog, TotalMemoryWatchdog
from agentbay.local.sandbox.service.zygote_process import ZygoteProcess
from agentbay.local.sandbox.shared.ipc import Message
from agentbay.local.sandbox.shared.proc_fs import RunningProcess
from agentbay.local.sandbox.shared.syscalls import SetupFailed
from agentbay.local.sandbox.zygote import rlimits

__all__ = [
    "BindMount",
    "Completed",
    "FileOperationFailed",
    "IsolationMode",
    "IsolationUnavailable",
    "Limits",
    "NetworkMode",
    "ResourceCreationFailed",
    "ResourceUsage",
    "RunningProcess",
    "Sandbox",
    "SandboxError",
    "SandboxGone",
    "SandboxManager",
    "SandboxSpec",
    "Terminal",
]

_logger = logging.getLogger(__name__)


class SandboxManager:
    """Makes sandboxes; everything it has made dies with it, or with this process."""

    def __init__(self, zygote: ZygoteProcess, isolation: IsolationMode = "namespaces") -> None:
        loop = asyncio.get_running_loop()
        self.isolation: IsolationMode = isolation
        self._template_owner = zygote_process.sandbox_owner() if isolation == "namespaces" else None
        self.owner = self._template_owner or (os.geteuid(), os.getegid())
        self._zygote = zygote
        self._sandboxes: set[Sandbox] = set()
        self._closed = False
        self._total_memory: TotalMemoryWatchdog | None = None
        self._ready: asyncio.Future[bool] = loop.create_future()
        self._channel = Channel(zygote.socket, self._on_message, self._on_hang_up)
        self._warm_pool = WarmPool(self._channel.send)

    @property
    def cgroups(self) -> CgroupManager | None:
        """The control groups of its sandboxes; None where none can be made."""
        return self._warm_pool.cgroups

    @property
    def controllers(self) -> frozenset[str]:
        """What control groups limit."""
        return self.cgroups.controllers if self.cgroups else frozenset()

    @classmethod
    async def start(cls, *, isolation: IsolationMode = "namespaces") -> Self:
        """Start a zygote and try out one sandbox.

        Args:
            isolation: "namespaces" for everything; "landlock" and "none" for machines without them, see `exposure`.
                Sandboxes of these have the host's network, whatever their spec says.

        Raises:
            IsolationUnavailable: This machine cannot isolate so; says what is missing.
        """
        zygote_process.check_machine()
        zygote = zygote_process.start_zygote()
        host = cls(zygote, isolation)
        try:
            if not await host._ready:
                raise SandboxError(f"the zygote did not start: {zygote.stderr_text()}")
            await host._run_trial()
        except BaseException:
            await host.close()
            raise
        return host

    def limit_total(self, limits: Limits) -> None:
        """Hold what all sandboxes that are made from now on may use together: by control groups, else memory alone."""
        if self.cgroups:
            self.cgroups.set_total_limits(limits)
        if limits.total_memory_bytes is not None and "memory" not in self.controllers:
            self._total_memory = TotalMemoryWatchdog(limits.total_memory_bytes)

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
        self._warm_pool.disable_cgroups()

    async def _create(self, spec: SandboxSpec) -> Sandbox:
        if self._closed:
            raise SandboxGone("the sandbox host is closed")
        nice = 0 if "cpu" in self.controllers else rlimits.nice_for_cpu_share(spec.limits.cpu_share)
        frame = zygote_process.make_template(self.isolation, spec.network, self._template_owner)
        plan = zygote_process.make_config(spec, frame, nice)
        zygote_process.create_directories(plan)
        socket, group = self._warm_pool.acquire(frame, spec.limits)
        sandbox = Sandbox(socket, ResourceWatchdog(spec, group, self._total_memory), self._on_sandbox_end)
        self._sandboxes.add(sandbox)
        sandbox.send_config(plan)
        try:
            await sandbox.wait_ready()
        except BaseException:
            await sandbox.close()
            raise
        return sandbox

    def _on_sandbox_end(self, sandbox: Sandbox) -> None:
        self._sandboxes.discard(sandbox)
        self._warm_pool.dispose_cgroup(sandbox.watchdog.cgroup)

    def disable_cgroups(self) -> None:
        """Do without control groups from now on, as on a machine where none can be made."""
        self._warm_pool.disable_cgroups()

    async def _run_trial(self) -> None:
        with tempfile.TemporaryDirectory(prefix="agentbay-trial-") as directory:
            spec = SandboxSpec(root=Path(directory))
            try:
                try:
                    sandbox = await self._create(spec)
                except SetupFailed as failure:
                    if failure.step != "cgroup":
                        raise
                    _logger.info("control groups are not used: %s", failure)
                    self.disable_cgroups()
                    sandbox = await self._create(spec)
            except SetupFailed as failure:
                raise IsolationUnavailable([capability_probe.explain_failure(failure)]) from failure
            await sandbox.close()

    def _on_message(self, message: Message, fds: Iterable[int]) -> None:
        self._ready.set_result(message["event"] == "ready")

    def _on_hang_up(self) -> None:
        self._closed = True
        if not self._ready.done():
            self._ready.set_result(False)
