"""SWE-ReX's own tests of its runtime, over a session, and an agent's program with an event loop for each call."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
from documented import run_example
from gate import gate_to_runtime
from minisweagent.agents.default import DefaultAgent
from minisweagent.environments.extra.swerex_docker import SwerexDockerEnvironment
from minisweagent.models.test_models import DeterministicModel, make_output
from swerex.exceptions import CommandTimeoutError, DeploymentNotStartedError
from swerex.runtime.abstract import (
    BashAction,
    BashInterruptAction,
    CloseBashSessionRequest,
    Command,
    CreateBashSessionRequest,
)

from agentbay import CreateSessionParams
from agentbay.integrations.swerex import AgentBayDeployment, AgentBayRuntime
from agentbay.testing import LocalRuntime


class Action(BashAction):
    """A command of the suite, which has a time limit."""

    timeout: float | None = 5


class TimedCommand(Command):
    """The same, outside of shells."""

    timeout: float | None = 5


# Its source distribution lacks the module of these two.
shared: Any = ModuleType("tests.conftest")
shared._Action, shared._Command = Action, TimedCommand
sys.modules["tests.conftest"] = shared
sys.path.insert(0, os.environ["FRAMEWORK_SOURCE"])
suite = import_module("tests.test_execution")
# The one left out makes a client of the framework's own server, and has no runtime of ours.
globals().update({name: value for name, value in vars(suite).items() if name.startswith("test_")})
del globals()["test_server_dead"]


@pytest.fixture
async def remote_runtime(agentbay_environment: dict[str, str]) -> AsyncIterator[AgentBayRuntime]:
    deployment = AgentBayDeployment()
    await deployment.start()
    yield deployment.runtime
    await deployment.stop()


@pytest.fixture
async def runtime_with_default_session(remote_runtime: AgentBayRuntime) -> AsyncIterator[AgentBayRuntime]:
    await remote_runtime.create_session(CreateBashSessionRequest())
    yield remote_runtime
    await remote_runtime.close_session(CloseBashSessionRequest())


def test_agent_with_an_event_loop_for_each_call(agentbay_environment: dict[str, str]) -> None:
    """SWE-agent calls so; the shell keeps its state, and the session is deleted at the end."""
    deployment = AgentBayDeployment()
    with pytest.raises(DeploymentNotStartedError):
        _ = deployment.runtime
    asyncio.run(deployment.start())
    assert asyncio.run(deployment.is_alive(timeout=30))
    runtime = deployment.runtime
    asyncio.run(runtime.create_session(CreateBashSessionRequest(startup_timeout=30)))
    asyncio.run(runtime.run_in_session(Action(command="mkdir work; cd work; x=42")))
    assert asyncio.run(runtime.run_in_session(Action(command="echo $x ${PWD##*/}"))).output == "42 work\n"
    asyncio.run(deployment.stop())
    assert not asyncio.run(deployment.is_alive())
    assert not asyncio.run(runtime.is_alive(timeout=30))


async def test_cancelled_start(agentbay_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that is cancelled leaves no session when the deployment stops."""
    async with gate_to_runtime(monkeypatch) as gate:
        deployment = AgentBayDeployment()
        await gate.cancel(deployment.start())
        await deployment.stop()


def test_strict_client(agentbay_local: LocalRuntime) -> None:
    """A session of a client that raises what others return makes no difference."""
    with agentbay_local.agent_bay(strict=True) as bay, bay.session() as session:
        runtime = AgentBayRuntime(session)
        with pytest.raises(CommandTimeoutError):
            asyncio.run(runtime.execute(TimedCommand(command=["sleep", "60"], timeout=0.2)))
        asyncio.run(runtime.create_session(CreateBashSessionRequest()))
        session.delete()
        asyncio.run(runtime.close())


def test_agent_with_a_scripted_model(agentbay_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """mini-swe-agent repairs a program in a session, reads what its commands print, and submits the answer."""

    def deploy(image: str) -> AgentBayDeployment:
        return AgentBayDeployment(CreateSessionParams(image_id=image))

    monkeypatch.setattr("minisweagent.environments.extra.swerex_docker.DockerDeployment", deploy)
    environment = SwerexDockerEnvironment(image="linux_latest", cwd="/tmp")
    commands = [
        "echo 'print(6 + 7)' > a.py; python3 a.py",
        "cat missing.py",
        "sed -i 's/+/*/' a.py && python3 a.py",
        "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT; python3 a.py",
    ]
    model = DeterministicModel(outputs=[make_output("", [{"command": command}], cost=0.0) for command in commands])
    agent = DefaultAgent(model, environment, system_template="You repair programs.", instance_template="{{task}}")
    try:
        assert agent.run("It should print 42.") == {"exit_status": "Submitted", "submission": "42\n"}
    finally:
        asyncio.run(environment.deployment.stop())
    shown = [message["content"] for message in agent.messages if "<returncode>" in message["content"]]
    assert ["13" in shown[0], "No such file" in shown[1], "42" in shown[2]] == [True] * 3
    assert "<returncode>1</returncode>" in shown[1]


async def test_commands_that_terminals_spoil(runtime_with_default_session: AgentBayRuntime) -> None:
    """Tabs, long lines and a changed prompt do no harm."""
    run = runtime_with_default_session.run_in_session
    assert (await run(Action(command=f"x={'a' * 100_000}; echo ${{#x}}"))).output == "100000\n"
    assert (await run(Action(command="cat <<'EOF'\n\ta\t\x1b[1mb\nEOF"))).output.split() == ["a", "b"]
    await run(Action(command="PS1='(venv) > '"))
    assert (await run(Action(command="echo clean"))).output == "clean\n"


async def test_output_of_any_size(runtime_with_default_session: AgentBayRuntime) -> None:
    """Of much output the beginning and the end are kept, and the shell goes on."""
    run = runtime_with_default_session.run_in_session
    flood = await run(
        Action(command="echo first; head -c 20000000 /dev/zero | tr '\\0' a; echo; echo last", timeout=60)
    )
    assert flood.output.startswith("first\naaa")
    assert "a\n[...]\na" in flood.output
    assert flood.output.endswith("aaa\nlast\n")
    assert len(flood.output) < 10_000_000
    assert (await run(Action(command="echo next; head -c 100000 /dev/urandom | wc -c"))).output == "next\n100000\n"


async def test_late_end(runtime_with_default_session: AgentBayRuntime) -> None:
    """What a command that took too long writes later is not taken for the next one's output."""
    run = runtime_with_default_session.run_in_session
    with pytest.raises(CommandTimeoutError):
        await run(Action(command="sleep 1; echo late", timeout=0.1))
    assert (await run(Action(command="echo next"))).output == "next\n"
    with pytest.raises(CommandTimeoutError):
        await run(Action(command="sleep 60", timeout=0.1))
    await run(BashInterruptAction())
    seen = await run(Action(command="echo $?; false", check="silent"))
    assert (seen.output, seen.exit_code) == ("130\n", 1)


def test_documented_example(agentbay_environment: dict[str, str]) -> None:
    """The example of the documentation runs its command."""
    assert run_example("swerex")["done"].output == "/tmp\n"
