"""The phone of a session: touch, keys, elements of the screen, applications, settings."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from .._arguments import checked_arguments
from .._transport.deadline import time_limit
from .._transport.mobile import (
    COMMAND_TIMEOUT_MS,
    blacklist_script,
    navigation_bar_script,
    resolution_lock_script,
    simulate_script,
    uninstall_blacklist_script,
    whitelist_script,
)
from .._transport.ui import (
    UI_FORMATS,
    check_image_format,
    check_range,
    read_all_elements,
    read_clickable_elements,
)
from .._wire.device_actions import GetAdbLink
from .._wire.ui_tools import GetAllUiElements, GetClickableUiElements, LongScreenshot, SendKey, Swipe, Tap
from ..errors import AgentBayError, ReplyError
from ..models.base import BoolResult
from ..models.computer import InstalledAppListResult, ScreenshotResult
from ..models.mobile import AdbUrlResult, MobileExtraConfig, MobileSimulateConfig, UIElementListResult
from .error_boundary import folded
from .service import text_or_raise
from .ui_service import AsyncUiService

_logger = logging.getLogger("agentbay")


@checked_arguments()
class AsyncMobile(AsyncUiService):
    """Drive the phone of a session.

    Coordinates are pixels from the upper left corner of the screen. `timeout` is seconds that a method may take; None
    is the client's time limit.
    """

    @folded(BoolResult)
    async def tap(self, x: int, y: int, *, timeout: float | None = None) -> BoolResult:
        """Tap a point.

        Wire: CallMcpTool/tap
        """
        with time_limit(timeout):
            return await self._run_bool(Tap(x=x, y=y))

    @folded(BoolResult)
    async def swipe(
        self,
        start_x: int,
        start_y: int,
        end_x: int,
        end_y: int,
        duration_ms: int = 300,
        *,
        timeout: float | None = None,
    ) -> BoolResult:
        """Swipe from one point to another.

        Args:
            duration_ms: Milliseconds that the swipe takes.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/swipe
        """
        with time_limit(timeout):
            call = Swipe(start_x=start_x, start_y=start_y, end_x=end_x, end_y=end_y, duration_ms=duration_ms)
            return await self._run_bool(call)

    @folded(BoolResult)
    async def send_key(self, key: int, *, timeout: float | None = None) -> BoolResult:
        """Press a key.

        Args:
            key: Its Android key code, such as `KeyCode.KEYCODE_HOME`.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/send_key
        """
        with time_limit(timeout):
            return await self._run_bool(SendKey(key=key))

    @folded(UIElementListResult)
    async def get_clickable_ui_elements(
        self, timeout_ms: int = 2000, *, timeout: float | None = None
    ) -> UIElementListResult:
        """List the elements of the screen that can be clicked.

        Args:
            timeout_ms: Milliseconds that the service may look.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/get_clickable_ui_elements
        """
        with time_limit(timeout):
            reply = await self.session._run_tool(GetClickableUiElements(timeout_ms=timeout_ms))
        text = text_or_raise(reply)
        elements = read_clickable_elements(text)
        return UIElementListResult(request_id=reply.request_id, success=True, elements=elements, raw=text)

    @folded(UIElementListResult)
    async def get_all_ui_elements(
        self, timeout_ms: int = 2000, format: str = "json", *, timeout: float | None = None
    ) -> UIElementListResult:
        """List all elements of the screen.

        Args:
            timeout_ms: Milliseconds that the service may look.
            format: "json", or "xml", which is in `raw` alone.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/get_all_ui_elements
        """
        chosen = (format or "").strip().lower() or "json"
        with time_limit(timeout):
            reply = await self.session._run_tool(GetAllUiElements(timeout_ms=timeout_ms, format=chosen))
        text = text_or_raise(reply)
        if chosen not in UI_FORMATS:
            raise ReplyError(f"Unsupported UI elements format: '{chosen}'. Supported values: 'json', 'xml'.")
        elements = read_all_elements(text) if chosen == "json" else []
        return UIElementListResult(
            request_id=reply.request_id, success=True, elements=elements, raw=text, format=chosen
        )

    async def beta_take_long_screenshot(
        self, max_screens: int = 4, format: str = "png", quality: int | None = None, *, timeout: float | None = None
    ) -> ScreenshotResult:
        """Scroll, and take one screenshot of several screens.

        Args:
            max_screens: 2 to 10.
            format: "png", "jpeg" or "jpg".
            quality: 1 to 100, for JPEG; None is the service's choice.
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            InvalidArgumentError: For a value that cannot be.
            AgentBayError: If no image came.

        Wire: CallMcpTool/long_screenshot
        """
        with time_limit(timeout):
            check_range("max_screens", max_screens, 2, 10)
            if quality is not None:
                check_range("quality", quality, 1, 100)
            image_format = check_image_format(format)
            call = LongScreenshot(max_screens=max_screens, format=image_format, quality=quality)
            return await self._take_screenshot(call, image_format, "Failed to take long screenshot")

    @folded(InstalledAppListResult)
    async def get_installed_apps(
        self, start_menu: bool, desktop: bool, ignore_system_apps: bool, *, timeout: float | None = None
    ) -> InstalledAppListResult:
        """List the applications that can be started.

        Args:
            start_menu: Those of the launcher.
            desktop: Those with an icon on the home screen.
            ignore_system_apps: Leave out those of the system.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/get_installed_apps
        """
        with time_limit(timeout):
            return await self._list_apps(start_menu, desktop, ignore_system_apps)

    @folded(AdbUrlResult)
    async def get_adb_url(self, adbkey_pub: str, *, timeout: float | None = None) -> AdbUrlResult:
        """Ask how `adb` reaches the phone.

        Args:
            adbkey_pub: The public key of adb on this machine, the text of `~/.android/adbkey.pub`.
            timeout: Seconds it may take; None is the client's time limit.

        Returns:
            A command such as `adb connect HOST:PORT` in `data`.

        Wire: GetAdbLink
        """
        with time_limit(timeout):
            action = GetAdbLink(session_id=self.session.session_id, option={"adbkey_pub": adbkey_pub})
            reply = await self.session.agent_bay.client.call(action)
            return AdbUrlResult(request_id=reply.request_id, success=True, data=reply.data_or_raise().url)

    async def configure(self, mobile_config: MobileExtraConfig, *, timeout: float | None = None) -> None:
        """Apply settings, and log a warning for each that fails.

        `create` does it for those in its parameters.

        Wire: CallMcpTool/shell
        """
        with time_limit(timeout):
            if mobile_config.lock_resolution is not None:
                await self.set_resolution_lock(mobile_config.lock_resolution)
            rule = mobile_config.app_manager_rule
            if rule is not None and rule.app_package_name_list:
                if rule.rule_type == "White":
                    await self.set_app_whitelist(rule.app_package_name_list)
                elif rule.rule_type == "Black":
                    await self.set_app_blacklist(rule.app_package_name_list)
            if mobile_config.hide_navigation_bar is not None:
                await self.set_navigation_bar_visibility(mobile_config.hide_navigation_bar)
            if mobile_config.uninstall_blacklist:
                await self.set_uninstall_blacklist(mobile_config.uninstall_blacklist)

    async def set_resolution_lock(self, enable: bool, *, timeout: float | None = None) -> None:
        """Lock or unlock the resolution of the screen, or log a warning.

        Wire: CallMcpTool/shell
        """
        with time_limit(timeout):
            await self._set("the resolution lock", resolution_lock_script(enable))

    async def set_app_whitelist(self, package_names: Sequence[str], *, timeout: float | None = None) -> None:
        """Let only these packages run, or log a warning.

        Wire: CallMcpTool/shell
        """
        with time_limit(timeout):
            if package_names:
                await self._set("the whitelist of applications", whitelist_script(package_names))

    async def set_app_blacklist(self, package_names: Sequence[str], *, timeout: float | None = None) -> None:
        """Forbid these packages to run, or log a warning.

        Wire: CallMcpTool/shell
        """
        with time_limit(timeout):
            if package_names:
                await self._set("the blacklist of applications", blacklist_script(package_names))

    async def set_navigation_bar_visibility(self, hide: bool, *, timeout: float | None = None) -> None:
        """Hide or show the navigation bar, or log a warning.

        Wire: CallMcpTool/shell
        """
        with time_limit(timeout):
            await self._set("the navigation bar", navigation_bar_script(hide))

    async def set_uninstall_blacklist(self, package_names: Sequence[str], *, timeout: float | None = None) -> None:
        """Forbid to uninstall these packages, or log a warning.

        Wire: CallMcpTool/shell
        """
        with time_limit(timeout):
            if package_names:
                await self._set("the packages that stay", uninstall_blacklist_script(package_names))

    async def apply_simulation(self, config: MobileSimulateConfig, *, timeout: float | None = None) -> None:
        """Make the phone look like another device.

        `create` does it when its parameters have a `simulate_config`.

        Wire: CallMcpTool/shell
        """
        with time_limit(timeout):
            if config.simulate and config.simulate_path:
                await self._set("the simulated device", simulate_script(config))

    async def _set(self, what: str, command: str) -> None:
        try:
            done = await self.session.command.execute_command(command, COMMAND_TIMEOUT_MS)
        except AgentBayError as error:  # a strict client raises where others return the failure
            _logger.warning("Cannot set %s: %s", what, error)
            return
        # Only logged: a phone without one of its settings is still of use, and `create` must return it.
        if not done.success:
            _logger.warning("Cannot set %s: %s", what, done.error_message)
