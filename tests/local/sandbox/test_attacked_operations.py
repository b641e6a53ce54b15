"""Code of a session that stops or kills the service's file operations in its sandbox."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.local.users import USERS, User, the_user

PROGRAM = Path(__file__).with_name("attacked_operations.py")
SIGNALS = [signal.SIGKILL, signal.SIGSTOP]


@pytest.fixture(scope="module", params=USERS)
def user(request: pytest.FixtureRequest) -> Iterator[User]:
    with the_user(request.param) as user:
        yield user


def attacked(user: User, number: signal.Signals) -> dict[str, Any]:
    """Return how the operations ended that a program attacked with a signal."""
    directory, program = user.directory / number.name, user.directory / PROGRAM.name
    directory.mkdir()
    shutil.copyfile(PROGRAM, program)
    if user.become:
        subprocess.run(["chown", "--reference", str(user.directory), str(directory)], check=True)
    command = [*user.become, user.interpreter, str(program), str(directory), str(int(number))]
    environment = {**os.environ, **user.environment}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_signals_for_operations(user: User, number: signal.Signals) -> None:
    """Root's file operations get no signal of the session; those of an ordinary user end in time, and say why."""
    found = attacked(user, number)
    if user.is_root:
        assert set(found["ends"]) == {"done"}
        assert found["missed"]
        assert not found["hit"]
    else:
        expected = {signal.SIGKILL: "It was killed", signal.SIGSTOP: "It took longer than 5 seconds"}
        assert all(end == "done" or end.startswith(expected[number]) for end in found["ends"]), found
        assert found["hit"]
