"""Harbor's oracle agent and Terminus, with a scripted model, on tasks; and what an environment refuses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harbor.models.trial.config import AgentConfig, EnvironmentConfig, TaskConfig, TrialConfig
from harbor.models.trial.result import TrialResult
from harbor.trial.trial import Trial

from agentbay import AgentBay
from tests.scripted_model import Answer, Asked, ModelServer, say

IMPORT_PATH = "agentbay.integrations.harbor:AgentBayEnvironment"
IMAGE = "harbor-task:1"
DATA_SET = Path(__file__).parent / "harbor_tasks"
TASK = """
[verifier.env]
WANTED = "from-the-solution"
[solution.env]
ANSWER = "from-the-solution"
[environment]
{environment}
workdir = "/app"
env = {{ GREETING = "hello" }}
"""
SOLVE = '#!/bin/sh\ncp /solution/part.txt part.txt\necho "$GREETING $ANSWER" > answer.txt\necho solved\n'
TEST = """#!/bin/sh
grep -q "hello $WANTED" /app/answer.txt && grep -q part /app/part.txt && [ -e /app/given.txt ]
echo "$((! $?))" > /logs/verifier/reward.txt
"""


def write_task(folder: Path, environment: str = f'docker_image = "{IMAGE}"', solve: str = SOLVE) -> Path:
    """Write a task that the solution solves."""
    files = {
        "task.toml": TASK.format(environment=environment),
        "instruction.md": "Write the greeting to /app/answer.txt.",
        "environment/given.txt": "given",
        "solution/solve.sh": solve,
        "solution/part.txt": "part",
        "tests/test.sh": TEST,
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


async def run_trial(task: Path, **environment: object) -> TrialResult:
    """Run a trial with the oracle agent, which runs the solution."""
    config = TrialConfig(
        task=TaskConfig(path=task),
        trials_dir=task.parent / "trials",
        agent=AgentConfig(name="oracle"),
        environment=EnvironmentConfig(import_path=IMPORT_PATH, **environment),
    )
    return await (await Trial.create(config)).run()


def copy_program(program: Path, root: Path) -> None:
    """Copy a program of this machine and its libraries."""
    shutil.copy(program, root / "bin")
    listed = subprocess.run(["ldd", program], capture_output=True, text=True)  # busybox needs none
    for library in re.findall(r"(/\S+) \(0x", listed.stdout):
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)


@pytest.fixture
def bay(agentbay_environment: dict[str, str], tmp_path: Path) -> Iterator[AgentBay]:
    """A client of a runtime that has the image: the programs of busybox, and bash and tmux for Terminus."""
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    for program in ("busybox", "bash", "tmux"):
        copy_program(Path(shutil.which(program)), root)
    for folder in ("usr/lib/locale/C.utf8", "lib/terminfo"):
        shutil.copytree(Path("/", folder), root / folder)
    listed = subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True)
    for program in set(listed.stdout.split()) - {"busybox", "bash"}:
        (root / "bin" / program).symlink_to("busybox")
    with AgentBay() as bay:
        bay.images.import_file(root, name=IMAGE)
        yield bay


@pytest.mark.parametrize("image", [IMAGE, "linux_latest"])
async def test_oracle(bay: AgentBay, tmp_path: Path, image: str) -> None:
    """The solution gets its reward, its log is there, and no session is left; on an image and on this system."""
    task = write_task(tmp_path / "task", f'docker_image = "{image}"')
    result = await run_trial(task)
    assert result.exception_info is None, result.exception_info
    assert result.verifier_result.rewards == {"reward": 1.0}
    [log] = (tmp_path / "trials").glob("*/agent/oracle.txt")
    assert log.read_text() == "solved\n"
    assert not await asyncio.to_thread(lambda: list(bay.list()))


async def test_dockerfile(bay: AgentBay, tmp_path: Path) -> None:
    """A task without an image is built from its Dockerfile, with the files beside it."""
    task = write_task(tmp_path / "task", "")
    (task / "task.toml").write_text((task / "task.toml").read_text().replace('workdir = "/app"\n', ""))
    (task / "environment" / "Dockerfile").write_text(
        f"FROM {IMAGE} AS made\nRUN echo made > /made\n"
        f"FROM {IMAGE}\nWORKDIR /app\nCOPY given.txt .\nCOPY --from=made /made /app/\n"
    )
    solve = "[ -e made ] && " + SOLVE.partition("\n")[2]
    (task / "solution/solve.sh").write_text(f"#!/bin/sh\n{solve}")
    result = await run_trial(task)
    assert result.exception_info is None, result.exception_info
    assert result.verifier_result.rewards == {"reward": 1.0}


def run_data_set(jobs: Path, *options: str) -> dict[str, float]:
    """Run all tasks of the data set by Harbor's command, and return their rewards."""
    harbor = [Path(sys.executable).parent / "harbor", "run", "--path", DATA_SET, "--env", IMPORT_PATH]
    subprocess.run([*harbor, "--jobs-dir", jobs, "--n-concurrent", "2", "--yes", "--quiet", *options], check=True)
    results = [TrialResult.model_validate_json(path.read_text()) for path in jobs.glob("*/*/result.json")]
    assert [result.exception_info for result in results] == [None] * len(results)
    return {result.task_name.rpartition("/")[2]: result.verifier_result.rewards["reward"] for result in results}


