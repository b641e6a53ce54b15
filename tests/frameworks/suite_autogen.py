"""AutoGen's executor of code blocks, as its own tests use one, and an agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from autogen_agentchat.agents import CodeExecutorAgent
from autogen_agentchat.messages import TextMessage
from autogen_core import CancellationToken
from autogen_core.code_executor import CodeBlock, CodeExecutor
from autogen_core.models import ChatCompletionClient, CreateResult, LLMMessage, ModelInfo, RequestUsage
from documented import run_example
from gate import gate_to_runtime

from agentbay import AgentBay
from agentbay.errors import NotFoundError
from agentbay.integrations.autogen import AgentBayCodeExecutor


@pytest.fixture
async def executor(agentbay_environment: dict[str, str]) -> AsyncIterator[AgentBayCodeExecutor]:
    async with AgentBayCodeExecutor(timeout=10) as executor:
        yield executor


async def test_code_blocks(executor: AgentBayCodeExecutor) -> None:
    """Blocks run one after the other, and share files; the first failure ends them."""
    blocks = [
        CodeBlock("open('a', 'w').write('hello')", "python"),
        CodeBlock("cat a; exit 3", "bash"),
        CodeBlock("never", "sh"),
    ]
    result = await executor.execute_code_blocks(blocks, CancellationToken())
    assert (result.exit_code, result.output) == (3, "hello")
    unknown = await executor.execute_code_blocks([CodeBlock("x", "cobol")], CancellationToken())
    assert unknown.exit_code == 1
    assert "cobol" in unknown.output


async def test_time_limit(executor: AgentBayCodeExecutor) -> None:
    """A block that takes too long is killed."""
    executor._timeout = 1
    result = await executor.execute_code_blocks([CodeBlock("echo part; sleep 60", "sh")], CancellationToken())
    assert result.exit_code == 124
    assert "part" in result.output


async def test_cancellation(executor: AgentBayCodeExecutor) -> None:
    """A cancelled token ends the call and the process."""
    token = CancellationToken()
    running = asyncio.ensure_future(executor.execute_code_blocks([CodeBlock("sleep 4321", "sh")], token))
    while "sleep 4321" not in (await executor.session.command.run("pgrep -af sleep")).stdout:
        await asyncio.sleep(0.1)
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    while "sleep 4321" in (await executor.session.command.run("pgrep -af sleep")).stdout:
        await asyncio.sleep(0.1)


async def test_cancelled_start(agentbay_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that is cancelled leaves no session."""
    async with gate_to_runtime(monkeypatch) as gate:
        await gate.cancel(AgentBayCodeExecutor().start())


async def test_session_that_has_vanished(executor: AgentBayCodeExecutor) -> None:
    """A session that somebody deleted is an error of the next call, and `restart` makes another one."""
    with AgentBay() as bay:
        assert (await asyncio.to_thread(bay.delete, executor.session.session_id)).success
    block = CodeBlock("print('\u65e5\u672c', end='')", "python")
    with pytest.raises(NotFoundError):
        await executor.execute_code_blocks([block], CancellationToken())
    await executor.restart()
    assert (await executor.execute_code_blocks([block], CancellationToken())).output == "\u65e5\u672c"


async def test_restart(executor: AgentBayCodeExecutor) -> None:
    """After a restart the session is empty."""
    await executor.execute_code_blocks([CodeBlock("touch old", "sh")], CancellationToken())
    await executor.restart()
    result = await executor.execute_code_blocks([CodeBlock("ls", "sh")], CancellationToken())
    assert "old" not in result.output


async def test_saved_component(agentbay_environment: dict[str, str]) -> None:
    """It can be saved as a component, and loaded."""
    loaded = CodeExecutor.load_component(AgentBayCodeExecutor(timeout=7).dump_component())
    assert isinstance(loaded, AgentBayCodeExecutor)
    assert loaded._timeout == 7


async def test_agent(executor: AgentBayCodeExecutor) -> None:
    """An agent runs the code of a message."""
    agent = CodeExecutorAgent("runner", code_executor=executor)
    message = TextMessage(content="```python\nprint(6 * 7)\n```", source="user")
    answer = await agent.on_messages([message], CancellationToken())
    assert "42" in answer.chat_message.to_text()


def test_documented_example(agentbay_environment: dict[str, str]) -> None:
    """The example of the documentation runs the code of its task."""
    assert "42" in run_example("autogen")["answer"].messages[-1].to_text()


class ScriptedModel(ChatCompletionClient):
    """A model that answers from a script, and keeps what it was told."""

    model_info: Any = ModelInfo(
        vision=False, function_calling=False, json_output=False, family="unknown", structured_output=False
    )
    capabilities: Any = model_info

    def __init__(self, *answers: str) -> None:
        self.answers, self.told = iter(answers), list[LLMMessage]()

    async def create(self, messages: Any, **_: Any) -> CreateResult:
        self.told = list(messages)
        usage = RequestUsage(prompt_tokens=1, completion_tokens=1)
        return CreateResult(finish_reason="stop", content=next(self.answers), usage=usage, cached=False)

    def create_stream(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    async def close(self) -> None: ...

    def actual_usage(self) -> RequestUsage:
        return RequestUsage(prompt_tokens=0, completion_tokens=0)

    def count_tokens(self, *_: Any, **__: Any) -> int:
        return 0

    total_usage, remaining_tokens = actual_usage, count_tokens


async def test_agent_with_a_scripted_model(executor: AgentBayCodeExecutor) -> None:
    """A model writes code, is told what that printed, and answers."""
    model = ScriptedModel("```python\nprint(6 * 7)\n```", "It is 42.")
    agent = CodeExecutorAgent("runner", code_executor=executor, model_client=model)
    result = await agent.run(task="What is 6 * 7?")
    told = str(model.told[-1].content)
    assert "42" in told
    assert "print" not in told  # the output, not the code
    assert result.messages[-1].to_text() == "It is 42."
