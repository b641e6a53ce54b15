"""The tools that a model may call, and helpers to describe them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Schema = dict[str, Any]
_MAX_WAIT_SECONDS = 10


class StepFailed(Exception):
    """A step cannot be done.

    The reason goes to the model, which may try another one.
    """


class Toolbox(Protocol):
    """The tools of a task, and what the model sees before each step."""

    instructions: str

    @property
    def tools(self) -> Sequence[Schema]:
        """The tools, as they are described to the model."""
        ...

    async def observe(self) -> list[Schema]:
        """Return what the model sees before a step, as parts of a user message.

        Raises:
            StepFailed: It cannot be seen.
        """
        ...

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Call a tool, and return what it says.

        Raises:
            StepFailed: It cannot be done.
        """
        ...


def tool(name: str, about: str, required: Sequence[str] = (), **properties: Schema | str) -> Schema:
    """Return the description of a tool for the model.

    Args:
        properties: The schema of each argument; a string describes an argument that is text.
    """
    schemas = {
        key: {"type": "string", "description": value} if isinstance(value, str) else value
        for key, value in properties.items()
    }
    parameters = {"type": "object", "properties": schemas, "required": list(required)}
    return function_tool(name, about, parameters)


def function_tool(name: str, about: str, parameters: Schema) -> Schema:
    """Return the description of a tool with a schema of its arguments."""
    return {"type": "function", "function": {"name": name, "description": about, "parameters": parameters}}


def wait_tool(about: str) -> Schema:
    """Return the description of the tool that waits."""
    return tool("wait", about, ["seconds"], seconds={"type": "integer", "maximum": _MAX_WAIT_SECONDS})


async def wait(arguments: Mapping[str, Any]) -> None:
    """Wait as long as the arguments of the model say."""
    await asyncio.sleep(min(max(whole_number(arguments, "seconds"), 0), _MAX_WAIT_SECONDS))


def check_tool(name: str, tools: Sequence[Schema]) -> None:
    """Raise StepFailed for a tool that is not among these."""
    if name not in {one["function"]["name"] for one in tools}:
        raise StepFailed(f"there is no tool {name!r:.80}")


def text_part(text: str) -> Schema:
    """Return a part of a message that is text."""
    return {"type": "text", "text": text}


def image_part(data: str, mime_type: str) -> Schema:
    """Return a part of a message that is an image, given as base64."""
    return {"type": "image_url", "image_url": {"url": f"data:{mime_type};base64,{data}"}}


def whole_number(arguments: Mapping[str, Any], name: str) -> int:
    """Return an argument that must be a whole number."""
    value = arguments.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise StepFailed(f"{name} must be a whole number, not {value!r:.80}")
    return value


def string(arguments: Mapping[str, Any], name: str) -> str:
    """Return an argument that must be a text."""
    value = arguments.get(name)
    if not isinstance(value, str):
        raise StepFailed(f"{name} must be a text, not {value!r:.80}")
    return value
