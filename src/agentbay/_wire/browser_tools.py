"""Arguments of the tools for browsers and agents."""

from __future__ import annotations

from .schema import Tool, wire_field
from .ui_tools import ui_tool

BROWSER_SERVER = "wuying_browseruse"
NOTIFY_TARGET = "wuying_cdp_mcp_server"  # of pushes about the browser


@ui_tool("stopChrome", NOTIFY_TARGET)
class StopChrome(Tool):
    """Stop the browser."""


@ui_tool("page_use_navigate", BROWSER_SERVER)
class PageNavigate(Tool):
    """Open a URL."""

    url: str = wire_field(repr=False)


@ui_tool("page_use_screenshot", BROWSER_SERVER)
class PageScreenshot(Tool):
    """Take a screenshot of a page as a data URL.

    `quality` is 1 to 100, `clip` a rectangle in pixels.
    """

    context_id: int
    page_id: str | None = None
    full_page: bool = True
    quality: int = 80
    clip: dict[str, float] | None = None
    timeout: float | None = None


@ui_tool("page_use_close_session", BROWSER_SERVER)
class PageCloseSession(Tool):
    """End the work of the operator."""


@ui_tool("page_use_login", BROWSER_SERVER)
class PageLogin(Tool):
    """Log in as a configuration says, which is JSON text."""

    login_config: str = wire_field(repr=False)
    context_id: int
    page_id: str | None = None
    use_vision: bool = False


@ui_tool("page_use_act_async", BROWSER_SERVER)
class PageAct(Tool):
    """Start an action, in words or as JSON. `timeout` is seconds."""

    context_id: int
    page_id: str | None = None
    action: str
    variables: dict[str, str] | None = wire_field("variables", default=None, repr=False)
    use_vision: bool | None = None
    timeout: int | None = None
    trace_id: str | None = None


@ui_tool("page_use_get_act_result", BROWSER_SERVER)
class PageActResult(Tool):
    """Ask for the outcome of an action as JSON."""

    task_id: str


@ui_tool("page_use_observe_async", BROWSER_SERVER)
class PageObserve(Tool):
    """Start to look for elements, in words."""

    context_id: int
    page_id: str | None = None
    instruction: str
    use_vision: bool | None = None
    selector: str | None = None
    trace_id: str | None = None


@ui_tool("page_use_get_observe_result", BROWSER_SERVER)
class PageObserveResult(Tool):
    """Ask for the elements found as JSON."""

    task_id: str


@ui_tool("page_use_extract_async", BROWSER_SERVER)
class PageExtract(Tool):
    """Start to read data that fits a schema."""

    context_id: int
    page_id: str | None = None
    instruction: str
    field_schema: str
    use_text_extract: bool | None = None
    use_vision: bool | None = None
    selector: str | None = None
    max_page: int | None = None
    trace_id: str | None = None


@ui_tool("page_use_get_extract_result", BROWSER_SERVER)
class PageExtractResult(Tool):
    """Ask for the data read as JSON."""

    task_id: str


# ── Agents ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@ui_tool("flux_execute_task", "wuying_computer_agent")
class ComputerTask(Tool):
    """Give a task to the agent of a desktop, in words."""

    task: str


@ui_tool("flux_get_task_status", "wuying_computer_agent")
class ComputerTaskStatus(Tool):
    """Ask how a task of the agent of a desktop stands."""

    task_id: str


@ui_tool("flux_terminate_task", "wuying_computer_agent")
class ComputerTaskEnd(Tool):
    """End a task of the agent of a desktop."""

    task_id: str


@ui_tool("browser_use_execute_task", BROWSER_SERVER)
class BrowserTask(Tool):
    """Give a task to the agent of a browser, in words.

    `output_schema` is JSON text.
    """

    task: str
    use_vision: bool = False
    full_page_screenshot: bool | None = False
    output_schema: str | None = None


@ui_tool("browser_use_get_task_status", BROWSER_SERVER)
class BrowserTaskStatus(Tool):
    """Ask how a task of the agent of a browser stands."""

    task_id: str


@ui_tool("browser_use_terminate_task", BROWSER_SERVER)
class BrowserTaskEnd(Tool):
    """End a task of the agent of a browser."""

    task_id: str


@ui_tool("execute_task", "wuying_mobile_agent")
class MobileTask(Tool):
    """Give a task to the agent of a phone, in words."""

    task: str
    max_steps: int = 50


@ui_tool("get_task_status", "wuying_mobile_agent")
class MobileTaskStatus(Tool):
    """Ask how a task of the agent of a phone stands."""

    task_id: str


@ui_tool("terminate_task", "wuying_mobile_agent")
class MobileTaskEnd(Tool):
    """End a task of the agent of a phone."""

    task_id: str
