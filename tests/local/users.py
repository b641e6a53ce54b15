"""Who runs a runtime under test: the user who runs the tests or, if that is root, an ordinary one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import agentbay

ROOT = sys.platform == "linux" and os.geteuid() == 0
USERS = ["own", "ordinary"] if ROOT else ["own"]
SOURCE = Path(agentbay.__file__).resolve().parents[1]
_ID = 12345
_BECOME = ("setpriv", f"--reuid={_ID}", f"--regid={_ID}", "--clear-groups")


@dataclass(frozen=True)
class User:
    """A user, and how to start a Python of theirs that can import the package.

    Attributes:
        directory: One that belongs to the user.
        interpreter: The Python.
        become: A command that starts another one as this user.
        environment: What the Python needs in its environment.
        is_root: Whether it is root.
    """

    directory: Path
    interpreter: str = sys.executable
    become: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict[str, str])
    is_root: bool = ROOT

    def starts(self, *within: str) -> dict[str, Any]:
        """Return what `Child` is to be told, so that it starts as this user, `within` another command."""
        return {"python": (*self.become, *within, self.interpreter), **self.environment}


@contextmanager
def the_user(name: str) -> Iterator[User]:
    """Become the user who runs the tests, "own", or an "ordinary" one."""
    directory = Path(tempfile.mkdtemp(prefix="agentbay-test-", dir="/tmp"))  # pytest's own are its user's alone
    try:
        if name == "own":
            yield User(directory)
            return
        python = python_for_everyone()
        if python is None:
            pytest.skip("no Python 3.11 that other users can start")
        os.chown(directory, _ID, _ID)
        copied = copied_for_everyone(SOURCE)
        try:
            _copy_what_it_needs(copied / "site")
            environment = {"PYTHONPATH": f"{copied / SOURCE.name}:{copied / 'site'}", "HOME": str(directory)}
            yield User(directory, python, _BECOME, environment, is_root=False)
        finally:
            shutil.rmtree(copied)
    finally:
        shutil.rmtree(directory)


def python_for_everyone() -> str | None:
    """Find a Python that every user can start."""
    candidates = [sys.executable, *(f"/usr/bin/python3{minor}" for minor in ("", ".11", ".12", ".13"))]
    # twice: setpriv itself keeps its rights until after its exec
    program = (
        "import subprocess, sys; assert sys.version_info >= (3, 11); sys.exit(subprocess.call([sys.executable, '-V']))"
    )
    for candidate in candidates:
        command = [*_BECOME, candidate, "-c", program]
        if Path(candidate).exists() and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def copied_for_everyone(*trees: Path) -> Path:
    """Copy folders to where every user can read them: a checkout may lie where only its owner can look."""
    place = Path(tempfile.mkdtemp(prefix="agentbay-test-", dir="/tmp"))
    place.chmod(0o755)
    for tree in trees:
        shutil.copytree(tree, place / tree.name, ignore=shutil.ignore_patterns("__pycache__"))
    return place


def run_experiment(name: str, program: Path, *arguments: str, timeout: float) -> Any:
    """Run a program of the tests as a user of that name, and return the JSON that it prints.

    Its arguments are the directory of the package's source, one that belongs to the user, and `arguments`.
    """
    with the_user(name) as user:
        copied = copied_for_everyone(SOURCE, program.parent)
        source, script = str(copied / SOURCE.name), str(copied / program.parent.name / program.name)
        command = [*user.become, user.interpreter, script, source, str(user.directory), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        subprocess.run(["rm", "-rf", str(copied)], check=True)  # shutil cannot remove very deep trees
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def give_packages(user: User, *names: str) -> User:
    """Return the user with a virtual environment of their own that has these distributions.

    The zygote of kernels starts an isolated Python, which ignores PYTHONPATH.
    """
    environment = user.directory / "venv"
    subprocess.run([user.interpreter, "-m", "venv", "--without-pip", str(environment)], check=True)
    for name in names:
        _copy_distributions(_needed(name), next(environment.glob("lib/python*/site-packages")))
    return replace(user, interpreter=str(environment / "bin/python"))


def _copy_what_it_needs(site: Path) -> None:
    _copy_distributions((_needed("agentbay-sdk") | _needed("uvicorn")) - {"agentbay-sdk"}, site)


def _copy_distributions(names: Iterable[str], site: Path) -> None:
    for name in names:
        for file in metadata.distribution(name).files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                target = site / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file.locate(), target)


def _needed(name: str, seen: frozenset[str] = frozenset()) -> frozenset[str]:
    """The distributions without which one cannot be used, itself among them."""
    seen |= {name}
    for line in metadata.requires(name) or ():
        requirement = Requirement(line)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and requirement.name not in seen:
            seen = _needed(requirement.name, seen)
    return seen
