"""The standard suite of deepagents' sandbox backends, and an agent with a scripted model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from deepagents import create_deep_agent
from documented import run_example
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_tests.integration_tests import SandboxIntegrationTests

from agentbay import AsyncSession, Session
from agentbay.integrations.deepagents import AgentBaySandbox, AsyncAgentBaySandbox
from agentbay.testing import LocalRuntime


class TestSandbox(SandboxIntegrationTests):
    """The framework's tests, of both kinds of methods."""

    @pytest.fixture(scope="class")
    def sandbox(self, agentbay_local: LocalRuntime) -> Iterator[AgentBaySandbox]:
        with agentbay_local.agent_bay() as bay, bay.session() as session:
            yield AgentBaySandbox(session)


class ScriptedModel(GenericFakeChatModel):
    """A model that answers from a script."""

    def bind_tools(self, *_: Any, **__: Any) -> ScriptedModel:
        return self


def script() -> ScriptedModel:
    def call(name: str, **args: Any) -> AIMessage:
        return AIMessage("", tool_calls=[{"name": name, "args": args, "id": name}])

    answers = [
        call("write_file", file_path="/tmp/made/a.txt", content="6 * 7"),
        call("execute", command="python3 -c \"print(eval(open('/tmp/made/a.txt').read()))\""),
        AIMessage("42"),
    ]
    return ScriptedModel(messages=iter(answers))


def check(answer: dict[str, Any]) -> None:
    said = [message.content for message in answer["messages"] if message.type == "tool"]
    assert "42" in said[-1]


def test_agent(session: Session) -> None:
    """An agent writes a file and runs a command in the session."""
    agent = create_deep_agent(model=script(), backend=AgentBaySandbox(session))
    check(agent.invoke({"messages": [{"role": "user", "content": "What is 6 * 7?"}]}))
    assert session.file_system.read_file("/tmp/made/a.txt").unwrap().content == "6 * 7"


def test_strict_client(agentbay_local: LocalRuntime) -> None:
    """A session of a client that raises what others return makes no difference."""
    with agentbay_local.agent_bay(strict=True) as bay, bay.session() as session:
        sandbox = AgentBaySandbox(session)
        assert sandbox.download_files(["/none"])[0].error == "file_not_found"
        late = sandbox.execute("echo begun; sleep 60", timeout=1)
        assert late.exit_code == 124
        assert late.output.startswith("begun\n")


async def test_asynchronous_strict_client(agentbay_local: LocalRuntime) -> None:
    """The same without threads."""
    async with agentbay_local.async_agent_bay(strict=True) as bay, bay.session() as session:
        sandbox = AsyncAgentBaySandbox(session)
        assert (await sandbox.adownload_files(["/none"]))[0].error == "file_not_found"
        assert (await sandbox.aexecute("sleep 60", timeout=1)).exit_code == 124


async def test_files(async_session: AsyncSession) -> None:
    """Names and contents are of any characters and bytes, and directories are made."""
    sandbox = AsyncAgentBaySandbox(async_session)
    path, content = "/tmp/new/\u65e5\u672c a'b.bin", bytes(range(256)) * 40_000
    assert [answer.error for answer in await sandbox.aupload_files([(path, content)])] == [None]
    [read] = await sandbox.adownload_files([path])
    assert read.content == content


async def test_asynchronous_agent(async_session: AsyncSession) -> None:
    """The same without threads."""
    agent = create_deep_agent(model=script(), backend=AsyncAgentBaySandbox(async_session))
    check(await agent.ainvoke({"messages": [{"role": "user", "content": "What is 6 * 7?"}]}))
    assert (await async_session.file_system.read_file("/tmp/made/a.txt")).unwrap().content == "6 * 7"


def test_documented_example(session: Session) -> None:
    """The example of the documentation makes an agent that works."""
    agent = run_example("deepagents", session=session, model=script())["agent"]
    check(agent.invoke({"messages": [{"role": "user", "content": "What is 6 * 7?"}]}))
