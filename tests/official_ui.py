"""Call every desktop and phone method with either client.

Run as `official_ui.py FLAVOUR URL`. Before each step, the program tells the server the name of the step and the answer
of the tool. Prints what each step returned, as JSON.
"""

import asyncio
import base64
import inspect
import json
import sys
import urllib.request
import warnings
from enum import Enum

import agentbay
from agentbay import AppManagerRule, Config, CreateSessionParams, MobileExtraConfig, MouseButton, ScrollDirection

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8
JPEG = b"\xff\xd8\xff" + b"\0" * 8
WINDOW = {
    "window_id": 7,
    "window_title": "Ünïcode",
    "absolute_upper_left_x": 1,
    "absolute_upper_left_y": 2,
    "width": 300,
    "height": 200,
    "pid": 42,
    "pname": "xterm",
    "child_windows": [{"window_id": 8, "window_title": "child"}],
}
ELEMENT = {
    "bounds": "[0,1][20,30]",
    "className": "Button",
    "text": "Öffnen",
    "type": "clickable",
    "resourceId": "id/open",
    "index": 3,
    "isParent": True,
    "children": [{"bounds": {"left": 1, "top": 2, "right": 3, "bottom": 4}, "text": "inner"}, {"bounds": "1,2,3,4"}],
    "contentDesc": "kept",
}


def image(data=PNG, mime="image/png", **facts):
    found = {"type": "image", "mime_type": mime, "width": 8, "height": 4, "data": base64.b64encode(data).decode()}
    return json.dumps({**found, **facts})


