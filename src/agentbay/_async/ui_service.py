"""What desktops and phones have in common: tools that succeed or not, applications, screenshots."""

from __future__ import annotations

from .._arguments import checked_arguments
from .._transport.deadline import time_limit
from .._transport.ui import check_image_format, read_apps, read_processes, read_screenshot
from .._wire.schema import Tool
from .._wire.ui_tools import GetInstalledApps, InputText, Screenshot, StartApp, StopAppByCmd, SystemScreenshot
from ..errors import AgentBayError, NotSupportedError
from ..models.base import BoolResult, OperationResult
from ..models.computer import AppOperationResult, InstalledAppListResult, ProcessListResult, ScreenshotResult
from .error_boundary import folded
from .service import AsyncBaseService, text_or_raise


@checked_arguments()
class AsyncUiService(AsyncBaseService):
    """Base of `AsyncComputer` and `AsyncMobile`."""

    @folded(BoolResult)
    async def input_text(self, text: str, *, timeout: float | None = None) -> BoolResult:
        """Type text into whatever has the input focus.

        Args:
            text: Any Unicode text.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/input_text
        """
        with time_limit(timeout):
            return await self._run_bool(InputText(text=text))

    @folded(ProcessListResult)
    async def start_app(
        self, start_cmd: str, work_directory: str = "", activity: str = "", *, timeout: float | None = None
    ) -> ProcessListResult:
        """Start an application.

        Args:
            start_cmd: The command, as `get_installed_apps` lists it.
            work_directory: Where it starts; "" is the service's choice.
            activity: On a phone, which activity of the application to show; "" is its first one.
            timeout: Seconds it may take; None is the client's time limit.

        Returns:
            The processes of the application in `data`.

        Wire: CallMcpTool/start_app
        """
        with time_limit(timeout):
            call = StartApp(start_cmd=start_cmd, work_directory=work_directory or None, activity=activity or None)
            return await self._list_processes(call)

    @folded(AppOperationResult)
    async def stop_app_by_cmd(self, stop_cmd: str, *, timeout: float | None = None) -> AppOperationResult:
        """Stop an application.

        Args:
            stop_cmd: Its stop command, or on a phone the name of its package.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/stop_app_by_cmd
        """
        with time_limit(timeout):
            return await self._stop_app(StopAppByCmd(stop_cmd=stop_cmd))

    @folded(OperationResult)
    async def screenshot(self, *, timeout: float | None = None) -> OperationResult:
        """Take a screenshot, which the service keeps in object storage for about an hour.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Returns:
            The URL of a PNG file in `data`. A failed result in sessions with a link of their own, such as those of the
            local runtime: there `beta_take_screenshot` returns the image itself.

        Wire: CallMcpTool/system_screenshot
        """
        with time_limit(timeout):
            # Each kind of session has one of the two tools only, so the refusal names the other.
            if self.session.link_url:
                raise NotSupportedError(
                    "This cloud environment does not support `screenshot()`. "
                    "Please use `beta_take_screenshot()` instead."
                )
            reply = await self.session._run_tool(SystemScreenshot())
            return OperationResult(request_id=reply.request_id, success=True, data=text_or_raise(reply))

    async def beta_take_screenshot(self, format: str = "png", *, timeout: float | None = None) -> ScreenshotResult:
        """Take a screenshot and return the image.

        Args:
            format: "png", "jpeg" or "jpg".
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            InvalidArgumentError: For another format.
            AgentBayError: If no image came; in sessions without a link of their own, always.

        Wire: CallMcpTool/screenshot
        """
        with time_limit(timeout):
            image_format = check_image_format(format)
            if not self.session.link_url:
                raise NotSupportedError(
                    "This cloud environment does not support `beta_take_screenshot()`. "
                    "Please use `screenshot()` instead."
                )
            return await self._take_screenshot(
                Screenshot(format=image_format), image_format, "Failed to take screenshot via MCP tool 'screenshot'"
            )

    async def _take_screenshot(self, call: Tool, image_format: str, failure: str) -> ScreenshotResult:
        reply = await self.session._run_tool(call)
        tool = reply.data_or_raise()
        if tool.is_error:
            raise AgentBayError(f"{failure}: {tool.text}", request_id=reply.request_id)
        found = read_screenshot(tool.text, image_format)
        return ScreenshotResult(request_id=reply.request_id, success=True, **found._asdict())

    async def _run_bool(self, call: Tool) -> BoolResult:
        reply = await self.session._run_tool(call)
        text_or_raise(reply)
        return BoolResult(request_id=reply.request_id, success=True, data=True)

    async def _list_apps(self, start_menu: bool, desktop: bool, ignore_system_apps: bool) -> InstalledAppListResult:
        call = GetInstalledApps(start_menu=start_menu, desktop=desktop, ignore_system_app=ignore_system_apps)
        reply = await self.session._run_tool(call)
        return InstalledAppListResult(request_id=reply.request_id, success=True, data=read_apps(text_or_raise(reply)))

    async def _list_processes(self, call: Tool) -> ProcessListResult:
        reply = await self.session._run_tool(call)
        data = read_processes(text_or_raise(reply))
        return ProcessListResult(request_id=reply.request_id, success=True, data=data)

    async def _stop_app(self, call: Tool) -> AppOperationResult:
        reply = await self.session._run_tool(call)
        text_or_raise(reply)
        return AppOperationResult(request_id=reply.request_id, success=True)
