"""The `agentbay` command in a real terminal and a real shell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pytest

import agentbay
from agentbay import Session
from agentbay.testing import LocalRuntime

pytestmark = pytest.mark.slow

if sys.platform != "linux":
    pytest.skip("the local runtime needs Linux", allow_module_level=True)

BIN = Path(sys.executable).parent  # the directory of the script `agentbay`


@pytest.fixture
def environment(agentbay_local: LocalRuntime, tmp_path: Path) -> dict[str, str]:
    """Environment variables of a user whose service is the local runtime."""
    path = f"{BIN}:{os.environ['PATH']}"
    return {**os.environ, **agentbay_local.environment, "HOME": str(tmp_path), "PATH": path, "TERM": "xterm"}


def spawn(line: str, environment: dict[str, str], columns: int = 80) -> pexpect.spawn:
    """Run a shell line in a terminal."""
    home = environment["HOME"]
    size = (25, columns)
    return pexpect.spawn(
        "bash", ["-c", line], env=environment, cwd=home, dimensions=size, timeout=120, encoding="utf-8"
    )


def test_module() -> None:
    """`python -m agentbay` runs the command."""
    done = subprocess.run([sys.executable, "-m", "agentbay", "version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"{agentbay.__version__}\n")


def test_completion_in_bash(session: Session, environment: dict[str, str], tmp_path: Path) -> None:
    """After `--install-completion`, Tab completes commands, session ids and files."""
    installing = spawn("agentbay --install-completion; true", environment)
    installing.expect("bash completion installed")
    installing.expect(pexpect.EOF)
    (tmp_path / "a-script-of-mine.py").touch()
    shell = spawn("exec bash --rcfile ~/.bashrc -i", environment, 200)
    shell.sendline("PS1='ready: '; cd")
    shell.expect("ready: ")
    shell.send("agentbay sess\t")
    shell.expect_exact("session ")
    shell.send("exe\t")
    shell.expect_exact("exec ")
    shell.send(f"{session.session_id[:-4]}\t")
    shell.expect_exact(f"{session.session_id} ")
    shell.send("\x15agentbay run a-scr\t")
    shell.expect_exact("a-script-of-mine.py")
    shell.close(force=True)


def test_lists_are_tables(session: Session, environment: dict[str, str]) -> None:
    """On a terminal, lists have headers and errors are red."""
    listing = spawn("agentbay session list; agentbay session get nobody", environment)
    listing.expect(r"session_id +.*status +.*image_id")
    listing.expect(rf"{session.session_id} +RUNNING +linux_latest")
    listing.expect_exact("\x1b[31mError:\x1b[0m")
    listing.expect("agentbay session list")
    listing.expect(pexpect.EOF)


def test_id_in_a_terminal(environment: dict[str, str]) -> None:
    """`ID=$(agentbay session create)` gets the id, although standard error is a terminal."""
    shell = spawn('ID=$(agentbay session create); echo "[$ID]"; agentbay session delete $ID', environment)
    shell.expect(r"\[([0-9a-z-]+)\]")
    shell.expect_exact(shell.match[1])  # `delete` prints the id
    shell.expect(pexpect.EOF)


def test_progress(session: Session, environment: dict[str, str], tmp_path: Path) -> None:
    """Copying files and directories shows a progress bar."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/big").write_bytes(os.urandom(6 << 20))
    name = session.session_id
    copying = spawn(f"agentbay session cp tree/big {name}: && agentbay session cp {name}:big back", environment)
    for what in ("sending big", "fetching big"):
        copying.expect_exact(what)
        copying.expect(r"6\.3 MB of 6\.3 MB")
    copying.expect(pexpect.EOF)
    whole = spawn(f"agentbay session cp tree {name}:there && agentbay session cp {name}:there again", environment)
    for what in ("sending tree", "fetching there"):
        whole.expect_exact(what)
        whole.expect(r"6\.3 MB of 6\.3 MB")
    whole.expect(pexpect.EOF)
    assert (tmp_path / "back").read_bytes() == (tmp_path / "again/big").read_bytes()


def attached(session: Session, runtime: LocalRuntime, *more: str):  # type: ignore[no-untyped-def]
    """Run `attach` in a terminal, and check the terminal settings afterwards."""
    line = " ".join(
        [
            f"{sys.executable} -c 'import sys; from agentbay.cli import main; sys.exit(main())'",
            "session attach",
            session.session_id,
            *more,
        ]
    )
    script = f"a=$(stty -g); {line}; echo status $?; [ $a = $(stty -g) ] && echo restored"
    environment = {**os.environ, **runtime.environment, "TERM": "xterm"}
    return pexpect.spawn("sh", ["-c", script], env=environment, dimensions=(25, 90), timeout=120, encoding="utf-8")


