"""Arguments of the tools that drive a desktop or a phone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, dataclass_transform

import attrs

from .schema import Tool, tool, wire_field

_T = TypeVar("_T")


def _same_name(name: str) -> str:
    return name


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(attrs.field, wire_field))
def ui_tool(name: str, server: str = "wuying_ui") -> Callable[[type[_T]], type[_T]]:
    """Register the arguments of a tool, with snake case names on the wire."""
    return tool(name, server, _same_name)


# ── Mouse ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@ui_tool("click_mouse")
class ClickMouse(Tool):
    """Click at a point, in pixels from the upper left corner.

    `button` is left, right, middle or double_left.
    """

    x: int
    y: int
    button: str


@ui_tool("move_mouse")
class MoveMouse(Tool):
    """Move the mouse pointer to a point, in pixels from the upper left corner."""

    x: int
    y: int


@ui_tool("drag_mouse")
class DragMouse(Tool):
    """Press a button at one point and release it at another.

    `button` is left, right or middle.
    """

    from_x: int
    from_y: int
    to_x: int
    to_y: int
    button: str


@ui_tool("scroll")
class Scroll(Tool):
    """Turn the mouse wheel at a point.

    `direction` is up, down, left or right, `amount` counts notches.
    """

    x: int
    y: int
    direction: str
    amount: int


@ui_tool("get_cursor_position")
class GetCursorPosition(Tool):
    """Return the position of the mouse pointer as JSON."""


# ── Keyboard ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@ui_tool("input_text")
class InputText(Tool):
    """Type text into whatever has the input focus."""

    text: str


@ui_tool("press_keys")
class PressKeys(Tool):
    """Press keys together, such as Ctrl and c.

    With `hold` they stay down until `release_keys`.
    """

    keys: list[str]
    hold: bool


@ui_tool("release_keys")
class ReleaseKeys(Tool):
    """Release keys that are held down."""

    keys: list[str]


# ── Screen ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@ui_tool("get_screen_size")
class GetScreenSize(Tool):
    """Return width, height and scaling factor of the screen as JSON."""


@ui_tool("system_screenshot", "mcp-server")
class SystemScreenshot(Tool):
    """Store a screenshot in object storage and return its URL."""


@ui_tool("screenshot", "wuying_capture")
class Screenshot(Tool):
    """Return a screenshot as JSON with the image in base64.

    `format` is png or jpeg.
    """

    format: str


@ui_tool("long_screenshot", "wuying_capture")
class LongScreenshot(Tool):
    """Scroll, and return one screenshot of several screens as JSON.

    `quality` is 1 to 100, for jpeg.
    """

    max_screens: int
    format: str
    quality: int | None = None


# ── Windows ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@ui_tool("list_root_windows")
class ListRootWindows(Tool):
    """List the top-level windows as JSON. `timeout_ms` is milliseconds."""

    timeout_ms: int


@ui_tool("get_active_window")
class GetActiveWindow(Tool):
    """Return the window that has the input focus as JSON."""


@ui_tool("activate_window")
class ActivateWindow(Tool):
    """Raise a window and give it the input focus."""

    window_id: int


@ui_tool("close_window")
class CloseWindow(Tool):
    """Close a window."""

    window_id: int


@ui_tool("maximize_window")
class MaximizeWindow(Tool):
    """Maximize a window."""

    window_id: int


@ui_tool("minimize_window")
class MinimizeWindow(Tool):
    """Minimize a window."""

    window_id: int


@ui_tool("restore_window")
class RestoreWindow(Tool):
    """Restore a window that is minimized, maximized or fullscreen."""

    window_id: int


@ui_tool("fullscreen_window")
class FullscreenWindow(Tool):
    """Show a window on the whole screen."""

    window_id: int


@ui_tool("resize_window")
class ResizeWindow(Tool):
    """Set the size of a window, in pixels."""

    window_id: int
    width: int
    height: int


@ui_tool("focus_mode")
class FocusMode(Tool):
    """Switch focus mode on or off.

    In focus mode other programs cannot take the input focus.
    """

    on: bool


# ── Applications ─────────────────────────────────────────────────────────────────────────────────────────────────────


@ui_tool("get_installed_apps", "wuying_app")
class GetInstalledApps(Tool):
    """List installed applications as JSON.

    The flags choose those of the start menu, of the desktop, and without those of the system.
    """

    start_menu: bool
    desktop: bool
    ignore_system_app: bool


@ui_tool("start_app", "wuying_app")
class StartApp(Tool):
    """Start an application and list its processes as JSON. `activity` is for phones."""

    start_cmd: str
    work_directory: str | None = None
    activity: str | None = None


@ui_tool("list_visible_apps", "wuying_app")
class ListVisibleApps(Tool):
    """List the processes that have a visible window as JSON."""


@ui_tool("stop_app_by_pname", "wuying_app")
class StopAppByPname(Tool):
    """Stop the processes of a name."""

    pname: str


@ui_tool("stop_app_by_pid", "wuying_app")
class StopAppByPid(Tool):
    """Stop a process by its id."""

    pid: int


@ui_tool("stop_app_by_cmd", "wuying_app")
class StopAppByCmd(Tool):
    """Stop an application by its stop command.

    On a phone the command is the name of the package.
    """

    stop_cmd: str


# ── Phones ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@ui_tool("tap")
class Tap(Tool):
    """Tap a point of the screen, in pixels from the upper left corner."""

    x: int
    y: int


@ui_tool("swipe")
class Swipe(Tool):
    """Swipe from one point to another. `duration_ms` is milliseconds."""

    start_x: int
    start_y: int
    end_x: int
    end_y: int
    duration_ms: int


@ui_tool("send_key")
class SendKey(Tool):
    """Press a key by its Android key code."""

    key: int


@ui_tool("get_clickable_ui_elements")
class GetClickableUiElements(Tool):
    """List the elements of the screen that can be clicked as JSON.

    `timeout_ms` is milliseconds.
    """

    timeout_ms: int


@ui_tool("get_all_ui_elements")
class GetAllUiElements(Tool):
    """List all elements of the screen. `format` is json or xml, `timeout_ms` is milliseconds."""

    timeout_ms: int
    format: str
