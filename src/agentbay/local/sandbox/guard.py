"""Watching over what no kernel limit covers: memory of a sandbox, and of all together, where no group does; and disk.

Nothing here can refuse a write or an allocation; what goes beyond a limit is killed soon after, and the caller told.
Disks have no quota for ordinary users, and a looser bound that holds is better than a strict one that needs root.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Sized

from agentbay.local.sandbox import memory, processes
from agentbay.local.sandbox.cgroups import Group
from agentbay.local.sandbox.disk import DiskWatch
from agentbay.local.sandbox.errors import FileOperationFailed
from agentbay.local.sandbox.spec import MIB, SandboxSpec

_FIRST = 0.02  # seconds from a request to the first look
_LINGER = 2.0  # seconds that it stays awake for what may come from outside without a request
_SLOWEST = 0.5  # seconds between two looks
_DYING = 1.0  # seconds for a killed process to give its memory back, before another one is taken
_IDLE_SHARE = 10  # the watch over all sandboxes rests so many times as long as it works
_WRITING = ("write", "append")  # file operations that bring bytes with them

Kills = tuple[int, int, int]  # for want of memory, of memory for all sandboxes together, and of disk


class Guard:
    """The watch over one sandbox. It sleeps while nothing runs there; each request wakes it."""

    def __init__(self, spec: SandboxSpec, group: Group | None = None, together: Together | None = None) -> None:
        self.group, self._together = group, together
        self.limits = spec.limits
        self._watched_memory = None if group and group.limits_memory else spec.limits.total_memory_bytes
        self._disk = DiskWatch(os.fspath(spec.root), spec.limits.disk_bytes)
        self._loop = asyncio.get_running_loop()
        self._proc = -1
        self._running: Sized = ()
        self._kill_all: Callable[[], None] = lambda: None
        self._awake_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._measuring: asyncio.Task[None] | None = None
        self._memory_kills = self._shared_kills = self._disk_kills = 0

    def start(self, proc: int, running: Sized, kill_all: Callable[[], None]) -> None:
        """Begin.

        Args:
            proc: The sandbox's /proc.
            running: The requests that have not ended.
            kill_all: Kills every process of the sandbox but the first.
        """
        self._proc, self._running, self._kill_all = proc, running, kill_all

    def stop(self) -> None:
        """End; the sandbox is gone."""
        self._proc = -1
        if self._timer:
            self._timer.cancel()
        if self._together:
            self._together.forget(self)

    def wake(self) -> None:
        """Look soon: something begins to run."""
        self._awake_until = self._loop.time() + _LINGER
        if self._timer is None and self._proc >= 0:
            self._timer = self._loop.call_later(_FIRST, self._look)
            if self._together:
                self._together.watch(self)

    def kills(self) -> Kills:
        """Return how often something has been killed so far."""
        by_kernel = self.group.memory_kills() if self.group else 0
        return self._memory_kills + by_kernel, self._shared_kills, self._disk_kills

    def explain(self, before: Kills) -> bytes:
        """Return what a command that began when `kills` was `before` has to tell its caller, b"" in most cases."""
        for_memory, for_others, for_disk = (now > then for now, then in zip(self.kills(), before, strict=True))
        text = ""
        if for_memory:
            text += f"agentbay: killed: the session may use {_mib(self.limits.total_memory_bytes)} of memory\n"
        if for_others and self._together:
            text += f"agentbay: killed: all sessions together may use {_mib(self._together.limit)} of memory\n"
        if for_disk:
            text += f"agentbay: killed: {self._disk.reason}\n"
        return text.encode()

    async def admit(self, operation: str, size: int, path: object) -> None:
        """Let a file operation of `size` bytes pass.

        Raises:
            FileOperationFailed: With ENOSPC: the disk limit of the session, or the reserve of the machine, forbids it.
        """
        if operation in _WRITING and not await self._disk.has_room(size, self._proc):
            raise FileOperationFailed(errno.ENOSPC, f"No space left on device: {self._disk.reason}", str(path))

    def _look(self) -> None:
        self._timer = None
        pids = self._pids()
        if not pids and not self._running and self._loop.time() > self._awake_until:
            if self._together:
                self._together.forget(self)
            return  # until the next request
        delay = _SLOWEST
        if self._watched_memory is not None:
            delay = min(delay, self._look_at_memory(pids, self._watched_memory))
        delay = min(delay, self._disk.look())
        if self._disk.due and self._measuring is None:
            self._measuring = self._loop.create_task(self._look_at_disk())
        self._timer = self._loop.call_later(delay, self._look)

    def memory_used(self, limit: int) -> dict[int, int]:
        """Return the bytes that each process has, exactly only where all together have more than `limit`."""
        return memory.measure(self._proc, self._pids(), limit)

    def kill_for_others(self, pid: int) -> None:
        """Kill a process because all sandboxes together have too much memory."""
        if processes.send_signal(self._proc, pid, processes.KILL):
            self._shared_kills += 1

    def _pids(self) -> list[int]:
        return [pid for pid in processes.pids(self._proc) if pid != processes.INIT]

    def _look_at_memory(self, pids: list[int], limit: int) -> float:
        """Kill the largest process if all together have more than `limit`; return the seconds to the next look."""
        used = memory.measure(self._proc, pids, limit)
        total = sum(used.values())
        if total > limit and processes.send_signal(self._proc, max(used, key=used.__getitem__), processes.KILL):
            self._memory_kills += 1
        return memory.delay(limit - total)

    async def _look_at_disk(self) -> None:
        try:
            if await self._disk.exceeded(self._proc) and self._proc >= 0:
                self._disk_kills += 1
                self._kill_all()
        finally:
            self._measuring = None


class Together:
    """The watch over the memory of all sandboxes together, where no control group holds it.

    Beyond `limit` bytes the largest process of the sandbox that has most is killed.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._loop = asyncio.get_running_loop()
        self._guards: dict[Guard, None] = {}  # of sandboxes in which something runs
        self._timer: asyncio.TimerHandle | None = None
        self._victim: tuple[Guard, int, float] | None = None  # whose process, its pid, until when it may be dying

    def watch(self, guard: Guard) -> None:
        """Count a sandbox in: something begins to run there."""
        self._guards[guard] = None
        if self._timer is None:
            self._timer = self._loop.call_later(_FIRST, self._look)

    def forget(self, guard: Guard) -> None:
        """Count a sandbox out: nothing runs there any more."""
        self._guards.pop(guard, None)

    def _look(self) -> None:
        self._timer = None
        if not self._guards:
            return
        began = self._loop.time()
        used = self._measure(self.limit)
        if _total(used) > self.limit:
            used = self._measure(0)
        if (total := _total(used)) > self.limit and not self._is_dying(used):
            guard = max(used, key=lambda guard: sum(used[guard].values()))
            pid = max(used[guard], key=used[guard].__getitem__)
            guard.kill_for_others(pid)
            self._victim = guard, pid, began + _DYING
        rest = _IDLE_SHARE * (self._loop.time() - began)
        self._timer = self._loop.call_later(max(memory.delay(self.limit - total), rest), self._look)

    def _measure(self, limit: int) -> dict[Guard, dict[int, int]]:
        return {guard: guard.memory_used(limit) for guard in self._guards}

    def _is_dying(self, used: dict[Guard, dict[int, int]]) -> bool:
        if self._victim is None or self._loop.time() > self._victim[2]:
            return False
        guard, pid, _ = self._victim
        return used.get(guard, {}).get(pid, 0) > 0


def _total(used: dict[Guard, dict[int, int]]) -> int:
    return sum(sum(each.values()) for each in used.values())


def _mib(size: int | None) -> str:
    return f"{(size or 0) // MIB} MiB"
