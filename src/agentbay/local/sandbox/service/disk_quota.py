"""The disk space that a sandbox uses.

Measuring means walking over its files, so it is done only with cause: the free space of the file system says at once
how much all its users together can have written since the last measurement.
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from typing import NamedTuple

from agentbay.local.sandbox.service.open_files import count_in_flight, deleted_mappings, list_open_files
from agentbay.local.sandbox.service.spec import MIB, SharedLayer
from agentbay.local.sandbox.shared import proc_fs
from agentbay.local.sandbox.shared.fd_io import closing_fd
from agentbay.local.sandbox.shared.sandbox_config import IMAGE_DIRECTORY, PYTHON_DIRECTORY, WRITABLE_DIRECTORY

MIN_FREE_BYTES, MIN_FREE_FRACTION = 1 << 30, 0.05  # the machine's reserve: the smaller of both stays free
_CHECK_INTERVAL_SECONDS, _URGENT_CHECK_INTERVAL_SECONDS = 0.25, 0.05
_MAX_MEASUREMENT_AGE_SECONDS = 10.0  # after that, what this sandbox took may be hidden by what others have freed
_MIN_MEASURED_GROWTH_BYTES = 16 * MIB  # no measurement for less growth
_TOLERATED_GROWTH_BYTES = MIB  # beyond a limit, or near the reserve; more growth is a reason to kill
_MIN_FILE_GROWTH = 100  # files that count as growth while the machine lacks inodes
OUTPUT_DIRECTORY = "output"  # of background processes, which the sandbox does not see
_COUNTED = (
    "home",
    "tmp",
    PYTHON_DIRECTORY,
    WRITABLE_DIRECTORY,
    IMAGE_DIRECTORY,
    OUTPUT_DIRECTORY,
)  # what the sandbox fills, below its root
_DU = shutil.which("du")
_UNSHARE = shutil.which("unshare")
# as root of a user namespace of its own, an ordinary user's du reads directories that their mode closes to their owner
_SEE_ALL = [_UNSHARE, "--user", "--map-root-user"] if _UNSHARE and os.geteuid() != 0 else []


class DiskQuota:
    """Measures the disk space of one sandbox, deleted open files included."""

    def __init__(self, root: str, limit: int | None, shared: Sequence[SharedLayer] = ()) -> None:
        self._root, self._limit, self._shared = root, limit, list(shared)
        self._free, self._min_free = free_space(root)
        self._used = self._files = 0  # when last measured
        self._hides_files = False
        self._reserved_since = 0  # bytes that file operations have written since then
        self._measured = time.monotonic()
        self._free_at_measurement = self._free
        self._tolerated_use = 0.0  # up to this use nothing is killed again, so that files can be removed
        self._use_near_min_free: int | None = None  # when the machine's disk came near its reserve
        self._files_near_min_free: int | None = None  # when the machine's inodes came near their reserve
        self.measurement_due = False
        self.reason = ""

    def charge(self, layer: SharedLayer) -> None:
        """Count a layer from now on."""
        self._shared.append(layer)

    def check_free_space(self) -> float:
        """Check the free space, set `measurement_due`, and return the seconds to the next check."""
        self._free, self._min_free = free_space(self._root)
        if self._free < 2 * self._min_free:
            self.measurement_due = True
            return _URGENT_CHECK_INTERVAL_SECONDS if self._free < self._min_free else _CHECK_INTERVAL_SECONDS
        self._use_near_min_free = None
        if _lacks_inodes(self._root):
            self.measurement_due = True
            return _URGENT_CHECK_INTERVAL_SECONDS
        self._files_near_min_free = None
        self.measurement_due = self._limit is not None and self._may_exceed(self._limit)
        return (
            _URGENT_CHECK_INTERVAL_SECONDS
            if self.measurement_due and self._tolerated_use == 0
            else _CHECK_INTERVAL_SECONDS
        )

    async def must_kill(self, proc: int) -> bool:
        """Measure, and return whether the sandbox's commands must be killed."""
        await self._measure(proc)
        if self._limit is not None and self._used > self._limit:
            self.reason = f"the session may use {self._limit // MIB} MiB of disk and uses {self._used // MIB}"
            grown = self._used > max(self._limit, self._tolerated_use)
            # what is written until the kill takes effect is tolerated too; the next measurement shows how much that is
            self._tolerated_use = math.inf if grown else min(self._tolerated_use, self._used + _TOLERATED_GROWTH_BYTES)
            return grown
        self._tolerated_use = 0.0
        return self._grows_beyond_reserve() or self._takes_last_inodes()

    def _grows_beyond_reserve(self) -> bool:
        if self._free >= 2 * self._min_free:
            return False
        baseline = self._use_near_min_free
        if baseline is None or self._free >= self._min_free:
            self._use_near_min_free = self._used
            return False
        # The least use since then, so that a sandbox that grows slowly is found out too.
        self._use_near_min_free = min(baseline, self._used)
        if self._used - baseline < _TOLERATED_GROWTH_BYTES and not self._hides_files:
            return False
        self._use_near_min_free = self._used  # what was written until now is not killed for again
        self.reason = f"the machine's disk has only {self._free // MIB} MiB left"
        return True

    def _takes_last_inodes(self) -> bool:
        if not _lacks_inodes(self._root):
            return False
        baseline = self._files if self._files_near_min_free is None else self._files_near_min_free
        grown = self._files - baseline > _MIN_FILE_GROWTH
        self._files_near_min_free = self._files if grown else min(baseline, self._files)
        self.reason = "the machine's disk has hardly any inodes left"
        return grown

    async def try_reserve(self, size: int, proc: int) -> bool:
        """Reserve bytes, or return False if they may not be written."""
        self._free, self._min_free = free_space(self._root)
        if self._free - size < self._min_free:
            self.reason = f"the machine's disk has only {self._free // MIB} MiB left"
            return False
        if _lacks_inodes(self._root):
            self.reason = "the machine's disk has hardly any inodes left"
            return False
        # What programs of the session have written since the last measurement is not in the estimate.
        if self._limit is not None and (size > _measured_growth(self._limit) or self._estimate() + size > self._limit):
            await self._measure(proc)
            if self._used + size > self._limit:
                self.reason = f"the session may use {self._limit // MIB} MiB of disk and uses {self._used // MIB}"
                return False
        self._reserved_since += size
        return True

    async def measure_room(self, proc: int) -> int:
        """Measure, and return how many bytes may still be written."""
        self._free, self._min_free = free_space(self._root)
        room = self._free - self._min_free
        if self._limit is not None:
            await self._measure(proc)
            room = min(room, self._limit - self._used)
        return max(room, 0)

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
            written > max((limit - self._used) // 2, _measured_growth(limit))
            or self._age() > _MAX_MEASUREMENT_AGE_SECONDS
        )

    def _age(self) -> float:
        return time.monotonic() - self._measured

    async def _measure(self, proc: int) -> None:
        own = os.dup(proc)  # the sandbox may end, and the number of its descriptor be used again
        free = free_space(self._root)[0]
        with closing_fd(own):
            count_files = _lacks_inodes(self._root)
            usage = await asyncio.to_thread(measure_disk_usage, self._root, own, count_files=count_files)
            self._used, self._files, self._hides_files = usage
            self._used += sum(layer.size for layer in self._shared)
        self._reserved_since, self._measured, self._free_at_measurement = 0, time.monotonic(), free
        self.measurement_due = False


