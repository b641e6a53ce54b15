"""Start tasks of the model, or refuse them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from agentbay._wire.tools import ToolReply
from agentbay.local.agent.session_agent import RunningTask, TooManyTasks
from agentbay.local.agent.task import TaskFailed
from agentbay.local.browser.errors import DevToolsError
from agentbay.local.handlers.results import error_result, refusal_result, text_result
from agentbay.local.sessions.session import Session

Work = Callable[[RunningTask], Awaitable[Any]]


def start_agent_task(session: Session, running: RunningTask, work: Work) -> ToolReply:
    """Start work as a task of the agent, and answer with its id."""
    try:
        start_work(session, running, work)
    except TooManyTasks as error:
        return error_result(str(error))
    return text_result(json.dumps({"task_id": running.id}))


def start_work(session: Session, running: RunningTask, work: Work) -> None:
    """Start work as a task of the agent, without an answer to the client.

    Raises:
        TooManyTasks: Too many are under way.
    """

    async def run() -> Any:
        with session.lifecycle.active():  # a session that works is not idle
            try:
                return await work(running)
            except DevToolsError as error:
                raise TaskFailed(str(error)) from error

    session.agent.start(running, run())


def model_needed(what: str) -> ToolReply:
    """Return the refusal of what needs a model, on a runtime without one."""
    return refusal_result(
        f"{what} needs a model, and this runtime has none. Start it with --model-url URL --model NAME, "
        "an OpenAI-compatible endpoint.",
        "ModelNotConfigured.Local",
    )


def parse_schema(text: str) -> dict[str, Any] | None:
    """Return the schema of an object, before which clients may write "schema:"."""
    try:
        found = json.loads(text.removeprefix("schema:"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("required", []), list) else None