def test_data_set(bay: AgentBay, tmp_path: Path) -> None:
    """The oracle solves each task of a data set, on images that are built from their Dockerfiles."""
    rewards = run_data_set(tmp_path / "jobs", "--agent", "oracle")
    assert rewards == {path.name: 1.0 for path in DATA_SET.iterdir()}
    assert list(bay.list()) == []


# What the model types in each task; the last one makes symbolic links, which is wrong.
TYPED = {
    "access.log": ["awk '{ n[$4]++ } END { for (s in n) print s, n[s] }' access.log | sort > report.txt"],
    "average.sh": ["sed -i 's/- number/+ number/; s/#)/#))/' average.sh", "chmod +x average.sh; ./average.sh 1 2 6"],
    "archive.tar.gz": ["tar -xzf archive.tar.gz && tar -xf 2.tar", "tar -xzf 3.tar.gz && cat word.txt"],
    "/app/data": ["ls -l", "ln -sf a c; ln -sf a e"],
}


def answer_in_its_task(asked: Asked) -> Answer:
    """Type the next command of the task that the conversation is about, and end after the last one."""
    commands = next(commands for name, commands in TYPED.items() if name in asked.body["messages"][0]["content"])
    turn = sum(message["role"] == "assistant" for message in asked.body["messages"])
    typed = [{"keystrokes": f"{commands[turn]}\n", "duration": 1}] if turn < len(commands) else []
    return say(json.dumps({"analysis": "-", "plan": "-", "commands": typed, "task_complete": not typed}))


