"""LlamaIndex calls the tools, and an agent with a scripted model uses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from documented import run_example
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.mock import MockLLM
from llama_index.core.tools import ToolSelection
from pydantic import PrivateAttr

from agentbay import AsyncSession, Session
from agentbay.integrations.llamaindex import agentbay_tools


def test_tools(session: Session) -> None:
    """Each tool has a description and a schema, and works."""
    tools = {tool.metadata.name: tool for tool in agentbay_tools(session)}
    assert set(tools) == {"run_command", "run_python", "read_file", "write_file", "list_directory"}
    for tool in tools.values():
        assert tool.metadata.description
        assert all("description" in one for one in tool.metadata.get_parameters_dict()["properties"].values())
    assert tools["run_command"](command="echo hello").raw_output == "hello\n\n[exit code 0]"
    tools["write_file"](path="a.txt", content="text")
    assert tools["read_file"](path="a.txt").raw_output == "text"
    assert "a.txt" in tools["list_directory"]().raw_output


async def test_asynchronous_tools(async_session: AsyncSession) -> None:
    """With an asynchronous session they are awaited."""
    tools = {tool.metadata.name: tool for tool in agentbay_tools(async_session)}
    assert (await tools["run_python"].acall(code="6 * 7")).raw_output == "42"


class ScriptedModel(MockLLM, FunctionCallingLLM):
    """A model that answers from a script."""

    _steps: list[Any] = PrivateAttr()

    def __init__(self, *steps: Any) -> None:
        super().__init__()
        self._steps = list(steps)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_function_calling_model=True)

    def _prepare_chat_with_tools(self, tools: Sequence[Any], **_: Any) -> dict[str, Any]:
        return {"messages": []}

    async def astream_chat_with_tools(self, *_: Any, **__: Any) -> Any:
        async def answers() -> Any:
            yield ChatResponse(message=ChatMessage(role="assistant", content="42"), raw=self._steps.pop(0))

        return answers()

    async def achat_with_tools(self, *_: Any, **__: Any) -> ChatResponse:
        return ChatResponse(message=ChatMessage(role="assistant", content="42"), raw=self._steps.pop(0))

    def get_tool_calls_from_response(self, response: ChatResponse, **_: Any) -> list[ToolSelection]:
        calls: list[ToolSelection] = response.raw
        return calls


async def test_agent(async_session: AsyncSession) -> None:
    """An agent's call runs in the session."""
    call = ToolSelection(tool_id="1", tool_name="run_command", tool_kwargs={"command": "echo $((6 * 7)) > made"})
    agent = FunctionAgent(tools=agentbay_tools(async_session), llm=ScriptedModel([call], []))
    assert str(await agent.run("What is 6 * 7?")) == "42"
    assert (await async_session.file_system.read_file("made")).unwrap().content == "42\n"


async def test_documented_example(async_session: AsyncSession) -> None:
    """The example of the documentation makes an agent that works."""
    call = ToolSelection(tool_id="1", tool_name="write_file", tool_kwargs={"path": "a.txt", "content": "42"})
    agent = run_example("llamaindex", session=async_session, llm=ScriptedModel([call], []))["agent"]
    assert str(await agent.run("What is 6 * 7?")) == "42"
    assert (await async_session.file_system.read_file("a.txt")).unwrap().content == "42"