def _measured_growth(limit: int) -> int:
    """Return the growth in bytes that causes a measurement."""
    return min(_MIN_MEASURED_GROWTH_BYTES, limit // 8)


class DiskUsage(NamedTuple):
    """What a sandbox takes of a file system.

    Attributes:
        files: How many files and directories there are.
        hides_files: Some files may not be seen: they are in flight in a socket, or a process cannot be inspected.
    """

    size: int
    files: int
    hides_files: bool


def measure_disk_usage(root: str, proc: int, *, count_files: bool = False) -> DiskUsage:
    """Measure the files below `root`, and deleted ones that are still open or mapped."""
    device = os.stat(root).st_dev
    deleted: dict[int, int] = {}
    mapped: dict[int, int] = {}
    hides_files = False
    for pid in proc_fs.list_pids(proc):
        if pid == proc_fs.INIT_PID:
            continue
        try:
            for file in list_open_files(proc, pid):
                if file.is_unlinked_on(device):
                    deleted[file.status.st_ino] = file.allocated_bytes
                hides_files = hides_files or count_in_flight(proc, pid, file) > 0
        except PermissionError:
            # a program whose file is unreadable; file operations of process 1 cannot be inspected either
            hides_files = hides_files or not _is_file_operation(proc, pid)
        mapped |= deleted_mappings(proc, pid, device)
    counted = [f"{root}/{name}" for name in _COUNTED]
    size = _run_du(counted, "-k") << 10
    files = _run_du(counted, "--inodes") if count_files else 0
    # Merged by inode, so that a deleted file that is both open and mapped counts once.
    return DiskUsage(size + sum((mapped | deleted).values()), files, hides_files)


def _is_file_operation(proc: int, pid: int) -> bool:
    command = proc_fs.read_proc_file(proc, f"{pid}/cmdline")
    return command == proc_fs.read_proc_file(proc, f"{proc_fs.INIT_PID}/cmdline")


def measure_files(directory: str) -> tuple[int, int]:
    """Return the bytes and the number of the files below a directory."""
    return _run_du([directory], "-k") << 10, _run_du([directory], "--inodes")


def _run_du(paths: Sequence[str], unit: str) -> int:
    """Return what du counts.

    A walk in Python would block every other thread (GIL).
    """
    if _DU is None:
        return 0
    done = subprocess.run(
        [*_SEE_ALL, _DU, "-sx", unit, "--", *paths],
        env={"LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,  # files that vanish meanwhile are no error
        check=False,
    )
    return sum(int(line.split(b"\t")[0]) for line in done.stdout.splitlines())


def free_space(root: str | os.PathLike[str]) -> tuple[int, int]:
    """Return the free bytes of a file system, and how many must stay free."""
    status = os.statvfs(root)
    return status.f_bavail * status.f_frsize, min(
        MIN_FREE_BYTES, int(status.f_blocks * status.f_frsize * MIN_FREE_FRACTION)
    )


def _lacks_inodes(root: str) -> bool:
    """Return whether a file system that counts inodes has few left."""
    status = os.statvfs(root)
    return status.f_files > 0 and status.f_favail < status.f_files * MIN_FREE_FRACTION
