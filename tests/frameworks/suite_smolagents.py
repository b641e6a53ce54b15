"""The suite that smolagents runs over its remote executors, and an agent with a scripted model."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
from documented import run_example
from smolagents import CodeAgent, Model
from smolagents.models import ChatMessage, MessageRole
from smolagents.utils import AgentError

from agentbay import AgentBay, Session
from agentbay.errors import InvalidArgumentError
from agentbay.integrations.smolagents import AgentBayExecutor

# Its source distribution lacks the package with this decorator, which skips tests that need an account.
markers: Any = ModuleType("tests.utils.markers")
markers.require_run_all = lambda kind: pytest.mark.skip(reason="another executor")(kind)
sys.modules["tests.utils"], sys.modules["tests.utils.markers"] = ModuleType("tests.utils"), markers
sys.path.insert(0, os.environ["FRAMEWORK_SOURCE"])
Suite: Any = import_module("tests.test_remote_executors").CommonDockerExecutorIntegration


class TestExecutor(Suite):
    """The framework's tests of an executor."""

    @pytest.fixture
    def custom_executor(self, agentbay_environment: dict[str, str]) -> Iterator[AgentBayExecutor]:
        executor = AgentBayExecutor(["pillow", "numpy"])
        yield executor
        executor.cleanup()


class ScriptedModel(Model):
    """A model that answers from a script."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = iter(
            [
                "Thought: I compute.\n<code>\nx = 6 * 7\nprint('computed', x)\n</code>",
                "Thought: I answer.\n<code>\nfinal_answer({'value': x})\n</code>",
            ]
        )

    def generate(self, *_: Any, **__: Any) -> ChatMessage:
        return ChatMessage(role=MessageRole.ASSISTANT, content=next(self.answers))


def test_agent(session: Session) -> None:
    """An agent's code keeps its variables in the session, and its answer comes back."""
    with AgentContext(session) as agent:
        assert agent.run("What is 6 * 7?") == {"value": 42}
        assert "computed 42" in str(agent.memory.steps[1].observations)


def test_time_limit(session: Session) -> None:
    """An agent sees what code printed before it took too long, also with a client that raises such errors."""
    for strict in (False, True):
        executor = AgentBayExecutor(session=session.with_options(strict=strict), timeout_s=1)
        with pytest.raises(AgentError, match=r"begun(?s:.*)longer than 1 s"):
            executor.run_code_raise_errors("print('begun'); import time; time.sleep(60)")


@pytest.mark.filterwarnings("ignore:This blocks the running event loop")
async def test_in_an_event_loop(session: Session) -> None:
    """A notebook's cell runs in an event loop; there the executor works too."""
    executor = AgentBayExecutor(session=session)
    assert executor("print('\u65e5\u672c'); 6 * 7").logs == "\u65e5\u672c\n"


def test_failed_installation(agentbay_environment: dict[str, str]) -> None:
    """An executor that cannot install its packages leaves no session."""
    with pytest.raises(InvalidArgumentError):
        AgentBayExecutor(["numpy"], timeout_s=0)
    with AgentBay() as bay:
        assert not list(bay.list())


class AgentContext:
    """An agent that works in a session."""

    def __init__(self, session: Session) -> None:
        self.agent = CodeAgent(tools=[], model=ScriptedModel(), executor=AgentBayExecutor(session=session))

    def __enter__(self) -> CodeAgent:
        return self.agent

    def __exit__(self, *_: object) -> None:
        self.agent.cleanup()


def test_documented_example(agentbay_environment: dict[str, str]) -> None:
    """The example of the documentation answers."""
    assert run_example("smolagents", model=ScriptedModel())["answer"] == {"value": 42}
