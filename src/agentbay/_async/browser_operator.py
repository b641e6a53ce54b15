"""Act on pages in words: a model of the service finds out how."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from .._arguments import checked_arguments
from .._concurrency import async_sleep
from .._transport.browser import (
    POLL_SECONDS,
    TASK_TIMEOUT_SECONDS,
    read_act_result,
    read_observe_result,
    read_task_id,
    write_observed_action,
)
from .._transport.deadline import Deadline, operation_deadline, time_limit
from .._wire import browser_tools as wire
from .._wire.schema import Tool
from ..errors import AgentBayError, BrowserError
from ..models.browser_operator import ActOptions, ActResult, ExtractOptions, ObserveOptions, ObserveResult
from .service import AsyncBaseService, text_or_raise

if TYPE_CHECKING:
    from .browser import AsyncBrowser
    from .session import AsyncSession

R = TypeVar("R")
SchemaT = TypeVar("SchemaT")


@checked_arguments(page=None)  # a page of Playwright, which need not be installed
class AsyncBrowserOperator(AsyncBaseService):
    """Act on pages, find elements and read data, in words.

    `page` is always a Playwright page of the session's browser, connected by `get_endpoint_url()`; None means the page
    that is in front.
    """

    def __init__(self, session: AsyncSession, browser: AsyncBrowser) -> None:
        super().__init__(session)
        self.browser = browser

    async def navigate(self, url: str, *, timeout: float | None = None) -> str:
        """Open a URL.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Returns:
            The tool's text, or `Navigation failed: ` and why.

        Raises:
            BrowserError: The browser was not started, or does not answer.

        Wire: CallMcpTool/page_use_navigate
        """
        with time_limit(timeout):
            self._require_browser("navigate")
            return await self._call_text(wire.PageNavigate(url=url), "navigate", "Navigation failed")

    async def screenshot(
        self,
        page: Any = None,
        full_page: bool = True,
        quality: int = 80,
        clip: dict[str, float] | None = None,
        timeout: float | None = None,
    ) -> str:
        """Take a screenshot of a page.

        Args:
            full_page: The whole page, not only what is in view.
            quality: 1 to 100.
            clip: A rectangle with `x`, `y`, `width` and `height` in pixels, instead of the page.
            timeout: How long the service may take, as it understands it.

        Returns:
            A data URL of the image, or `Screenshot failed: ` and why.

        Raises:
            BrowserError: The browser was not started, or does not answer.

        Wire: CallMcpTool/page_use_screenshot
        """
        self._require_browser("screenshot")
        context_id, page_id = await self._locate(page)
        call = wire.PageScreenshot(
            context_id=context_id, page_id=page_id, full_page=full_page, quality=quality, clip=clip, timeout=timeout
        )
        return await self._call_text(call, "call screenshot", "Screenshot failed")

    async def close(self, *, timeout: float | None = None) -> bool:
        """End the work of the operator.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Returns:
            Whether the service has ended it.

        Raises:
            BrowserError: The service does not answer.

        Wire: CallMcpTool/page_use_close_session
        """
        with time_limit(timeout):
            reply = await self._run(wire.PageCloseSession(), "call close")
            return not reply.data_or_raise().is_error

    async def login(
        self, login_config: str, page: Any = None, use_vision: bool = False, *, timeout: float | None = None
    ) -> ActResult:
        """Log in.

        Args:
            login_config: JSON text that says where, as the service's documentation has it.
            use_vision: Let the model look at a screenshot.
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            BrowserError: The browser was not started, or does not answer.

        Wire: CallMcpTool/page_use_login
        """
        with time_limit(timeout):
            self._require_browser("login")
            context_id, page_id = await self._locate(page)
            call = wire.PageLogin(
                login_config=login_config, context_id=context_id, page_id=page_id, use_vision=use_vision
            )
            tool = (await self._run(call, "call login")).data_or_raise()
            return ActResult(not tool.is_error, tool.text)

    async def act(
        self, action_input: ActOptions | ObserveResult, page: Any = None, *, timeout: float | None = None
    ) -> ActResult:
        """Do something on a page.

        Args:
            action_input: What, in words, or an element that `observe` has found.
            timeout: Seconds it may take; None is 300, or what the options say.

        Raises:
            BrowserError: The browser was not started, the service refuses, or time runs out.

        Wire: CallMcpTool/page_use_act_async, page_use_get_act_result
        """
        with time_limit(timeout):
            self._require_browser("act")
            context_id, page_id = await self._locate(page)
            if isinstance(action_input, ObserveResult):
                options = ActOptions(write_observed_action(action_input))
            else:
                options = action_input
            call = wire.PageAct(
                context_id=context_id,
                page_id=page_id,
                action=options.action,
                variables=options.variables,
                use_vision=options.use_vision,
                timeout=options.timeout,
                trace_id=_make_trace_id(),
            )
            label = f"{options.action} timeout"
            return await self._follow("act", call, wire.PageActResult, read_act_result, options.timeout, label)

    async def observe(
        self, options: ObserveOptions, page: Any = None, *, timeout: float | None = None
    ) -> tuple[bool, list[ObserveResult]]:
        """Find elements of a page.

        Args:
            timeout: Seconds it may take; None is 300, or what the options say.

        Returns:
            True, and the elements.

        Raises:
            BrowserError: The browser was not started, the service refuses, or time runs out.

        Wire: CallMcpTool/page_use_observe_async, page_use_get_observe_result
        """
        with time_limit(timeout):
            self._require_browser("observe")
            context_id, page_id = await self._locate(page)
            call = wire.PageObserve(
                context_id=context_id,
                page_id=page_id,
                instruction=options.instruction,
                use_vision=options.use_vision,
                selector=options.selector,
                trace_id=_make_trace_id(),
            )
            found = await self._follow(
                "observe", call, wire.PageObserveResult, read_observe_result, options.timeout, " Observe timeout"
            )
            return True, found

    async def extract(
        self, options: ExtractOptions[SchemaT], page: Any = None, *, timeout: float | None = None
    ) -> tuple[bool, SchemaT]:
        """Read data from a page.

        Args:
            timeout: Seconds it may take; None is 300, or what the options say.

        Returns:
            True, and an object of `options.schema`.

        Raises:
            BrowserError: The browser was not started, the service refuses, time runs out, or the data do not fit.

        Wire: CallMcpTool/page_use_extract_async, page_use_get_extract_result
        """
        with time_limit(timeout):
            self._require_browser("extract")
            context_id, page_id = await self._locate(page)
            schema: Any = options.schema
            call = wire.PageExtract(
                context_id=context_id,
                page_id=page_id,
                instruction=options.instruction,
                field_schema=f"schema: {json.dumps(schema.model_json_schema())}",
                use_text_extract=options.use_text_extract,
                use_vision=options.use_vision,
                selector=options.selector,
                max_page=options.max_page,
                trace_id=_make_trace_id(),
            )

            def read(text: str) -> SchemaT:
                made: SchemaT = schema.model_validate_json(text)
                return made

            found = await self._follow(
                "extract", call, wire.PageExtractResult, read, options.timeout, " Extract timeout"
            )
            return True, found

    async def _follow(
        self,
        what: str,
        call: Tool,
        poll: Callable[..., Tool],
        read: Callable[[str], R | None],
        timeout: int | None,
        label: str,
    ) -> R:
        """Start a task, and ask for its outcome until there is one."""
        try:
            task_id = read_task_id(text_or_raise(await self._run(call, what), BrowserError))
            deadline = operation_deadline(TASK_TIMEOUT_SECONDS) if timeout is None else Deadline(timeout)
            while True:
                await async_sleep(max(0.0, min(POLL_SECONDS, deadline.remaining())))
                reply = await self._run(poll(task_id=task_id), what)
                tool = reply.data_or_raise()
                if tool.error_code:  # a local runtime says so when nothing will come of it
                    raise BrowserError(tool.text, code=tool.error_code, request_id=reply.request_id)
                found = None if tool.is_error or not tool.text else read(tool.text)
                if found is not None:
                    return found
                if deadline.remaining() <= 0:
                    raise BrowserError(f"Task {task_id}:{label} after {deadline.seconds:g}s")
        except (AgentBayError, ValueError) as error:  # pydantic's error is a ValueError
            if isinstance(error, AgentBayError):
                raise BrowserError(f"Failed to {what}: {error.message}", **error.context()) from error
            raise BrowserError(f"Failed to {what}: {error}") from error

    async def _call_text(self, call: Tool, what: str, failure: str) -> str:
        tool = (await self._run(call, what)).data_or_raise()
        return f"{failure}: {tool.text}" if tool.is_error else tool.text

    async def _run(self, call: Tool, what: str) -> Any:
        try:
            return await self.session._run_tool(call)
        except BrowserError:
            raise
        except AgentBayError as error:
            raise BrowserError(f"Failed to {what}: {error.message}", **error.context()) from error

    async def _locate(self, page: Any) -> tuple[int, str | None]:
        """Return the index of a page's context and the page's DevTools target id."""
        if page is None:
            return 0, None
        try:
            connection = await page.context.new_cdp_session(page)
            try:
                target = await connection.send("Target.getTargetInfo")
            finally:
                # Each of these sessions stays open in the browser until it is detached.
                await connection.detach()
            return page.context.browser.contexts.index(page.context), str(target["targetInfo"]["targetId"])
        except Exception as error:  # whatever Playwright raises: this package does not depend on it
            raise BrowserError(f"Failed to get page/context index: {error}") from error

    def _require_browser(self, method: str) -> None:
        if not self.browser.is_initialized():
            raise BrowserError(
                f"Browser must be initialized before calling {method}.", hint="Call session.browser.initialize() first."
            )


def _make_trace_id() -> str:
    return uuid.uuid4().hex
