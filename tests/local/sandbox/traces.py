"""Looking for what a sandbox may have left on the host."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path


def processes_with(marker: str) -> list[int]:
    """Pids of living processes with `marker` in their command line or environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                texts = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if marker.encode() in texts:
                found.append(int(entry.name))
    return found


def mounts_with(marker: str) -> list[str]:
    """Lines of any mount table on this machine that name `marker`."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                lines = (entry / "mountinfo").read_text(errors="replace").splitlines()
            except OSError:
                continue
            found.update(line for line in lines if marker in line)
    return sorted(found)


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
