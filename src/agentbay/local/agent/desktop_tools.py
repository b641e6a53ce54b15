"""The tools that a model has for a desktop: the same that clients call."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agentbay._wire.tools import ToolReply
from agentbay.local.agent.toolbox import Schema, StepFailed, check_tool, image_part, text_part, tool, wait, wait_tool

_PIXEL: Schema = {"type": "integer", "description": "Pixels from the left or from the top."}
_BUTTON: Schema = {"type": "string", "enum": ["left", "right", "middle", "double_left"]}
_INSTRUCTIONS = "You use a desktop for a user. You see a screenshot, and place the mouse by its pixels."
_SCREENSHOT: dict[str, Any] = {"format": "jpeg"}

CallTool = Callable[[str, Mapping[str, Any]], Awaitable[ToolReply]]


class DesktopTools:
    """The tools that act on the desktop of a session.

    Args:
        call_tool: Calls a tool of the session, by the name and arguments that clients use.
    """

    instructions = _INSTRUCTIONS
    tools: Sequence[Schema] = (
        tool("click_mouse", "Click.", ["x", "y"], x=_PIXEL, y=_PIXEL, button=_BUTTON),
        tool("move_mouse", "Move the mouse.", ["x", "y"], x=_PIXEL, y=_PIXEL),
        tool(
            "drag_mouse",
            "Drag from one place to another.",
            ["from_x", "from_y", "to_x", "to_y"],
            from_x=_PIXEL,
            from_y=_PIXEL,
            to_x=_PIXEL,
            to_y=_PIXEL,
        ),
        tool(
            "scroll",
            "Scroll at a place.",
            ["x", "y", "direction"],
            x=_PIXEL,
            y=_PIXEL,
            direction={"type": "string", "enum": ["up", "down", "left", "right"]},
            amount={"type": "integer"},
        ),
        tool("input_text", "Type a text.", ["text"], text="What to type."),
        tool(
            "press_keys",
            "Press keys together.",
            ["keys"],
            keys={"type": "array", "items": {"type": "string"}, "description": "Such as Ctrl, c, Enter, F5."},
        ),
        tool("start_app", "Start a program.", ["start_cmd"], start_cmd="Its command line."),
        wait_tool("Wait."),
    )
    _defaults: Mapping[str, Mapping[str, Any]] = {
        "click_mouse": {"button": "left"},
        "drag_mouse": {"button": "left"},
        "scroll": {"amount": 3},
        "press_keys": {"hold": False},
    }

    def __init__(self, call_tool: CallTool) -> None:
        self._call_tool = call_tool

    async def observe(self) -> list[Schema]:
        """Return a screenshot."""
        try:
            taken = json.loads(await self._text("screenshot", _SCREENSHOT))
            return [text_part("The desktop:"), image_part(str(taken["data"]), str(taken["mime_type"]))]
        except (ValueError, KeyError, TypeError) as error:
            raise StepFailed("the screenshot cannot be read") from error

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Call a tool."""
        check_tool(name, self.tools)
        if name == "wait":
            await wait(arguments)
            return "Done"
        return await self._text(name, {**self._defaults.get(name, {}), **arguments}) or "Done"

    async def _text(self, name: str, arguments: Mapping[str, Any]) -> str:
        reply = await self._call_tool(name, arguments)
        if reply.is_error:
            raise StepFailed(reply.text)
        return reply.text
