"""Read and write the texts of the browser operator's tools."""

from __future__ import annotations

import json
from typing import Any

from ..errors import BrowserError
from ..models.browser_operator import ActResult, ObserveResult

POLL_SECONDS = 3.0
TASK_TIMEOUT_SECONDS = 300


def read_task_id(text: str) -> str:
    """Return the id of a task that was started.

    Raises:
        BrowserError: The text names none.
    """
    found = _parse(text)
    task_id = found.get("task_id") if isinstance(found, dict) else None
    if not isinstance(task_id, str) or not task_id:
        raise BrowserError(f"the answer has no task_id: {text:.200}")
    return task_id


def read_act_result(text: str) -> ActResult | None:
    """Return the outcome of an action, None as long as it goes on."""
    found = _parse(text)
    if not isinstance(found, dict) or not found.get("is_done"):
        return None
    steps = found.get("steps")
    if isinstance(steps, str):
        message = steps
    else:
        message = json.dumps(steps, ensure_ascii=False) if steps else "No actions have been executed."
    return ActResult(bool(found.get("success")), message)


def read_observe_result(text: str) -> list[ObserveResult]:
    """Return the elements that were found.

    Raises:
        BrowserError: The text is no JSON array.
    """
    found = _parse(text)
    if not isinstance(found, list):
        raise BrowserError(f"the answer is no JSON array: {text:.200}")
    return [
        ObserveResult(
            item.get("selector") or "",
            item.get("description") or "",
            item.get("method") or "",
            _parse_arguments(item.get("arguments", "{}")),
        )
        for item in found
        if isinstance(item, dict)
    ]


def write_observed_action(observed: ObserveResult) -> str:
    """Write an element that was found as the action to do with it."""
    arguments = observed.arguments
    if isinstance(arguments, str):
        arguments = _parse_arguments(arguments)
    return json.dumps({"method": observed.method, "arguments": arguments})


def _parse_arguments(text: object) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrowserError(f"the answer is no JSON: {text:.200}") from error
