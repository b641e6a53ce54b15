"""Read the texts and events of agents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import ReplyError
from ..models.agent import AgentEvent, ExecutionResult, QueryResult

POLL_SECONDS = 3
TERMINATION_POLLS, TERMINATION_POLL_SECONDS = 30, 1.0
GONE_PREFIX = "Task not found or already finished"
CALL_FOR_USER = "call_for_user"
DEFAULT_SCHEMA: dict[str, Any] = {
    "description": "Basic schema for agent output.",
    "properties": {"result": {"title": "Result", "type": "string"}},
    "required": ["result"],
    "title": "DefaultSchema",
    "type": "object",
}


def count_polls(timeout: float) -> int:
    """Return how often a task is polled within its time limit, at least once."""
    return max(int(timeout // POLL_SECONDS), 1)


class TaskStatuses(NamedTuple):
    """The status names that the service uses for tasks of one kind.

    Attributes:
        finished: The status of a task that succeeded.
        failed: The statuses of a task that did not succeed.
        ending: The status of a terminated task, if the answer names none.
    """

    finished: str
    failed: frozenset[str]
    ending: str


DESKTOP_TASKS = TaskStatuses("finished", frozenset({"failed", "unsupported"}), "finished")
PHONE_TASKS = TaskStatuses("completed", frozenset({"failed", "cancelled", "unsupported"}), "cancelling")


def read_task_id(text: str) -> str:
    """Return the id of a task that was started.

    Raises:
        ReplyError: The text names none.
    """
    fields = _read_object(text)
    task_id = fields.get("taskId") or fields.get("task_id")
    if not isinstance(task_id, str):
        raise ReplyError(f"the answer has no task_id: {text:.200}")
    return task_id


def read_status(text: str, statuses: TaskStatuses, request_id: str) -> QueryResult:
    """Read the status of a task.

    Raises:
        ReplyError: The text is no JSON object.
    """
    fields = _read_object(text)
    stream = fields.get("stream")
    return QueryResult(
        request_id=request_id,
        success=True,
        task_id=_text(fields, "taskId") or _text(fields, "task_id"),
        task_status=_text(fields, "status") or statuses.finished,
        task_action=_text(fields, "action"),
        task_product=_text(fields, "result") or _text(fields, "product"),
        stream=[item for item in stream if isinstance(item, dict)] if isinstance(stream, list) else [],
        error=_text(fields, "error"),
    )


def read_termination(text: str, statuses: TaskStatuses, request_id: str) -> ExecutionResult:
    """Read the answer to the termination of a task.

    Raises:
        ReplyError: The text is no JSON object.
    """
    fields = _read_object(text)
    task_id = _text(fields, "taskId") or _text(fields, "task_id")
    status = _text(fields, "status") or statuses.ending
    return ExecutionResult(request_id=request_id, success=True, task_id=task_id, task_status=status)


def read_event(data: Mapping[str, Any]) -> AgentEvent:
    """Read an event of the stream."""
    args, result, error = data.get("args"), data.get("result"), data.get("error")
    event = AgentEvent(
        type=_text(data, "eventType"),
        seq=_number(data, "seq"),
        round=_number(data, "round"),
        content=_text(data, "content"),
        tool_call_id=_text(data, "toolCallId"),
        tool_name=_text(data, "toolName"),
        args=args if isinstance(args, dict) else None,
        result=result if isinstance(result, dict) else None,
        error=error if isinstance(error, dict) else None,
    )
    if event.tool_name == CALL_FOR_USER:
        event.prompt = _text(event.args, "prompt")
    return event


def describe_timeout(task_id: str, timeout: int, last: QueryResult | None) -> str:
    """Return the error message for a task that timed out."""
    parts = [f"Task execution timed out after {timeout} seconds."]
    if last is not None:
        output = "".join(str(item.get("content") or "") for item in last.stream)
        found = {
            "Last task status output": output,
            "Last action": last.task_action,
            "Last result": last.task_product,
            "Last error": last.error,
            "Last status": last.task_status,
        }
        parts += [f"{name}: {value}" for name, value in found.items() if value]
    return " | ".join(parts)


def _read_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ReplyError(f"the answer is no JSON: {text:.200}") from error
    if not isinstance(found, dict):
        raise ReplyError(f"the answer is no JSON object: {text:.200}")
    return found


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _number(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    return value if isinstance(value, int) else 0
