"""An agent of Pydantic AI with a scripted model uses the toolset; both kinds of sessions."""

from __future__ import annotations

from functools import partial
from typing import Any

from documented import run_example
from pydantic_ai import Agent, Tool
from pydantic_ai.messages import ModelMessage, ModelResponse, RetryPromptPart, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel

from agentbay import AsyncSession, Session
from agentbay.integrations.pydantic_ai import agentbay_toolset

SCRIPT: list[Any] = [
    ToolCallPart("write_file", {"path": "a.py", "content": "print(6 * 7)"}),
    ToolCallPart("read_file", {"path": "b.py"}),
    ToolCallPart("run_command", {"command": "python3 a.py"}),
    ToolCallPart("run_python", {"code": "6 * 7"}),
    ToolCallPart("list_directory", {}),
    TextPart("42"),
]


class Script:
    """A model that answers from the script, and keeps what it was told."""

    def __init__(self) -> None:
        self.steps, self.told = iter(SCRIPT), ""
        self.info: AgentInfo | None = None

    def __call__(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        self.info = info
        for part in messages[-1].parts:
            if isinstance(part, ToolReturnPart | RetryPromptPart):
                self.told += f"{part.tool_name}: {part.content}\n"
        return ModelResponse([next(self.steps)])

    def check(self, answer: str) -> None:
        assert answer == "42"
        assert self.info is not None
        for tool in self.info.function_tools:
            assert tool.description
            assert all(
                {"type", "description"} <= set(one) for one in tool.parameters_json_schema["properties"].values()
            )
        for said in ("run_command: 42", "run_python: 42", "b.py", "a.py"):
            assert said in self.told


def test_agent(session: Session) -> None:
    """With a synchronous session."""
    script = Script()
    agent = Agent(FunctionModel(script), toolsets=[agentbay_toolset(session)])
    script.check(agent.run_sync("What is 6 * 7?").output)


async def test_asynchronous_agent(async_session: AsyncSession) -> None:
    """With an asynchronous session."""
    script = Script()
    agent = Agent(FunctionModel(script), toolsets=[agentbay_toolset(async_session, max_retries=2)])
    script.check((await agent.run("What is 6 * 7?")).output)


async def test_tools_of_the_session_as_they_are_listed(async_session: AsyncSession) -> None:
    """An agent takes the session's own tools by their schemas, and calls one."""

    async def call_tool(name: str, **arguments: Any) -> str:
        called = await async_session.call_mcp_tool(name, arguments)
        return called.data or called.error_message

    listed = list(await async_session.list_mcp_tools())
    tools = [
        Tool.from_schema(partial(call_tool, tool.name), tool.name, tool.description, tool.input_schema)
        for tool in listed
    ]
    model = TestModel(call_tools=["shell"])
    result = await Agent(model, tools=tools).run("Go.")
    shown = {tool.name: tool for tool in model.last_model_request_parameters.function_tools}
    assert {name: tool.parameters_json_schema for name, tool in shown.items()} == {
        tool.name: tool.input_schema for tool in listed
    }
    assert "not found" in result.output  # what the shell says of the command that the model made up


def test_documented_example(session: Session) -> None:
    """The example of the documentation makes an agent that works."""
    script = Script()
    script.check(
        run_example("pydantic_ai", session=session, model=FunctionModel(script))["agent"].run_sync("Go.").output
    )
