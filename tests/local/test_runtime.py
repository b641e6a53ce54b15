from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agentbay.cli import main
from agentbay.local.sessions.time_limits import TimeLimits
from agentbay.local.state_dir import remove_tree
from tests.local.raw import KEY, Child, Wire, embedded
from tests.local.traces import PATIENCE, eventually, mounts_with, processes_with, unique_seconds


def marked(wire: Wire) -> tuple[str, str]:
    """Make a session with a process, and return its id and the process's mark."""
    marker, session = unique_seconds(), wire.create()
    wire.stdout(session, f"touch file; setsid sleep {marker} >/dev/null 2>&1 &")
    assert eventually(lambda: len(processes_with(marker)) == 1)
    return session, marker


def test_end_of_standard_input(tmp_path: Path):
    """The end of standard input ends the runtime and all it made."""
    with embedded(tmp_path) as (child, wire):
        session, marker = marked(wire)
        wire.data("PauseSessionAsync", SessionId=wire.create())
        assert child.close_stdin() == 0
        assert processes_with(marker) == mounts_with(session) == []
        assert not list((tmp_path / "sessions").iterdir())
        assert not list((tmp_path / "trash").iterdir())
        assert child.standard_error() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals(number: signal.Signals):
    """A signal ends the runtime in order, with its commands and its temporary directory."""
    with embedded() as (child, wire):
        session, marker = marked(wire)
        directory = Path(next(line for line in mounts_with(session)).split(session)[0].split()[-1])
        assert "agentbay-local-" in str(directory)
        assert child.send(number) == 0
        assert processes_with(marker) == []
        assert not directory.exists()


def test_kill(tmp_path: Path):
    """A killed runtime leaves only files, which the next one removes."""
    with embedded(tmp_path) as (child, wire):
        session, marker = marked(wire)
        wire.data("PauseSessionAsync", SessionId=session)
        child.send(signal.SIGKILL)
        assert eventually(lambda: processes_with(marker) == mounts_with(session) == [])
        assert list((tmp_path / "sessions").iterdir())
    with embedded(tmp_path) as (_, wire):
        assert not list((tmp_path / "sessions").iterdir())
        assert eventually(lambda: not list((tmp_path / "trash").iterdir()))
        assert wire.data("GetSessionDetail", SessionId=session)["EndReason"] == (
            "The runtime ended while the session was PAUSED."
        )


def test_kill_of_a_temporary_one(tmp_path: Path):
    """The temporary directory of a killed runtime is swept by the next."""
    for killed in (True, False):
        with Child(["-m", "agentbay.local"], TMPDIR=str(tmp_path)) as child:
            Wire(child.url).http.close()
            assert eventually(lambda: len(list(tmp_path.glob("agentbay-local-*"))) == 1)
            child.send(signal.SIGKILL) if killed else child.close_stdin()
    assert list(tmp_path.iterdir()) == []


def test_lock_is_removed_last(tmp_path: Path):
    """A removal that is killed leaves the lock, by which the next runtime knows a directory as its own."""
    directory = tmp_path / "agentbay-local-x"
    for name in ("a/b", "lock", "z", *(f"file-{number}" for number in range(50))):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).touch()
    program = (
        "import sys; from pathlib import Path; from agentbay.local.state_dir import remove_tree\n"
        "sys.addaudithook(lambda event, args: event == 'os.remove' and print(args[0]))\n"
        "remove_tree(Path(sys.argv[1]))"
    )
    removed = subprocess.run([sys.executable, "-c", program, directory], capture_output=True, text=True, check=True)
    assert removed.stdout.split()[-1] == "lock"
    assert not directory.exists()


def test_relative_home(tmp_path: Path):
    """A relative HOME or cache directory has nothing made in the working directory."""
    relative = {"HOME": "home", "XDG_CACHE_HOME": "cache", "XDG_CONFIG_HOME": "config"}
    with Child(["-m", "agentbay.local"], python=("env", "-C", str(tmp_path), sys.executable), **relative) as child:
        wire = Wire(child.url)
        with wire.http, wire.session(ImageId="code_latest") as session:
            assert not wire.tool(session, "run_code", code="1", language="python").get("isError")
            assert list(tmp_path.iterdir()) == []


def test_second_runtime(tmp_path: Path):
    """A second runtime on the same state directory is refused."""
    with embedded(tmp_path) as (_, wire):
        assert Child(["-m", "agentbay.local", "--state-dir", str(tmp_path)]).failure() == (
            f"Another runtime uses the state directory {tmp_path}. Stop it, or choose another --state-dir.\n"
        )
        assert wire.data("ListSession") == []


def test_errors_at_the_start(tmp_path: Path):
    """Errors at the start go to standard error, and nothing to standard output."""
    with embedded() as (child, _):
        port = child.url.rpartition(":")[2]
        for options, text in (
            (["--port", port], f"Port {port} of 127.0.0.1 cannot be used"),
            (["--state-dir", "/proc/x"], "The state directory /proc/x cannot be used"),
        ):
            assert text in Child(["-m", "agentbay.local", *options]).failure()


