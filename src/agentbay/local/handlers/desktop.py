"""The tools of the desktop: mouse, keyboard, screen, windows, applications."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from typing import Any

from agentbay._wire import ui_tools as tools
from agentbay._wire.key_names import normalize_key
from agentbay._wire.tools import ToolReply
from agentbay.local.api_errors import invalid_request
from agentbay.local.desktop.connection import DesktopFailed, Reply
from agentbay.local.handlers.handler_tables import tool_handler
from agentbay.local.handlers.results import check_no_nul, error_result, text_result
from agentbay.local.runtime import Runtime
from agentbay.local.sessions.port_tokens import make_port_token
from agentbay.local.sessions.session import Session
from agentbay.local.worker_thread import run_by_size

_WINDOW_SECONDS = 10.0  # for an application to show its first window, which some never do
_POLL_SECONDS = 0.02
_STOP_SECONDS = 30.0  # for a stop command


@tool_handler(tools.ClickMouse)
async def click_mouse(session: Session, tool: tools.ClickMouse) -> ToolReply:
    return await _ask(session, "click", x=tool.x, y=tool.y, button=tool.button)


@tool_handler(tools.MoveMouse)
async def move_mouse(session: Session, tool: tools.MoveMouse) -> ToolReply:
    return await _ask(session, "move", x=tool.x, y=tool.y)


@tool_handler(tools.DragMouse)
async def drag_mouse(session: Session, tool: tools.DragMouse) -> ToolReply:
    points = {"from_x": tool.from_x, "from_y": tool.from_y, "to_x": tool.to_x, "to_y": tool.to_y}
    return await _ask(session, "drag", **points, button=tool.button)


@tool_handler(tools.Scroll)
async def scroll(session: Session, tool: tools.Scroll) -> ToolReply:
    return await _ask(session, "scroll", x=tool.x, y=tool.y, direction=tool.direction, amount=tool.amount)


@tool_handler(tools.GetCursorPosition)
async def get_cursor_position(session: Session, tool: tools.GetCursorPosition) -> ToolReply:
    return await _ask(session, "position")


@tool_handler(tools.InputText)
async def input_text(session: Session, tool: tools.InputText) -> ToolReply:
    return await _ask(session, "type", text=tool.text)


@tool_handler(tools.PressKeys)
async def press_keys(session: Session, tool: tools.PressKeys) -> ToolReply:
    return await _ask(session, "press", keys=[normalize_key(key) for key in tool.keys], hold=tool.hold)


@tool_handler(tools.ReleaseKeys)
async def release_keys(session: Session, tool: tools.ReleaseKeys) -> ToolReply:
    return await _ask(session, "release", keys=[normalize_key(key) for key in tool.keys])


@tool_handler(tools.GetScreenSize)
async def get_screen_size(session: Session, tool: tools.GetScreenSize) -> ToolReply:
    return await _ask(session, "size")


@tool_handler(tools.Screenshot)
async def screenshot(session: Session, tool: tools.Screenshot) -> ToolReply:
    try:
        reply = await _request(session, "screenshot", format=tool.format)
    except DesktopFailed as failure:
        return error_result(f"{failure.code}: {failure}")
    if reply.refused:
        return error_result(reply.text)
    width, height = struct.unpack_from("<II", reply.body.ljust(8, b"\0"))
    image = {"type": "image", "mime_type": f"image/{tool.format}", "width": width, "height": height}
    return await run_by_size(len(reply.body), _image_result, image, reply.body[8:])


def _image_result(fields: dict[str, Any], content: bytes) -> ToolReply:
    return text_result(json.dumps({**fields, "data": base64.b64encode(content).decode()}))


@tool_handler(tools.ListRootWindows)
async def list_root_windows(session: Session, tool: tools.ListRootWindows) -> ToolReply:
    return await _ask(session, "list_windows")


@tool_handler(tools.GetActiveWindow)
async def get_active_window(session: Session, tool: tools.GetActiveWindow) -> ToolReply:
    return await _ask(session, "active_window")


@tool_handler(tools.ActivateWindow)
async def activate_window(session: Session, tool: tools.ActivateWindow) -> ToolReply:
    return await _ask(session, "change_window", change="activate", window_id=tool.window_id)


@tool_handler(tools.CloseWindow)
async def close_window(session: Session, tool: tools.CloseWindow) -> ToolReply:
    return await _ask(session, "change_window", change="close", window_id=tool.window_id)


@tool_handler(tools.MaximizeWindow)
async def maximize_window(session: Session, tool: tools.MaximizeWindow) -> ToolReply:
    return await _ask(session, "change_window", change="maximize", window_id=tool.window_id)


@tool_handler(tools.MinimizeWindow)
async def minimize_window(session: Session, tool: tools.MinimizeWindow) -> ToolReply:
    return await _ask(session, "change_window", change="minimize", window_id=tool.window_id)


@tool_handler(tools.RestoreWindow)
async def restore_window(session: Session, tool: tools.RestoreWindow) -> ToolReply:
    return await _ask(session, "change_window", change="restore", window_id=tool.window_id)


@tool_handler(tools.FullscreenWindow)
async def fullscreen_window(session: Session, tool: tools.FullscreenWindow) -> ToolReply:
    return await _ask(session, "change_window", change="fullscreen", window_id=tool.window_id)


@tool_handler(tools.ResizeWindow)
async def resize_window(session: Session, tool: tools.ResizeWindow) -> ToolReply:
    return await _ask(session, "resize_window", window_id=tool.window_id, width=tool.width, height=tool.height)


@tool_handler(tools.FocusMode)
async def focus_mode(session: Session, tool: tools.FocusMode) -> ToolReply:
    return await _ask(session, "focus_mode", on=tool.on)


@tool_handler(tools.GetInstalledApps)
async def get_installed_apps(session: Session, tool: tools.GetInstalledApps) -> ToolReply:
    return await _ask(
        session,
        "installed_apps",
        start_menu=tool.start_menu,
        desktop=tool.desktop,
        ignore_system=tool.ignore_system_app,
    )


@tool_handler(tools.StartApp)
async def start_app(session: Session, tool: tools.StartApp) -> ToolReply:
    """Start an application, and wait a while for its first window."""
    arguments = {"command": tool.start_cmd, "directory": tool.work_directory or ""}
    try:
        check_no_nul(*arguments.values())
    except ValueError as error:
        return error_result(str(error))
    try:
        started = await _request(session, "start_app", **arguments, environment=dict(session.environment))
    except DesktopFailed as failure:
        return error_result(f"{failure.code}: {failure}")
    if started.refused:
        return error_result(started.text)
    leader, loop = started.number, asyncio.get_running_loop()
    end = loop.time() + _WINDOW_SECONDS
    while True:
        state = await _ask(session, "app_state", leader=leader, is_last=loop.time() >= end)
        if state.is_error or state.text:
            return state
        await asyncio.sleep(_POLL_SECONDS)


@tool_handler(tools.ListVisibleApps)
async def list_visible_apps(session: Session, tool: tools.ListVisibleApps) -> ToolReply:
    return await _ask(session, "visible_apps")


@tool_handler(tools.StopAppByPname)
async def stop_app_by_pname(session: Session, tool: tools.StopAppByPname) -> ToolReply:
    return await _ask(session, "stop_named", name=tool.pname)


@tool_handler(tools.StopAppByPid)
async def stop_app_by_pid(session: Session, tool: tools.StopAppByPid) -> ToolReply:
    return await _ask(session, "stop_pid", pid=tool.pid)


@tool_handler(tools.StopAppByCmd)
async def stop_app_by_cmd(session: Session, tool: tools.StopAppByCmd) -> ToolReply:
    """Run the stop command of an application."""
    try:
        check_no_nul(tool.stop_cmd)
    except ValueError as error:
        return error_result(str(error))
    with session.using() as sandbox:
        ended = await sandbox.run(["sh", "-c", tool.stop_cmd], env=session.environment, timeout=_STOP_SECONDS)
    if ended.timed_out:
        return error_result(f"the stop command took longer than {_STOP_SECONDS:.0f} seconds")
    if ended.exit_code:
        reason = ended.stderr.decode("utf-8", "replace").strip()[-500:]
        return error_result(f"the stop command has ended with exit code {ended.exit_code}: {reason}")
    return text_result("True")


async def make_desktop_url(runtime: Runtime, session: Session) -> str:
    """Return the URL of a web page that shows a session's desktop.

    The desktop is started for that.

    Raises:
        InvalidRequestError: There is no desktop on this machine, or it does not start.
    """
    with session.using() as sandbox:
        try:
            port, path = await session.desktop.open_view(sandbox, session.environment)
        except DesktopFailed as failure:
            raise invalid_request(str(failure), failure.code) from failure
    session.environment.update(session.desktop.environment)
    return f"{runtime.address.http_url}/request_ai/{make_port_token(session, port)}/path{path}"


async def _ask(session: Session, do: str, **arguments: object) -> ToolReply:
    """Return the text with which the desktop of a session answers a request."""
    try:
        reply = await _request(session, do, **arguments)
    except DesktopFailed as failure:
        return error_result(f"{failure.code}: {failure}")
    return error_result(reply.text) if reply.refused else text_result(reply.text)


async def _request(session: Session, do: str, **arguments: object) -> Reply:
    with session.using() as sandbox:
        reply = await session.desktop.request(sandbox, session.environment, do, arguments)
    session.environment.update(session.desktop.environment)
    return reply
