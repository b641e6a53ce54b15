"""The agents of a session, whose tasks are polled, or followed over the WebSocket."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agentbay._wire import browser_tools as wire
from agentbay._wire.converter import structure
from agentbay._wire.tools import ToolReply
from agentbay.local.agent.desktop_tools import DesktopTools
from agentbay.local.agent.page_tools import PageTools
from agentbay.local.agent.session_agent import RunningTask, TooManyTasks
from agentbay.local.agent.task import Task, TaskFailed
from agentbay.local.agent.toolbox import Schema, Toolbox
from agentbay.local.browser.browser import BrowserFailed
from agentbay.local.handlers.browser import open_pages
from agentbay.local.handlers.handler_tables import target_handler, tool_handler
from agentbay.local.handlers.results import error_result, refusal_result, text_result
from agentbay.local.handlers.tasks import model_needed, parse_schema, start_agent_task, start_work
from agentbay.local.sessions.hub import WebSocketRequest
from agentbay.local.sessions.session import Session

_BROWSER, _COMPUTER = "browser", "computer"
_TEXT: Schema = {"type": "object", "properties": {"result": {"type": "string"}}, "required": ["result"]}
_EXECUTE, _RESUME = "exec_task", "resume_task"
_CAPTURED_EVENTS = ("content", "reasoning", "tool_call")


@tool_handler(wire.BrowserTask)
async def execute_browser_task(session: Session, tool: wire.BrowserTask) -> ToolReply:
    return _refuse(session, tool) or start_agent_task(
        session, RunningTask(_BROWSER), lambda task: _do(session, tool, task)
    )


@tool_handler(wire.BrowserTaskStatus)
async def browser_task_status(session: Session, tool: wire.BrowserTaskStatus) -> ToolReply:
    return _status(session, tool.task_id, _BROWSER)


@tool_handler(wire.BrowserTaskEnd)
async def end_browser_task(session: Session, tool: wire.BrowserTaskEnd) -> ToolReply:
    return _end(session, tool.task_id, _BROWSER)


@tool_handler(wire.ComputerTask)
async def execute_computer_task(session: Session, tool: wire.ComputerTask) -> ToolReply:
    return _refuse(session, tool) or start_agent_task(
        session, RunningTask(_COMPUTER), lambda task: _do(session, tool, task)
    )


@tool_handler(wire.ComputerTaskStatus)
async def computer_task_status(session: Session, tool: wire.ComputerTaskStatus) -> ToolReply:
    return _status(session, tool.task_id, _COMPUTER)


@tool_handler(wire.ComputerTaskEnd)
async def end_computer_task(session: Session, tool: wire.ComputerTaskEnd) -> ToolReply:
    return _end(session, tool.task_id, _COMPUTER)


@tool_handler(wire.MobileTask)
async def execute_mobile_task(session: Session, tool: wire.MobileTask) -> ToolReply:
    return _no_phone()


@target_handler(wire.BROWSER_SERVER)
async def follow_browser_task(session: Session, request: WebSocketRequest) -> None:
    await _follow(session, request, wire.BrowserTask)


@target_handler(wire.ComputerTask.server)
async def follow_computer_task(session: Session, request: WebSocketRequest) -> None:
    await _follow(session, request, wire.ComputerTask)


@target_handler(wire.MobileTask.server)
async def follow_mobile_task(session: Session, request: WebSocketRequest) -> None:
    await request.send_answer(error=_no_phone().text)


async def _follow(
    session: Session, request: WebSocketRequest, kind: type[wire.BrowserTask] | type[wire.ComputerTask]
) -> None:
    """Do a task, and send what happens as it happens."""
    if request.method != _EXECUTE:
        await request.send_answer(error=f"There is no method {request.method!r:.80}, only {_EXECUTE}.")
        return
    params = dict(request.params)
    max_steps = params.pop("max_steps", None)
    call: wire.BrowserTask | wire.ComputerTask = structure(params, kind, path="params")
    if refusal := _refuse(session, call):
        await request.send_answer(error=refusal.text)
        return

    async def ask_user(call_id: str, prompt: str) -> str:
        while True:
            answer = await request.next_follow_up()
            params = answer.get("params")
            if answer.get("method") == _RESUME and isinstance(params, dict) and params.get("toolCallId") == call_id:
                return str(params.get("response") or "")

    steps = max_steps if isinstance(max_steps, int) else None
    followed = {"max_steps": steps, "on_event": request.send_event, "ask_user": ask_user}
    running = RunningTask(kind.tool)
    try:
        start_work(session, running, lambda task: _do(session, call, task, **followed))
        found = await running.wait()
    except (TaskFailed, TooManyTasks) as failure:
        await request.send_event("error", error={"code": "TaskFailed.Local", "message": str(failure)})
        await request.send_end(status="failed", taskResult="")
    else:
        await request.send_end(status="finished", taskResult=found)
    finally:
        if running.runner is not None:
            running.runner.cancel()  # of a client that has cancelled or gone


def _no_phone() -> ToolReply:
    return refusal_result("Tasks of a phone's agent are done by the cloud only.", "MobileAgentNotSupported.Local")


def _refuse(session: Session, call: wire.BrowserTask | wire.ComputerTask) -> ToolReply | None:
    """Return a refusal if a task cannot be started, else None."""
    if session.agent.settings is None:
        return model_needed("An agent")
    if (
        isinstance(call, wire.BrowserTask)
        and call.output_schema is not None
        and parse_schema(call.output_schema) is None
    ):
        return error_result(f"output_schema is no JSON schema of an object: {call.output_schema:.200}")
    return None


async def _do(
    session: Session, call: wire.BrowserTask | wire.ComputerTask, running: RunningTask, **followed: Any
) -> str:
    """Do a task, and return its result as text.

    For a browser's task, whose result has a schema, it is JSON.
    """
    if isinstance(call, wire.ComputerTask):
        return str(
            (await _run(session, call.task, DesktopTools(_tool_caller(session)), _TEXT, running, **followed))["result"]
        )
    with session.using() as sandbox:
        if not session.browser.was_started:
            try:
                await session.browser.start(sandbox, {}, session.environment)
            except BrowserFailed as failure:
                raise TaskFailed(str(failure)) from failure
    schema = parse_schema(call.output_schema or "") or _TEXT
    async with open_pages(session) as pages:
        tools = PageTools(pages, use_vision=call.use_vision, full_page=bool(call.full_page_screenshot))
        return json.dumps(await _run(session, call.task, tools, schema, running, **followed), ensure_ascii=False)


async def _run(
    session: Session,
    goal: str,
    tools: Toolbox,
    schema: Schema,
    running: RunningTask,
    *,
    max_steps: int | None = None,
    **followed: Any,
) -> Any:
    settings = session.agent.settings
    assert settings is not None
    limits = settings.limits.with_steps(max_steps)
    running.task = Task(settings.model, tools, goal, limits, schema, **followed)
    return await running.task.run()


def _status(session: Session, task_id: str, kind: str) -> ToolReply:
    running = session.agent.find(task_id, kind)
    if running is None:
        return error_result(f"Task not found or already finished: {task_id:.80}")
    task = running.task
    answer = {
        "task_id": task_id,
        "status": "running" if not running.has_ended else "failed" if running.failure else "finished",
        "action": task.steps[-1] if task is not None and task.steps else "",
        "product": running.result or "",
        "error": running.failure,
        "stream": [_shown(event) for event in task.events if event["eventType"] in _CAPTURED_EVENTS] if task else [],
    }
    return text_result(json.dumps(answer, ensure_ascii=False))


def _shown(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event in the form that polling clients get."""
    content, kind = str(event.get("content", "")), event["eventType"]
    if kind == "tool_call":
        content = f"{event['toolName']} {json.dumps(event['args'], ensure_ascii=False)}\n"
    reasoning = content if kind == "reasoning" else ""
    return {
        "content": "" if reasoning else content,
        "reasoning": reasoning,
        "timestamp_ms": event["timestamp_ms"],
    }


def _end(session: Session, task_id: str, kind: str) -> ToolReply:
    running = session.agent.find(task_id, kind)
    if running is None or running.has_ended:
        return error_result(f"Task not found or already finished: {task_id:.80}")
    if running.runner is not None:
        running.runner.cancel()
    return text_result(json.dumps({"task_id": task_id, "status": "finished"}))


def _tool_caller(session: Session) -> Any:
    from agentbay.local.handlers.tool_calls import call_tool  # it lists this module

    async def call(name: str, arguments: Mapping[str, Any]) -> ToolReply:
        return await call_tool(session, name, arguments)

    return call
