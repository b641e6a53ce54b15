"""Inspect's own conformance suite of sandbox environments, and an evaluation with a scripted model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from inspect_ai import Task, eval_async
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, get_model
from inspect_ai.scorer import match
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import bash
from inspect_ai.util._sandbox.self_check import *  # noqa: F403

from agentbay.integrations.inspect import AgentBaySandboxEnvironment


@pytest.fixture
async def sandbox_env(agentbay_environment: dict[str, str]) -> AsyncIterator[AgentBaySandboxEnvironment]:
    made = await AgentBaySandboxEnvironment.sample_init("self-check", None, {})
    yield made["default"].as_type(AgentBaySandboxEnvironment)
    await AgentBaySandboxEnvironment.sample_cleanup("self-check", None, made, False)
    await AgentBaySandboxEnvironment.task_cleanup("self-check", None, True)


async def test_evaluation_with_a_scripted_model(
    agentbay_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sandbox="agentbay"` is found by its entry point, and a model's command runs in it."""
    # Its tables of tokens are on a web server.
    counter = SimpleNamespace(encode=lambda text, **_: text.split())
    monkeypatch.setattr("tiktoken.get_encoding", lambda _: counter)
    model = get_model(
        "mockllm/model",
        custom_outputs=[
            ModelOutput.for_tool_call("mockllm/model", "bash", {"command": "cat question.txt; echo $((6 * 7))"}),
            ModelOutput.from_content("mockllm/model", "42"),
        ],
    )
    sample = Sample(input="What is 6 * 7?", target="42", files={"question.txt": "6 * 7 is "})
    task = Task(dataset=[sample], solver=[use_tools(bash()), generate()], scorer=match(), sandbox="agentbay")
    [log] = await eval_async(task, model=model, log_dir=str(tmp_path))
    assert log.status == "success", log.error
    assert log.samples is not None
    said = [message.text for message in log.samples[0].messages if message.role == "tool"]
    assert said == ["6 * 7 is 42\n"]
    assert log.results is not None
    assert log.results.scores[0].metrics["accuracy"].value == 1.0
