"""What is dear to make, and the same for all tests: made once for all processes of pytest-xdist."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> Any:
    """Return what `make` returns, by way of JSON; it is given a folder, which stays until the run ends.

    Only the first process that asks has it called, and the others wait for that.
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
