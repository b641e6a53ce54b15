"""The watchdog for limits that the kernel does not enforce.

These are disk, and memory where no control group counts it.

It cannot refuse a write or an allocation: it kills what exceeded a limit soon after, and reports that to the caller.
Ordinary users have no disk quota, and a looser bound that holds is better than a strict one that needs root.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Callable, Sized
from typing import Any

from agentbay.local.sandbox.service import memory_usage
from agentbay.local.sandbox.service.cgroups import Cgroup
from agentbay.local.sandbox.service.disk_quota import DiskQuota
from agentbay.local.sandbox.service.errors import FileOperationFailed
from agentbay.local.sandbox.service.spec import MIB, SandboxSpec, SharedLayer
from agentbay.local.sandbox.service.unmapped_memory import UnmappedMemory
from agentbay.local.sandbox.shared import proc_fs
from agentbay.local.sandbox.shared.file_protocol import FileRequest, WriteFile

_FIRST_CHECK_DELAY_SECONDS = 0.02  # from a request to the first check
_IDLE_AFTER_SECONDS = 2.0  # after a request; kernels may start processes without one
_MAX_CHECK_INTERVAL_SECONDS = 0.5
_VICTIM_EXIT_TIMEOUT_SECONDS = 1.0  # for a killed process to free its memory, before another one is killed
_REST_TO_WORK_RATIO = 10  # the watchdog over all sandboxes sleeps so many times as long as it works

KillCounts = tuple[int, int, int]  # kills for memory, for the memory of all sandboxes together, and for disk


class ResourceWatchdog:
    """The watchdog of one sandbox.

    It sleeps while nothing runs there, and each request wakes it.
    """

    def __init__(
        self, spec: SandboxSpec, group: Cgroup | None = None, total_memory: TotalMemoryWatchdog | None = None
    ) -> None:
        self.cgroup, self._total_memory = group, total_memory
        self.limits = spec.limits
        self._memory_limit = None if group and group.limits_memory else spec.limits.total_memory_bytes
        self._disk = DiskQuota(os.fspath(spec.root), spec.limits.disk_bytes, spec.shared)
        self._loop = asyncio.get_running_loop()
        self._proc = -1
        self._pending_requests: Sized = ()
        self._kill_all: Callable[[], None] = lambda: None
        self._awake_until = 0.0
        self._unmapped = UnmappedMemory(None)
        self._timer: asyncio.TimerHandle | None = None
        self._disk_check: asyncio.Task[None] | None = None
        self._memory_kills = self._total_memory_kills = self._disk_kills = 0

    @property
    def counts_memory(self) -> bool:
        """Whether the watchdog counts memory."""
        return self._memory_limit is not None or self._total_memory is not None

    def start(self, proc: int, running: Sized, kill_all: Callable[[], None], diag: socket.socket | None = None) -> None:
        """Start to watch.

        Args:
            proc: A descriptor of the sandbox's /proc.
            running: The requests that have not ended.
            kill_all: Kills every process of the sandbox but the first.
            diag: Tells of the unix sockets of the sandbox's network; it stays the caller's.
        """
        self._unmapped = UnmappedMemory(diag)
        self._proc, self._pending_requests, self._kill_all = proc, running, kill_all

    def stop(self) -> None:
        """Stop, since the sandbox is gone."""
        self._proc = -1
        if self._timer:
            self._timer.cancel()
        if self._total_memory:
            self._total_memory.remove(self)

    def wake(self) -> None:
        """Check soon, since something begins to run."""
        self._awake_until = self._loop.time() + _IDLE_AFTER_SECONDS
        if self._timer is None and self._proc >= 0:
            self._timer = self._loop.call_later(_FIRST_CHECK_DELAY_SECONDS, self._check)
            if self._total_memory:
                self._total_memory.add(self)

    def kill_counts(self) -> KillCounts:
        """Return how often a process has been killed so far."""
        by_kernel = self.cgroup.oom_kill_count() if self.cgroup else 0
        return self._memory_kills + by_kernel, self._total_memory_kills, self._disk_kills

    def kill_message(self, before: KillCounts) -> bytes:
        """Return a message about what was killed since `before`, or b""."""
        for_memory, for_others, for_disk = (now > then for now, then in zip(self.kill_counts(), before, strict=True))
        text = ""
        if for_memory:
            text += f"agentbay: killed: the session may use {_mib(self.limits.total_memory_bytes)} of memory\n"
        if for_others and self._total_memory:
            text += f"agentbay: killed: all sessions together may use {_mib(self._total_memory.limit)} of memory\n"
        if for_disk:
            text += f"agentbay: killed: {self._disk.reason}\n"
        return text.encode()

    def charge(self, layer: SharedLayer) -> None:
        """Count a layer to the disk limit."""
        self._disk.charge(layer)

    async def check_write(self, request: FileRequest[Any], size: int) -> None:
        """Reserve disk space for a file operation with `size` bytes of input.

        Raises:
            FileOperationFailed: With ENOSPC: it would exceed the session's disk limit or the machine's reserve.
        """
        if isinstance(request, WriteFile):
            await self.reserve(size, request.path)

    async def reserve(self, size: int, path: str) -> None:
        """Reserve disk space for what is written to a path.

        Raises:
            FileOperationFailed: With ENOSPC: it would exceed the session's disk limit or the machine's reserve.
        """
        if not await self._disk.try_reserve(size, self._proc):
            raise FileOperationFailed(errno.ENOSPC, f"No space left on device: {self._disk.reason}", path)

    async def measure_room(self) -> int:
        """Measure how many bytes the session may still write to its disk."""
        return await self._disk.measure_room(self._proc)

    def _check(self) -> None:
        self._timer = None
        pids = self._pids()
        if not pids and not self._pending_requests and self._loop.time() > self._awake_until:
            if self._total_memory:
                self._total_memory.remove(self)
            return  # the next request wakes it
        delay = _MAX_CHECK_INTERVAL_SECONDS
        if self._memory_limit is not None:
            delay = min(delay, self._check_memory(pids, self._memory_limit))
        delay = min(delay, self._disk.check_free_space())
        if self._disk.measurement_due and self._disk_check is None:
            self._disk_check = self._loop.create_task(self._check_disk())
        self._timer = self._loop.call_later(delay, self._check)

    def measure_memory(self, limit: int) -> dict[int, int]:
        """Return the bytes of each process.

        Exact only if their sum exceeds `limit`.
        """
        return self._measure_memory(self._pids(), limit)

    def kill_for_total_memory(self, pid: int) -> None:
        """Kill a process because all sandboxes together use too much memory."""
        if proc_fs.send_signal(self._proc, pid, signal.SIGKILL):
            self._total_memory_kills += 1

    def _pids(self) -> list[int]:
        return [pid for pid in proc_fs.list_pids(self._proc) if pid != proc_fs.INIT_PID]

    def _check_memory(self, pids: list[int], limit: int) -> float:
        """Kill the largest process if all together exceed `limit`.

        Return the seconds to the next check.
        """
        used = self._measure_memory(pids, limit)
        total = sum(used.values())
        if total > limit and proc_fs.send_signal(self._proc, max(used, key=used.__getitem__), signal.SIGKILL):
            self._memory_kills += 1
        return memory_usage.next_check_delay(limit - total)

    def _measure_memory(self, pids: list[int], limit: int) -> dict[int, int]:
        unmapped = self._unmapped.measure(self._proc, pids)
        used = memory_usage.measure_memory(self._proc, pids, limit - sum(unmapped.values()))
        return {pid: size + unmapped.get(pid, 0) for pid, size in used.items()}

    async def _check_disk(self) -> None:
        try:
            # The sandbox may end during the measurement. Its descriptor is gone then, and soon its directory too.
            if await self._disk.must_kill(self._proc) and self._proc >= 0:
                self._disk_kills += 1
                self._kill_all()
        except FileNotFoundError:
            if self._proc >= 0:
                raise
        finally:
            self._disk_check = None


class TotalMemoryWatchdog:
    """The watchdog over the memory of all sandboxes together.

    It is used where no control group limits that.

    Beyond `limit` bytes it kills the largest process of the sandbox that uses most.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._loop = asyncio.get_running_loop()
        self._watchdogs: dict[ResourceWatchdog, None] = {}  # of sandboxes with running processes
        self._timer: asyncio.TimerHandle | None = None
        # whose process, its pid, and until when it may be dying
        self._victim: tuple[ResourceWatchdog, int, float] | None = None

    def add(self, watchdog: ResourceWatchdog) -> None:
        """Include a sandbox, since something begins to run there."""
        self._watchdogs[watchdog] = None
        if self._timer is None:
            self._timer = self._loop.call_later(_FIRST_CHECK_DELAY_SECONDS, self._check)

    def remove(self, watchdog: ResourceWatchdog) -> None:
        """Exclude a sandbox, since nothing runs there any more."""
        self._watchdogs.pop(watchdog, None)

    def _check(self) -> None:
        self._timer = None
        if not self._watchdogs:
            return
        began = self._loop.time()
        used = self._measure(self.limit)
        if _total(used) > self.limit:
            # Sandboxes below the limit answer with quick upper bounds, and 0 makes all of them measure exactly.
            used = self._measure(0)
        if (total := _total(used)) > self.limit and not self._is_victim_dying(used):
            watchdog = max(used, key=lambda watchdog: sum(used[watchdog].values()))
            pid = max(used[watchdog], key=used[watchdog].__getitem__)
            watchdog.kill_for_total_memory(pid)
            self._victim = watchdog, pid, began + _VICTIM_EXIT_TIMEOUT_SECONDS
        rest = _REST_TO_WORK_RATIO * (self._loop.time() - began)
        self._timer = self._loop.call_later(max(memory_usage.next_check_delay(self.limit - total), rest), self._check)

    def _measure(self, limit: int) -> dict[ResourceWatchdog, dict[int, int]]:
        return {watchdog: watchdog.measure_memory(limit) for watchdog in self._watchdogs}

    def _is_victim_dying(self, used: dict[ResourceWatchdog, dict[int, int]]) -> bool:
        if self._victim is None or self._loop.time() > self._victim[2]:
            return False
        watchdog, pid, _ = self._victim
        return used.get(watchdog, {}).get(pid, 0) > 0


def _total(used: dict[ResourceWatchdog, dict[int, int]]) -> int:
    return sum(sum(each.values()) for each in used.values())


def _mib(size: int | None) -> str:
    return f"{(size or 0) // MIB} MiB"
