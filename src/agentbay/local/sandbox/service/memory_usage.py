"""How much memory the processes of a sandbox have, cheaply enough to ask many times a second.

Only where no control group counts it. Not seen here: memory files that are written but not mapped, and System V
segments that nobody has attached.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from agentbay.local.sandbox.shared import proc_fs

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MAX_GROWTH_BYTES_PER_SECOND = (
    4 << 30
)  # bytes a second that a machine's processes may take; 2 GiB were measured for one
_MIN_DELAY_SECONDS, _MAX_DELAY_SECONDS = 0.02, 0.25  # seconds


def measure_memory(proc: int, pids: Iterable[int], limit: int) -> dict[int, int]:
    """Return the bytes that are each process's own.

    What several share is counted for each at first, which is quick; only if that is beyond `limit` exactly, by shares.
    """
    quick = {pid: _resident(proc, pid) for pid in pids}
    if sum(quick.values()) <= limit:
        return quick
    quick = {pid: proc_fs.private_memory_bytes(proc, pid) for pid in quick}
    if sum(quick.values()) <= limit:
        return quick
    return {pid: _proportional_bytes(proc, pid, size) for pid, size in quick.items()}


def next_check_delay(headroom: int) -> float:
    """Return the seconds after which to look again if `headroom` bytes are left."""
    return min(max(headroom / _MAX_GROWTH_BYTES_PER_SECOND, _MIN_DELAY_SECONDS), _MAX_DELAY_SECONDS)


def _resident(proc: int, pid: int) -> int:
    """An upper bound in a fifth of the time: everything resident, pages of program files too."""
    fields = proc_fs.read_proc_file(proc, f"{pid}/statm").split()
    return int(fields[1]) * _PAGE_BYTES if fields else 0


def _proportional_bytes(proc: int, pid: int, size: int) -> int:
    """Anonymous and shared memory, the latter divided by those who share it; `size` where that may not be read."""
    lines = (line.split() for line in proc_fs.read_proc_file(proc, f"{pid}/smaps_rollup").splitlines())
    found = [int(line[1]) for line in lines if line[0] in (b"Pss_Anon:", b"Pss_Shmem:")]
    return sum(found) << 10 if found else size
