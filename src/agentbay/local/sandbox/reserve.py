"""A sandbox made in advance, but for what is its own: the next one is mostly asked for soon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from agentbay.local.sandbox.cgroups import Cgroups, Group
from agentbay.local.sandbox.plan import Frame
from agentbay.local.sandbox.spec import Limits
from agentbay.local.sandbox.syscalls import SetupFailed, step
from agentbay.local.sandbox.wire import Message

_REST = 0.03  # seconds after a sandbox was taken: to enter a control group takes up to 20 ms in which nobody can fork


class Embryo(NamedTuple):
    """A process that waits, in control groups of its own, to be told which sandbox it is to be.

    Attributes:
        socket: To the process; it ends when this is closed.
        mounts: The host's table of mounts, as it was.
    """

    socket: socket.socket
    group: Group | None
    frame: Frame
    mounts: int

    @property
    def fresh(self) -> bool:
        """Whether it lives, and the host's mounts, which it has seen, are still the same."""
        poll = select.poll()
        poll.register(self.socket, 0)
        poll.register(self.mounts, select.POLLPRI)
        return not poll.poll(0)


class Reserve:
    """Has embryos made, and keeps one.

    Args:
        send: Passes a message with descriptors, which it closes, to the zygote.
    """

    def __init__(self, send: Callable[[Message, Sequence[int]], None]) -> None:
        self.cgroups = Cgroups.find()
        self._send = send
        self._kept: Embryo | None = None
        self._timer: asyncio.TimerHandle | None = None

    def take(self, frame: Frame, limits: Limits) -> tuple[socket.socket, Group | None]:
        """Return the socket and the control groups of an embryo for such a sandbox, with the limits set.

        Raises:
            SetupFailed: In the step "descriptors" or "cgroup"; nothing is left then.
        """
        if self._kept and not (self._kept.frame == frame and self._kept.fresh):
            self.drop()
        self._kept = embryo = self._kept or self._conceive(frame)
        if embryo.group:
            try:
                with step("cgroup"):
                    embryo.group.limit(limits)
            except SetupFailed:
                self.drop()
                raise
        self._kept = None
        os.close(embryo.mounts)
        self._restock_soon(frame)
        return embryo.socket, embryo.group

    def drop(self) -> None:
        """End the one that is kept."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._kept:
            self._kept.socket.close()
            os.close(self._kept.mounts)
            self.discard(self._kept.group)
            self._kept = None

    def discard(self, group: Group | None) -> None:
        """Remove the control groups of a sandbox that has ended."""
        if self.cgroups and group:
            self.cgroups.discard(group)

    def give_up_groups(self) -> None:
        """Do without control groups from now on."""
        self.drop()
        if self.cgroups:
            self.cgroups.close()
            self.cgroups = None

    def _conceive(self, frame: Frame) -> Embryo:
        with contextlib.ExitStack() as undo:
            with step("descriptors"):
                mounts = os.open("/proc/self/mounts", os.O_RDONLY | os.O_CLOEXEC)
                undo.callback(os.close, mounts)
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                undo.callback(ours.close)
                undo.callback(theirs.close)
            with step("cgroup"):
                group = self.cgroups.make() if self.cgroups else None
                undo.callback(self.discard, group)
                doors = group.doors() if group else []
            undo.pop_all()
        self._send({"frame": frame}, [theirs.detach(), *doors])
        return Embryo(ours, group, frame, mounts)

    def _restock_soon(self, frame: Frame) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_REST, self._restock, frame)

    def _restock(self, frame: Frame) -> None:
        self._timer = None
        with contextlib.suppress(SetupFailed):  # the next sandbox will meet it again, and say so
            self._kept = self._conceive(frame)
