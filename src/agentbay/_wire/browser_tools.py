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

    url: str = wire_field(repr=False, description="The URL to open.")


@ui_tool("page_use_screenshot", BROWSER_SERVER)
class PageScreenshot(Tool):
    """Take a screenshot of a page as a data URL.

    `quality` is 1 to 100, `clip` a rectangle in pixels.
    """

    context_id: int = wire_field(description="Index of the page's context among those of the browser.")
    page_id: str | None = wire_field(
        default=None, description="DevTools target of the page; absent is the page used last."
    )
    full_page: bool = wire_field(default=True, description="Whether to show the whole page, not only what is in view.")
    quality: int = wire_field(default=80, description="1 to 100, for services that make JPEG images.")
    clip: dict[str, float] | None = wire_field(
        default=None, description="A rectangle in pixels with x, y, width and height, instead of the page."
    )
    timeout: float | None = wire_field(default=None, description="How long it may take, as the service understands it.")


@ui_tool("page_use_close_session", BROWSER_SERVER)
class PageCloseSession(Tool):
    """End the work of the operator."""


@ui_tool("page_use_login", BROWSER_SERVER)
class PageLogin(Tool):
    """Log in as a configuration says, which is JSON text."""

    login_config: str = wire_field(repr=False, description="JSON text that says how to log in.")
    context_id: int = wire_field(description="Index of the page's context among those of the browser.")
    page_id: str | None = wire_field(
        default=None, description="DevTools target of the page; absent is the page used last."
    )
    use_vision: bool = wire_field(default=False, description="Whether the model sees screenshots.")


@ui_tool("page_use_act_async", BROWSER_SERVER)
class PageAct(Tool):
    """Start an action, in words or as JSON. `timeout` is seconds."""

    context_id: int = wire_field(description="Index of the page's context among those of the browser.")
    page_id: str | None = wire_field(
        default=None, description="DevTools target of the page; absent is the page used last."
    )
    action: str = wire_field(description="What to do, in words or as JSON with method and arguments.")
    variables: dict[str, str] | None = wire_field(
        "variables", default=None, repr=False, description="Values that stand for %name% in texts."
    )
    use_vision: bool | None = wire_field(default=None, description="Whether the model sees screenshots.")
    timeout: int | None = wire_field(default=None, description="Seconds that it may take.")
    trace_id: str | None = wire_field(default=None, description="An id for the logs of the service.")


@ui_tool("page_use_get_act_result", BROWSER_SERVER)
class PageActResult(Tool):
    """Ask for the outcome of an action as JSON."""

    task_id: str = wire_field(description="Id of the task.")


@ui_tool("page_use_observe_async", BROWSER_SERVER)
class PageObserve(Tool):
    """Start to look for elements, in words."""

    context_id: int = wire_field(description="Index of the page's context among those of the browser.")
    page_id: str | None = wire_field(
        default=None, description="DevTools target of the page; absent is the page used last."
    )
    instruction: str = wire_field(description="What to look for, in words.")
    use_vision: bool | None = wire_field(default=None, description="Whether the model sees screenshots.")
    selector: str | None = wire_field(default=None, description="Selector of the part of the page to look at.")
    trace_id: str | None = wire_field(default=None, description="An id for the logs of the service.")


@ui_tool("page_use_get_observe_result", BROWSER_SERVER)
class PageObserveResult(Tool):
    """Ask for the elements found as JSON."""

    task_id: str = wire_field(description="Id of the task.")


@ui_tool("page_use_extract_async", BROWSER_SERVER)
class PageExtract(Tool):
    """Start to read data that fits a schema."""

    context_id: int = wire_field(description="Index of the page's context among those of the browser.")
    page_id: str | None = wire_field(
        default=None, description="DevTools target of the page; absent is the page used last."
    )
    instruction: str = wire_field(description="What to look for, in words.")
    field_schema: str = wire_field(description="JSON schema of the data.")
    use_text_extract: bool | None = wire_field(default=None, description="Whether to read the text of the page only.")
    use_vision: bool | None = wire_field(default=None, description="Whether the model sees screenshots.")
    selector: str | None = wire_field(default=None, description="Selector of the part of the page to look at.")
    max_page: int | None = wire_field(default=None, description="How many pages to turn to.")
    trace_id: str | None = wire_field(default=None, description="An id for the logs of the service.")


@ui_tool("page_use_get_extract_result", BROWSER_SERVER)
class PageExtractResult(Tool):
    """Ask for the data read as JSON."""

    task_id: str = wire_field(description="Id of the task.")


@ui_tool("flux_execute_task", "wuying_computer_agent")
class ComputerTask(Tool):
    """Give a task to the agent of a desktop, in words."""

    task: str = wire_field(description="What to do, in words.")


@ui_tool("flux_get_task_status", "wuying_computer_agent")
class ComputerTaskStatus(Tool):
    """Ask how a task of the agent of a desktop stands."""

    task_id: str = wire_field(description="Id of the task.")


@ui_tool("flux_terminate_task", "wuying_computer_agent")
class ComputerTaskEnd(Tool):
    """End a task of the agent of a desktop."""

    task_id: str = wire_field(description="Id of the task.")


@ui_tool("browser_use_execute_task", BROWSER_SERVER)
class BrowserTask(Tool):
    """Give a task to the agent of a browser, in words.

    `output_schema` is JSON text.
    """

    task: str = wire_field(description="What to do, in words.")
    use_vision: bool = wire_field(default=False, description="Whether the model sees screenshots.")
    full_page_screenshot: bool | None = wire_field(default=False, description="Whether screenshots show whole pages.")
    output_schema: str | None = wire_field(default=None, description="JSON schema of the result.")


@ui_tool("browser_use_get_task_status", BROWSER_SERVER)
class BrowserTaskStatus(Tool):
    """Ask how a task of the agent of a browser stands."""

    task_id: str = wire_field(description="Id of the task.")


@ui_tool("browser_use_terminate_task", BROWSER_SERVER)
class BrowserTaskEnd(Tool):
    """End a task of the agent of a browser."""

    task_id: str = wire_field(description="Id of the task.")


@ui_tool("execute_task", "wuying_mobile_agent")
class MobileTask(Tool):
    """Give a task to the agent of a phone, in words."""

    task: str = wire_field(description="What to do, in words.")
    max_steps: int = wire_field(default=50, description="How many steps it may take.")


@ui_tool("get_task_status", "wuying_mobile_agent")
class MobileTaskStatus(Tool):
    """Ask how a task of the agent of a phone stands."""

    task_id: str = wire_field(description="Id of the task.")


@ui_tool("terminate_task", "wuying_mobile_agent")
class MobileTaskEnd(Tool):
    """End a task of the agent of a phone."""

    task_id: str = wire_field(description="Id of the task.")
