"""The warm pool: preforked sandboxes of each kind that was used lately."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
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

# Preforking takes some milliseconds of a processor, which the sandbox that was just taken needs itself.
_REFILL_DELAY_SECONDS = 0.25  # after the last one was taken
_SHORT_REFILL_DELAY_SECONDS = 0.03  # where few are left
_MIN_SPARES_OF_A_KIND = 2
_MAX_KINDS = 4  # of sandboxes that are kept: with and without an image, for some users
_MAX_SPARES_OF_A_KIND = 8
_QUIET_SECONDS = 10.0  # without a sandbox of a kind, after which two spares of it are enough again


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
    def is_live(self) -> bool:
        """Whether it is alive, and the host's mounts have not changed since."""
        poll = select.poll()
        # Without any events asked for, poll still reports the end of the process (POLLHUP).
        poll.register(self.socket, 0)
        poll.register(self.mounts_fd, select.POLLPRI)
        return not poll.poll(0)


class WarmPool:
    """Keeps two preforked sandboxes of each template that was used lately.

    When no spare of a template is left, it keeps twice as many from then on, up to a limit.

    Args:
        send: Passes a message with descriptors, which it closes, to the zygote.
    """

    def __init__(self, send: Callable[[Message, Sequence[int]], None], host_ids: HostIdPool) -> None:
        self.cgroups = CgroupManager.discover()
        self._send, self._host_ids = send, host_ids
        self._spares: dict[tuple[str, int], PreforkedSandbox] = {}  # by template and number, the oldest first
        self._numbers = itertools.count()
        self._wanted: dict[str, int] = {}  # spares of each template, the one used last at the end
        self._refills: dict[str, tuple[float, asyncio.Handle]] = {}  # when on the loop's clock, and its timer
        self._reductions: dict[str, asyncio.TimerHandle] = {}

    def acquire(self, template: SandboxTemplate, limits: Limits) -> PreforkedSandbox:
        """Return a preforked sandbox with its limits set.

        Its descriptors become the caller's, except `mounts_fd`, which is closed.

        Raises:
            SetupFailed: In the step "descriptors" or "cgroup"; nothing is left then.
        """
        key = _key(template)
        spare = self._take_spare(key)
        wanted = self._wanted.pop(key, 0)
        self._wanted[key] = wanted if spare else min(2 * wanted, _MAX_SPARES_OF_A_KIND) or _MIN_SPARES_OF_A_KIND
        spare = spare or self._prefork(template)
        if spare.cgroup:
            try:
                with setup_step("cgroup"):
                    spare.cgroup.set_limits(limits)
            except SetupFailed:
                self._end(spare)
                raise
        os.close(spare.mounts_fd)
        self._schedule_refill(key, template)
        return spare

    def clear(self) -> None:
        """End the spare sandboxes."""
        for key in list(self._wanted):
            self._forget(key)

    def _take_spare(self, key: str) -> PreforkedSandbox | None:
        for number in [number for template, number in self._spares if template == key]:
            spare = self._spares.pop((key, number))
            if spare.is_live:
                return spare
            self._end(spare)
        return None

    def _forget(self, key: str) -> None:
        """End the spares of a template."""
        del self._wanted[key]
        if key in self._refills:
            self._refills.pop(key)[1].cancel()
        if timer := self._reductions.pop(key, None):
            timer.cancel()
        self._reduce(key, 0)

    def _end(self, spare: PreforkedSandbox) -> None:
        spare.socket.close()
        os.close(spare.mounts_fd)
        self.dispose(spare.cgroup, spare.host_ids)

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
        """End the spare sandboxes, remove the control groups, and give the host ids back."""
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
                entrances = group.open_entrances() if group else []
            undo.pop_all()
        self._send({"template": {**template, "host_ids": host_ids}}, [theirs.detach(), *entrances])
        return PreforkedSandbox(ours, group, template, host_ids, mounts)

    def _schedule_refill(self, key: str, template: SandboxTemplate) -> None:
        few, loop = 2 * self._count(key) < self._wanted[key], asyncio.get_running_loop()
        moment = loop.time() + (_SHORT_REFILL_DELAY_SECONDS if few else _REFILL_DELAY_SECONDS)
        if key in self._refills:
            due, timer = self._refills[key]
            if few and due <= moment:
                return
            timer.cancel()
        self._refills[key] = moment, loop.call_at(moment, self._refill, key, template)

    def _refill(self, key: str, template: SandboxTemplate) -> None:
        del self._refills[key]
        with contextlib.suppress(SetupFailed):  # the next sandbox will fail likewise, and report it
            for _ in range(self._wanted[key] - self._count(key)):
                self._spares[key, next(self._numbers)] = self._prefork(template)
        while len(self._wanted) > _MAX_KINDS:
            self._forget(next(iter(self._wanted)))
        if timer := self._reductions.pop(key, None):
            timer.cancel()
        if self._wanted.get(key, 0) > _MIN_SPARES_OF_A_KIND:
            self._reductions[key] = asyncio.get_running_loop().call_later(_QUIET_SECONDS, self._calm_down, key)

    def _calm_down(self, key: str) -> None:
        del self._reductions[key]
        self._wanted[key] = _MIN_SPARES_OF_A_KIND
        self._reduce(key, _MIN_SPARES_OF_A_KIND)

    def _reduce(self, key: str, count: int) -> None:
        """End the oldest spares of a template until `count` are left."""
        for number in [number for template, number in self._spares if template == key][: self._count(key) - count]:
            self._end(self._spares.pop((key, number)))

    def _count(self, key: str) -> int:
        return sum(template == key for template, _ in self._spares)


def _key(template: SandboxTemplate) -> str:
    return json.dumps(template, sort_keys=True)
