"""Share expensive set-up among the processes of pytest-xdist."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> Any:
    """Return what `make` returns, calling it once for all test processes.

    The value travels as JSON. `make` gets a folder that stays until the run ends; other processes wait for it.
    """
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each process has a folder below that of the whole run
        shared = shared.parent
    folder, kept = shared / f"once-{name}", shared / f"once-{name}.json"
    with kept.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            folder.mkdir(exist_ok=True)
            kept.write_text(json.dumps(make(folder)))
    return json.loads(kept.read_text())
