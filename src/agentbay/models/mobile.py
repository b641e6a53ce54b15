"""Settings of mobile sessions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sized
from enum import Enum
from typing import Any

from .._arguments import checked_arguments
from .._lazy_attrs import define, field
from .base import BaseResult, IterableResult, list_or_empty


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


class ModelChecks:
    """Checks that the official package's generated models offer, kept for programs that call them."""

    def validate_required(self, prop: object, prop_name: str) -> None:
        """Raise ValueError if a value is None."""
        _require(prop is not None, f'"{prop_name}" is required.')

    def validate_max_length(self, prop: Sized, prop_name: str, max_length: int) -> None:
        """Raise ValueError if a value is too long."""
        _require(len(prop) <= max_length, f"{prop_name} is exceed max-length: {max_length}")

    def validate_min_length(self, prop: Sized, prop_name: str, min_length: int) -> None:
        """Raise ValueError if a value is too short."""
        _require(len(prop) >= min_length, f"{prop_name} is less than min-length: {min_length}")

    def validate_maximum(self, num: float, prop_name: str, maximum: float) -> None:
        """Raise ValueError if a number is too large."""
        _require(num <= maximum, f"{prop_name} is greater than the maximum: {maximum}")

    def validate_minimum(self, num: float, prop_name: str, minimum: float) -> None:
        """Raise ValueError if a number is too small."""
        _require(num >= minimum, f"{prop_name} is less than the minimum: {minimum}")

    def validate_pattern(self, prop: str, prop_name: str, pattern: str) -> None:
        """Raise ValueError if a text does not match a regular expression."""
        _require(re.match(pattern, prop) is not None, f"{prop_name} is not match: {pattern}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@checked_arguments()
@define(slots=False)
class AppManagerRule(ModelChecks):
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


@checked_arguments()
@define(slots=False)
class MobileSimulateConfig(ModelChecks):
    """Simulate another device, from data at `simulate_path` of a context."""

    simulate: bool = False
    simulate_path: str | None = None
    simulate_mode: MobileSimulateMode | None = None
    simulated_context_id: str | None = None

    def validate(self) -> None:
        """Raise ValueError if the path is missing."""
        if not self.simulate_path:
            raise ValueError("simulate_path is required")


@checked_arguments()
@define(slots=False)
class MobileExtraConfig(ModelChecks):
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


@checked_arguments()
@define(slots=False)
class ExtraConfigs(ModelChecks):
    """Settings that only some images support."""

    mobile: MobileExtraConfig | None = None

    def validate(self) -> None:
        """Raise ValueError if a nested setting is malformed."""
        if self.mobile is not None:
            self.mobile.validate()


@define(slots=False)
class UIElementListResult(BaseResult, IterableResult[dict[str, Any]]):
    """Elements of a phone's screen.

    Attributes:
        elements: The elements as dicts, nested in `children`; `bounds_rect` has left, top, right, bottom in pixels.
        raw: The tool's own text.
        format: "json" or "xml"; as XML there is only `raw`.
    """

    _LIST_FIELD = "elements"

    elements: list[dict[str, Any]] = field(default=None, converter=list_or_empty)
    raw: str = field(default="", repr=False)
    format: str = "json"
    error_message: str = ""


@define(slots=False)
class AdbUrlResult(BaseResult):
    """How `adb` reaches the phone.

    `data` is a command such as `adb connect HOST:PORT`, None on failure.
    """

    data: str | None = None


@define(slots=False)
class MobileSimulateUploadResult:
    """Outcome of storing another device's description: the context that has it."""

    success: bool
    mobile_simulate_context_id: str = ""
    error_message: str = ""
