"""Desktops: windows, applications, screenshots, and the results of driving them."""

from __future__ import annotations

import base64
from enum import Enum

from .._lazy_attrs import define, field
from .base import BaseResult, IterableResult, list_or_empty


class MouseButton(str, Enum):
    """A mouse button, where DOUBLE_LEFT means a double click."""

    LEFT = "left"
    RIGHT = "right"
    MIDDLE = "middle"
    DOUBLE_LEFT = "double_left"


class ScrollDirection(str, Enum):
    """Where the mouse wheel scrolls to."""

    UP = "up"
    DOWN = "down"
    LEFT = "left"
    RIGHT = "right"


class ScreenshotMode(str, Enum):
    """How a screenshot is taken."""

    NORMAL = "normal"


@define(slots=False)
class Window:
    """A window on a desktop.

    Positions and sizes are pixels from the upper left corner of the screen.
    """

    window_id: int
    title: str
    absolute_upper_left_x: int | None = None
    absolute_upper_left_y: int | None = None
    width: int | None = None
    height: int | None = None
    pid: int | None = None
    pname: str | None = None
    child_windows: list[Window] = field(default=None, converter=list_or_empty)


@define(slots=False)
class InstalledApp:
    """An application that can be started with `start_cmd`."""

    name: str
    start_cmd: str
    stop_cmd: str | None = None
    work_directory: str | None = None


@define(slots=False)
class AppProcess:
    """A process of an application."""

    pname: str
    pid: int
    cmdline: str | None = None


@define(slots=False)
class WindowListResult(BaseResult, IterableResult[Window]):
    """Windows in `windows`, in the order of the service, [] on failure."""

    _LIST_FIELD = "windows"

    windows: list[Window] = field(default=None, converter=list_or_empty)
    error_message: str = ""


@define(slots=False)
class WindowInfoResult(BaseResult):
    """One window in `window`, None if there is none."""

    window: Window | None = None
    error_message: str = ""


@define(slots=False)
class InstalledAppListResult(BaseResult, IterableResult[InstalledApp]):
    """Installed applications in `data`, [] on failure."""

    _LIST_FIELD = "data"

    data: list[InstalledApp] = field(default=None, converter=list_or_empty)
    error_message: str = ""


@define(slots=False)
class ProcessListResult(BaseResult, IterableResult[AppProcess]):
    """Processes of applications in `data`, [] on failure."""

    _LIST_FIELD = "data"

    data: list[AppProcess] = field(default=None, converter=list_or_empty)
    error_message: str = ""


@define(slots=False)
class AppOperationResult(BaseResult):
    """Outcome of stopping an application."""


@define(slots=False)
class ScreenshotResult(BaseResult):
    """A screenshot.

    Attributes:
        type: What the service calls it, "image".
        data: The image file, PNG or JPEG.
        mime_type: "image/png" or "image/jpeg".
        width: Pixels; None if the service does not say.
        height: Pixels; None if the service does not say.
    """

    type: str = ""
    data: bytes = field(default=b"", repr=lambda value: f"<{len(value)} bytes>")
    mime_type: str = ""
    width: int | None = None
    height: int | None = None

    def _success_html(self) -> str | None:
        from .. import _html

        return _html.image(self.mime_type, base64.b64encode(self.data).decode())
