"""The manager of a zygote and of the sandboxes that it forks."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from agentbay.local.sandbox.service import capability_probe, config_builder, zygote_process
from agentbay.local.sandbox.service.background_process import STREAMS, BackgroundProcess
from agentbay.local.sandbox.service.cgroups import CgroupManager
from agentbay.local.sandbox.service.channel import Channel
from agentbay.local.sandbox.service.commits import order_commit
from agentbay.local.sandbox.service.disk_quota import free_space, measure_files
from agentbay.local.sandbox.service.errors import (
    DirectoryNotEntered,
    FileOperationFailed,
    IsolationUnavailable,
    OverlayUnavailable,
    ResourceCreationFailed,
    SandboxError,
    SandboxGone,
    WritableUnavailable,
)
from agentbay.local.sandbox.service.host_ids import HostIdPool
from agentbay.local.sandbox.service.input_pipe import InputClosed
from agentbay.local.sandbox.service.process_list import RunningProcess
from agentbay.local.sandbox.service.sandbox import Sandbox
from agentbay.local.sandbox.service.spec import (
    BindMount,
    Completed,
    ImageRoot,
    IsolationMode,
    Limits,
    NetworkMode,
    ResourceUsage,
    SandboxSpec,
    SharedLayer,
)
from agentbay.local.sandbox.service.terminal import Terminal
from agentbay.local.sandbox.service.warm_pool import WarmPool
from agentbay.local.sandbox.service.watchdog import ResourceWatchdog, TotalMemoryWatchdog
from agentbay.local.sandbox.service.zygote_process import ZygoteProcess
from agentbay.local.sandbox.shared.ipc import Message
from agentbay.local.sandbox.shared.sandbox_config import CommitOrder
from agentbay.local.sandbox.shared.setup_errors import SetupFailed

__all__ = [
    "STREAMS",
    "BackgroundProcess",
    "BindMount",
    "Completed",
    "DirectoryNotEntered",
    "FileOperationFailed",
    "ImageRoot",
    "InputClosed",
    "IsolationMode",
    "IsolationUnavailable",
    "Limits",
    "NetworkMode",
    "OverlayUnavailable",
    "ResourceCreationFailed",
    "ResourceUsage",
    "RunningProcess",
    "Sandbox",
    "SandboxError",
    "SandboxGone",
    "SandboxManager",
    "SandboxSpec",
    "SharedLayer",
    "Terminal",
    "WritableUnavailable",
    "free_space",
    "measure_files",
]

_logger = logging.getLogger(__name__)
_NO_OVERLAYS = (errno.EPERM, errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP)  # the kernel's or the file system's answers


class SandboxManager:
    """Creates sandboxes.

    All of them end with it, or with this process.
    """

    def __init__(self, zygote: ZygoteProcess, isolation: IsolationMode = "namespaces") -> None:
        loop = asyncio.get_running_loop()
        self.isolation: IsolationMode = isolation
        self.has_overlays = isolation == "namespaces"  # until one cannot be mounted
        self._template_owner = config_builder.sandbox_owner() if isolation == "namespaces" else None
        self.owner = self._template_owner or (os.geteuid(), os.getegid())
        self._zygote = zygote
        self._sandboxes: set[Sandbox] = set()
        self._closed = False
        self._total_memory: TotalMemoryWatchdog | None = None
        self._end_of_trial: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[bool] = loop.create_future()
        self._channel = Channel(zygote.socket, self._on_message, self._on_hang_up, _log_send_error)
        self._warm_pool = WarmPool(self._channel.send, HostIdPool(self._template_owner))

    @property
    def cgroups(self) -> CgroupManager | None:
        """The control groups of its sandboxes.

        None where none can be created.
        """
        return self._warm_pool.cgroups

    @property
    def controllers(self) -> frozenset[str]:
        """The resources that control groups limit, and "freezer" if they can freeze."""
        return self.cgroups.controllers if self.cgroups else frozenset()

    @classmethod
    async def start(cls, *, isolation: IsolationMode = "namespaces") -> Self:
        """Start a zygote and create one sandbox as a trial.

        Args:
            isolation: "namespaces" isolates fully; "landlock" and "none" are for machines without namespaces, see
                `describe_exposure`. Their sandboxes have the host's network, whatever the spec says.

        Raises:
            IsolationUnavailable: This machine cannot isolate in this way.
        """
        zygote_process.check_machine()
        open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))  # each sandbox takes several descriptors
        zygote = zygote_process.start_zygote()
        manager = cls(zygote, isolation)
        try:
            if not await manager._ready:
                raise SandboxError(f"the zygote did not start: {zygote.stderr_text()}")
            await manager._run_trial()
        except BaseException:
            await manager.close()
            raise
        return manager

    def limit_total(self, limits: Limits) -> None:
        """Limit all sandboxes created from now on together.

        Without control groups, only their memory is limited.
        """
        if self.cgroups:
            self.cgroups.set_total_limits(limits)
        if limits.total_memory_bytes is not None and "memory" not in self.controllers:
            self._total_memory = TotalMemoryWatchdog(limits.total_memory_bytes)

    def prepare_root(self, root: Path, *, has_layers: bool = False) -> None:
        """Make what a sandbox begins with.

        This is for sandboxes with namespaces. `create` makes what is missing. This may be called in a thread.

        Args:
            has_layers: Whether it is for a sandbox with layers, such as those of an image.

        Raises:
            OSError: It cannot be made.
        """
        config_builder.prepare_root(root, self._template_owner, has_layers=has_layers)

    async def create(self, spec: SandboxSpec) -> Sandbox:
        """Create a sandbox.

        Raises:
            WritableUnavailable: A directory of the system cannot be made writable here.
            OverlayUnavailable: The spec has layers, which cannot be mounted here.
            SandboxError: It could not be created.
        """
        try:
            return await self._create_with_fallbacks(spec)
        except SetupFailed as failure:
            if failure.step == "writable":
                raise WritableUnavailable(
                    f"this machine cannot make directories of the system writable ({failure.detail}); it takes a "
                    "runtime of root, Linux 6.3, and a state directory that is on no overlay file system itself. New "
                    "directories, such as /app, need none of that"
                ) from failure
            if self._lacks_overlays(failure) and spec.layers:
                raise OverlayUnavailable(f"layers cannot be mounted: {failure}") from failure
            raise SandboxError(f"the sandbox could not be made: {failure}") from failure

    async def commit(self, sandbox: Sandbox, layers: Sequence[str], own: Path, namespaces: Sequence[int]) -> None:
        """Put a new writable layer above a frozen sandbox's files.

        Args:
            layers: What it sees from then on, the lowest first; the last one is what it has written.
            own: A new directory, below its root, for what it writes from then on.
            namespaces: Of the sandbox, from `get_join_info`; they are closed.

        Raises:
            SetupFailed: In the step "switch", the sandbox must end; otherwise it is as before.
        """
        config_builder.make_own_directory(own, self._template_owner)
        order: CommitOrder = {
            "owner": self._template_owner,
            "host_ids": sandbox.host_ids,
            "layers": list(layers),
            "own": os.fspath(own),
            "parts": sandbox.overlay_parts,
        }
        try:
            await order_commit(self._channel.send, order, namespaces)
        except SetupFailed as failure:
            self._lacks_overlays(failure)
            raise

    async def close(self) -> None:
        """Kill all sandboxes and the zygote."""
        self._closed = True
        await asyncio.gather(*(sandbox.close() for sandbox in self._sandboxes))
        if self._end_of_trial is not None:
            await self._end_of_trial
        self._channel.close()
        self._zygote.stop()
        self._warm_pool.close()

    async def _create(self, spec: SandboxSpec) -> Sandbox:
        if self._closed:
            raise SandboxGone("the sandbox manager is closed")
        nice = 0 if "cpu" in self.controllers else config_builder.nice_for_cpu_share(spec.limits.cpu_share)
        template = config_builder.make_template(spec, self.isolation, self._template_owner)
        config = config_builder.make_config(spec, template, nice)
        config_builder.create_directories(config)
        preforked = self._warm_pool.acquire(template, spec.limits)
        config["host_ids"] = preforked.host_ids
        watchdog = ResourceWatchdog(spec, preforked.cgroup, self._total_memory)
        sandbox = Sandbox(preforked.socket, watchdog, self._on_sandbox_end)
        self._sandboxes.add(sandbox)
        sandbox.image = spec.image
        sandbox.send_config(config)
        try:
            await sandbox.wait_ready()
        except BaseException:
            await sandbox.close()
            raise
        return sandbox

    async def _create_with_fallbacks(self, spec: SandboxSpec) -> Sandbox:
        """Create a sandbox, without features that this machine turns out to lack."""
        while True:
            try:
                return await self._create(spec)
            except SetupFailed as failure:
                if failure.step == "cgroup" and self.cgroups:
                    _logger.info("control groups are not used: %s", failure)
                    self.disable_cgroups()
                elif failure.step == "idmap":
                    _logger.info("all sandboxes have the same host uid: %s", failure)
                    self._warm_pool.share_host_ids()
                else:
                    raise

    def _lacks_overlays(self, failure: SetupFailed) -> bool:
        """Return whether overlays of layers are impossible here, and remember that."""
        lacks = failure.step == "overlay" and failure.code in _NO_OVERLAYS
        self.has_overlays = self.has_overlays and not lacks
        return lacks

    def _on_sandbox_end(self, sandbox: Sandbox) -> None:
        self._sandboxes.discard(sandbox)
        self._warm_pool.dispose(sandbox.watchdog.cgroup, sandbox.host_ids)

    def disable_cgroups(self) -> None:
        """Use no control groups from now on."""
        self._warm_pool.disable_cgroups()

    async def _run_trial(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="agentbay-trial-", ignore_cleanup_errors=True)
        with contextlib.ExitStack() as undo:
            undo.callback(directory.cleanup)
            try:
                sandbox = await self._create_with_fallbacks(SandboxSpec(root=Path(directory.name)))
            except SetupFailed as failure:
                raise IsolationUnavailable([capability_probe.explain_failure(failure)]) from failure
            undo.pop_all()
        # Later, since nobody waits for its end, and some disks take milliseconds to remove a directory.
        self._end_of_trial = asyncio.create_task(_end_trial(sandbox, directory))

    def _on_message(self, message: Message, fds: Iterable[int]) -> None:
        self._ready.set_result(message["event"] == "ready")

    def _on_hang_up(self) -> None:
        self._closed = True
        if not self._ready.done():
            self._ready.set_result(False)


async def _end_trial(sandbox: Sandbox, directory: tempfile.TemporaryDirectory[str]) -> None:
    await sandbox.close()
    await asyncio.to_thread(directory.cleanup)


def _log_send_error(message: Message, error: OSError) -> None:
    # the preforked sandbox notices by itself: the other end of its socket was closed with the message
    _logger.warning("the zygote could not be asked for a sandbox: %s", error)
