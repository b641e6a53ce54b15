"""The disk space that a sandbox uses.

Measuring means walking over its files, so it is done only with cause: the free space of the file system says at once
how much all its users together can have written since the last measurement.
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import stat
import subprocess
import time

from agentbay.local.sandbox.service.spec import MIB
from agentbay.local.sandbox.shared import proc_fs

MIN_FREE_BYTES, MIN_FREE_FRACTION = 1 << 30, 0.05  # the machine's reserve: the smaller of both stays free
_CHECK_INTERVAL_SECONDS, _URGENT_CHECK_INTERVAL_SECONDS = 0.25, 0.05
_MAX_MEASUREMENT_AGE_SECONDS = 10.0  # after that, others may have freed what this sandbox took
_MIN_MEASURED_GROWTH_BYTES = 16 * MIB  # less growth is not worth a measurement
_TOLERATED_GROWTH_BYTES = MIB  # beyond a limit, or near the reserve; more growth is a reason to kill
_DU = shutil.which("du")


class DiskQuota:
    """Measures the disk space of one sandbox, deleted open files included."""

    def __init__(self, root: str, limit: int | None) -> None:
        self._root, self._limit = root, limit
        self._free, self._min_free = _free_space(root)
        self._used = 0  # when last measured
        self._reserved_since = 0  # bytes that file operations have written since then
        self._measured = time.monotonic()
        self._free_at_measurement = self._free
        self._tolerated_use = 0.0  # up to this use nothing is killed again, so that files can be removed
        self._use_near_min_free: int | None = None  # when the machine's disk came near its reserve
        self.measurement_due = False
        self.reason = ""

    def check_free_space(self) -> float:
        """Check the free space, set `measurement_due`, and return the seconds to the next check."""
        self._free, self._min_free = _free_space(self._root)
        if self._free < 2 * self._min_free:
            self.measurement_due = True
            return _URGENT_CHECK_INTERVAL_SECONDS if self._free < self._min_free else _CHECK_INTERVAL_SECONDS
        self._use_near_min_free = None
        self.measurement_due = self._limit is not None and self._may_exceed(self._limit)
        return (
            _URGENT_CHECK_INTERVAL_SECONDS
            if self.measurement_due and self._tolerated_use == 0
            else _CHECK_INTERVAL_SECONDS
        )

    async def is_exceeded(self, proc: int) -> bool:
        """Measure.

        Return whether the processes of the sandbox must be killed.
        """
        await self._measure(proc)
        if self._limit is not None and self._used > self._limit:
            self.reason = f"the session may use {self._limit // MIB} MiB of disk and uses {self._used // MIB}"
            grown = self._used > max(self._limit, self._tolerated_use)
            # what is written until the kill takes effect is tolerated too; the next measurement tells how much that is
            self._tolerated_use = math.inf if grown else min(self._tolerated_use, self._used + _TOLERATED_GROWTH_BYTES)
            return grown
        self._tolerated_use = 0.0
        if self._free >= 2 * self._min_free:
            return False
        baseline, self._use_near_min_free = self._use_near_min_free, self._used
        if baseline is None or self._free >= self._min_free or self._used - baseline < _TOLERATED_GROWTH_BYTES:
            return False
        self.reason = f"the machine's disk has only {self._free // MIB} MiB left"
        return True

    async def try_reserve(self, size: int, proc: int) -> bool:
        """Reserve `size` bytes.

        Return False if they may not be written.
        """
        self._free, self._min_free = _free_space(self._root)
        if self._free - size < self._min_free:
            self.reason = f"the machine's disk has only {self._free // MIB} MiB left"
            return False
        if self._limit is not None and self._estimate() + size > self._limit:
            await self._measure(proc)
            if self._used + size > self._limit:
                self.reason = f"the session may use {self._limit // MIB} MiB of disk and uses {self._used // MIB}"
                return False
        self._reserved_since += size
        return True

    def _estimate(self) -> int:
        return self._used + self._reserved_since

    def _may_exceed(self, limit: int) -> bool:
        """Return whether a measurement is due.

        Half the distance to the limit is the trigger, since the disk goes on filling during a measurement.
        """
        written = self._free_at_measurement - self._free
        if self._used > limit:
            return True
        return (
            written > max((limit - self._used) // 2, min(_MIN_MEASURED_GROWTH_BYTES, limit // 8))
            or self._age() > _MAX_MEASUREMENT_AGE_SECONDS
        )

    def _age(self) -> float:
        return time.monotonic() - self._measured

    async def _measure(self, proc: int) -> None:
        own = os.dup(proc)  # the sandbox may end, and the number of its descriptor be used again
        free = _free_space(self._root)[0]
        try:
            self._used = await asyncio.to_thread(measure_disk_usage, self._root, own)
        finally:
            os.close(own)
        self._reserved_since, self._measured, self._free_at_measurement = 0, time.monotonic(), free
        self.measurement_due = False


def measure_disk_usage(root: str, proc: int) -> int:
    """Return the bytes below `root`, and in deleted files that are still open."""
    device = os.stat(root).st_dev
    inodes: dict[int, int] = {}
    for pid in proc_fs.list_pids(proc):
        inodes.update(_deleted_open_files(proc, pid, device))
    return _run_du(root) + sum(inodes.values())


def _run_du(root: str) -> int:
    """Return the bytes that du counts.

    A walk in Python would block every other thread (GIL).
    """
    if _DU is None:
        return 0
    done = subprocess.run(
        [_DU, "-skx", "--", f"{root}/home", f"{root}/tmp"],
        env={"LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,  # files that vanish meanwhile are no error
        check=False,
    )
    return sum(int(line.split(b"\t")[0]) for line in done.stdout.splitlines()) << 10


def _deleted_open_files(proc: int, pid: int, device: int) -> dict[int, int]:
    found: dict[int, int] = {}
    try:
        directory = os.open(f"{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
    except OSError:  # gone, or not dumpable
        return found
    try:
        for name in os.listdir(directory):
            try:
                status = os.stat(name, dir_fd=directory)
            except OSError:  # closed meanwhile
                continue
            if status.st_nlink == 0 and status.st_dev == device and stat.S_ISREG(status.st_mode):
                found[status.st_ino] = status.st_blocks * 512
    except OSError:  # the process has ended
        pass
    finally:
        os.close(directory)
    return found


def _free_space(root: str) -> tuple[int, int]:
    """Return the free bytes of a file system, and how many must stay free."""
    status = os.statvfs(root)
    return status.f_bavail * status.f_frsize, min(
        MIN_FREE_BYTES, int(status.f_blocks * status.f_frsize * MIN_FREE_FRACTION)
    )
