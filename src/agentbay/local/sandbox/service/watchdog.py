"""Watching over what no kernel limit covers: memory of a sandbox, and of all together, where no group does; and disk.

Nothing here can refuse a write or an allocation; what goes beyond a limit is killed soon after, and the caller told.
Disks have no quota for ordinary users, and a looser bound that holds is better than a strict one that needs root.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Sized

from agentbay.local.sandbox.service import memory_usage
from agentbay.local.sandbox.service.cgroups import Cgroup
from agentbay.local.sandbox.service.disk_quota import DiskQuota
from agentbay.local.sandbox.service.errors import FileOperationFailed
from agentbay.local.sandbox.service.spec import MIB, SandboxSpec
from agentbay.local.sandbox.shared import proc_fs

_FIRST_CHECK_DELAY_SECONDS = 0.02  # seconds from a request to the first look
_IDLE_AFTER_SECONDS = 2.0  # seconds that it stays awake for what may come from outside without a request
_MAX_CHECK_INTERVAL_SECONDS = 0.5  # seconds between two looks
_VICTIM_EXIT_TIMEOUT_SECONDS = 1.0  # seconds for a killed process to give its memory back, before another one is taken
_REST_TO_WORK_RATIO = 10  # the watch over all sandboxes rests so many times as long as it works
_WRITE_OPERATIONS = ("write", "append")  # file operations that bring bytes with them

KillCounts = tuple[int, int, int]  # for want of memory, of memory for all sandboxes together, and of disk


class ResourceWatchdog:
    """The watch over one sandbox. It sleeps while nothing runs there; each request wakes it."""

    def __init__(
        self, spec: SandboxSpec, group: Cgroup | None = None, together: TotalMemoryWatchdog | None = None
    ) -> None:
        self.cgroup, self._total_memory = group, together
        self.limits = spec.limits
        self._memory_limit = None if group and group.limits_memory else spec.limits.total_memory_bytes
        self._disk = DiskQuota(os.fspath(spec.root), spec.limits.disk_bytes)
        self._loop = asyncio.get_running_loop()
        self._proc = -1
        self._pending_requests: Sized = ()
        self._kill_all: Callable[[], None] = lambda: None
        self._awake_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._disk_check: asyncio.Task[None] | None = None
        self._memory_kills = self._total_memory_kills = self._disk_kills = 0

    def start(self, proc: int, running: Sized, kill_all: Callable[[], None]) -> None:
        """Begin.

        Args:
            proc: The sandbox's /proc.
            running: The requests that have not ended.
            kill_all: Kills every process of the sandbox but the first.
        """
        self._proc, self._pending_requests, self._kill_all = proc, running, kill_all

    def stop(self) -> None:
        """End; the sandbox is gone."""
        self._proc = -1
        if self._timer:
            self._timer.cancel()
        if self._total_memory:
            self._total_memory.remove(self)

    def wake(self) -> None:
        """Look soon: something begins to run."""
        self._awake_until = self._loop.time() + _IDLE_AFTER_SECONDS
        if self._timer is None and self._proc >= 0:
            self._timer = self._loop.call_later(_FIRST_CHECK_DELAY_SECONDS, self._check)
            if self._total_memory:
                self._total_memory.add(self)

    def kill_counts(self) -> KillCounts:
        """Return how often something has been killed so far."""
        by_kernel = self.cgroup.oom_kill_count() if self.cgroup else 0
        return self._memory_kills + by_kernel, self._total_memory_kills, self._disk_kills

    def kill_message(self, before: KillCounts) -> bytes:
        """Return what a command that began when `kills` was `before` has to tell its caller, b"" in most cases."""
        for_memory, for_others, for_disk = (now > then for now, then in zip(self.kill_counts(), before, strict=True))
        text = ""
        if for_memory:
            text += f"agentbay: killed: the session may use {_mib(self.limits.total_memory_bytes)} of memory\n"
        if for_others and self._total_memory:
            text += f"agentbay: killed: all sessions together may use {_mib(self._total_memory.limit)} of memory\n"
        if for_disk:
            text += f"agentbay: killed: {self._disk.reason}\n"
        return text.encode()

    async def check_write(self, operation: str, size: int, path: object) -> None:
        """Let a file operation of `size` bytes pass.

        Raises:
            FileOperationFailed: With ENOSPC: the disk limit of the session, or the reserve of the machine, forbids it.
        """
        if operation in _WRITE_OPERATIONS and not await self._disk.try_reserve(size, self._proc):
            raise FileOperationFailed(errno.ENOSPC, f"No space left on device: {self._disk.reason}", str(path))

    def _check(self) -> None:
        self._timer = None
        pids = self._pids()
        if not pids and not self._pending_requests and self._loop.time() > self._awake_until:
            if self._total_memory:
                self._total_memory.remove(self)
            return  # until the next request
        delay = _MAX_CHECK_INTERVAL_SECONDS
        if self._memory_limit is not None:
            delay = min(delay, self._check_memory(pids, self._memory_limit))
        delay = min(delay, self._disk.check_free_space())
        if self._disk.measurement_due and self._disk_check is None:
            self._disk_check = self._loop.create_task(self._check_disk())
        self._timer = self._loop.call_later(delay, self._check)

    def measure_memory(self, limit: int) -> dict[int, int]:
        """Return the bytes that each process has, exactly only where all together have more than `limit`."""
        return memory_usage.measure_memory(self._proc, self._pids(), limit)

    def kill_for_total_memory(self, pid: int) -> None:
        """Kill a process because all sandboxes together have too much memory."""
        if proc_fs.send_signal(self._proc, pid, proc_fs.KILL):
            self._total_memory_kills += 1

    def _pids(self) -> list[int]:
        return [pid for pid in proc_fs.list_pids(self._proc) if pid != proc_fs.INIT_PID]

    def _check_memory(self, pids: list[int], limit: int) -> float:
        """Kill the largest process if all together have more than `limit`; return the seconds to the next look."""
        used = memory_usage.measure_memory(self._proc, pids, limit)
        total = sum(used.values())
        if total > limit and proc_fs.send_signal(self._proc, max(used, key=used.__getitem__), proc_fs.KILL):
            self._memory_kills += 1
        return memory_usage.next_check_delay(limit - total)

    async def _check_disk(self) -> None:
        try:
            if await self._disk.is_exceeded(self._proc) and self._proc >= 0:
                self._disk_kills += 1
                self._kill_all()
        finally:
            self._disk_check = None


class TotalMemoryWatchdog:
    """The watch over the memory of all sandboxes together, where no control group holds it.

    Beyond `limit` bytes the largest process of the sandbox that has most is killed.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._loop = asyncio.get_running_loop()
        self._watchdogs: dict[ResourceWatchdog, None] = {}  # of sandboxes in which something runs
        self._timer: asyncio.TimerHandle | None = None
        self._victim: tuple[ResourceWatchdog, int, float] | None = (
            None  # whose process, its pid, until when it may be dying
        )

    def add(self, guard: ResourceWatchdog) -> None:
        """Count a sandbox in: something begins to run there."""
        self._watchdogs[guard] = None
        if self._timer is None:
            self._timer = self._loop.call_later(_FIRST_CHECK_DELAY_SECONDS, self._check)

    def remove(self, guard: ResourceWatchdog) -> None:
        """Count a sandbox out: nothing runs there any more."""
        self._watchdogs.pop(guard, None)

    def _check(self) -> None:
        self._timer = None
        if not self._watchdogs:
            return
        began = self._loop.time()
        used = self._measure(self.limit)
        if _total(used) > self.limit:
            used = self._measure(0)
        if (total := _total(used)) > self.limit and not self._is_victim_dying(used):
            guard = max(used, key=lambda guard: sum(used[guard].values()))
            pid = max(used[guard], key=used[guard].__getitem__)
            guard.kill_for_total_memory(pid)
            self._victim = guard, pid, began + _VICTIM_EXIT_TIMEOUT_SECONDS
        rest = _REST_TO_WORK_RATIO * (self._loop.time() - began)
        self._timer = self._loop.call_later(max(memory_usage.next_check_delay(self.limit - total), rest), self._check)

    def _measure(self, limit: int) -> dict[ResourceWatchdog, dict[int, int]]:
        return {guard: guard.measure_memory(limit) for guard in self._watchdogs}

    def _is_victim_dying(self, used: dict[ResourceWatchdog, dict[int, int]]) -> bool:
        if self._victim is None or self._loop.time() > self._victim[2]:
            return False
        guard, pid, _ = self._victim
        return used.get(guard, {}).get(pid, 0) > 0


def _total(used: dict[ResourceWatchdog, dict[int, int]]) -> int:
    return sum(sum(each.values()) for each in used.values())


def _mib(size: int | None) -> str:
    return f"{(size or 0) // MIB} MiB"
