"""Read the texts of the desktop and phone tools, and check their arguments."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import AgentBayError, InvalidArgumentError, ReplyError
from ..models.computer import AppProcess, InstalledApp, Window

_IMAGE_FORMATS = {"png": "png", "jpeg": "jpeg", "jpg": "jpeg"}
_IMAGE_SIGNATURES = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff"}
_BOUNDS_TEXT = re.compile(r"-?\d+")
UI_FORMATS = ("json", "xml")


class ScreenshotData(NamedTuple):
    """An image as the tool returned it, see `ScreenshotResult`."""

    type: str
    data: bytes
    mime_type: str
    width: int | None
    height: int | None


def check_choice(name: str, value: str, choices: Sequence[str]) -> str:
    """Return the text of a choice, given as text or enum member.

    Raises:
        InvalidArgumentError: It is not one of the choices.
    """
    text = getattr(value, "value", value)
    if text not in choices:
        raise InvalidArgumentError(f"Invalid {name} '{text}'. Must be one of {list(choices)}")
    return str(text)


def check_image_format(name: str) -> str:
    """Return "png" or "jpeg".

    Raises:
        InvalidArgumentError: It is another format.
    """
    found = _IMAGE_FORMATS.get(name.strip().lower()) if isinstance(name, str) else None
    if found is None:
        raise InvalidArgumentError("Invalid format: must be 'png', 'jpeg', or 'jpg'")
    return found


def check_range(name: str, value: int, lowest: int, highest: int) -> int:
    """Return a whole number within bounds.

    Raises:
        InvalidArgumentError: It is no whole number, or out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise InvalidArgumentError(f"Invalid {name}: must be an integer in [{lowest}, {highest}]")
    return value


