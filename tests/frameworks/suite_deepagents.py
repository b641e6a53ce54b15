"""The standard suite of deepagents' sandbox backends, and an agent with a scripted model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from deepagents import create_deep_agent
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


async def test_asynchronous_agent(async_session: AsyncSession) -> None:
    """The same without threads."""
    agent = create_deep_agent(model=script(), backend=AsyncAgentBaySandbox(async_session))
    check(await agent.ainvoke({"messages": [{"role": "user", "content": "What is 6 * 7?"}]}))
    assert (await async_session.file_system.read_file("/tmp/made/a.txt")).unwrap().content == "6 * 7"
