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


@ui_tool("click_mouse")
class ClickMouse(Tool):
    """Click at a point."""

    x: int = wire_field(description="Pixels from the left edge of the screen.")
    y: int = wire_field(description="Pixels from the upper edge of the screen.")
    button: str = wire_field(description="left, right, middle or double_left.")


@ui_tool("move_mouse")
class MoveMouse(Tool):
    """Move the mouse pointer to a point."""

    x: int = wire_field(description="Pixels from the left edge of the screen.")
    y: int = wire_field(description="Pixels from the upper edge of the screen.")


@ui_tool("drag_mouse")
class DragMouse(Tool):
    """Press a button at one point and release it at another."""

    from_x: int = wire_field(description="Where the button is pressed: pixels from the left.")
    from_y: int = wire_field(description="Where the button is pressed: pixels from above.")
    to_x: int = wire_field(description="Where it is released: pixels from the left.")
    to_y: int = wire_field(description="Where it is released: pixels from above.")
    button: str = wire_field(description="left, right or middle.")


@ui_tool("scroll")
class Scroll(Tool):
    """Turn the mouse wheel at a point."""

    x: int = wire_field(description="Pixels from the left edge of the screen.")
    y: int = wire_field(description="Pixels from the upper edge of the screen.")
    direction: str = wire_field(description="up, down, left or right.")
    amount: int = wire_field(description="Notches of the wheel.")


@ui_tool("get_cursor_position")
class GetCursorPosition(Tool):
    """Return the position of the mouse pointer as JSON."""


@ui_tool("input_text")
class InputText(Tool):
    """Type text into whatever has the input focus."""

    text: str = wire_field(description="Any Unicode text; a line feed is the Enter key.")


@ui_tool("press_keys")
class PressKeys(Tool):
    """Press keys together, such as Ctrl and c."""

    keys: list[str] = wire_field(description="Characters, or names such as Ctrl, Enter and F5.")
    hold: bool = wire_field(description="Keep them down until release_keys.")


@ui_tool("release_keys")
class ReleaseKeys(Tool):
    """Release keys that are held down."""

    keys: list[str] = wire_field(description="The keys, as press_keys names them.")


@ui_tool("get_screen_size")
class GetScreenSize(Tool):
    """Return width, height and scaling factor of the screen as JSON."""


@ui_tool("system_screenshot", "mcp-server")
class SystemScreenshot(Tool):
    """Store a screenshot in object storage and return its URL."""


@ui_tool("screenshot", "wuying_capture")
class Screenshot(Tool):
    """Return a screenshot as JSON with the image in base64."""

    format: str = wire_field(description="png or jpeg.")


@ui_tool("long_screenshot", "wuying_capture")
class LongScreenshot(Tool):
    """Scroll, and return one screenshot of several screens as JSON."""

    max_screens: int = wire_field(description="Screens to scroll through, 2 to 10.")
    format: str = wire_field(description="png or jpeg.")
    quality: int | None = wire_field(default=None, description="1 to 100, for jpeg.")


@ui_tool("list_root_windows")
class ListRootWindows(Tool):
    """List the top-level windows as JSON."""

    timeout_ms: int = wire_field(description="Milliseconds that the search may take.")


@ui_tool("get_active_window")
class GetActiveWindow(Tool):
    """Return the window that has the input focus as JSON."""


@ui_tool("activate_window")
class ActivateWindow(Tool):
    """Raise a window and give it the input focus."""

    window_id: int = wire_field(description="The window, as list_root_windows tells it.")


@ui_tool("close_window")
class CloseWindow(Tool):
    """Close a window."""

    window_id: int = wire_field(description="The window, as list_root_windows tells it.")


@ui_tool("maximize_window")
class MaximizeWindow(Tool):
    """Maximize a window."""

    window_id: int = wire_field(description="The window, as list_root_windows tells it.")


@ui_tool("minimize_window")
class MinimizeWindow(Tool):
    """Minimize a window."""

    window_id: int = wire_field(description="The window, as list_root_windows tells it.")


@ui_tool("restore_window")
class RestoreWindow(Tool):
    """Restore a window that is minimized, maximized or fullscreen."""

    window_id: int = wire_field(description="The window, as list_root_windows tells it.")


@ui_tool("fullscreen_window")
class FullscreenWindow(Tool):
    """Show a window on the whole screen."""

    window_id: int = wire_field(description="The window, as list_root_windows tells it.")


@ui_tool("resize_window")
class ResizeWindow(Tool):
    """Set the size of a window."""

    window_id: int = wire_field(description="The window, as list_root_windows tells it.")
    width: int = wire_field(description="Pixels.")
    height: int = wire_field(description="Pixels.")


@ui_tool("focus_mode")
class FocusMode(Tool):
    """Switch focus mode on or off.

    In focus mode other programs cannot take the input focus.
    """

    on: bool = wire_field(description="True to switch it on.")


@ui_tool("get_installed_apps", "wuying_app")
class GetInstalledApps(Tool):
    """List installed applications as JSON."""

    start_menu: bool = wire_field(description="Those of the start menu.")
    desktop: bool = wire_field(description="Those with an icon on the desktop.")
    ignore_system_app: bool = wire_field(description="Leave out those of the system.")


@ui_tool("start_app", "wuying_app")
class StartApp(Tool):
    """Start an application and list its processes as JSON."""

    start_cmd: str = wire_field(description="The command that starts it.")
    work_directory: str | None = wire_field(default=None, description="Where it starts; the home directory if absent.")
    activity: str | None = wire_field(default=None, description="On a phone, which of its screens to show.")


@ui_tool("list_visible_apps", "wuying_app")
class ListVisibleApps(Tool):
    """List the processes that have a visible window as JSON."""


@ui_tool("stop_app_by_pname", "wuying_app")
class StopAppByPname(Tool):
    """Stop the processes of a name."""

    pname: str = wire_field(description="The name of its program.")


@ui_tool("stop_app_by_pid", "wuying_app")
class StopAppByPid(Tool):
    """Stop a process by its id."""

    pid: int = wire_field(description="The id of its process.")


@ui_tool("stop_app_by_cmd", "wuying_app")
class StopAppByCmd(Tool):
    """Stop an application by its stop command."""

    stop_cmd: str = wire_field(description="The command that stops it; on a phone, the name of its package.")


@ui_tool("tap")
class Tap(Tool):
    """Tap a point of the screen, in pixels from the upper left corner."""

    x: int = wire_field(description="Pixels from the left edge.")
    y: int = wire_field(description="Pixels from the upper edge.")


@ui_tool("swipe")
class Swipe(Tool):
    """Swipe from one point to another."""

    start_x: int = wire_field(description="Pixels from the left edge.")
    start_y: int = wire_field(description="Pixels from the upper edge.")
    end_x: int = wire_field(description="Where it ends, in pixels from the left edge.")
    end_y: int = wire_field(description="Where it ends, in pixels from the upper edge.")
    duration_ms: int = wire_field(description="Milliseconds that it takes.")


@ui_tool("send_key")
class SendKey(Tool):
    """Press a key by its Android key code."""

    key: int = wire_field(description="The Android key code, as 4 for the back key.")


@ui_tool("get_clickable_ui_elements")
class GetClickableUiElements(Tool):
    """List the elements of the screen that can be clicked as JSON."""

    timeout_ms: int = wire_field(description="Milliseconds that the search may take.")


@ui_tool("get_all_ui_elements")
class GetAllUiElements(Tool):
    """List all elements of the screen."""

    timeout_ms: int = wire_field(description="Milliseconds that the search may take.")
    format: str = wire_field(description="json or xml.")
