"""The memory that the processes of a sandbox use, measured cheaply.

Only where no control group counts it. `unmapped_memory` adds what no process maps.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from agentbay.local.sandbox.service.process_list import private_memory_bytes
from agentbay.local.sandbox.shared import proc_fs

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MAX_GROWTH_BYTES_PER_SECOND = 4 << 30  # of all processes together; 2 GiB were measured for one
_MIN_DELAY_SECONDS, _MAX_DELAY_SECONDS = 0.02, 0.25


def measure_memory(proc: int, pids: Iterable[int], limit: int) -> dict[int, int]:
    """Return the bytes of memory of each process.

    Shared pages are counted for each process at first, which is quick; only if the sum exceeds `limit`, by shares.
    """
    quick = {pid: _resident(proc, pid) for pid in pids}
    if sum(quick.values()) <= limit:
        return quick
    quick = {pid: private_memory_bytes(proc, pid) for pid in quick}
    if sum(quick.values()) <= limit:
        return quick
    return {pid: _proportional_bytes(proc, pid, size) for pid, size in quick.items()}


def next_check_delay(headroom: int) -> float:
    """Return the seconds to the next check if `headroom` bytes are left."""
    return min(max(headroom / _MAX_GROWTH_BYTES_PER_SECOND, _MIN_DELAY_SECONDS), _MAX_DELAY_SECONDS)


def _resident(proc: int, pid: int) -> int:
    """Return all resident memory, including pages of program files.

    This upper bound takes a fifth of the time of the exact value.
    """
    fields = proc_fs.read_proc_file(proc, f"{pid}/statm").split()
    return int(fields[1]) * _PAGE_BYTES if fields else 0


def _proportional_bytes(proc: int, pid: int, size: int) -> int:
    """Return anonymous memory and this process's share of shared memory.

    `size` is returned if that may not be read.
    """
    lines = (line.split() for line in proc_fs.read_proc_file(proc, f"{pid}/smaps_rollup").splitlines())
    found = [int(line[1]) for line in lines if line[0] in (b"Pss_Anon:", b"Pss_Shmem:")]
    return sum(found) << 10 if found else size
