"""An agent of Pydantic AI with a scripted model uses the toolset; both kinds of sessions."""

from __future__ import annotations

from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, RetryPromptPart, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

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
