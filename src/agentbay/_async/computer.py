"""The desktop of a session: mouse, keyboard, screen, windows, applications."""

from __future__ import annotations

from .._arguments import checked_arguments
from .._transport.deadline import time_limit
from .._transport.ui import check_choice, read_object, read_window, read_windows
from .._wire import ui_tools as wire
from .._wire.key_names import normalize_key
from ..models.base import BoolResult, OperationResult
from ..models.computer import (
    AppOperationResult,
    InstalledAppListResult,
    MouseButton,
    ProcessListResult,
    ScrollDirection,
    WindowInfoResult,
    WindowListResult,
)
from .error_boundary import folded
from .service import text_or_raise
from .ui_service import AsyncUiService

_BUTTONS = tuple(button.value for button in MouseButton)
_DRAG_BUTTONS = tuple(button for button in _BUTTONS if button != MouseButton.DOUBLE_LEFT.value)
_DIRECTIONS = tuple(direction.value for direction in ScrollDirection)


@checked_arguments()
class AsyncComputer(AsyncUiService):
    """Drive the desktop of a session.

    Coordinates are pixels from the upper left corner of the screen. `timeout` is seconds that a method may take; None
    is the client's time limit.
    """

    async def click_mouse(
        self, x: int, y: int, button: MouseButton | str = MouseButton.LEFT, *, timeout: float | None = None
    ) -> BoolResult:
        """Click at a point.

        Raises:
            InvalidArgumentError: For a button that there is not.

        Wire: CallMcpTool/click_mouse
        """
        with time_limit(timeout):
            return await self._act(wire.ClickMouse(x=x, y=y, button=check_choice("button", button, _BUTTONS)))

    @folded(BoolResult)
    async def move_mouse(self, x: int, y: int, *, timeout: float | None = None) -> BoolResult:
        """Move the mouse pointer to a point.

        Wire: CallMcpTool/move_mouse
        """
        with time_limit(timeout):
            return await self._run_bool(wire.MoveMouse(x=x, y=y))

    async def drag_mouse(
        self,
        from_x: int,
        from_y: int,
        to_x: int,
        to_y: int,
        button: MouseButton | str = MouseButton.LEFT,
        *,
        timeout: float | None = None,
    ) -> BoolResult:
        """Press a button at one point and release it at another.

        Raises:
            InvalidArgumentError: For a button that cannot be dragged with.

        Wire: CallMcpTool/drag_mouse
        """
        with time_limit(timeout):
            chosen = check_choice("button", button, _DRAG_BUTTONS)
            return await self._act(wire.DragMouse(from_x=from_x, from_y=from_y, to_x=to_x, to_y=to_y, button=chosen))

    async def scroll(
        self,
        x: int,
        y: int,
        direction: ScrollDirection | str = ScrollDirection.UP,
        amount: int = 1,
        *,
        timeout: float | None = None,
    ) -> BoolResult:
        """Turn the mouse wheel at a point.

        Args:
            direction: Where to.
            amount: Notches of the wheel.
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            InvalidArgumentError: For a direction that there is not.

        Wire: CallMcpTool/scroll
        """
        with time_limit(timeout):
            chosen = check_choice("direction", direction, _DIRECTIONS)
            return await self._act(wire.Scroll(x=x, y=y, direction=chosen, amount=amount))

    @folded(OperationResult)
    async def get_cursor_position(self, *, timeout: float | None = None) -> OperationResult:
        """Tell where the mouse pointer is.

        Returns:
            A dict with `x` and `y` in `data`.

        Wire: CallMcpTool/get_cursor_position
        """
        with time_limit(timeout):
            reply = await self.session._run_tool(wire.GetCursorPosition())
            data = read_object(text_or_raise(reply), "cursor position")
            return OperationResult(request_id=reply.request_id, success=True, data=data)

    @folded(BoolResult)
    async def press_keys(self, keys: list[str], hold: bool = False, *, timeout: float | None = None) -> BoolResult:
        """Press keys together.

        Args:
            keys: Such as `["Ctrl", "c"]`; upper and lower case do not matter.
            hold: Keep them down until `release_keys`.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/press_keys
        """
        with time_limit(timeout):
            return await self._run_bool(wire.PressKeys(keys=keys, hold=hold))

    @folded(BoolResult)
    async def release_keys(self, keys: list[str], *, timeout: float | None = None) -> BoolResult:
        """Release keys that are held down.

        Wire: CallMcpTool/release_keys
        """
        with time_limit(timeout):
            return await self._run_bool(wire.ReleaseKeys(keys=[normalize_key(key) for key in keys]))

    @folded(OperationResult)
    async def get_screen_size(self, *, timeout: float | None = None) -> OperationResult:
        """Measure the screen.

        Returns:
            A dict with `width`, `height` (pixels) and `dpiScalingFactor` in `data`.

        Wire: CallMcpTool/get_screen_size
        """
        with time_limit(timeout):
            reply = await self.session._run_tool(wire.GetScreenSize())
            data = read_object(text_or_raise(reply), "screen size")
            return OperationResult(request_id=reply.request_id, success=True, data=data)

    @folded(WindowListResult)
    async def list_root_windows(self, timeout_ms: int = 3000, *, timeout: float | None = None) -> WindowListResult:
        """List the top-level windows.

        Args:
            timeout_ms: Milliseconds that the service may look.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/list_root_windows
        """
        with time_limit(timeout):
            reply = await self.session._run_tool(wire.ListRootWindows(timeout_ms=timeout_ms))
        windows = read_windows(text_or_raise(reply))
        return WindowListResult(request_id=reply.request_id, success=True, windows=windows)

    @folded(WindowInfoResult)
    async def get_active_window(self, *, timeout: float | None = None) -> WindowInfoResult:
        """Return the window that has the input focus.

        Wire: CallMcpTool/get_active_window
        """
        with time_limit(timeout):
            reply = await self.session._run_tool(wire.GetActiveWindow())
            window = read_window(text_or_raise(reply))
            return WindowInfoResult(request_id=reply.request_id, success=True, window=window)

    @folded(BoolResult)
    async def activate_window(self, window_id: int, *, timeout: float | None = None) -> BoolResult:
        """Raise a window and give it the input focus.

        Wire: CallMcpTool/activate_window
        """
        with time_limit(timeout):
            return await self._run_bool(wire.ActivateWindow(window_id=window_id))

    @folded(BoolResult)
    async def close_window(self, window_id: int, *, timeout: float | None = None) -> BoolResult:
        """Close a window.

        Wire: CallMcpTool/close_window
        """
        with time_limit(timeout):
            return await self._run_bool(wire.CloseWindow(window_id=window_id))

    @folded(BoolResult)
    async def maximize_window(self, window_id: int, *, timeout: float | None = None) -> BoolResult:
        """Maximize a window.

        Wire: CallMcpTool/maximize_window
        """
        with time_limit(timeout):
            return await self._run_bool(wire.MaximizeWindow(window_id=window_id))

    @folded(BoolResult)
    async def minimize_window(self, window_id: int, *, timeout: float | None = None) -> BoolResult:
        """Minimize a window.

        Wire: CallMcpTool/minimize_window
        """
        with time_limit(timeout):
            return await self._run_bool(wire.MinimizeWindow(window_id=window_id))

    @folded(BoolResult)
    async def restore_window(self, window_id: int, *, timeout: float | None = None) -> BoolResult:
        """Restore a window that is minimized, maximized or fullscreen.

        Wire: CallMcpTool/restore_window
        """
        with time_limit(timeout):
            return await self._run_bool(wire.RestoreWindow(window_id=window_id))

    @folded(BoolResult)
    async def fullscreen_window(self, window_id: int, *, timeout: float | None = None) -> BoolResult:
        """Show a window on the whole screen.

        Wire: CallMcpTool/fullscreen_window
        """
        with time_limit(timeout):
            return await self._run_bool(wire.FullscreenWindow(window_id=window_id))

    @folded(BoolResult)
    async def resize_window(
        self, window_id: int, width: int, height: int, *, timeout: float | None = None
    ) -> BoolResult:
        """Set the size of a window, in pixels.

        Wire: CallMcpTool/resize_window
        """
        with time_limit(timeout):
            return await self._run_bool(wire.ResizeWindow(window_id=window_id, width=width, height=height))

    @folded(BoolResult)
    async def focus_mode(self, on: bool, *, timeout: float | None = None) -> BoolResult:
        """Switch focus mode on or off.

        In focus mode other programs cannot take the input focus.

        Wire: CallMcpTool/focus_mode
        """
        with time_limit(timeout):
            return await self._run_bool(wire.FocusMode(on=on))

    @folded(InstalledAppListResult)
    async def get_installed_apps(
        self,
        start_menu: bool = True,
        desktop: bool = False,
        ignore_system_apps: bool = True,
        *,
        timeout: float | None = None,
    ) -> InstalledAppListResult:
        """List the applications that can be started.

        Args:
            start_menu: Those of the start menu.
            desktop: Those with an icon on the desktop.
            ignore_system_apps: Leave out those of the system.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/get_installed_apps
        """
        with time_limit(timeout):
            return await self._list_apps(start_menu, desktop, ignore_system_apps)

    @folded(ProcessListResult)
    async def list_visible_apps(self, *, timeout: float | None = None) -> ProcessListResult:
        """List the processes that have a visible window.

        Wire: CallMcpTool/list_visible_apps
        """
        with time_limit(timeout):
            return await self._list_processes(wire.ListVisibleApps())

    @folded(AppOperationResult)
    async def stop_app_by_pname(self, pname: str, *, timeout: float | None = None) -> AppOperationResult:
        """Stop the processes of a name.

        Wire: CallMcpTool/stop_app_by_pname
        """
        with time_limit(timeout):
            return await self._stop_app(wire.StopAppByPname(pname=pname))

    @folded(AppOperationResult)
    async def stop_app_by_pid(self, pid: int, *, timeout: float | None = None) -> AppOperationResult:
        """Stop a process by its id.

        Wire: CallMcpTool/stop_app_by_pid
        """
        with time_limit(timeout):
            return await self._stop_app(wire.StopAppByPid(pid=pid))

    @folded(BoolResult)
    async def _act(self, call: wire.ClickMouse | wire.DragMouse | wire.Scroll) -> BoolResult:
        return await self._run_bool(call)