def simple(value):
    """Return a result as JSON values, without what only one client has."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {key: simple(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [simple(item) for item in value]
    if hasattr(value, "__dict__"):
        left_out = ("request_id", "exception", "code", "message", "http_status_code")
        return {key: simple(item) for key, item in vars(value).items() if key not in left_out}
    return value


async def resolve(value):
    return await value if inspect.isawaitable(value) else value


class Program:
    def __init__(self, flavour, url):
        self.url, self.found = url, {}
        kind = agentbay.AsyncAgentBay if flavour == "async" else agentbay.AgentBay
        self.client = kind(api_key="akm-EXAMPLE", cfg=Config(endpoint=url))

    def tell(self, name, text="", is_error=False):
        body = json.dumps({"step": name, "text": text, "isError": is_error}).encode()
        urllib.request.urlopen(f"{self.url}/step", data=body).close()

    async def step(self, name, call, text="", is_error=False):
        self.tell(name, text, is_error)
        try:
            self.found[name] = simple(await resolve(call()))
        except Exception as error:  # noqa: BLE001 - the class of the error is part of the comparison
            self.found[name] = {"raised": [kind.__name__ for kind in type(error).__mro__[-4:-2]], "text": str(error)}

    async def run(self):
        for route in ("service", "direct"):
            self.tell(f"{route}: create")
            session = (await resolve(self.client.create(CreateSessionParams(labels={"route": route})))).session
            await self.computer(session.computer, f"{route}: computer.")
            await self.mobile(session.mobile, f"{route}: mobile.")
        print(json.dumps(self.found, sort_keys=True))

    async def computer(self, computer, route):
        calls = {
            "click_mouse": lambda: computer.click_mouse(10, 20),
            "click_mouse: right": lambda: computer.click_mouse(10, 20, MouseButton.RIGHT),
            "click_mouse: text": lambda: computer.click_mouse(10, 20, "double_left"),
            "click_mouse: no button": lambda: computer.click_mouse(10, 20, "thumb"),
            "move_mouse": lambda: computer.move_mouse(1, 2),
            "drag_mouse": lambda: computer.drag_mouse(1, 2, 3, 4),
            "drag_mouse: middle": lambda: computer.drag_mouse(1, 2, 3, 4, MouseButton.MIDDLE),
            "drag_mouse: double": lambda: computer.drag_mouse(1, 2, 3, 4, MouseButton.DOUBLE_LEFT),
            "scroll": lambda: computer.scroll(5, 6),
            "scroll: down 3": lambda: computer.scroll(5, 6, ScrollDirection.DOWN, 3),
            "scroll: nowhere": lambda: computer.scroll(5, 6, "inwards"),
            "input_text": lambda: computer.input_text("héllo 😀"),
            "press_keys": lambda: computer.press_keys(["CTRL", "A", "esc", "é"], hold=True),
            "press_keys: once": lambda: computer.press_keys(["Enter"]),
            "release_keys": lambda: computer.release_keys(["Ctrl"]),
            "activate_window": lambda: computer.activate_window(7),
            "close_window": lambda: computer.close_window(7),
            "maximize_window": lambda: computer.maximize_window(7),
            "minimize_window": lambda: computer.minimize_window(7),
            "restore_window": lambda: computer.restore_window(7),
            "fullscreen_window": lambda: computer.fullscreen_window(7),
            "resize_window": lambda: computer.resize_window(7, 640, 480),
            "focus_mode": lambda: computer.focus_mode(True),
            "stop_app_by_pname": lambda: computer.stop_app_by_pname("xterm"),
            "stop_app_by_pid": lambda: computer.stop_app_by_pid(42),
            "stop_app_by_cmd": lambda: computer.stop_app_by_cmd("pkill xterm"),
        }
        for name, call in calls.items():
            await self.step(route + name, call)
            if ":" not in name:
                await self.step(f"{route}{name}: refused", call, "It is not there", True)
        windows, size = computer.list_root_windows, computer.get_screen_size
        await self.step(f"{route}get_cursor_position", computer.get_cursor_position, '{"x": 150, "y": 250}')
        await self.step(f"{route}get_screen_size", size, '{"width": 1024, "height": 768, "dpiScalingFactor": 1.0}')
        await self.step(f"{route}get_screen_size: refused", size, "No screen", True)
        await self.step(f"{route}list_root_windows", windows, json.dumps([WINDOW]))
        await self.step(f"{route}list_root_windows: none", windows, "[]")
        await self.step(f"{route}list_root_windows: no text", lambda: windows(timeout_ms=100), "")
        await self.step(f"{route}get_active_window", computer.get_active_window, json.dumps(WINDOW))
        await self.step(f"{route}get_active_window: no text", computer.get_active_window, "")
        await self.step(f"{route}get_active_window: refused", computer.get_active_window, "Error in response", True)
        await self.applications(computer, route)
        await self.step(f"{route}list_visible_apps", computer.list_visible_apps, '[{"pname": "a", "pid": 1}]')
        await self.screenshots(computer, route)

    async def applications(self, device, route):
        apps = '[{"name": "Term", "start_cmd": "xterm", "stop_cmd": "x", "work_directory": "/w"}, {}]'
        processes = '[{"pname": "xterm", "pid": 42, "cmdline": "xterm -e"}, {}]'
        await self.step(f"{route}get_installed_apps", lambda: device.get_installed_apps(True, False, True), apps)
        await self.step(f"{route}get_installed_apps: all", lambda: device.get_installed_apps(False, True, False), "[]")
        await self.step(f"{route}start_app", lambda: device.start_app("xterm"), processes)
        await self.step(f"{route}start_app: everything", lambda: device.start_app("xterm", "/tmp", ".Main"), "[]")
        await self.step(f"{route}start_app: refused", lambda: device.start_app("nothing"), "No such program", True)

    async def screenshots(self, device, route):
        await self.step(f"{route}screenshot", device.screenshot, "https://storage.example/shot.png")
        await self.step(f"{route}screenshot: refused", device.screenshot, "No screen", True)
        take = device.beta_take_screenshot
        await self.step(f"{route}beta_take_screenshot", take, image())
        await self.step(f"{route}beta_take_screenshot: jpg", lambda: take("JPG"), image(JPEG, "image/jpeg"))
        await self.step(f"{route}beta_take_screenshot: gif", lambda: take("gif"), image())
        await self.step(f"{route}beta_take_screenshot: no size", take, image(width=None, height=None))
        for name, text in {
            "empty": "",
            "no JSON": "hello",
            "no data": image(data=b""),
            "another image": image(JPEG),
            "another type": image(mime="image/jpeg"),
        }.items():
            await self.step(f"{route}beta_take_screenshot: {name}", take, text)
        await self.step(f"{route}beta_take_screenshot: refused", take, "No screen", True)

    async def mobile(self, mobile, route):
        calls = {
            "tap": lambda: mobile.tap(1, 2),
            "swipe": lambda: mobile.swipe(1, 2, 3, 4),
            "swipe: slowly": lambda: mobile.swipe(1, 2, 3, 4, duration_ms=900),
            "input_text": lambda: mobile.input_text("héllo"),
            "send_key": lambda: mobile.send_key(agentbay.KeyCode.KEYCODE_HOME),
            "stop_app_by_cmd": lambda: mobile.stop_app_by_cmd("com.a"),
        }
        for name, call in calls.items():
            await self.step(route + name, call)
            if ":" not in name:
                await self.step(f"{route}{name}: refused", call, "It is not there", True)
        elements = json.dumps([ELEMENT])
        clickable, every = mobile.get_clickable_ui_elements, mobile.get_all_ui_elements
        await self.step(f"{route}get_clickable_ui_elements", clickable, elements)
        await self.step(f"{route}get_clickable_ui_elements: soon", lambda: clickable(timeout_ms=5), "[]")
        await self.step(f"{route}get_clickable_ui_elements: refused", clickable, "No screen", True)
        await self.step(f"{route}get_all_ui_elements", every, elements)
        await self.step(f"{route}get_all_ui_elements: xml", lambda: every(format="XML"), "<hierarchy/>")
        await self.step(f"{route}get_all_ui_elements: csv", lambda: every(format="csv"), "a,b")
        await self.step(f"{route}get_all_ui_elements: refused", every, "No screen", True)
        await self.applications(mobile, route)
        await self.screenshots(mobile, route)
        long = mobile.beta_take_long_screenshot
        await self.step(f"{route}beta_take_long_screenshot", long, image())
        await self.step(
            f"{route}beta_take_long_screenshot: jpeg", lambda: long(2, "jpeg", 80), image(JPEG, "image/jpeg")
        )
        for name, call in {
            "one screen": lambda: long(1),
            "eleven screens": lambda: long(11),
            "no quality": lambda: long(4, "jpeg", 0),
            "gif": lambda: long(4, "gif"),
        }.items():
            await self.step(f"{route}beta_take_long_screenshot: {name}", call, image())
        await self.step(f"{route}get_adb_url", lambda: mobile.get_adb_url("QAAA key= user@host"))
        await self.settings(mobile, route)

    async def settings(self, mobile, route):
        config = MobileExtraConfig(
            lock_resolution=True,
            app_manager_rule=AppManagerRule("White", ["com.a", "com.b"]),
            hide_navigation_bar=False,
            uninstall_blacklist=["com.c"],
        )
        ended = json.dumps({"stdout": "", "stderr": "", "exit_code": 0})
        calls = {
            "configure": lambda: mobile.configure(config),
            "configure: nothing": lambda: mobile.configure(MobileExtraConfig()),
            "set_resolution_lock": lambda: mobile.set_resolution_lock(False),
            "set_app_whitelist": lambda: mobile.set_app_whitelist(["com.a"]),
            "set_app_blacklist": lambda: mobile.set_app_blacklist(["com.a", "com.b"]),
            "set_navigation_bar_visibility": lambda: mobile.set_navigation_bar_visibility(True),
            "set_uninstall_blacklist": lambda: mobile.set_uninstall_blacklist(["com.a"]),
            "set_uninstall_blacklist: empty": lambda: mobile.set_uninstall_blacklist([]),
        }
        for name, call in calls.items():
            await self.step(route + name, call, ended)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the published client says that Config(endpoint=...) is deprecated
    asyncio.run(Program(sys.argv[1], sys.argv[2]).run())
