"""The local runtime in a container of podman, used by clients outside of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from agentbay import AgentBay, ConfigurationError
from agentbay._runtime_launcher import RuntimeLauncher
from agentbay._runtime_wheel import write_wheel
from agentbay.models.local_options import LocalOptions
from tests.local.engine import Podman
from tests.local.raw import KEY, Child
from tests.local.traces import eventually

PROGRAM = str(Path(__file__).with_name("container_program.py"))
needs_podman = pytest.mark.skipif(shutil.which("podman") is None, reason="no podman; scripts/test says how to get it")


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Podman, whose containers and images are all removed at the end."""
    engine = Podman(tmp_path_factory.mktemp("podman"))
    yield engine
    engine.close()


@needs_podman
def test_programs_use_a_container(podman: Podman) -> None:
    """Sessions of both flavours work in a container, with transfers and links, and leave nothing behind."""
    done = podman.run(sys.executable, PROGRAM, "use")
    assert done.stdout.splitlines() == [
        "b'\\x00pushed'",
        "b'\\x00pushed'",
        "42",
        "wuying",
        "",
        "/home/wuying",
        "",
        "QuotaExceededError",
    ]
    assert podman.do("ps", "--all", "--quiet") == podman.do("volume", "ls", "--quiet") == ""


@needs_podman
def test_killed_program_leaves_no_container(podman: Podman) -> None:
    """The container of a program that is killed ends and is removed."""
    done = podman.run(sys.executable, PROGRAM, "die", status=-9)
    port = int(done.stdout.strip().rpartition(":")[2])
    eventually(lambda: podman.do("ps", "--all", "--quiet") == "")
    with pytest.raises(URLError):
        urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5)


@needs_podman
def test_options_that_a_container_cannot_have(podman: Podman) -> None:
    """Paths and addresses of this machine are refused by name, and so is what the runtime refuses."""
    said = podman.run(sys.executable, PROGRAM, "refuse").stdout.splitlines()
    for line, words in zip(
        said, ("state_dir='/srv/agentbay'", "model_url='http://127.0.0.1", "network=none"), strict=True
    ):
        assert line.startswith("ConfigurationError: ")
        assert words in line


ENGINE = """#!/bin/sh
case $1 in
run) printf '%s\\n' "$@" > $0.arguments; read -r key; echo "$key" > $0.input
     echo agentbay local ready at http://127.0.0.1:8080; cat > /dev/null;;
port) echo 127.0.0.1:9;;
esac
"""


def test_secrets_and_rights_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container has no capability, its port is the loopback's, and no command line shows a key."""
    engine = tmp_path / "docker"
    engine.write_text(ENGINE)
    engine.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("AGENTBAY_MODEL_API_KEY", "key-of-the-model")
    options = LocalOptions(container="docker", container_image="an-image", model_url="http://models.example/v1")
    launcher = RuntimeLauncher(options)
    assert launcher.start() == "http://127.0.0.1:9"
    launcher.stop()
    arguments, key = Path(f"{engine}.arguments").read_text(), Path(f"{engine}.input").read_text().strip()
    assert {"--cap-drop=all", "--security-opt=no-new-privileges", "--publish=127.0.0.1::8080"} < {*arguments.split()}
    assert "--env=AGENTBAY_MODEL_API_KEY" in arguments.split()
    assert "key-of-the-model" not in arguments
    assert len(key) == 64
    assert key not in arguments
    assert not {"--privileged", "--network=host", "--pid=host"} & {*arguments.split()}


def test_wheel_for_the_image(tmp_path: Path) -> None:
    """The package packs itself as a wheel that pip installs, with all its files and its command."""
    tag = write_wheel(tmp_path)
    wheel = next(tmp_path.glob("*.whl"))
    assert tag == write_wheel(tmp_path)
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*install, "--target", str(target), str(wheel)], check=True, capture_output=True, timeout=120)
    for path in ("agentbay/local/Containerfile", "agentbay/py.typed", "agentbay/_async/session.py", "bin/agentbay"):
        assert (target / path).is_file(), path
    assert metadata.metadata("agentbay-sdk")["Name"] in next(target.glob("*.dist-info/METADATA")).read_text()


def test_nothing_to_run_it_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Linux and without an engine, the first call says what to install."""
    monkeypatch.setattr(sys, "platform", "darwin")
    bay = AgentBay.local()
    monkeypatch.setenv("PATH", str(tmp_path))
    error = bay.list().exception
    assert isinstance(error, ConfigurationError)
    assert "this is darwin, and docker is not installed, podman is not installed" in str(error)
    assert "https://podman.io" in str(error)


def test_published_is_for_containers() -> None:
    """A runtime of this machine refuses to listen at all addresses without TLS."""
    with Child(["-m", "agentbay.local", "--published=loopback"], key=KEY) as child:
        assert child.line == ""
        assert "--published" in child.standard_error()
