"""The tools of a phone: touch, keys, screen, elements, applications.

In a phone's sessions they take the place of the desktop's tools of the same names.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable
from typing import TypeVar

from agentbay._wire import ui_tools as tools
from agentbay._wire.device_actions import GetAdbLink, LinkUrlData
from agentbay._wire.schema import Tool
from agentbay._wire.tools import ToolReply
from agentbay.local.api_errors import invalid_request
from agentbay.local.handlers.handler_tables import action_handler, tool_handler
from agentbay.local.handlers.results import check_no_nul, error_result, text_result
from agentbay.local.phone import applications, screen
from agentbay.local.phone.adb import Phone, PhoneFailed, find_phone
from agentbay.local.phone.elements import clickable_elements, dump_elements, parse_elements
from agentbay.local.runtime import Runtime
from agentbay.local.sessions.images import has_phone
from agentbay.local.sessions.session import Session

_T = TypeVar("_T", bound=Tool)
_DONE = "True"


def _on_phone(do: Callable[[Phone, _T], Awaitable[str]]) -> Callable[[Session, _T], Awaitable[ToolReply]]:
    """Make a tool's function of one that gets the phone and returns a text."""

    @functools.wraps(do)
    async def run(session: Session, tool: _T) -> ToolReply:
        try:
            return text_result(await do(await find_phone(), tool))
        except PhoneFailed as failure:
            return error_result(f"{failure.code}: {failure}")
        except ValueError as error:
            return error_result(str(error))

    return run


@tool_handler(tools.Tap)
@_on_phone
async def tap(phone: Phone, tool: tools.Tap) -> str:
    await phone.run(f"input tap {tool.x} {tool.y}")
    return _DONE


@tool_handler(tools.Swipe)
@_on_phone
async def swipe(phone: Phone, tool: tools.Swipe) -> str:
    await phone.run(f"input swipe {tool.start_x} {tool.start_y} {tool.end_x} {tool.end_y} {tool.duration_ms}")
    return _DONE


@tool_handler(tools.SendKey)
@_on_phone
async def send_key(phone: Phone, tool: tools.SendKey) -> str:
    await phone.run(f"input keyevent {tool.key}")
    return _DONE


@tool_handler(tools.InputText)
@_on_phone
async def input_text(phone: Phone, tool: tools.InputText) -> str:
    await screen.type_text(phone, tool.text)
    return _DONE


@tool_handler(tools.GetClickableUiElements)
@_on_phone
async def get_clickable_ui_elements(phone: Phone, tool: tools.GetClickableUiElements) -> str:
    found = parse_elements(await dump_elements(phone, tool.timeout_ms / 1000))
    return json.dumps(clickable_elements(found), ensure_ascii=False)


@tool_handler(tools.GetAllUiElements)
@_on_phone
async def get_all_ui_elements(phone: Phone, tool: tools.GetAllUiElements) -> str:
    text = await dump_elements(phone, tool.timeout_ms / 1000)
    return text if tool.format == "xml" else json.dumps(parse_elements(text), ensure_ascii=False)


@tool_handler(tools.Screenshot)
@_on_phone
async def screenshot(phone: Phone, tool: tools.Screenshot) -> str:
    return await screen.take_screenshot(phone, tool.format)


@tool_handler(tools.LongScreenshot)
@_on_phone
async def long_screenshot(phone: Phone, tool: tools.LongScreenshot) -> str:
    if not 2 <= tool.max_screens <= 10 or not 1 <= (tool.quality or 100) <= 100:
        raise ValueError("max_screens must be 2 to 10, and quality 1 to 100")
    return await screen.take_long_screenshot(phone, tool.max_screens, tool.format, tool.quality)


@tool_handler(tools.GetInstalledApps)
@_on_phone
async def get_installed_apps(phone: Phone, tool: tools.GetInstalledApps) -> str:
    return json.dumps(await applications.list_applications(phone, ignore_system=tool.ignore_system_app))


@tool_handler(tools.StartApp)
@_on_phone
async def start_app(phone: Phone, tool: tools.StartApp) -> str:
    check_no_nul(tool.start_cmd, tool.activity or "")
    return json.dumps(await applications.start_application(phone, tool.start_cmd, tool.activity or ""))


@tool_handler(tools.StopAppByCmd)
@_on_phone
async def stop_app_by_cmd(phone: Phone, tool: tools.StopAppByCmd) -> str:
    await applications.stop_application(phone, tool.stop_cmd)
    return _DONE


@action_handler(GetAdbLink)
async def get_adb_link(runtime: Runtime, action: GetAdbLink) -> LinkUrlData:
    """Tell how adb reaches the phone, if that is over the network."""
    session = runtime.sessions.find(action.session_id)
    if not has_phone(session.image_id):
        raise invalid_request("Only the sessions of mobile images have a phone.", "PhoneNotFound.Local")
    phone = await require_phone()
    if ":" not in phone.serial:
        raise invalid_request(f"The phone is plugged into this machine: adb -s {phone.serial} reaches it.")
    return LinkUrlData(url=f"adb connect {phone.serial}")


async def require_phone() -> Phone:
    """Return the phone that is plugged in.

    Raises:
        InvalidRequestError: There is none that can be used.
    """
    try:
        return await find_phone()
    except PhoneFailed as failure:
        raise invalid_request(str(failure), failure.code) from failure