@pytest.mark.parametrize("kind", ["writable", "foreign"])
def test_state_directory_of_others(tmp_path: Path, kind: str):
    """A state directory that other users could change is refused."""
    if kind == "foreign" and os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    tmp_path.chmod(0o757 if kind == "writable" else 0o700)
    if kind == "foreign":
        os.chown(tmp_path, 12345, -1)
    said = Child(["-m", "agentbay.local", "--state-dir", str(tmp_path)]).failure()
    assert f"the state directory {tmp_path}" in said.replace("The state", "the state")


def test_short_keys():
    """A key that can be guessed is warned of."""
    for key, warned in (("k" * 15, True), ("k" * 16, False)):
        child = Child(["-m", "agentbay.local"], key=key)
        assert child.close_stdin() == 0
        assert ("it can be guessed" in child.standard_error()) == warned
        child.release()


def test_without_links():
    """With --link-url off, sessions offer no direct calls, and the route is closed."""
    with embedded(None, "--link-url", "off") as (child, wire):
        made = wire.data("CreateMcpSession")
        assert made["LinkUrl"] == ""
        assert made["WsUrl"] != ""
        url = f"{child.url}/link/{made['SessionId']}/callTool"
        answer = wire.http.post(url, json={}, headers={"x-access-token": made["Token"]})
        assert answer.status_code == 400


def command(*arguments: str, **environment: str) -> Child:
    return Child(
        ["-c", "import sys; from agentbay.cli import main; sys.exit(main())", *arguments],
        parent_pipe=False,
        **environment,
    )


def test_command_with_a_key_of_its_own(tmp_path: Path):
    """Without a key, `agentbay local` makes one of mode 0600 and uses it again."""
    keys = []
    for _ in range(2):
        with command("local", "--port", "0", "--state-dir", str(tmp_path), AGENTBAY_API_KEY="") as child:
            file = tmp_path / "key"
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            keys.append(file.read_text().strip())
            wire = Wire(child.url, keys[-1])
            with wire.http:
                session, marker = marked(wire)
                assert child.send(signal.SIGTERM) == 0
            assert processes_with(marker) == []
            log = child.standard_error()
            assert f"The API key is in {file}\n" in log
            assert f"created {session}\n" in log
            assert keys[-1] not in log
            assert "sleep" not in log
            assert "/view/login" not in log  # that is for terminals
            assert child.process.stdout is not None
            assert child.process.stdout.read() == ""
    assert keys[0] == keys[1]
    assert len(keys[0]) > 60


def test_command_with_a_given_key():
    """AGENTBAY_API_KEY is the key, and sessions see nothing of it."""
    with command("local", AGENTBAY_API_KEY=KEY) as child:
        wire = Wire(child.url)
        with wire.http, wire.session() as session:
            assert KEY not in wire.stdout(session, "env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'")
        assert child.send(signal.SIGINT) == 0


def test_doctor_and_version(capsys: pytest.CaptureFixture[str]):
    """The command tells what this machine can do, and which version it is."""
    assert main(["local", "doctor"]) == 0
    assert "works  namespaces" in capsys.readouterr().out
    assert main(["version"]) == 0
    assert capsys.readouterr().out.count(".") >= 1
    assert main(["local", "--help"]) == 0
    assert "examples:" in capsys.readouterr().out


def test_without_the_extra():
    """Where the web server is not installed, the command says what to install."""
    program = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "import importlib.util as u; found = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'uvicorn' else found(name, *more)\n"
        "from agentbay.cli import main; sys.exit(main(['local']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == 'The local runtime needs uvicorn: pip install "agentbay-sdk[local]"\n'


def test_remove_tree(tmp_path: Path):
    """`remove_tree` removes trees of any depth and mode, and follows no link."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    top = tmp_path / "top"
    top.mkdir()
    (top / "link").symlink_to(kept)
    here = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    (top / "closed" / "deep").mkdir(parents=True)
    (top / "closed").chmod(0)
    remove_tree(top)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (kept / "file").exists()


def test_lifetime():
    """Seconds are minutes where a maximum is given, and whichever time ends first counts."""
    assert TimeLimits.read(300, None, None) == TimeLimits(300, None)
    assert TimeLimits.read(5, 30, None) == TimeLimits(300, 1800)
    assert TimeLimits.read(None, None, None) == TimeLimits.read(5, 30, True) == TimeLimits()
    assert TimeLimits(300, 1800).seconds_remaining(age=1790, idle=10) == 10
    assert TimeLimits(300, 1800).seconds_remaining(age=100, idle=10) == 290
    assert TimeLimits().seconds_remaining(age=1, idle=1) is None
