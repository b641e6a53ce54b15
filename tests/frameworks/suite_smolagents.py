"""The suite that smolagents runs over its remote executors, and an agent with a scripted model."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
from smolagents import CodeAgent, Model
from smolagents.models import ChatMessage, MessageRole

from agentbay import Session
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

    answers = iter(
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


class AgentContext:
    """An agent that works in a session."""

    def __init__(self, session: Session) -> None:
        self.agent = CodeAgent(tools=[], model=ScriptedModel(), executor=AgentBayExecutor(session=session))

    def __enter__(self) -> CodeAgent:
        return self.agent

    def __exit__(self, *_: object) -> None:
        self.agent.cleanup()
