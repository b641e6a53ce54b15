"""A sandbox made in advance, but for what is its own: the next one is mostly asked for soon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from agentbay.local.sandbox.service.cgroups import Cgroup, CgroupManager
from agentbay.local.sandbox.service.spec import Limits
from agentbay.local.sandbox.shared.ipc import Message
from agentbay.local.sandbox.shared.sandbox_config import SandboxTemplate
from agentbay.local.sandbox.shared.syscalls import SetupFailed, setup_step

_REFILL_DELAY_SECONDS = (
    0.03  # seconds after a sandbox was taken: to enter a control group takes up to 20 ms in which nobody can fork
)


class PreforkedSandbox(NamedTuple):
    """A process that waits, in control groups of its own, to be told which sandbox it is to be.

    Attributes:
        socket: To the process; it ends when this is closed.
        mounts: The host's table of mounts, as it was.
    """

    socket: socket.socket
    cgroup: Cgroup | None
    template: SandboxTemplate
    mounts_fd: int

    @property
    def is_usable(self) -> bool:
        """Whether it lives, and the host's mounts, which it has seen, are still the same."""
        poll = select.poll()
        poll.register(self.socket, 0)
        poll.register(self.mounts_fd, select.POLLPRI)
        return not poll.poll(0)


class WarmPool:
    """Has embryos made, and keeps one.

    Args:
        send: Passes a message with descriptors, which it closes, to the zygote.
    """

    def __init__(self, send: Callable[[Message, Sequence[int]], None]) -> None:
        self.cgroups = CgroupManager.discover()
        self._send = send
        self._spare: PreforkedSandbox | None = None
        self._timer: asyncio.TimerHandle | None = None

    def acquire(self, frame: SandboxTemplate, limits: Limits) -> tuple[socket.socket, Cgroup | None]:
        """Return the socket and the control groups of an embryo for such a sandbox, with the limits set.

        Raises:
            SetupFailed: In the step "descriptors" or "cgroup"; nothing is left then.
        """
        if self._spare and not (self._spare.template == frame and self._spare.is_usable):
            self.clear()
        self._spare = embryo = self._spare or self._prefork(frame)
        if embryo.cgroup:
            try:
                with setup_step("cgroup"):
                    embryo.cgroup.set_limits(limits)
            except SetupFailed:
                self.clear()
                raise
        self._spare = None
        os.close(embryo.mounts_fd)
        self._schedule_refill(frame)
        return embryo.socket, embryo.cgroup

    def clear(self) -> None:
        """End the one that is kept."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._spare:
            self._spare.socket.close()
            os.close(self._spare.mounts_fd)
            self.dispose_cgroup(self._spare.cgroup)
            self._spare = None

    def dispose_cgroup(self, group: Cgroup | None) -> None:
        """Remove the control groups of a sandbox that has ended."""
        if self.cgroups and group:
            self.cgroups.dispose(group)

    def disable_cgroups(self) -> None:
        """Do without control groups from now on."""
        self.clear()
        if self.cgroups:
            self.cgroups.close()
            self.cgroups = None

    def _prefork(self, frame: SandboxTemplate) -> PreforkedSandbox:
        with contextlib.ExitStack() as undo:
            with setup_step("descriptors"):
                mounts = os.open("/proc/self/mounts", os.O_RDONLY | os.O_CLOEXEC)
                undo.callback(os.close, mounts)
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                undo.callback(ours.close)
                undo.callback(theirs.close)
            with setup_step("cgroup"):
                group = self.cgroups.create() if self.cgroups else None
                undo.callback(self.dispose_cgroup, group)
                doors = group.open_procs_files() if group else []
            undo.pop_all()
        self._send({"frame": frame}, [theirs.detach(), *doors])
        return PreforkedSandbox(ours, group, frame, mounts)

    def _schedule_refill(self, frame: SandboxTemplate) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_REFILL_DELAY_SECONDS, self._refill, frame)

    def _refill(self, frame: SandboxTemplate) -> None:
        self._timer = None
        with contextlib.suppress(SetupFailed):  # the next sandbox will meet it again, and say so
            self._spare = self._prefork(frame)
