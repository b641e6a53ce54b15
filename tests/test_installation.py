"""Another package that shares the folder `agentbay/` is noticed, in each order of installing and removing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import agentbay

THEIRS = {"__init__.py": "class AgentBay: ...\n", "_async/agentbay.py": "", "_sync/agentbay.py": ""}
VERSION = "import sys; from agentbay.cli import main; sys.exit(main(['version']))"
DOCTOR = "import sys; from agentbay.cli import main; sys.exit(main(['local', 'doctor']))"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the package."""
    here = Path(agentbay.__path__[0])
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(here, tmp_path / "agentbay", ignore=ignored))


def run(folder: Path, program: str, *options: str) -> subprocess.CompletedProcess[str]:
    # The copy is found because it is in the working directory.
    line = [sys.executable, *options, "-c", program]
    return subprocess.run(line, cwd=folder.parent, capture_output=True, text=True, timeout=120)


def test_whole(folder: Path) -> None:
    """A package alone is silent."""
    for program in ("import agentbay, agentbay.session_params", VERSION):
        done = run(folder, program)
        assert (done.returncode, done.stderr) == (0, "")


def test_replaced(folder: Path) -> None:
    """Installed over this one: every command says so."""
    for name, text in THEIRS.items():
        (folder / name).write_text(text)
    version = run(folder, VERSION)
    assert (version.returncode, version.stdout.strip()) == (0, agentbay.__version__)
    assert "wuying-agentbay-sdk has replaced files" in version.stderr
    doctor = run(folder, DOCTOR)
    assert doctor.returncode == 1
    assert "pip uninstall wuying-agentbay-sdk" in doctor.stderr


def test_mixed(folder: Path) -> None:
    """This one installed over it: the first import warns, and all works."""
    (folder / "_async/agentbay.py").touch()
    done = run(folder, "from agentbay import AgentBay; print(AgentBay.local)")
    assert "<string>:1: UserWarning: wuying-agentbay-sdk has its files" in done.stderr
    assert done.stdout
    assert "has its files" in run(folder, VERSION).stderr


def test_removed(folder: Path) -> None:
    """After it was removed: what it took with it is named."""
    (folder / "__init__.py").unlink()
    # -S: the package of the tests' own environment must not take its place.
    assert "Files of agentbay-sdk are missing" in run(folder, VERSION, "-S").stderr
    assert run(folder, DOCTOR, "-S").returncode == 1
