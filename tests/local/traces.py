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
    """Wait until something is true; False if it does not become so."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def unique_seconds() -> str:
    """A time to `sleep` that no other command on this machine sleeps, so that its processes can be told from others."""
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
    """What a sandbox has in its /home: its own, by three names, and the way to this Python if that lies in a user's."""
    ways = (Path(prefix) for prefix in (sys.prefix, sys.base_prefix))
    leading = {way.parts[2] for way in ways if way.is_relative_to("/home")}
    return "\n".join(sorted({"guest", "user", "wuying"} | leading))


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
