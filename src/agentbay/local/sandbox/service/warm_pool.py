"""The warm pool: one preforked sandbox, so that the next one is ready sooner."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from agentbay.local.sandbox.service.cgroups import Cgroup, CgroupManager
from agentbay.local.sandbox.service.host_ids import HostIdPool, HostIds
from agentbay.local.sandbox.service.spec import Limits
from agentbay.local.sandbox.shared.ipc import Message
from agentbay.local.sandbox.shared.sandbox_config import SandboxTemplate
from agentbay.local.sandbox.shared.setup_errors import SetupFailed, setup_step

# after a sandbox was taken: joining a control group takes up to 20 ms in which no process can fork
_REFILL_DELAY_SECONDS = 0.03


class PreforkedSandbox(NamedTuple):
    """A waiting process with control groups and host ids of its own.

    Attributes:
        template: What it was preforked for, without the host ids.
        socket: To the process, which ends when this is closed.
        mounts_fd: /proc/self/mounts of the host; it polls as changed when the host mounts something.
    """

    socket: socket.socket
    cgroup: Cgroup | None
    template: SandboxTemplate
    host_ids: HostIds | None
    mounts_fd: int

    @property
    def is_usable(self) -> bool:
        """Whether it is alive, and the host's mounts have not changed since."""
        poll = select.poll()
        # Without any events asked for, poll still reports the end of the process (POLLHUP).
        poll.register(self.socket, 0)
        poll.register(self.mounts_fd, select.POLLPRI)
        return not poll.poll(0)


class WarmPool:
    """Keeps one preforked sandbox.

    Args:
        send: Passes a message with descriptors, which it closes, to the zygote.
    """

    def __init__(self, send: Callable[[Message, Sequence[int]], None], host_ids: HostIdPool) -> None:
        self.cgroups = CgroupManager.discover()
        self._send, self._host_ids = send, host_ids
        self._spare: PreforkedSandbox | None = None
        self._timer: asyncio.TimerHandle | None = None

    def acquire(self, template: SandboxTemplate, limits: Limits) -> PreforkedSandbox:
        """Return a preforked sandbox with its limits set.

        Its descriptors become the caller's, except `mounts_fd`, which is closed.

        Raises:
            SetupFailed: In the step "descriptors" or "cgroup"; nothing is left then.
        """
        if self._spare and not (self._spare.template == template and self._spare.is_usable):
            self.clear()
        # It stays the spare until its limits are set, so that `clear` disposes of it after a failure.
        self._spare = spare = self._spare or self._prefork(template)
        if spare.cgroup:
            try:
                with setup_step("cgroup"):
                    spare.cgroup.set_limits(limits)
            except SetupFailed:
                self.clear()
                raise
        self._spare = None
        os.close(spare.mounts_fd)
        self._schedule_refill(template)
        return spare

    def clear(self) -> None:
        """End the spare sandbox."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._spare:
            self._spare.socket.close()
            os.close(self._spare.mounts_fd)
            self.dispose(self._spare.cgroup, self._spare.host_ids)
            self._spare = None

    def dispose(self, group: Cgroup | None, host_ids: HostIds | None) -> None:
        """Remove an ended sandbox's control groups, and take its host ids back."""
        if self.cgroups and group:
            self.cgroups.dispose(group)
        self._host_ids.release(host_ids)

    def share_host_ids(self) -> None:
        """Give all sandboxes the same host ids from now on."""
        self.clear()
        self._host_ids.close()

    def close(self) -> None:
        """End the spare sandbox, remove the control groups, and give the host ids back."""
        self.disable_cgroups()
        self._host_ids.close()

    def disable_cgroups(self) -> None:
        """Use no control groups from now on."""
        self.clear()
        if self.cgroups:
            self.cgroups.close()
            self.cgroups = None

    def _prefork(self, template: SandboxTemplate) -> PreforkedSandbox:
        with contextlib.ExitStack() as undo:
            with setup_step("descriptors"):
                mounts = os.open("/proc/self/mounts", os.O_RDONLY | os.O_CLOEXEC)
                undo.callback(os.close, mounts)
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                undo.callback(ours.close)
                undo.callback(theirs.close)
            with setup_step("cgroup"):
                group = self.cgroups.create() if self.cgroups else None
                host_ids = self._host_ids.acquire()
                undo.callback(self.dispose, group, host_ids)
                cgroup_fds = group.open_procs_files() if group else []
            undo.pop_all()
        self._send({"template": {**template, "host_ids": host_ids}}, [theirs.detach(), *cgroup_fds])
        return PreforkedSandbox(ours, group, template, host_ids, mounts)

    def _schedule_refill(self, template: SandboxTemplate) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_REFILL_DELAY_SECONDS, self._refill, template)

    def _refill(self, template: SandboxTemplate) -> None:
        self._timer = None
        with contextlib.suppress(SetupFailed):  # the next sandbox will fail likewise, and report it
            self._spare = self._prefork(template)