def test_attach(session: Session, agentbay_local: LocalRuntime) -> None:
    """Keys, Ctrl-C and window size reach the session, and the terminal is restored."""
    child = attached(session, agentbay_local)
    child.expect(r"wuying@.*\$ ")
    child.sendline("stty size; tty")
    child.expect("25 90\r\n/dev/pts/")
    child.setwinsize(40, 120)
    child.sendline("sleep 0.3; stty size; cat")
    child.expect("40 120\r\n")
    child.send("\x03")
    # A line typed before the prompt may be lost, as on any terminal of Linux: the program that Ctrl-C ends is woken by
    # both, and still reads the line before it dies. This holds with `stty noflsh` too, so nothing flushed it.
    child.expect(r"wuying@.*\$ ")
    child.sendline("echo grün $?")
    child.expect("grün 130\r\n")
    child.sendline("exit 9")
    child.expect("status 9\r\nrestored")
    child.expect(pexpect.EOF)


def test_detach_and_reattach(session: Session, agentbay_local: LocalRuntime) -> None:
    """Ctrl-] detaches from a program, and `--terminal` reattaches to it."""
    child = attached(session, agentbay_local, "--shell", "python3")
    child.expect(">>> ")
    child.sendline("x = 41 + 1")
    child.expect(">>> ")
    child.send("\x1d")
    child.expect(r"--terminal (\S+)")
    terminal = child.match[1]
    child.expect("status 0\r\nrestored")
    again = attached(session, agentbay_local, "--terminal", terminal)
    again.expect(">>> ")  # earlier output is replayed first
    again.sendline("print('x is', x)")
    again.expect("x is 42")
    again.sendline("raise SystemExit(5)")
    again.expect("status 5\r\nrestored")


def test_attach_restores_the_terminal(session: Session, agentbay_local: LocalRuntime) -> None:
    """The terminal is restored when the session ends or the command is killed."""
    child = attached(session, agentbay_local)
    child.expect(r"\$ ")
    session.delete().unwrap()
    child.expect("status [1-9][0-9]*\r\n.*restored")


def test_shell(agentbay_local: LocalRuntime, environment: dict[str, str]) -> None:
    """A shell in a fresh session has its options, returns its status, and leaves no session."""
    with agentbay_local.agent_bay() as bay:
        before = bay.list().total_count
    shell = spawn("agentbay shell --env STAGE=test --writable /app --cwd /app; echo status $?", environment)
    shell.sendline("echo $STAGE in $PWD, $((6 * 7)); touch made && ls; exit 7")
    shell.expect_exact("test in /app, 42")
    shell.expect("made")
    shell.expect("status 7")
    shell.expect(pexpect.EOF)
    with agentbay_local.agent_bay() as bay:
        assert bay.list().total_count == before


def test_shell_without_a_service(environment: dict[str, str]) -> None:
    """With --local a shell needs no key, and Ctrl-] ends it."""
    line = "env -u AGENTBAY_API_KEY -u AGENTBAY_ENDPOINT agentbay shell --local --shell bash; echo status $?"
    shell = spawn(line, environment)
    shell.sendline("echo $((6 * 7))")
    shell.expect_exact("42")
    shell.send("\x1d")
    shell.expect("status 0")
    shell.expect(pexpect.EOF)


def test_shell_that_is_kept(agentbay_local: LocalRuntime, environment: dict[str, str]) -> None:
    """With --keep the session stays, and tells its id."""
    shell = spawn("agentbay shell --keep --shell true; echo status $?", environment)
    shell.expect(r"session (session-\w+)\s")
    assert shell.match is not None
    kept = str(shell.match[1])
    shell.expect("status 0")
    with agentbay_local.agent_bay() as bay:
        assert bay.delete(kept).success


def test_login_asks_for_the_key(agentbay_local: LocalRuntime, environment: dict[str, str]) -> None:
    """On a terminal the key is asked for, and not echoed."""
    line = f"env -u AGENTBAY_API_KEY XDG_CONFIG_HOME=$HOME agentbay login --endpoint {agentbay_local.endpoint}"
    asking = spawn(line, environment)
    asking.expect("Key")
    asking.waitnoecho(10)
    asking.sendline(agentbay_local.api_key)
    asking.expect("kept in")
    asking.expect(pexpect.EOF)
    assert agentbay_local.api_key not in str(asking.before)
