"""Settings of mobile sessions."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

from attrs import define, field

from .base import BaseResult, list_or_empty


class MobileSimulateMode(str, Enum):
    """Which properties of another device are simulated."""

    PROPERTIES_ONLY = "PropertiesOnly"
    SENSORS_ONLY = "SensorsOnly"
    PACKAGES_ONLY = "PackagesOnly"
    SERVICES_ONLY = "ServicesOnly"
    ALL = "All"


def _check_string_items(name: str, values: Iterable[object] | None) -> None:
    for value in values or ():
        if not isinstance(value, str):
            raise ValueError(f"{name} items must be strings, not {value!r}")


@define(slots=False)
class AppManagerRule:
    """Which apps may run.

    Attributes:
        rule_type: "White" to allow only the listed packages, "Black" to forbid them.
        app_package_name_list: The package names.
    """

    rule_type: str | None = None
    app_package_name_list: list[str] | None = None

    def validate(self) -> None:
        """Raise ValueError if a package name is not a string."""
        _check_string_items("app_package_name_list", self.app_package_name_list)


@define(slots=False)
class MobileSimulateConfig:
    """Simulate another device, from data at `simulate_path` of a context."""

    simulate: bool = False
    simulate_path: str | None = None
    simulate_mode: MobileSimulateMode | None = None
    simulated_context_id: str | None = None

    def validate(self) -> None:
        """Raise ValueError if the path is missing."""
        if not self.simulate_path:
            raise ValueError("simulate_path is required")


@define(slots=False)
class MobileExtraConfig:
    """Settings of a mobile session.

    None keeps the image's setting.
    """

    lock_resolution: bool | None = None
    app_manager_rule: AppManagerRule | None = None
    hide_navigation_bar: bool | None = None
    uninstall_blacklist: list[str] | None = None
    simulate_config: MobileSimulateConfig | None = None

    def validate(self) -> None:
        """Raise ValueError if a nested setting is malformed."""
        _check_string_items("uninstall_blacklist", self.uninstall_blacklist)
        if self.app_manager_rule is not None:
            self.app_manager_rule.validate()
        if self.simulate_config is not None:
            self.simulate_config.validate()


@define(slots=False)
class ExtraConfigs:
    """Settings that only some images support."""

    mobile: MobileExtraConfig | None = None

    def validate(self) -> None:
        """Raise ValueError if a nested setting is malformed."""
        if self.mobile is not None:
            self.mobile.validate()


@define(slots=False)
class UIElementListResult(BaseResult):
    """Elements of a phone's screen.

    Attributes:
        elements: The elements as dicts, nested in `children`; `bounds_rect` has left, top, right, bottom in pixels.
        raw: The tool's own text.
        format: "json" or "xml"; as XML there is only `raw`.
    """

    elements: list[dict[str, Any]] = field(default=None, converter=list_or_empty)
    raw: str = field(default="", repr=False)
    format: str = "json"
    error_message: str = ""


@define(slots=False)
class AdbUrlResult(BaseResult):
    """How `adb` reaches the phone: `data` is a command such as `adb connect HOST:PORT`, None on failure."""

    data: str | None = None


@define(slots=False)
class MobileSimulateUploadResult:
    """Outcome of storing another device's description: the context that has it."""

    success: bool
    mobile_simulate_context_id: str = ""
    error_message: str = ""
