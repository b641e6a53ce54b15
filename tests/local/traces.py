"""Looking for what a session or a sandbox may have left on the host."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 60.0  # seconds for what must come; a busy machine takes its time, and waiting longer costs a failure only


def eventually(condition: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Wait until a condition is true, and return whether it became so."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def unique_seconds() -> str:
    """Return a time to `sleep` by which a process can be found again."""
    return str(10**18 + secrets.randbelow(10**18))


def processes_with(marker: str) -> list[int]:
    """Pids of the other living processes on this machine whose command line holds `marker`."""
    found = []
    for pid in _pids():
        try:
            if pid != os.getpid() and marker.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:  # it has ended
            continue
    return found


def mounts_with(marker: str) -> list[str]:
    """Lines of any mount table on this machine that name `marker`."""
    found = set()
    for pid in _pids():
        try:
            lines = Path(f"/proc/{pid}/mountinfo").read_text(errors="replace").splitlines()
        except OSError:
            continue
        found.update(line for line in lines if marker in line)
    return sorted(found)


def names_in_home() -> str:
    """Return the names in a sandbox's /home, which may lead to this Python, too."""
    ways = (Path(prefix) for prefix in (sys.prefix, sys.base_prefix))
    leading = {way.parts[2] for way in ways if way.is_relative_to("/home")}
    return "\n".join(sorted({"guest", "user", "wuying"} | leading))


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