def read_json(text: str, what: str) -> Any:
    """Parse the text of a tool that answers with JSON.

    Raises:
        ReplyError: It is no JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ReplyError(f"Failed to parse {what} JSON: {error}") from error


def read_objects(text: str, what: str) -> list[dict[str, Any]]:
    """Parse the text of a tool that answers with a JSON array of objects.

    Raises:
        ReplyError: It is something else.
    """
    found = read_json(text, what)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ReplyError(f"Failed to parse {what} JSON: it is no array of objects")
    return found


def read_object(text: str, what: str) -> dict[str, Any]:
    """Parse the text of a tool that answers with a JSON object.

    Raises:
        ReplyError: It is something else.
    """
    found = read_json(text, what)
    if not isinstance(found, dict):
        raise ReplyError(f"Failed to parse {what} JSON: it is no object")
    return found


def read_windows(text: str) -> list[Window]:
    """Read the text of `list_root_windows`, where no text means no window."""
    return [_window(fields) for fields in read_objects(text, "windows")] if text else []


def read_window(text: str) -> Window | None:
    """Read the text of `get_active_window`, where no text means no window."""
    return _window(read_object(text, "window")) if text else None


def _window(fields: dict[str, Any]) -> Window:
    children = fields.get("child_windows")
    return Window(
        window_id=fields.get("window_id") or 0,
        title=fields.get("window_title") or "",
        absolute_upper_left_x=fields.get("absolute_upper_left_x"),
        absolute_upper_left_y=fields.get("absolute_upper_left_y"),
        width=fields.get("width"),
        height=fields.get("height"),
        pid=fields.get("pid"),
        pname=fields.get("pname"),
        child_windows=[_window(child) for child in children if isinstance(child, dict)] if children else [],
    )


def read_apps(text: str) -> list[InstalledApp]:
    """Read the text of `get_installed_apps`."""
    return [
        InstalledApp(
            fields.get("name") or "",
            fields.get("start_cmd") or "",
            fields.get("stop_cmd"),
            fields.get("work_directory"),
        )
        for fields in read_objects(text, "applications")
    ]


def read_processes(text: str) -> list[AppProcess]:
    """Read the text of `start_app` and `list_visible_apps`."""
    return [
        AppProcess(fields.get("pname") or "", fields.get("pid") or 0, fields.get("cmdline"))
        for fields in read_objects(text, "processes")
    ]


def read_screenshot(text: str, image_format: str) -> ScreenshotData:
    """Read the JSON text of a screenshot, and check its format.

    Raises:
        AgentBayError: The text holds no image of this format.
    """
    if not text.strip():
        raise AgentBayError("Screenshot tool returned empty data")
    if not text.lstrip().startswith("{"):
        raise AgentBayError("Screenshot tool returned non-JSON data")
    try:
        fields: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AgentBayError(f"Invalid screenshot JSON: {error}") from error
    encoded, mime_type = fields.get("data"), f"image/{image_format}"
    if not isinstance(encoded, str) or not encoded:
        raise AgentBayError("Screenshot JSON missing base64 field")
    for name in ("type", "mime_type"):
        if not isinstance(fields.get(name), str) or not fields[name].strip():
            raise AgentBayError(f"Invalid screenshot JSON: expected non-empty string '{name}'")
    for name in ("width", "height"):
        if not isinstance(fields.get(name), int | None) or isinstance(fields.get(name), bool):
            raise AgentBayError(f"Invalid screenshot JSON: expected integer '{name}'")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise AgentBayError(f"Failed to decode screenshot base64: {error}") from error
    if not data.startswith(_IMAGE_SIGNATURES[image_format]):
        raise AgentBayError(f"Screenshot data does not match expected format '{image_format}'")
    if fields["mime_type"] != mime_type:
        raise AgentBayError(
            "Screenshot JSON mime_type does not match expected format: "
            f"expected '{mime_type}', got '{fields['mime_type']}'"
        )
    return ScreenshotData(fields["type"], data, mime_type, fields.get("width"), fields.get("height"))


def read_clickable_elements(text: str) -> list[dict[str, Any]]:
    """Read the text of `get_clickable_ui_elements`: each element whole, with `bounds_rect` added.

    Raises:
        ReplyError: It is no array of objects.
    """
    return [_with_bounds(element) for element in _elements(text, "clickable UI elements")]


def read_all_elements(text: str) -> list[dict[str, Any]]:
    """Read the JSON text of `get_all_ui_elements`: of each element what all of them have.

    Raises:
        ReplyError: It is no array of objects.
    """
    return [_reduced(element) for element in _elements(text, "UI elements")]


def _elements(text: str, what: str) -> list[dict[str, Any]]:
    try:
        return read_objects(text, what) if text else []
    except ReplyError as error:
        raise ReplyError(f"Failed to parse {what} data: {error.message}") from error


def _children(element: dict[str, Any]) -> list[dict[str, Any]]:
    children = element.get("children")
    return [child for child in children if isinstance(child, dict)] if isinstance(children, list) else []


def _with_bounds(element: dict[str, Any]) -> dict[str, Any]:
    made = {**element, "bounds_rect": _bounds(element.get("bounds"))}
    if "children" in element:
        made["children"] = [_with_bounds(child) for child in _children(element)]
    return made


def _reduced(element: dict[str, Any]) -> dict[str, Any]:
    return {
        "bounds": element.get("bounds"),
        "bounds_rect": _bounds(element.get("bounds")),
        "className": element.get("className") or "",
        "text": element.get("text") or "",
        "type": element.get("type") or "",
        "resourceId": element.get("resourceId") or "",
        "index": element.get("index", -1),
        "isParent": bool(element.get("isParent", False)),
        "children": [_reduced(child) for child in _children(element)],
    }


def _bounds(bounds: object) -> dict[str, int] | None:
    """Return left, top, right and bottom in pixels, from `[l,t][r,b]`, `l,t,r,b` or an object."""
    names = ("left", "top", "right", "bottom")
    if isinstance(bounds, dict):
        found = {name: value for name in names if isinstance(value := bounds.get(name), int)}
        return found if len(found) == len(names) else None
    if isinstance(bounds, str):
        numbers = [int(number) for number in _BOUNDS_TEXT.findall(bounds)[:4]]
        return dict(zip(names, numbers, strict=True)) if len(numbers) == 4 else None
    return None
