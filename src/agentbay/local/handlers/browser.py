"""The browser of a session: start, address, stop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agentbay._wire.browser_tools import StopChrome
from agentbay._wire.device_actions import BrowserPortData, GetCdpLink, InitBrowser, LinkUrlData
from agentbay._wire.tools import ToolReply
from agentbay.errors import InvalidRequestError
from agentbay.local.api_errors import invalid_request
from agentbay.local.browser.browser import BrowserFailed
from agentbay.local.browser.page import BrowserPages
from agentbay.local.handlers.handler_tables import action_handler, tool_handler
from agentbay.local.handlers.results import text_result
from agentbay.local.runtime import Runtime
from agentbay.local.sandbox.service.manager import Sandbox
from agentbay.local.sessions.port_tokens import make_port_token
from agentbay.local.sessions.session import Session

_MAX_PIXELS = 16_384  # a browser that is to draw more does not answer
# What a browser on one machine cannot do: (key of BrowserOption, what it is, what serves instead, code of the refusal)
_NOT_LOCAL = (
    ("solveCaptchas", "solving captchas", "Use the cloud.", "CaptchaNotSupported.Local"),
    ("autoLogin", "logging in by itself", "Use session.browser.operator.login().", "AutoLoginNotSupported.Local"),
    ("callForUser", "calling a person", "Use the cloud.", "CallForUserNotSupported.Local"),
    ("fingerprint", "making fingerprints", "Use the cloud, or set user_agent.", "FingerprintNotSupported.Local"),
    ("fingerprintRawData", "taking on fingerprints", "Use the cloud, or user_agent.", "FingerprintNotSupported.Local"),
)


@action_handler(InitBrowser)
async def init_browser(runtime: Runtime, action: InitBrowser) -> BrowserPortData:
    session = runtime.sessions.find(action.session_id)
    _check_option(action.browser_option)
    with session.using() as sandbox:
        try:
            await session.browser.start(sandbox, action.browser_option, session.environment)
        except BrowserFailed as failure:
            raise invalid_request(str(failure), failure.code) from failure
    return BrowserPortData(port=session.browser.port)


@action_handler(GetCdpLink)
async def get_cdp_link(runtime: Runtime, action: GetCdpLink) -> LinkUrlData:
    return LinkUrlData(url=await make_cdp_url(runtime, runtime.sessions.find(action.session_id)))


@tool_handler(StopChrome)
async def stop_chrome(session: Session, tool: StopChrome) -> ToolReply:
    with session.using() as sandbox:
        await session.browser.stop(sandbox)
    return text_result("True")


async def make_cdp_url(runtime: Runtime, session: Session) -> str:
    """Return the URL at which the browser of a session speaks the DevTools protocol.

    A browser that has crashed is started again with the options it had.

    Raises:
        InvalidRequestError: It was not started, or does not start again.
    """
    with session.using() as sandbox:
        await _require_browser(session, sandbox)
    token = make_port_token(session, session.browser.port)
    return f"{runtime.address.ws_url}/websocket_ai/{token}{session.browser.path}"


@asynccontextmanager
async def open_pages(session: Session, target: str | None = None) -> AsyncIterator[BrowserPages]:
    """Connect to the pages of a session's browser for the time of a block.

    Args:
        target: The page to begin with; None is the one that was used last.

    Raises:
        InvalidRequestError: The browser was not started, or does not start again.
        DevToolsError: It does not answer, or has no such page.
    """
    with session.using() as sandbox:
        await _require_browser(session, sandbox)
        browser = session.browser
        pages = await BrowserPages.open(sandbox, browser.port, browser.path, target or "", browser.current_page)
        try:
            yield pages
        finally:
            browser.current_page = pages.target
            await pages.close()


async def _require_browser(session: Session, sandbox: Sandbox) -> None:
    """Start the browser again if it has crashed.

    Raises:
        InvalidRequestError: It was not started, or does not start again.
    """
    if not session.browser.was_started:
        raise browser_not_started()
    try:
        await session.browser.restart_if_crashed(sandbox, session.environment)
    except BrowserFailed as failure:
        raise invalid_request(str(failure), failure.code) from failure


def _check_option(option: dict[str, Any]) -> None:
    # A browser that lacks what was asked for is worse than none.
    for name, what, instead, code in _NOT_LOCAL:
        if option.get(name):
            raise invalid_request(f"The browser of the local runtime does not offer {what}. {instead}", code)
    if not str(option.get("userAgent") or "").isascii():
        raise invalid_request("userAgent must be ASCII text: it travels in an HTTP header.", "InvalidBrowserOption")
    for name in ("viewport", "screen"):
        size = option.get(name) or {}
        values = size.values() if isinstance(size, dict) else (None,)
        if not all(isinstance(value, int) and 1 <= value <= _MAX_PIXELS for value in values):
            raise invalid_request(f"{name} must be 1 to {_MAX_PIXELS} pixels wide and high.", "InvalidBrowserOption")
    for proxy in option.get("proxies") or ():
        if isinstance(proxy, dict) and proxy.get("type") != "custom":
            raise invalid_request("The local runtime knows only proxies of type custom.", "ProxyNotSupported.Local")


def browser_not_started() -> InvalidRequestError:
    """Return the error for what needs a browser that runs."""
    return invalid_request(
        "The browser of this session was not started. Call session.browser.initialize() first.", "BrowserNotStarted"
    )
