"""What each request of the service does.

Modules that only some requests need are imported there, so that a desktop starts sooner.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from Xlib.error import ConnectionClosedError, XError

if TYPE_CHECKING:
    from agentbay.local.desktop.inside.view import LiveView

from agentbay.local.desktop.inside import pictures, processes
from agentbay.local.desktop.inside.applications import Applications
from agentbay.local.desktop.inside.keyboard import Keyboard
from agentbay.local.desktop.inside.pointer import Pointer
from agentbay.local.desktop.inside.refusal import Refused
from agentbay.local.desktop.inside.windows import Windows


class Requests:
    """Does requests on one display."""

    def __init__(self, display: Any) -> None:
        self.windows, self.applications = Windows(display), Applications()
        self._display, self._pointer = display, Pointer(display, self.windows.wait_for_program)
        self._keyboard = Keyboard(display, self.windows.wait_for_program)
        self._view: LiveView | None = None

    def do(self, request: dict[str, Any]) -> str | bytes:
        """Do a request, and return a text or an image.

        Raises:
            Refused: It cannot be done.
        """
        action: Callable[..., object] = getattr(self, f"_{request.pop('do')}")
        try:
            result = action(**request)
        except ConnectionClosedError:
            raise
        except XError as error:  # such as a window that its program has closed meanwhile
            raise Refused(f"the X server has refused it: {type(error).__name__}") from error
        if isinstance(result, bytes):
            return result
        return "" if result is None else json.dumps(result, ensure_ascii=False)

    def _click(self, x: int, y: int, button: str) -> None:
        self._pointer.click(x, y, button)

    def _move(self, x: int, y: int) -> None:
        self._pointer.move(x, y)

    def _drag(self, from_x: int, from_y: int, to_x: int, to_y: int, button: str) -> None:
        self._pointer.drag(from_x, from_y, to_x, to_y, button)

    def _scroll(self, x: int, y: int, direction: str, amount: int) -> None:
        self._pointer.scroll(x, y, direction, amount)

    def _position(self) -> dict[str, int]:
        return self._pointer.position()

    def _type(self, text: str) -> None:
        self._keyboard.type(text)

    def _press(self, keys: list[str], hold: bool) -> None:
        self._keyboard.press(keys, hold=hold)

    def _release(self, keys: list[str]) -> None:
        self._keyboard.release(keys)

    def _size(self) -> dict[str, float]:
        width, height = self._pointer.screen_size()
        return {"width": width, "height": height, "dpiScalingFactor": 1.0}

    def _screenshot(self, format: str) -> bytes:
        return pictures.take_screenshot(self._display, format)

    def _open_view(self, prefix: str, files: dict[str, str]) -> int:
        from agentbay.local.desktop.inside.view import LiveView

        if self._view is None or not self._view.is_running():
            self._view = LiveView(prefix, files)
        return self._view.port

    def _list_windows(self) -> list[dict[str, Any]]:
        return self.windows.describe_all()

    def _active_window(self) -> dict[str, Any]:
        return self.windows.active()

    def _change_window(self, change: str, window_id: int) -> None:
        changes = {
            "activate": self.windows.activate,
            "close": self.windows.close,
            "maximize": self.windows.maximize,
            "minimize": self.windows.minimize,
            "restore": self.windows.restore,
            "fullscreen": self.windows.fullscreen,
        }
        changes[change](window_id)

    def _resize_window(self, window_id: int, width: int, height: int) -> None:
        self.windows.resize(window_id, width, height)

    def _focus_mode(self, on: bool) -> None:
        self.windows.set_focus_mode(on)

    def _installed_apps(self, start_menu: bool, desktop: bool, ignore_system: bool) -> list[dict[str, str]]:
        from agentbay.local.desktop.inside.installed_apps import installed

        return installed(start_menu=start_menu, desktop=desktop, ignore_system=ignore_system)

    def _start_app(self, command: str, directory: str, environment: dict[str, str]) -> int:
        return self.applications.start(command, directory, environment)

    def _app_state(self, leader: int, is_last: bool) -> list[dict[str, object]] | None:
        return self.applications.state(leader, self.windows.visible_pids(), is_last=is_last)

    def _visible_apps(self) -> list[dict[str, Any]]:
        return processes.describe(self.windows.visible_pids())

    def _stop_named(self, name: str) -> None:
        found = processes.named(name)
        if not found:
            raise Refused(f"no process is called {name!r:.80}")
        processes.stop(found)

    def _stop_pid(self, pid: int) -> None:
        if not processes.is_running(pid):
            raise Refused(f"there is no process {pid}")
        processes.stop([pid])