def test_agent_with_a_scripted_model(bay: AgentBay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Terminus, Harbor's own agent, works in a terminal of the sessions; what it does wrong is no reward."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # the list of prices is on a web server
    with contextlib.closing(ModelServer()) as model:
        model.play(again=answer_in_its_task)
        terminus = ("--agent", "terminus-2", "--model", "openai/scripted", "--ak", f"api_base={model.url}")
        rewards = run_data_set(tmp_path / "jobs", *terminus, "--ak", "record_terminal_session=false")
        shown = [asked.shown for asked in model.asked]
    assert rewards == {"count-statuses": 1.0, "repair-script": 1.0, "nested-archives": 1.0, "keep-links": 0.0}
    assert any("walrus" in text for text in shown)  # the model sees the terminal
    assert list(bay.list()) == []


async def test_wrong_solution(bay: AgentBay, tmp_path: Path) -> None:
    """One that does nothing gets none, with the image as an option of the environment."""
    task = write_task(tmp_path / "task", 'docker_image = "none:1"', solve="#!/bin/sh\n")
    result = await run_trial(task, kwargs={"image": IMAGE})
    assert result.verifier_result.rewards == {"reward": 0.0}


@pytest.mark.parametrize(
    ("policy", "refused"),
    [
        ("", []),
        ('network_mode = "allowlist"\nallowed_hosts = ["pypi.org"]', ["files.pythonhosted.org"]),
        ('network_mode = "no-network"', ["pypi.org", "files.pythonhosted.org"]),
    ],
)
async def test_network(bay: AgentBay, tmp_path: Path, policy: str, refused: list[str]) -> None:
    """A session reaches the hosts that the task names, of those that the runtime allows."""
    hosts = "pypi.org files.pythonhosted.org"
    solve = f"#!/bin/sh\nfor host in {hosts}; do curl -sSm 5 -o /dev/null https://$host 2>&1 | sed s/^/$host:/; done\n"
    result = await run_trial(write_task(tmp_path / "task", f'docker_image = "linux_latest"\n{policy}', solve))
    assert result.exception_info is None, result.exception_info
    [log] = (tmp_path / "trials").glob("*/agent/oracle.txt")
    assert [line.partition(":")[0] for line in log.read_text().splitlines() if "403" in line] == refused


async def test_commands(bay: AgentBay, tmp_path: Path) -> None:
    """Time limits, exit codes, users, and single files."""
    trial = await Trial.create(
        TrialConfig(
            task=TaskConfig(path=write_task(tmp_path / "task")),
            trials_dir=tmp_path / "trials",
            agent=AgentConfig(name="oracle"),
            environment=EnvironmentConfig(import_path=IMPORT_PATH),
        )
    )
    environment = trial.agent_environment
    await environment.start(force_build=False)
    try:
        done = await environment.exec("pwd; echo no >&2; exit 3", user="root")
        assert (done.return_code, done.stdout, done.stderr) == (3, "/app\n", "no\n")
        assert (await environment.exec("echo $X", cwd="/tmp", env={"X": "1"})).stdout == "1\n"
        with pytest.raises(RuntimeError, match="timed out after 1 seconds"):
            await environment.exec("sleep 60", timeout_sec=1)
        with pytest.raises(ValueError, match="'nobody'"):
            await environment.exec("true", user="nobody")
        (tmp_path / "bytes").write_bytes(b"\0\xff")
        (tmp_path / "bytes").chmod(0o751)
        await environment.upload_file(tmp_path / "bytes", "/new/folder/bytes")
        assert (await environment.exec("stat -c %a /new/folder/bytes")).stdout == "751\n"
        await environment.download_file("/new/folder/bytes", tmp_path / "back" / "bytes")
        assert (tmp_path / "back" / "bytes").read_bytes() == b"\0\xff"
        await environment.download_dir("/new", tmp_path / "tree")
        assert (tmp_path / "tree" / "folder" / "bytes").read_bytes() == b"\0\xff"
        with pytest.raises(FileNotFoundError):
            await environment.download_file("/nothing", tmp_path / "nothing")
    finally:
        await environment.stop(delete=True)
    assert not await asyncio.to_thread(lambda: list(bay.list()))


async def test_refusals(bay: AgentBay, tmp_path: Path) -> None:
    """What sessions cannot do is said before one is made."""
    task = write_task(tmp_path / "task", "")
    with pytest.raises(ValueError, match="no Dockerfile"):
        await run_trial(task)
    composed = write_task(tmp_path / "composed")
    (composed / "environment" / "docker-compose.yaml").write_text("services: {main: {}}\n")
    with pytest.raises(ValueError, match=r"docker-compose\.yaml"):
        await run_trial(composed)
    mount = {"type": "bind", "source": str(tmp_path), "target": "/data"}
    with pytest.raises(ValueError, match="mount"):
        await run_trial(write_task(tmp_path / "mounting"), mounts=[mount])
