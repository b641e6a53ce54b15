"""Stopping every process of a sandbox, and letting them go on as if nothing had happened.

By control group where there is one, else by signals, which need no rights: parents are then stopped before their
children and continued after them, so that no shell sees a child of its stopped, and a process counts as stopped only
when each of its threads is.
"""

from __future__ import annotations

import asyncio
import signal

from agentbay.local.sandbox.service import cgroups
from agentbay.local.sandbox.service.cgroups import Cgroup
from agentbay.local.sandbox.service.errors import SandboxError
from agentbay.local.sandbox.shared import proc_fs
from agentbay.local.sandbox.shared.proc_fs import Process

_PASSES = 1000
_STOP_TIMEOUT_SECONDS = 0.02  # seconds for processes to stop, before those below them are looked at


def choose_freezer(proc: int, group: Cgroup | None) -> SignalFreezer | CgroupFreezer:
    """Return the better freezer that there is. One by group would freeze a first process that is not init, too."""
    usable = group and group.freezable_path and not isinstance(proc, proc_fs.SubtreeProcFd)
    return CgroupFreezer(proc, group) if group and usable else SignalFreezer(proc)


class CgroupFreezer:
    """Freezes by control group, which no process can notice, and by signals if a process is not in the group."""

    def __init__(self, proc: int, group: Cgroup) -> None:
        self._proc, self._group = proc, group
        self._signal_freezer: SignalFreezer | None = None

    async def freeze(self) -> None:
        """Return when no process of the sandbox can run.

        Raises:
            SandboxError: Some process would not stop; all go on.
        """
        if not await cgroups.freeze(self._group):
            raise SandboxError("a process of the sandbox would not stop")
        alive = [pid for pid, process in proc_fs.read_process_table(self._proc).items() if not process.dead]
        if len(alive) > self._group.process_count():  # some have come from outside
            cgroups.thaw(self._group)
            signals = SignalFreezer(self._proc)
            await signals.freeze()
            self._signal_freezer = signals

    async def thaw(self) -> None:
        """Let go on what `freeze` has stopped."""
        if self._signal_freezer:
            await self._signal_freezer.thaw()
            self._signal_freezer = None
        else:
            cgroups.thaw(self._group)


class SignalFreezer:
    """Freezes and thaws the processes that a sandbox's /proc shows."""

    def __init__(self, proc: int) -> None:
        self._proc = proc
        self._stopped_by_us: set[int] = set()  # by us; who was stopped before stays so

    async def freeze(self) -> None:
        """Return when no process of the sandbox can run.

        Raises:
            SandboxError: Some process would not stop; all go on.
        """
        for _ in range(_PASSES):
            table = proc_fs.read_process_table(self._proc)
            running = [pid for pid, process in table.items() if not self._is_stopped(pid, process)]
            if not running:
                return
            depths = proc_fs.process_depths(table)
            for depth in sorted({depths[pid] for pid in running}):
                await self._stop([pid for pid in running if depths[pid] == depth])
        await self.thaw()
        raise SandboxError("a process of the sandbox would not stop")

    async def thaw(self) -> None:
        """Continue what `freeze` has stopped, children first; who had been stopped before stays so."""
        table = proc_fs.read_process_table(self._proc)
        depths = proc_fs.process_depths(table)
        for pid in sorted(self._stopped_by_us & set(table), key=depths.__getitem__, reverse=True):
            proc_fs.send_signal(self._proc, pid, signal.SIGCONT)
        self._stopped_by_us.clear()

    async def _stop(self, pids: list[int]) -> None:
        """Stop processes of one level and wait until they have stopped, or for so long that something holds them."""
        waiting = [pid for pid in pids if proc_fs.send_signal(self._proc, pid, signal.SIGSTOP)]
        self._stopped_by_us.update(waiting)
        clock = asyncio.get_running_loop().time
        patience = clock() + _STOP_TIMEOUT_SECONDS
        while waiting and clock() < patience:
            waiting = [pid for pid in waiting if not proc_fs.threads_stopped(self._proc, pid)]
            if waiting:
                await asyncio.sleep(0)

    def _is_stopped(self, pid: int, process: Process) -> bool:
        if process.state == "D" and pid in self._stopped_by_us:
            return True  # waits in the kernel, for a vfork child perhaps; it stops before it returns to its program
        return process.stopped and proc_fs.threads_stopped(self._proc, pid)
