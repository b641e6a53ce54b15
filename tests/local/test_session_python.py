"""The Python of sessions: whatever Python the runtime has, whoever started it and however, in every isolation."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from agentbay import AgentBay, ConfigurationError
from agentbay.local.sandbox.shared import landlock
from tests.local.raw import Wire, embedded
from tests.local.traces import PATIENCE, eventually
from tests.local.users import SOURCE, User, give_packages
from tests.packages import PIP

ISOLATIONS = ["none", *(["landlock"] if landlock.abi_version() >= landlock.REQUIRED_ABI else [])]
PACKAGES = Path(__file__).parents[1] / "packages.py"
RUNTIME_NEEDS = ("attrs", "cattrs", "httpx", "ipython", "pathspec", "uvicorn", "websockets")
MAKE = "from packages import write_wheel; from pathlib import Path; write_wheel(Path('wheels'), 'sixpence', '1.0')"


def install_and_import(wire: Wire, session: str) -> None:
    """Install a wheel by a command, import it everywhere, and uninstall it."""
    wire.text(session, "write_file", path="packages.py", content=PACKAGES.read_text())
    wire.stdout(session, f'python -c "{MAKE}"')
    wire.stdout(session, f"pip {PIP} sixpence")
    assert wire.stdout(session, "sixpence") == "version 1.0\n"
    code = "import os, sixpence, sys; sixpence.VERSION + str(sys.executable in os.popen('command -v python').read())"
    assert "1.0True" in wire.text(session, "run_code", language="python", code=code, timeout_s=int(PATIENCE))
    assert wire.stdout(session, "python3 -m pip --disable-pip-version-check list").count("sixpence") == 1
    wire.stdout(session, "pip uninstall -q -y sixpence")
    assert wire.sh(session, "python -c 'import sixpence'")["exit_code"] == 1


def test_a_runtime_without_pip(somebody: User):
    """Where the runtime's environment has no pip, sessions have the one that Python comes with."""
    user = give_packages(somebody, *RUNTIME_NEEDS)
    starts = {"PYTHONPATH": str(SOURCE), **user.starts()}
    with embedded(None, "--state-dir", str(user.directory / "state"), **starts) as (_, wire):
        assert subprocess.run([user.interpreter, "-m", "pip"], capture_output=True, check=False).returncode == 1
        with wire.session(ImageId="code_latest") as session:
            install_and_import(wire, session)


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_without_namespaces(tmp_path: Path, isolation: str):
    """Without namespaces, sessions have an environment of their own as well."""
    with (
        embedded(tmp_path, "--isolation", isolation) as (_, wire),
        wire.session(ImageId="code_latest") as one,
        wire.session(ImageId="code_latest") as other,
    ):
        install_and_import(wire, one)
        wire.stdout(one, f"pip {PIP} sixpence")
        assert wire.sh(other, "python -c 'import sixpence'")["exit_code"] == 1


def test_caches_end_with_a_runtime_that_may_not_keep_them(tmp_path: Path):
    """Where this user can have no cache directory, the runtime leaves nothing behind."""
    with embedded(None, TMPDIR=str(tmp_path), XDG_CACHE_HOME="/proc/nowhere") as (child, wire):
        with wire.session(ImageId="code_latest") as session:
            wire.text(session, "run_code", language="python", code="1", timeout_s=int(PATIENCE))
            assert eventually(lambda: list(tmp_path.glob("agentbay-local-*/cache/*")))
        child.close_stdin()
    assert list(tmp_path.iterdir()) == []


def test_packages_by_sys_path_alone(tmp_path: Path):
    """A program that adds its packages to sys.path can start a runtime, whose sessions have these packages."""
    paths = [str(SOURCE), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    (tmp_path / "sqlite3.py").write_text("raise SystemExit('a module of the program, not the one of the library')")
    program = (
        f"import sys; sys.path[:0] = {paths!r}\nfrom agentbay import AgentBay\nsys.path.insert(0, {str(tmp_path)!r})\n"
        "with AgentBay.local() as bay, bay.session() as session:\n"
        "    print(session.command.run('python3 -c \"import IPython; print(IPython.__name__)\"').output)\n"
        "    print(session.code.run_code('6 * 7', 'python').result)\n"
    )
    line = [getattr(sys, "_base_executable"), "-I", "-c", program]  # noqa: B009 - a stub of sys lacks it
    done = subprocess.run(line, capture_output=True, text=True, timeout=4 * PATIENCE, cwd=tmp_path, check=False)
    assert (done.stdout.split(), done.stderr) == (["IPython", "42"], "")


def test_an_interpreter_without_a_program(monkeypatch: pytest.MonkeyPatch):
    """Where sys.executable is empty, the error says so and names the way out."""
    monkeypatch.setattr(sys, "executable", "")
    with (
        AgentBay.local(strict=True) as bay,
        pytest.raises(ConfigurationError, match=r"sys\.executable is empty.*agentbay local"),
    ):
        bay.list()
