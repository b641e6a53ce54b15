"""LangChain's standard tests of tools, for each tool of the toolkit, and an agent's calls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests

from agentbay import AsyncSession, Session
from agentbay.integrations.langchain import AgentBayToolkit
from agentbay.testing import LocalRuntime

EXAMPLES: dict[str, dict[str, Any]] = {
    "run_command": {"command": "echo hello"},
    "run_python": {"code": "6 * 7"},
    "read_file": {"path": "/etc/hostname"},
    "write_file": {"path": "a.txt", "content": "text"},
    "list_directory": {"path": "/"},
}


@pytest.fixture(scope="module", autouse=True)
def _shared(agentbay_local: LocalRuntime) -> Any:
    # The suites ask for their tools by properties, which take no fixtures.
    with agentbay_local.agent_bay() as bay, bay.session() as session:
        for kind in SUITES:
            kind.session = session
        yield


class _Suite:
    name: str
    session: Session

    @property
    def tool_constructor(self) -> BaseTool:
        return next(tool for tool in AgentBayToolkit(session=self.session).get_tools() if tool.name == self.name)

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return EXAMPLES[self.name]


SUITES: list[Any] = []
for _name in EXAMPLES:
    for _kind in (ToolsUnitTests, ToolsIntegrationTests):
        _title = f"Test_{_name}_{_kind.__name__}"
        globals()[_title] = type(_title, (_Suite, _kind), {"name": _name})
        SUITES.append(globals()[_title])


def test_errors_go_to_the_model(session: Session) -> None:
    """What the session refuses is the answer of the tool."""
    tools = {tool.name: tool for tool in AgentBayToolkit(session=session).get_tools()}
    call = {"type": "tool_call", "id": "1", "name": "read_file", "args": {"path": "nothing.txt"}}
    answer = tools["read_file"].invoke(call)
    assert isinstance(answer, ToolMessage)
    assert answer.status == "error"
    assert "nothing.txt" in answer.content


async def test_asynchronous_tools(async_session: AsyncSession) -> None:
    """With an asynchronous session the tools are awaited, at once if need be."""
    tools = {tool.name: tool for tool in AgentBayToolkit(session=async_session).get_tools()}
    said = await asyncio.gather(*(tools["run_command"].ainvoke({"command": f"echo {n}"}) for n in range(3)))
    assert said == [f"{n}\n\n[exit code 0]" for n in range(3)]


class ScriptedModel(GenericFakeChatModel):
    """A model that answers from a script."""

    def bind_tools(self, *_: Any, **__: Any) -> ScriptedModel:
        return self


def make_agent(session: Session | AsyncSession) -> Any:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("read_file", {"path": "a.py"}),
        ("write_file", {"path": "a.py", "content": "print(6 * 7)"}),
        ("run_command", {"command": "python3 a.py"}),
    ]
    answers = [AIMessage("", tool_calls=[{"name": name, "args": args, "id": name}]) for name, args in calls]
    model = ScriptedModel(messages=iter([*answers, AIMessage("42")]))
    return create_agent(model, AgentBayToolkit(session=session).get_tools())


def check(answer: dict[str, Any]) -> None:
    said = [message for message in answer["messages"] if message.type == "tool"]
    assert [message.status for message in said] == ["error", "success", "success"]
    assert said[-1].content == "42\n\n[exit code 0]"
    assert answer["messages"][-1].content == "42"


QUESTION = {"messages": [{"role": "user", "content": "What does a.py print?"}]}


def test_agent(session: Session) -> None:
    """An agent writes and runs a program, and is told what it did wrong before."""
    check(make_agent(session).invoke(QUESTION))


async def test_asynchronous_agent(async_session: AsyncSession) -> None:
    """The same without threads."""
    check(await make_agent(async_session).ainvoke(QUESTION))
