"""Start the browser of a session, drive it, and hear its messages."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .._arguments import checked_arguments
from .._transport.deadline import operation_deadline, time_limit
from .._websocket import AsyncQueue, AsyncWorker
from .._wire.browser_tools import NOTIFY_TARGET, StopChrome
from .._wire.device_actions import GetCdpLink, InitBrowser
from ..errors import AgentBayError, BrowserError, InvalidArgumentError
from ..models.browser import BROWSER_DATA_PATH
from ..models.browser_option import BrowserNotifyMessage, BrowserOption, read_message, write_message, write_option
from .browser_page import take_full_screenshot
from .callbacks import invoke_callback
from .service import AsyncBaseService
from .ws_client import CALL_TIMEOUT_SECONDS, Listener

if TYPE_CHECKING:
    from .browser_operator import AsyncBrowserOperator
    from .session import AsyncSession

BrowserCallback = Callable[[BrowserNotifyMessage], object]
_TAKEOVER_DONE_CODE = 199
_logger = logging.getLogger("agentbay")


@checked_arguments(page=None)  # a page of Playwright, which need not be installed
class AsyncBrowser(AsyncBaseService):
    """The browser of a session.

    Playwright, Puppeteer and whatever else speaks the DevTools protocol connect to `get_endpoint_url()`.

    Attributes:
        endpoint_router_port: The port that the service told at the start; None before.
    """

    def __init__(self, session: AsyncSession) -> None:
        super().__init__(session)
        self.endpoint_router_port: int | None = None
        self._option: BrowserOption | None = None
        self._initialized = False
        self._callback: BrowserCallback | None = None
        self._messages: AsyncQueue[BrowserNotifyMessage | None] | None = None
        self._delivery_worker: AsyncWorker | None = None
        self._remove_listener: Callable[[], None] | None = None

    async def initialize(self, option: BrowserOption | None = None, *, timeout: float | None = None) -> bool:
        """Start the browser.

        Args:
            option: How; None is all defaults. Ignored if the browser runs already.
            timeout: Seconds it may take; None is the client's time limit.

        Returns:
            Whether it runs. Why it does not is logged as a warning; a strict client raises instead.

        Wire: InitBrowser
        """
        with time_limit(timeout):
            try:
                await self._start(option)
            except AgentBayError as error:
                if self.strict:
                    raise
                _logger.warning("The browser of %s could not be started: %s", self.session.session_id, error)
                return False
            return True

    init = initialize

    async def _start(self, option: BrowserOption | None) -> None:
        if self._initialized:
            return
        option = option or BrowserOption()
        written = write_option(option)
        if self.session.enableBrowserReplay is not None:
            written["enableRecord"] = self.session.enableBrowserReplay
        action = InitBrowser(
            session_id=self.session.session_id, persistent_path=BROWSER_DATA_PATH, browser_option=written
        )
        reply = await self.session.agent_bay.client.call(action)
        if reply.data is None or reply.data.port is None:
            raise BrowserError("The service started no browser: its answer has no port", request_id=reply.request_id)
        self.endpoint_router_port, self._option, self._initialized = reply.data.port, option, True

    async def destroy(self, *, timeout: float | None = None) -> None:
        """Stop the browser, after which `initialize` starts another one.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            BrowserError: It was not started.

        Wire: CallMcpTool/stopChrome
        """
        with time_limit(timeout):
            self._require_initialized("Browser is not initialized. Cannot stop browser.")
            try:
                await self.session._run_tool(StopChrome())
            finally:
                # Also after a failure: the state is then not known, and `initialize` must be possible.
                self._initialized, self._option = False, None

    def is_initialized(self) -> bool:
        """Whether `initialize` has started the browser."""
        return self._initialized

    def get_option(self) -> BrowserOption | None:
        """Return the options that the browser was started with."""
        return self._option

    async def get_endpoint_url(self, *, timeout: float | None = None) -> str:
        """Return the WebSocket URL at which the browser speaks the DevTools protocol.

        Give it to Playwright's `connect_over_cdp`, and use the context that is there, `browser.contexts[0]`.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            BrowserError: The browser was not started, or the service does not tell the URL.

        Wire: GetCdpLink
        """
        with time_limit(timeout):
            self._require_initialized("Browser is not initialized. Cannot access endpoint URL.")
            try:
                reply = await self.session.agent_bay.client.call(GetCdpLink(session_id=self.session.session_id))
                url = reply.data_or_raise().url
            except AgentBayError as error:
                raise BrowserError(
                    f"Failed to get endpoint URL from session: Failed to get CDP link: {error.message}",
                    **error.context(),
                ) from error
            if not url:
                raise BrowserError("Failed to get endpoint URL from session: the answer has none")
            return url

    @cached_property
    def operator(self) -> AsyncBrowserOperator:
        """Act on pages in words: a model of the service finds out how."""
        from .browser_operator import AsyncBrowserOperator

        return AsyncBrowserOperator(self.session, self)

    @property
    def agent(self) -> AsyncBrowserOperator:
        """The same as `operator`, by its old name."""
        return self.operator

    async def screenshot(self, page: Any, full_page: bool = False, **options: Any) -> bytes:
        """Scroll through a Playwright page until it has loaded, and take a screenshot.

        Args:
            page: The page, of the same flavour as this client.
            full_page: The whole page, not only what is in view.
            options: As for Playwright's `page.screenshot`.

        Raises:
            BrowserError: The browser was not started.
            InvalidArgumentError: No page was given.
            RuntimeError: The screenshot failed.
        """
        self._require_initialized("Browser must be initialized before calling screenshot.")
        if page is None:
            raise InvalidArgumentError("Page cannot be None")
        return await take_full_screenshot(page, full_page, options)

    async def register_callback(self, callback: BrowserCallback, *, timeout: float | None = None) -> bool:
        """Call a function with each message of the browser.

        Args:
            callback: A function, or in the asynchronous flavour a coroutine function. It replaces an earlier one.
            timeout: Seconds it may take; None is 30.

        Returns:
            False if there is no connection to be had; why is logged as a warning.

        Wire: WebSocket, pushes of wuying_cdp_mcp_server
        """
        with time_limit(timeout):
            self._callback = callback
            if self._remove_listener is not None:
                return True
            # The reader of the WebSocket may not run user code, so messages pass through a queue to a worker.
            messages: AsyncQueue[BrowserNotifyMessage | None] = AsyncQueue()
            try:
                websocket = await self.session.ws.websocket()
                listener = Listener(
                    NOTIFY_TARGET, lambda data: messages.put(read_message(data)), _log_lost, _stay_connected
                )
                self._remove_listener = websocket.add_listener(listener)
                await websocket.ensure_connected(operation_deadline(CALL_TIMEOUT_SECONDS))
            except AgentBayError as error:
                self._stop_listening()
                _logger.warning("Messages of the browser of %s cannot be heard: %s", self.session.session_id, error)
                return False
            self._messages = messages
            self._delivery_worker = AsyncWorker(self._deliver_messages)
            return True

    async def unregister_callback(self) -> None:
        """Stop calling the function, after which another one can be registered."""
        self._callback = None
        self._stop_listening()
        if self._messages is not None:
            self._messages.put(None)
        if self._delivery_worker is not None:
            await self._delivery_worker.stop()
        self._messages = self._delivery_worker = None

    async def send_notify_message(self, notify_message: BrowserNotifyMessage, *, timeout: float | None = None) -> bool:
        """Send a message to the browser.

        Args:
            timeout: Seconds it may take; None is 30.

        Returns:
            False if it could not be sent; why is logged as a warning.

        Wire: WebSocket, to wuying_cdp_mcp_server
        """
        with time_limit(timeout):
            try:
                websocket = await self.session.ws.websocket()
                await websocket.send(NOTIFY_TARGET, write_message(notify_message))
            except AgentBayError as error:
                _logger.warning("The message to the browser of %s was not sent: %s", self.session.session_id, error)
                return False
            return True

    async def send_takeover_done(self, notify_id: int, *, timeout: float | None = None) -> bool:
        """Tell the browser that the person has done what was asked.

        Args:
            notify_id: The `id` of the message that asked.
            timeout: Seconds it may take; None is 30.

        Wire: WebSocket, to wuying_cdp_mcp_server
        """
        message = BrowserNotifyMessage(
            "call-for-user", notify_id, _TAKEOVER_DONE_CODE, "user handle done", "takeoverdone"
        )
        return await self.send_notify_message(message, timeout=timeout)

    async def _deliver_messages(self) -> None:
        # Kept, because a callback that is registered later gets a queue of its own.
        messages = self._messages
        while messages is not None and (message := await messages.get(float("inf"))) is not None:
            if self._callback is not None:
                await invoke_callback(self._callback, message)

    def _stop_listening(self) -> None:
        if self._remove_listener is not None:
            self._remove_listener()
        self._remove_listener = None

    def _require_initialized(self, message: str) -> None:
        if not self._initialized:
            raise BrowserError(message, hint="Call initialize() first.")


async def _stay_connected() -> None:
    """Ask for nothing: messages come by themselves once there is a connection again."""


def _log_lost(error: AgentBayError) -> None:
    _logger.debug("The connection that tells of the browser was lost: %s", error)
