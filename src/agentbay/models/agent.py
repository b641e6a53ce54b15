"""Tasks given to agents, in words: events, and how they ended."""

from __future__ import annotations

from typing import Any

from .._lazy_attrs import define, field
from .base import BaseResult, dict_or_empty, list_or_empty


@define(slots=False)
class AgentEvent:
    """Something that happens while an agent works.

    Attributes:
        type: "reasoning", "content", "tool_call", "tool_result", "error" or "call_for_user".
        seq: The number of the event.
        round: In which round of the agent's work it happened.
        content: Text of the model.
        tool_call_id: Which call of a tool it is about.
        tool_name: Which tool.
        args: What the tool was called with.
        result: What the tool returned.
        prompt: What the user is asked.
        error: What went wrong.
    """

    type: str = ""
    seq: int = 0
    round: int = 0
    content: str = ""
    tool_call_id: str = ""
    tool_name: str = ""
    args: dict[str, Any] = field(default=None, converter=dict_or_empty)
    result: dict[str, Any] = field(default=None, converter=dict_or_empty)
    prompt: str = ""
    error: dict[str, Any] = field(default=None, converter=dict_or_empty)


@define(slots=False)
class ExecutionResult(BaseResult):
    """A task.

    Attributes:
        task_id: Its id; "" if it was streamed.
        task_status: "running", "finished", "completed", "failed", "cancelled" or "unsupported".
        task_result: What the agent found.
    """

    task_id: str = ""
    task_status: str = ""
    task_result: str = ""


@define(slots=False)
class QueryResult(BaseResult):
    """How a task stands.

    Attributes:
        task_id: Its id.
        task_status: As for `ExecutionResult`.
        task_action: What the agent does.
        task_product: What it has found.
        stream: Further texts of the agent, dicts with `content`, `reasoning` and `timestamp_ms`.
        error: What went wrong.
    """

    task_id: str = ""
    task_status: str = ""
    task_action: str = ""
    task_product: str = ""
    stream: list[dict[str, Any]] = field(default=None, converter=list_or_empty)
    error: str = ""
