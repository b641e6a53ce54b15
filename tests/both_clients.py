"""Run one program with the official client and with ours, and keep what each sent and returned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.capture import Answered, Captured, capturing
from tests.once import once

_MAX_SECONDS = 600  # a program takes a few seconds; a busy machine, many times that
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "TMPDIR")


class Service(Protocol):
    """A service of a test, which is told its own address before it answers."""

    url: str

    def answer(self, request: Captured) -> Answered | dict[str, Any]: ...


def run_program(python: str, program: Path, flavour: str, cwd: Path, service: Service) -> str:
    """Run a program against a service, and return the last line that it prints."""
    cwd.mkdir()
    environ = {name: value for name, value in os.environ.items() if name in KEPT_VARIABLES}
    with capturing(service.answer) as capture:
        service.url = capture.url
        command = [python, str(program), flavour, capture.url, str(cwd)]
        done = subprocess.run(
            command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=_MAX_SECONDS, check=False
        )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()[-1] if done.stdout else ""


def run_on_runtime(python: str, program: Path, flavour: str, url: str, key: str, cwd: Path) -> Any:
    """Run a program against a runtime, and return the JSON of its line `RESULT ...`."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AGENTBAY_")}
    command = [python, str(program), flavour, url, key]
    done = subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=_MAX_SECONDS, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(lines[0].removeprefix("RESULT "))


def run_both(
    official: str, factory: pytest.TempPathFactory, name: str, run: Callable[[str, str, Path], Any]
) -> dict[str, Any]:
    """Return what `run(python, flavour, directory)` returns for each client and flavour, as "ours sync"."""
    pythons = {"official": official, "ours": sys.executable}
    pairs = [(client, flavour) for client in pythons for flavour in ("sync", "async")]

    def run_all(place: Path) -> dict[str, Any]:
        with ThreadPoolExecutor() as pool:
            found = pool.map(lambda pair: run(pythons[pair[0]], pair[1], place / "-".join(pair)), pairs)
        return dict(zip(map(" ".join, pairs), found, strict=True))

    results: dict[str, Any] = once(factory, name, run_all)
    return results
