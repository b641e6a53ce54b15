"""The operator of a browser, which acts on pages in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import evolve

from agentbay._wire import browser_tools as wire
from agentbay._wire.tools import ToolReply
from agentbay.local.agent.page_tools import PageTools
from agentbay.local.agent.session_agent import RunningTask
from agentbay.local.agent.task import Task, TaskFailed
from agentbay.local.agent.toolbox import Schema, StepFailed, string, whole_number
from agentbay.local.browser.errors import DevToolsError
from agentbay.local.handlers.browser import open_pages
from agentbay.local.handlers.handler_tables import tool_handler
from agentbay.local.handlers.results import error_result, refusal_result, text_result
from agentbay.local.handlers.tasks import model_needed, parse_schema, start_agent_task
from agentbay.local.sessions.session import Session

_ACT, _OBSERVE, _EXTRACT = "act", "observe", "extract"
_READING_STEPS = 3  # enough to read a page, and to mend an answer that does not fit
_EXTRACT_CHARACTERS = 60_000
_LOGIN_SECONDS = 50.0  # clients wait for this tool as for any other
_METHODS = ("click", "type", "choose", "press")
_TURN_PAGES = ("click", "scroll", "navigate", "go_back", "wait")
_MESSAGE: Schema = {"type": "object", "properties": {"message": {"type": "string"}}}
_ELEMENTS: Schema = {
    "type": "object",
    "properties": {
        "elements": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "element": {"type": "integer", "description": "The number of the element."},
                    "description": {"type": "string"},
                    "method": {"type": "string", "enum": list(_METHODS), "description": "What to do with it."},
                    "text": {"type": "string", "description": "What to type or press, or the option to choose."},
                },
                "required": ["element", "description", "method"],
            },
        }
    },
    "required": ["elements"],
}


@tool_handler(wire.PageNavigate)
async def navigate(session: Session, tool: wire.PageNavigate) -> ToolReply:
    try:
        async with open_pages(session) as pages:
            await pages.navigate(tool.url)
            content = await pages.read(characters=0)
    except DevToolsError as error:
        return error_result(str(error))
    return text_result(f"Opened {content.url}, {content.title!r}")


@tool_handler(wire.PageScreenshot)
async def screenshot(session: Session, tool: wire.PageScreenshot) -> ToolReply:
    try:
        async with open_pages(session, tool.page_id) as pages:
            taken = await pages.screenshot(full_page=tool.full_page, clip=tool.clip)
    except DevToolsError as error:
        return error_result(str(error))
    return text_result(f"data:image/png;base64,{taken}")


@tool_handler(wire.PageCloseSession)
async def close(session: Session, tool: wire.PageCloseSession) -> ToolReply:
    session.agent.end(_ACT, _OBSERVE, _EXTRACT)
    return text_result("True")


@tool_handler(wire.PageAct)
async def act(session: Session, tool: wire.PageAct) -> ToolReply:
    observed = _parse_observed(tool.action)
    settings = session.agent.settings
    if observed is None and settings is None:
        return model_needed("act()")

    async def work(running: RunningTask) -> None:
        async with open_pages(session, tool.page_id) as pages:
            tools = PageTools(pages, variables=tool.variables, use_vision=bool(tool.use_vision))
            if observed is not None:
                await _do_observed(tools, *observed)
                return
            assert settings is not None
            limits = settings.limits
            if tool.timeout is not None:
                limits = evolve(limits, seconds=min(limits.seconds, tool.timeout))
            running.task = Task(settings.model, tools, _with_variables(tool.action, tool.variables), limits, _MESSAGE)
            await running.task.run()

    return start_agent_task(session, RunningTask(_ACT), work)


@tool_handler(wire.PageActResult)
async def act_result(session: Session, tool: wire.PageActResult) -> ToolReply:
    running = session.agent.find(tool.task_id, _ACT)
    if running is None:
        return _unknown(tool.task_id)
    steps = running.task.steps if running.task is not None else []
    if not running.has_ended:
        return text_result(json.dumps({"is_done": False, "success": False, "steps": steps}))
    outcome = [running.failure] if running.failure else [] if steps else ["Done"]
    answer = {"is_done": True, "success": not running.failure, "steps": [*steps, *outcome]}
    return text_result(json.dumps(answer, ensure_ascii=False))


@tool_handler(wire.PageObserve)
async def observe(session: Session, tool: wire.PageObserve) -> ToolReply:
    settings = session.agent.settings
    if settings is None:
        return model_needed("observe()")

    async def work(running: RunningTask) -> Any:
        async with open_pages(session, tool.page_id) as pages:
            tools = PageTools(pages, use_vision=bool(tool.use_vision), names=(), selector=tool.selector)
            goal = f"Do nothing on the page. Find the elements for this: {tool.instruction}"
            running.task = Task(
                settings.model,
                tools,
                goal,
                settings.limits.with_steps(_READING_STEPS),
                _ELEMENTS,
                read_result=lambda found: _read_elements(tools, found),
            )
            return await running.task.run()

    return start_agent_task(session, RunningTask(_OBSERVE), work)


@tool_handler(wire.PageObserveResult)
async def observe_result(session: Session, tool: wire.PageObserveResult) -> ToolReply:
    return _outcome(session, tool.task_id, _OBSERVE)


@tool_handler(wire.PageExtract)
async def extract(session: Session, tool: wire.PageExtract) -> ToolReply:
    settings = session.agent.settings
    if settings is None:
        return model_needed("extract()")
    schema = parse_schema(tool.field_schema)
    if schema is None:
        return error_result(f"field_schema is no JSON schema: {tool.field_schema:.200}")
    turns_pages = (tool.max_page or 1) > 1

    async def work(running: RunningTask) -> Any:
        async with open_pages(session, tool.page_id) as pages:
            tools = PageTools(
                pages,
                use_vision=bool(tool.use_vision),
                names=_TURN_PAGES if turns_pages else ("scroll",),
                selector=tool.selector,
                characters=_EXTRACT_CHARACTERS,
            )
            goal = f"Read data from the page: {tool.instruction}"
            if turns_pages:
                goal += f"\nThe data are on up to {tool.max_page} pages; turn to each."
            limits = settings.limits if turns_pages else settings.limits.with_steps(_READING_STEPS)
            running.task = Task(settings.model, tools, goal, limits, schema)
            return await running.task.run()

    return start_agent_task(session, RunningTask(_EXTRACT), work)


@tool_handler(wire.PageExtractResult)
async def extract_result(session: Session, tool: wire.PageExtractResult) -> ToolReply:
    return _outcome(session, tool.task_id, _EXTRACT)


@tool_handler(wire.PageLogin)
async def login(session: Session, tool: wire.PageLogin) -> ToolReply:
    """Log in with names and passwords that the model types without seeing them."""
    if session.agent.settings is None:
        return model_needed("login()")
    config = _parse_login(tool.login_config)
    if config is None:
        return refusal_result(
            "login_config must be a JSON object with the texts to type, such as username and password, and optionally "
            "url and instructions. Logging in by the skills of the cloud (api_key, skill_id) is for the cloud only.",
            "LoginNotSupported.Local",
        )
    url, instructions = config.pop("url", ""), config.pop("instructions", "")
    settings = session.agent.settings

    async def work(running: RunningTask) -> None:
        async with open_pages(session, tool.page_id) as pages:
            if url:
                await pages.navigate(url)
            goal = _with_variables(f"Log in to this site. {instructions}".strip(), config)
            tools = PageTools(pages, variables=config, use_vision=tool.use_vision)
            limits = evolve(settings.limits, seconds=min(settings.limits.seconds, _LOGIN_SECONDS))
            running.task = Task(settings.model, tools, goal, limits, _MESSAGE)
            await running.task.run()

    running = RunningTask("login")
    reply = start_agent_task(session, running, work)
    if reply.is_error:
        return reply
    try:
        await running.wait()
    except TaskFailed as failure:
        return error_result(f"The login was not done: {failure}")
    finally:
        if running.runner is not None:
            running.runner.cancel()
    return text_result("Logged in")


def _with_variables(text: str, variables: Mapping[str, str] | None) -> str:
    if not variables:
        return text
    return f"{text}\nVariables, whose values are typed for you: {', '.join(f'%{name}%' for name in variables)}"


def _parse_observed(action: str) -> tuple[str, dict[str, Any]] | None:
    """Return method and arguments of an element that `observe` has found."""
    try:
        found = json.loads(action)
    except (ValueError, RecursionError):
        # The words of a person, not an action of `observe`.
        return None
    if not isinstance(found, dict) or not isinstance(found.get("method"), str):
        return None
    arguments = found.get("arguments")
    return found["method"], arguments if isinstance(arguments, dict) else {}


async def _do_observed(tools: PageTools, method: str, arguments: dict[str, Any]) -> None:
    if method not in _METHODS or not isinstance(arguments.get("selector"), str):
        raise TaskFailed(f"observe() has not found this: {method!r:.80} with {arguments!r:.200}")
    try:
        await tools.act_on(arguments["selector"], method, str(arguments.get("text", "")))
    except StepFailed as failure:
        raise TaskFailed(str(failure)) from failure


def _read_elements(tools: PageTools, found: dict[str, Any]) -> list[dict[str, str]]:
    listed = found.get("elements")
    if not isinstance(listed, list):
        raise StepFailed("elements must be a list")
    return [_read_element(tools, item) for item in listed]


def _read_element(tools: PageTools, item: Any) -> dict[str, str]:
    if not isinstance(item, dict) or item.get("method") not in _METHODS:
        raise StepFailed(f"each element needs a method, one of {', '.join(_METHODS)}")
    selector = str(tools.element(whole_number(item, "element")).get("selector"))
    # The selector is in the arguments too, because clients send only method and arguments to act().
    arguments = {"selector": selector} | ({"text": item["text"]} if isinstance(item.get("text"), str) else {})
    return {
        "selector": selector,
        "description": string(item, "description"),
        "method": item["method"],
        "arguments": json.dumps(arguments, ensure_ascii=False),
    }


def _parse_login(text: str) -> dict[str, str] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        return None
    return found if set(found) - {"url", "instructions", "api_key", "skill_id"} else None


def _outcome(session: Session, task_id: str, kind: str) -> ToolReply:
    """Answer with the result, or with an error as long as there is none.

    If there will be none, the answer is a text that is not JSON.
    """
    running = session.agent.find(task_id, kind)
    if running is None:
        return _unknown(task_id)
    if not running.has_ended:
        return error_result(f"Task {task_id} is not done yet")
    if running.failure:
        # Clients take an error for a task that goes on, and would wait.
        return text_result(running.failure, {"error": {"code": "TaskFailed.Local", "message": running.failure}})
    return text_result(json.dumps(running.result, ensure_ascii=False))


def _unknown(task_id: str) -> ToolReply:
    message = f"Task not found or already finished: {task_id:.80}"
    return text_result(message, {"error": {"code": "TaskNotFound", "message": message}})
