"""Freezing and thawing every process of a sandbox.

Control groups do it where there are some. Signals do it elsewhere, without privileges: parents are stopped before
their children and continued after them, so that no shell sees a stopped child, and a process counts as stopped only
when all its threads are.
"""

from __future__ import annotations

import asyncio
import signal

from agentbay.local.sandbox.service import cgroups
from agentbay.local.sandbox.service.cgroups import Cgroup
from agentbay.local.sandbox.service.errors import SandboxError, SandboxGone
from agentbay.local.sandbox.service.process_list import process_depths, threads_stopped
from agentbay.local.sandbox.shared import proc_fs
from agentbay.local.sandbox.shared.proc_fs import Process

_MAX_PASSES = 1000  # over all processes: some may fork meanwhile
_STOP_TIMEOUT_SECONDS = 0.02  # for the processes of one level to stop, before their children are stopped


def choose_freezer(proc: int, group: Cgroup | None) -> SignalFreezer | CgroupFreezer:
    """Return the best freezer available.

    A control group would also freeze a first process that is not init.
    """
    usable = group and group.freezable_path and not isinstance(proc, proc_fs.SubtreeProcFd)
    return CgroupFreezer(proc, group) if group and usable else SignalFreezer(proc)


class CgroupFreezer:
    """Freezes by control group, which processes cannot notice.

    It falls back to signals if some process is not in the group.
    """

    def __init__(self, proc: int, group: Cgroup) -> None:
        self._proc, self._group = proc, group
        self._signal_freezer: SignalFreezer | None = None

    async def freeze(self) -> None:
        """Stop every process of the sandbox.

        If it fails or is cancelled, all continue.

        Raises:
            SandboxError: Some process would not stop.
        """
        try:
            if not await cgroups.freeze(self._group):
                raise SandboxError("a process of the sandbox would not stop")
            alive = [pid for pid, process in proc_fs.read_process_table(self._proc).items() if not process.dead]
            joined = len(alive) > self._group.process_count()  # from outside, as kernels do
        except FileNotFoundError as error:  # the group was removed, as its sandbox has ended
            raise SandboxGone("the sandbox ended while it was being frozen") from error
        except BaseException:
            cgroups.thaw(self._group)
            raise
        if joined:
            cgroups.thaw(self._group)
            signals = SignalFreezer(self._proc)
            await signals.freeze()
            self._signal_freezer = signals

    async def thaw(self) -> None:
        """Continue what `freeze` has stopped."""
        if self._signal_freezer:
            await self._signal_freezer.thaw()
            self._signal_freezer = None
        else:
            cgroups.thaw(self._group)


class SignalFreezer:
    """Freezes by SIGSTOP the processes that a sandbox's /proc shows."""

    def __init__(self, proc: int) -> None:
        self._proc = proc
        self._stopped_by_us: set[int] = set()

    async def freeze(self) -> None:
        """Stop every process of the sandbox.

        If it fails or is cancelled, all continue.

        Raises:
            SandboxError: Some process would not stop.
        """
        try:
            for _ in range(_MAX_PASSES):
                table = proc_fs.read_process_table(self._proc)
                running = [pid for pid, process in table.items() if not self._is_stopped(pid, process)]
                if not running:
                    return
                depths = process_depths(table)
                for depth in sorted({depths[pid] for pid in running}):
                    await self._stop([pid for pid in running if depths[pid] == depth])
            raise SandboxError("a process of the sandbox would not stop")
        except BaseException:
            await self.thaw()
            raise

    async def thaw(self) -> None:
        """Continue what `freeze` has stopped, children first.

        Other stopped processes stay so.
        """
        table = proc_fs.read_process_table(self._proc)
        depths = process_depths(table)
        for pid in sorted(self._stopped_by_us & set(table), key=depths.__getitem__, reverse=True):
            proc_fs.send_signal(self._proc, pid, signal.SIGCONT)
        self._stopped_by_us.clear()

    async def _stop(self, pids: list[int]) -> None:
        """Stop the processes of one level and wait for them, or for the timeout."""
        waiting = [pid for pid in pids if proc_fs.send_signal(self._proc, pid, signal.SIGSTOP)]
        self._stopped_by_us.update(waiting)
        clock = asyncio.get_running_loop().time
        deadline = clock() + _STOP_TIMEOUT_SECONDS
        while waiting and clock() < deadline:
            waiting = [pid for pid in waiting if not threads_stopped(self._proc, pid)]
            if waiting:
                await asyncio.sleep(0)

    def _is_stopped(self, pid: int, process: Process) -> bool:
        if process.state == "D" and pid in self._stopped_by_us:
            return True  # it waits in the kernel, perhaps for a vfork child, and stops before it returns
        return process.stopped and threads_stopped(self._proc, pid)
