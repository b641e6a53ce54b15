"""Inspect's own conformance suite of sandbox environments, and an evaluation with a scripted model."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from documented import run_example
from gate import gate_to_runtime
from inspect_ai import Task, eval, eval_async
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.util import sandbox
from inspect_ai.util._sandbox.self_check import *  # noqa: F403

from agentbay import AgentBay, AsyncAgentBay
from agentbay.errors import ClientClosedError
from agentbay.integrations import inspect as adapter
from agentbay.integrations.inspect import AgentBaySandboxEnvironment


@pytest.fixture
async def sandbox_env(agentbay_environment: dict[str, str]) -> AsyncIterator[AgentBaySandboxEnvironment]:
    made = await AgentBaySandboxEnvironment.sample_init("self-check", None, {})
    yield made["default"].as_type(AgentBaySandboxEnvironment)
    await AgentBaySandboxEnvironment.sample_cleanup("self-check", None, made, False)
    await AgentBaySandboxEnvironment.task_cleanup("self-check", None, True)


async def test_evaluation_with_a_scripted_model(
    agentbay_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of the documentation: its sandbox is found by name, and a model's command runs in it."""
    # Its tables of tokens are on a web server.
    counter = SimpleNamespace(encode=lambda text, **_: text.split())
    monkeypatch.setattr("tiktoken.get_encoding", lambda _: counter)
    model = get_model(
        "mockllm/model",
        custom_outputs=[
            ModelOutput.for_tool_call("mockllm/model", "bash", {"command": "cat question.txt; echo $((6 * 7))"}),
            ModelOutput.from_content("mockllm/model", "42"),
        ],
    )
    sample = Sample(input="What is 6 * 7?", target="42", files={"question.txt": "6 * 7 is "})
    task = run_example("inspect", dataset=[sample])["task"]
    [log] = await eval_async(task, model=model, log_dir=str(tmp_path))
    assert log.status == "success", log.error
    assert log.samples is not None
    said = [message.text for message in log.samples[0].messages if message.role == "tool"]
    assert said == ["6 * 7 is 42\n"]
    assert log.results is not None
    assert log.results.scores[0].metrics["accuracy"].value == 1.0


@solver
def write_and(*, fail: bool) -> Solver:
    """Work in the sandbox, and fail or not."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        await sandbox().write_file("folder/\u65e5\u672c.bin", b"\0\xff")
        assert await sandbox().read_file("folder/\u65e5\u672c.bin", text=False) == b"\0\xff"
        if fail:
            raise RuntimeError("the solver failed")
        return state

    return solve


@pytest.mark.parametrize("fail", [False, True])
def test_evaluations_one_after_the_other(
    agentbay_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fail: bool
) -> None:
    """Each has a client of its own, and leaves neither that nor a session, also when its solver fails."""
    clients = list[AsyncAgentBay]()
    monkeypatch.setattr(adapter, "make_async_client", lambda: clients.append(AsyncAgentBay()) or clients[-1])
    for count in (1, 2):
        samples = [Sample(input="a", sandbox=("agentbay", "linux_latest")), Sample(input="b", sandbox="agentbay")]
        task = Task(dataset=samples, solver=write_and(fail=fail), fail_on_error=False)
        [log] = eval(task, model="mockllm/model", log_dir=str(tmp_path), display="none")
        assert log.samples is not None
        errors = [sample.error.message for sample in log.samples if sample.error]
        assert errors == ["RuntimeError('the solver failed')"] * 2 * fail
        assert len(clients) == count
        with pytest.raises(ClientClosedError):
            asyncio.run(clients[-1].get("any"))
        with AgentBay() as bay:
            assert not list(bay.list())


async def test_cancelled_sample(agentbay_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample that is cancelled before it has its session leaves none."""
    async with gate_to_runtime(monkeypatch) as gate:
        await gate.cancel(AgentBaySandboxEnvironment.sample_init("task", None, {}))
        await AgentBaySandboxEnvironment.task_cleanup("shutdown", None, True)


async def test_cancelled_evaluation(agentbay_environment: dict[str, str], tmp_path: Path) -> None:
    """An evaluation that is cancelled during a command leaves no session."""
    began = asyncio.Event()

    @solver
    def wait() -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            await sandbox().write_file("a", "a")
            began.set()
            await sandbox().exec(["sleep", "4321"])
            return state

        return solve

    task = Task(dataset=[Sample(input="a")], solver=wait(), sandbox="agentbay")
    running = asyncio.ensure_future(eval_async(task, model="mockllm/model", log_dir=str(tmp_path)))
    await began.wait()
    running.cancel()
    await asyncio.wait([running])
    with AgentBay() as bay:
        assert not await asyncio.to_thread(lambda: list(bay.list()))


@solver
def read_the_image() -> Solver:
    """Answer with what the build of the image has left."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        done = await sandbox().exec(["cat", "/made", "given.txt"])
        state.output = ModelOutput.from_content("mockllm/model", done.stdout or done.stderr)
        return state

    return solve


COMPOSE = "services:\n  default:\n    build: {context: ., dockerfile: task.Dockerfile}\n"
TWO = "services: {default: {image: named:1}, second: {image: named:1}}\n"


@pytest.mark.parametrize("files", [("Dockerfile",), ("task.Dockerfile", "compose.yaml"), ()], ids=lambda one: one[-1:])
async def test_image_of_a_task(
    agentbay_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...]
) -> None:
    """The Dockerfile or the compose file beside a task is built before its samples, and an image can be named."""
    (tmp_path / "root/bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), tmp_path / "root/bin")
    for program in ("sh", "cat"):
        (tmp_path / "root/bin" / program).symlink_to("busybox")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given.txt").write_text("given")
    dockerfile = "FROM programs:1\nWORKDIR /app\nRUN echo made > /made\nCOPY given.txt .\n"
    for name in files:
        (tmp_path / name).write_text(COMPOSE if name == "compose.yaml" else dockerfile)
    async with AsyncAgentBay() as bay:
        await bay.images.import_file(tmp_path / "root", name="programs:1")
        (tmp_path / "Named").write_text(dockerfile)
        await bay.images.build(tmp_path / "Named", name="named:1")
    samples = [Sample(input=str(number), target="made\ngiven") for number in range(3)]
    environment = "agentbay" if files else ("agentbay", "named:1")
    task = Task(dataset=samples, solver=read_the_image(), scorer=includes(), sandbox=environment)
    [log] = await eval_async(task, model="mockllm/model", log_dir=str(tmp_path / "logs"))
    assert log.status == "success", log.error
    assert log.results is not None
    assert log.results.scores[0].metrics["accuracy"].value == 1.0
    assert AgentBaySandboxEnvironment._images is None


async def test_several_services(agentbay_environment: dict[str, str], tmp_path: Path) -> None:
    """A task of several services is refused by their names."""
    (tmp_path / "compose.yaml").write_text(TWO)
    with pytest.raises(ValueError, match="not the services default, second"):
        await AgentBaySandboxEnvironment.task_init("startup", str(tmp_path / "compose.yaml"))
    await AgentBaySandboxEnvironment.task_cleanup("shutdown", None, True)
