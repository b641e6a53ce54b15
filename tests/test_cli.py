"""The `agentbay` command line, on a local runtime."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

import agentbay
from agentbay import AgentBay, Session
from agentbay.cli import COMMANDS, main, session as session_command
from agentbay.cli.transfer import CopyLocation
from agentbay.local import options
from agentbay.testing import LocalRuntime
from tests.scripted_contexts import ContextService, serving

if sys.platform != "linux":
    pytest.skip("the local runtime needs Linux", allow_module_level=True)

COMMAND = [sys.executable, "-c", "import sys; from agentbay.cli import main; sys.exit(main())"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Run the command in this process, without the profiles of its user, and return status and outputs."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))

    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(arguments)
        except SystemExit as ended:
            status = int(ended.code or 0)
        return status, *capfd.readouterr()

    return call


@pytest.fixture
def here(agentbay_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the command to the runtime, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_version_loads_nothing() -> None:
    """`agentbay version` imports neither typer nor the client."""
    for hidden in ("", "sys.modules['typer'] = sys.modules['rich'] = None; "):
        program = f"import sys; {hidden}from agentbay.cli import main; main(['version']); print(sorted(sys.modules))"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
        version, modules = done.stdout.splitlines()
        assert re.fullmatch(r"\d+\.\d+.*", version)
        assert "'httpx'" not in modules
        assert hidden or "'typer'" not in modules


def run_without(packages: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process that cannot import some packages."""
    program = (
        f"import sys; hidden = {packages.split()!r}\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in hidden: raise ModuleNotFoundError(name)\n"
        "import importlib.util; found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name in hidden else found(name, *more)\n"
        "sys.meta_path.insert(0, Finder())\n"
        f"from agentbay.cli import main; sys.exit(main({list(arguments)!r}))"
    )
    environment = {**os.environ, **variables}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_without_the_extra() -> None:
    """Without the extra, commands say what to install, and help and completion work."""
    done = run_without("typer rich", "session", "list")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == 'The command line needs typer and rich: pip install "agentbay-sdk[local]"\n'
    done = run_without("typer rich", "session", "list", "--json")
    assert (done.returncode, "pip install" in json.loads(done.stderr)["error"]["message"]) == (1, True)
    done = run_without("typer rich", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert 'pip install "agentbay-sdk[local]"' in done.stdout
    done = run_without("typer rich", _AGENTBAY_COMPLETE="complete_bash")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_the_runtime() -> None:
    """Help, version and completion need no package of the runtime."""
    runtime = "uvicorn h11 httptools uvloop IPython"
    for arguments, expected in ((["local", "--help"], "Usage: agentbay local"), (["--version"], agentbay.__version__)):
        done = run_without(runtime, *arguments)
        assert (done.returncode, done.stderr, expected in done.stdout) == (0, "", True)
    words = {"COMP_WORDS": "agentbay local doc", "COMP_CWORD": "2"}
    assert run_without(runtime, _AGENTBAY_COMPLETE="complete_bash", **words).stdout.split() == ["doctor"]


def test_no_key(run: Run) -> None:
    """Without a key, the error names both ways to get one."""
    status, out, err = run("session", "list")
    assert (status, out) == (2, "")
    assert "export AGENTBAY_API_KEY" in err
    assert "agentbay local" in err
    status, _, err = run("session", "list", "--json")
    assert (status, json.loads(err)["error"]["type"]) == (2, "ConfigurationError")


@pytest.mark.parametrize(
    "arguments", [["session"], ["session", "nonsense"], ["local", "--port", "x"], ["session", "exec"], ["--nonsense"]]
)
def test_wrong_usage(arguments: list[str], run: Run) -> None:
    """Wrong usage returns 2 with the reason, and a bare group shows its help."""
    status, out, err = run(*arguments)
    assert status == 2
    assert "Usage: agentbay" in (out if arguments == ["session"] else err)


@pytest.mark.parametrize(
    "line", ["session lst", "session list --limit 0", "session list --limit many", "session exec", "local --port x"]
)
def test_usage_errors_as_json(line: str, run: Run) -> None:
    """With --json, a usage error is one line of JSON."""
    status, out, err = run(*line.split(), "--json")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert json.loads(err)["error"]["message"]


def test_options_of_a_command_that_is_run(run: Run) -> None:
    """Options of the other command need `--`, and the error says so."""
    for line in ("session exec ID ls -la", "run script.py --epochs 3", "session exec ID grep -e"):
        status, _, err = run(*line.split())
        assert (status, "go after --" in err) == (2, True)
    for line in ("session exec ID grep -i word", "session exec ID tail --env A=b file"):
        status, _, err = run(*line.split())
        assert (status, "put -- before" in re.sub(r"[│\s]+", " ", err)) == (2, True)


def test_help_has_examples(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Help pages show their examples unwrapped, and all options of the runtime."""
    monkeypatch.setenv("COLUMNS", "80")
    pages = ([], ["local"], ["session"], ["context"], ["run"], *(["session", n] for n in ("exec", "logs", "cp", "url")))
    for page in pages:
        status, out, _ = run(*page, "--help")
        assert status == 0
        examples = [line.strip() for line in out.split("examples:")[1].strip().splitlines()]
        assert len([line for line in examples if "agentbay" in line]) == len(examples)  # none is wrapped
        assert any(" ".join(["agentbay", *page]) in line for line in examples)
    _, out, _ = run("local", "--help")
    offered = {"--" + option.name.replace("_", "-") for option in dataclasses.fields(options.Options)}
    assert offered <= set(re.findall(r"--[a-z-]+", out))


def test_listed_commands_are_as_described(run: Run) -> None:
    """The lists of commands show the first line of each command's own help."""
    groups = {(): COMMANDS, ("session",): session_command.FURTHER_COMMANDS}
    for group, commands in groups.items():
        listing = run(*group, "--help")[1]
        for name, (_, about) in commands.items():
            page = " ".join(run(*group, name, "--help")[1].split())
            assert f" {about} " in page, page[:300]
            assert f" {name} " in listing


def test_completion() -> None:
    """Shell completion completes commands."""
    asked = {"_AGENTBAY_COMPLETE": "complete_bash", "COMP_WORDS": "agentbay session de", "COMP_CWORD": "2"}
    done = subprocess.run(COMMAND, env={**os.environ, **asked}, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["delete"]


def test_copy_locations() -> None:
    """SESSION:PATH is told apart from a path on this machine."""
    assert CopyLocation.parse("session-1:/a:b") == ("session-1", "/a:b")
    assert CopyLocation.parse("session-1:") == ("session-1", ".")
    assert CopyLocation.parse("./a:b") == ("", "./a:b")
    assert CopyLocation.parse("/a:b") == ("", "/a:b")


@pytest.mark.usefixtures("here")
def test_life_of_a_session(run: Run) -> None:
    """Sessions are created, listed, shown, paused, resumed and deleted."""
    status, out, _ = run("session", "create", "--label", "a=b", "--max-runtime", "5")
    name = out.strip()
    assert (status, out) == (0, f"{name}\n")
    assert run("session", "list", "-l", "a=b") == (0, f"{name}\tRUNNING\tlinux_latest\n", "")
    assert run("session", "list", "-l", "a=c") == (
        0,
        "",
        "There are no sessions. Make one with: agentbay session create\n",
    )
    status, out, _ = run("session", "get", name, "--json")
    assert json.loads(out)["labels"] == {"a": "b"}
    assert json.loads(run("session", "pause", name, "--json")[1]) == {"session_id": name, "status": "PAUSED"}
    assert run("session", "resume", name)[:2] == (0, "RUNNING\n")
    status, out, err = run("session", "delete", "nobody", name)
    assert (status, out) == (1, f"{name}\n")
    assert "Session nobody not found" in err
    assert json.loads(run("session", "list", "--json")[1]) == []


@pytest.mark.usefixtures("here")
def test_refusals(session: Session, run: Run) -> None:
    """Errors of the service return 1 with the request id, wrong arguments return 2."""
    status, out, err = run("session", "url", session.session_id, "--port", "70000")
    assert (status, out) == (1, "")
    assert "InvalidPort" in err
    assert "(request " in err
    assert "Traceback" not in err
    status, _, err = run("session", "get", "nobody", "--json")
    error = json.loads(err)["error"]
    assert (status, error["type"], "agentbay session list" in error["hint"]) == (1, "SessionNotFoundError", True)
    assert run("session", "create", "--label", "nonsense")[0] == 2
    assert run("session", "exec", session.session_id, "--endpoint", "http://127.0.0.1:9", "--", "true")[0] == 1


@pytest.mark.usefixtures("here")
def test_exec(session: Session, run: Run) -> None:
    """`exec` passes on streams and exit status, and leaves nothing in the session."""
    name = session.session_id
    assert run("session", "exec", name, "--", "sh", "-c", "echo out; echo err >&2; exit 7") == (7, "out\n", "err\n")
    assert run("session", "exec", name, "-e", "A=b c", "--cwd", "/tmp", 'echo "$A" $PWD | rev') == (0, "pmt/ c b\n", "")
    assert run("session", "exec", name, "--", "cat") == (0, "", "")
    status, out, _ = run("session", "exec", name, "--json", "--", "printf", r"\303\274\377")
    assert (status, json.loads(out)) == (0, {"exit_code": 0, "stdout": "ü\N{REPLACEMENT CHARACTER}", "stderr": ""})
    status, _, err = run("session", "exec", name, "--timeout", "0.3", "--", "sleep", "60")
    assert (status, "ran for more than 0.3 s" in err) == (1, True)
    status, out, err = run("session", "exec", name, "--timeout", "1", "--json", "echo so far; sleep 60")
    assert (status, out) == (1, "")
    assert json.loads(err)["stdout"] == "so far\n"
    assert "ran for more than 1 s" in json.loads(err)["error"]["message"]
    status, _, err = run("session", "exec", name, "--cwd", "/nowhere", "--", "true")
    assert (status, "/nowhere" in err) == (1, True)
    assert session.command.list() == []
    assert session.command.run("pgrep -x sleep").exit_code == 1


def test_exec_with_input(session: Session, here: Path) -> None:
    """With --stdin, standard input reaches the command byte for byte."""
    data = bytes(range(256)) * 400
    done = subprocess.run(
        [*COMMAND, "session", "exec", session.session_id, "-i", "--", "cat"],
        input=data,
        capture_output=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, data, b"")


@pytest.mark.usefixtures("here")
def test_input_that_stays_open(session: Session) -> None:
    """A command that ends while its input is open returns its own status."""
    ours, theirs = os.pipe()
    line = [*COMMAND, "session", "exec", session.session_id, "-i", "--", "sh", "-c", "echo hi; exit 3"]
    try:
        done = subprocess.run(line, stdin=ours, capture_output=True, text=True, timeout=120)
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.returncode, done.stdout, done.stderr) == (3, "hi\n", "")


@pytest.mark.usefixtures("here")
def test_interrupted(session: Session, run: Run) -> None:
    """Ctrl-C ends the command in the session, shows its last output, and returns 130."""
    script = "trap 'echo out; echo err >&2; exit' TERM; echo go; while :; do sleep 0.05; done"
    line = [*COMMAND, "session", "exec", session.session_id, "--", "sh", "-c", script]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"go\n"
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
        assert (child.returncode, out, err.splitlines()[-1]) == (130, b"out\n", b"err")
    assert run("session", "logs", session.session_id, "--list")[1] == ""


@pytest.mark.usefixtures("here")
def test_interrupted_with_json(session: Session) -> None:
    """With --json, Ctrl-C gives an error that has the output so far."""
    script = "echo so far; touch started; sleep 60"
    line = [*COMMAND, "session", "exec", session.session_id, "--json", "--", "sh", "-c", script]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        session.command.run("until [ -e started ]; do sleep 0.05; done; sleep 2").check()  # until it is followed
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, "")
    shown = json.loads(err)
    assert (shown["error"]["type"], shown["stdout"]) == ("KeyboardInterrupt", "so far\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.usefixtures("here")
def test_output_that_cannot_be_written(session: Session) -> None:
    """The session keeps output that cannot be written, and the error says so."""
    line = [*COMMAND, "session", "exec", session.session_id, "--", "echo", "result"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 1
    found = re.search(r"agentbay session logs (\S+) (\S+)", done.stderr)
    assert found is not None
    assert session.command.attach(found[2]).stdout.read() == "result\n"


@pytest.mark.usefixtures("here")
def test_jobs(session: Session, run: Run) -> None:
    """The output of a detached job can be read, followed and read again."""
    name = session.session_id
    assert run("session", "logs", name)[0] == 1
    script = "echo one; until [ -e go ]; do sleep 0.05; done; echo two; exit 4"
    job = run("session", "exec", name, "--detach", script)[1].strip()
    assert next(session.command.attach(job).stdout.lines()) == "one"
    assert run("session", "logs", name) == (0, "one\n", "")
    assert run("session", "logs", name, "--list") == (0, f"{job}\trunning\t{script}\n", "")
    session.command.run("touch go").check()
    assert run("session", "logs", name, job, "--follow") == (4, "one\ntwo\n", "")
    assert json.loads(run("session", "logs", name, "--json")[1])["exit_code"] == 4
    status, _, err = run("session", "logs", name, "nonsense")
    assert (status, "no job 'nonsense'" in err) == (1, True)


def test_cp(session: Session, here: Path, run: Run) -> None:
    """`cp` copies files and directories whole, with their modes, as `cp -r` does."""
    name, tree = session.session_id, here / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "big").write_bytes(os.urandom(5 << 20))
    (tree / "sub/run.sh").write_text("echo ran\n")
    (tree / "sub/run.sh").chmod(0o750)
    (tree / "empty").touch()
    assert run("session", "cp", "tree", f"{name}:up") == (0, "", "")
    assert run("session", "exec", name, "--", "up/sub/run.sh") == (0, "ran\n", "")
    assert run("session", "cp", f"{name}:up", "back")[0] == 0
    assert subprocess.run(["diff", "-r", "tree", "back"]).returncode == 0
    assert (here / "back/sub/run.sh").stat().st_mode & 0o777 == 0o750
    assert run("session", "cp", "tree/big", f"{name}:new/")[0] == 0
    assert json.loads(run("session", "cp", f"{name}:~/new/big", ".", "--json")[1])["bytes"] == 5 << 20
    assert (here / "big").read_bytes() == (tree / "big").read_bytes()
    assert run("session", "cp", "tree/empty", f"{name}:.")[0] == 0
    assert run("session", "cp", f"{name}:up/sub/run.sh", "-") == (0, "echo ran\n", "")
    session.command.run("mkfifo up/pipe").check()
    os.mkfifo(here / "back/pipe")
    for source, target in (("tree/empty", f"{name}:up/pipe"), (f"{name}:up/sub/run.sh", "back/pipe")):
        status, _, err = run("session", "cp", source, target)
        assert (status, "pipe" in err) == (1, True)
    for wrong, status in (([f"{name}:nope", "."], 1), (["nope", f"{name}:."], 1), (["a", "b"], 2)):
        assert run("session", "cp", *wrong)[0] == status
    assert session.command.run("ls /tmp | grep agentbay").stdout == ""
    assert sorted(path.name for path in here.iterdir()) == ["back", "big", "tree"]


def test_cp_of_links(session: Session, here: Path, run: Run) -> None:
    """Links within a directory are copied, and links out of it are reported."""
    session.command.run("mkdir -p odd; cd odd; echo a > a; ln -s a in; ln -s /etc etc; ln -s ../../outside up").check()
    status, out, err = run("session", "cp", f"{session.session_id}:odd", "got")
    assert (status, out, err) == (0, "", "Skipped links that lead out of odd: etc, up\n")
    assert sorted(path.name for path in (here / "got").iterdir()) == ["a", "in"]
    assert (here / "got/in").read_text() == "a\n"
    assert json.loads(run("session", "cp", f"{session.session_id}:odd", "more", "--json")[1])["skipped"] == [
        "etc",
        "up",
    ]


def test_control_characters(session: Session, here: Path, run: Run) -> None:
    """Names from a session cannot send escape sequences to the terminal or forge lines."""
    session.command.run(
        "mkdir odd; cd odd; touch a; ln -s /etc \"$(printf 'x\\033]0;owned\\007\\ny\\302\\233')\""
    ).check()
    status, _, err = run("session", "cp", f"{session.session_id}:odd", "got")
    assert (status, err) == (0, "Skipped links that lead out of odd: x\\x1b]0;owned\\x07\\ny\\x9b\n")
    _, out, _ = run("session", "cp", f"{session.session_id}:odd", "more", "--json")
    assert json.loads(out)["skipped"] == ["x\x1b]0;owned\x07\ny\x9b"]
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out)
    session.set_labels({"a": "b\x1b[31m\nc"})
    assert "a=b\\x1b[31m\\nc\n" in run("session", "get", session.session_id)[1]


def test_url(session: Session, here: Path, run: Run) -> None:
    """The URL reaches a server in the session."""
    name = session.session_id
    run("session", "exec", name, "-d", "mkdir w; cd w; echo hello > page; exec python3 -m http.server 30100")
    session.command.run("until grep -q :7594 /proc/net/tcp; do sleep 0.05; done").check()  # 30100
    status, out, _ = run("session", "url", name, "--port", "30100")
    assert status == 0
    assert httpx.get(out.strip() + "page", trust_env=False).text == "hello\n"
    assert run("session", "url", name)[1].startswith("http")


def test_login(agentbay_local: LocalRuntime, here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The login link works once and contains no key, and errors are explained."""
    status, out, _ = run("local", "login")
    path, _, ticket = out.strip().partition("#")
    assert (status, path) == (0, f"{agentbay_local.endpoint}/view/login")
    assert agentbay_local.api_key not in out
    assert [httpx.post(path, data={"ticket": ticket}, trust_env=False).status_code for _ in range(2)] == [303, 403]
    for endpoint, key, expected, reason in (
        (agentbay_local.endpoint, "some-other-key", 1, "not the key of that runtime"),
        ("http://127.0.0.1:1", "some-other-key", 1, "http://127.0.0.1:1 does not answer"),
        ("unix:/none", "some-other-key", 2, "unix socket"),
        ("", "some-other-key", 2, "Which runtime?"),
        (agentbay_local.endpoint, "", 2, "AGENTBAY_API_KEY=$(cat FILE)"),
    ):
        monkeypatch.setenv("AGENTBAY_ENDPOINT", endpoint)
        monkeypatch.setenv("AGENTBAY_API_KEY", key)
        status, out, err = run("local", "login")
        assert (status, out, reason in err, "some-other-key" in err) == (expected, "", True, False)


def test_run(here: Path, run: Run, agent_bay: AgentBay) -> None:
    """`run` passes files and arguments, fetches outputs, and deletes the session."""
    (here / "in.txt").write_text("input")
    (here / "job.py").write_text(
        "import pathlib, sys\nprint(sys.argv[1:], open('in.txt').read())\n"
        "pathlib.Path('o').mkdir(); pathlib.Path('o/result').write_text('42'); sys.exit(3)\n"
    )
    status, out, err = run("run", "job.py", "--with", "in.txt", "--", "--epochs", "3")
    assert (status, out, err) == (3, "['--epochs', '3'] input\n", "outputs in job-output\n")
    assert [str(path.relative_to(here)) for path in (here / "job-output").rglob("*") if path.is_file()] == [
        "job-output/o/result"
    ]
    assert agent_bay.list().total_count == 0
    assert run("run", "in.txt")[0] == 2
    status, _, err = run("run", "job.py", "--out", "in.txt")  # refused before anything runs
    assert (status, "in.txt is a file" in err) == (2, True)
    status, out, err = run("run", "job.py", "--out", "/proc/none")
    assert (status, out, "cannot be written to /proc/none" in err) == (2, "", True)
    (here / "kept.sh").write_text("echo kept\n")
    status, out, err = run("run", "kept.sh", "--keep")
    assert (status, out) == (0, "kept\n")
    assert run("session", "delete", err.split()[1])[0] == 0


@pytest.mark.usefixtures("agentbay_environment")
def test_outputs_that_cannot_be_saved(here: Path) -> None:
    """If the target became unusable while the script ran, its outputs are saved elsewhere."""
    (here / "job.sh").write_text("echo ready; echo 42 > result; sleep 3\n")
    line = [*COMMAND, "run", "job.sh"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        (here / "job-output").write_text("in the way")
        _, err = child.communicate(timeout=120)
    found = re.search(r"They are in (\S+)\.", err)
    assert (child.returncode, found is not None) == (1, True)
    assert found is not None
    assert (Path(found[1]) / "result").read_text() == "42\n"
    shutil.rmtree(found[1])


def test_run_with_json(here: Path, run: Run) -> None:
    """With --json, the result of `run` has exit code, output and the output directory."""
    (here / "job.sh").write_text("echo hi; echo 42 > result\n")
    status, out, err = run("run", "job.sh", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == {"exit_code": 0, "stdout": "hi\n", "stderr": "", "outputs": "job-output"}
    (here / "nothing.sh").write_text("exit 4\n")
    status, out, _ = run("run", "nothing.sh", "--json")
    assert (status, json.loads(out)["outputs"]) == (4, None)


def test_run_locally(tmp_path: Path) -> None:
    """`run --local` needs neither a key nor a service."""
    (tmp_path / "hello.sh").write_text("echo hello from $(whoami)\n")
    done = subprocess.run(
        [*COMMAND, "run", "hello.sh", "--local"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello from wuying\n", "")


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> Iterator[ContextService]:
    with serving() as service:
        monkeypatch.setenv("AGENTBAY_ENDPOINT", service.url)
        monkeypatch.setenv("AGENTBAY_API_KEY", "k")
        yield service


@pytest.mark.usefixtures("contexts")
def test_contexts(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts are created, filled, listed, read and deleted, by name or by id."""
    monkeypatch.chdir(tmp_path)
    status, out, _ = run("context", "create", "memory")
    name = out.strip()
    assert status == 0
    assert run("context", "list")[1].split("\t")[:2] == [name, "memory"]
    Path("note.md").write_text("remember\n")
    assert run("context", "cp", "note.md", "memory:/data/")[:2] == (0, "/data/note.md\n")
    assert "note.md\t9" in run("context", "ls", name, "/data")[1]
    assert run("context", "cp", "memory:/data/note.md", "back.md")[0] == 0
    assert Path("back.md").read_text() == "remember\n"
    assert run("context", "rm", "memory:/data/note.md")[0] == 0
    assert run("context", "ls", "memory", "/data", "--json")[1] == "[]\n"
    status, _, err = run("context", "cp", "memory:/data/note.md", "back.md")
    assert (status, "agentbay context ls memory" in err) == (1, True)
    Path("empty").mkdir()
    assert run("context", "cp", "empty", "memory:/data")[1:] == ("", "There are no files in empty.\n")
    status, _, err = run("context", "rm", "memory")
    assert (status, "--yes" in err) == (2, True)
    assert run("context", "rm", "memory", "--yes")[0] == 0
    status, _, err = run("context", "ls", "memory")
    assert (status, "agentbay context create memory" in err) == (1, True)


def test_attach_needs_a_terminal(session: Session, here: Path, run: Run) -> None:
    """Without a terminal, `attach` names `exec`."""
    done = subprocess.run(
        [*COMMAND, "session", "attach", session.session_id],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert "agentbay session exec" in done.stderr


@pytest.mark.parametrize("line", ["login <&-", "profile list >&-", "session list 2>&-", "shell <&- >&- 2>&-"])
def test_closed_streams(line: str, tmp_path: Path) -> None:
    """A command whose standard streams are closed says what is wrong, without a traceback."""
    environment = {"PATH": os.environ["PATH"], "XDG_CONFIG_HOME": str(tmp_path)}
    script = f"{shlex.join(COMMAND)} {line}"
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1, 2)
    assert "Traceback" not in done.stdout + done.stderr
