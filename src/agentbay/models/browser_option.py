"""How the browser of a session starts: screen, proxy, fingerprint, extensions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

from .._arguments import checked_arguments, refusal
from .._lazy_attrs import define, field
from ..errors import InvalidArgumentError
from .base import redacted_repr
from .fingerprint import FingerprintFormat

FINGERPRINT_FILE = "/tmp/browser_fingerprint/fingerprint.json"
EXTENSIONS_PATH = "/tmp/extensions/"
_DEVICES = ("desktop", "mobile")
_OPERATING_SYSTEMS = ("windows", "macos", "linux", "android", "ios")
_WUYING_STRATEGIES = ("restricted", "polling")
_MANAGED_STRATEGIES = ("polling", "sticky", "rotating", "matched")
_MAX_PIXELS = 16_384  # no browser draws a larger page

ProxyType = Literal["custom", "wuying", "managed"]
ProxyStrategy = Literal["restricted", "polling", "sticky", "rotating", "matched"]
BrowserType = Literal["chrome", "chromium"]


@define(slots=False)
class BrowserViewport:
    """The size of the page, in pixels."""

    width: int = 1920
    height: int = 1080

    def __attrs_post_init__(self) -> None:
        _check_size(self.width, self.height)


@define(slots=False)
class BrowserScreen:
    """The size of the screen, in pixels."""

    width: int = 1920
    height: int = 1080

    def __attrs_post_init__(self) -> None:
        _check_size(self.width, self.height)


@define(slots=False)
class BrowserFingerprint:
    """Which fingerprint the service makes for the browser.

    None leaves a choice to the service.

    Attributes:
        devices: "desktop", "mobile".
        operating_systems: "windows", "macos", "linux", "android", "ios".
        locales: Such as "zh-CN".
    """

    devices: list[str] | None = None
    operating_systems: list[str] | None = None
    locales: list[str] | None = None

    def __attrs_post_init__(self) -> None:
        _check_list("devices", self.devices)
        for device in self.devices or ():
            if device not in _DEVICES:
                raise ValueError(f"device must be desktop or mobile, not {device!r}")
        _check_list("operating_systems", self.operating_systems)
        for system in self.operating_systems or ():
            if system not in _OPERATING_SYSTEMS:
                raise ValueError(f"operating_system must be windows, macos, linux, android or ios, not {system!r}")


@define(slots=False)
class BrowserProxy:
    """The proxy that a browser goes through.

    Attributes:
        type: "custom" is a proxy of your own, "wuying" and "managed" are the service's.
        server: Address of a custom proxy, such as `http://host:8080`.
        username, password: How to log in to a custom proxy.
        strategy: How the service chooses among its proxies.
        pollsize: How many proxies take turns, for "polling".
        user_id: Whose proxies, for "managed".
        isp, country, province, city: Where the proxy is, for "matched".
    """

    type: ProxyType = field(alias="proxy_type")
    server: str | None = field(default=None, repr=redacted_repr)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    strategy: ProxyStrategy | None = None
    pollsize: int = 10
    user_id: str | None = None
    isp: str | None = None
    country: str | None = None
    province: str | None = None
    city: str | None = None

    def __attrs_post_init__(self) -> None:
        for name in ("server", "username", "password"):
            if not isinstance(text := getattr(self, name), str | None):
                raise InvalidArgumentError(f"{name} must be a string or None, not of type {type(text).__name__}")
        self._check()

    def _check(self) -> None:
        if self.type == "custom":
            if not self.server:
                raise ValueError("server is required for custom proxy type")
        elif self.type == "wuying":
            self._check_wuying()
        elif self.type == "managed":
            self._check_managed()
        else:
            raise ValueError(f"proxy_type must be custom, wuying, or managed, not {self.type!r}")

    def _check_wuying(self) -> None:
        if not self.strategy:
            raise ValueError("strategy is required for wuying proxy type")
        if self.strategy not in _WUYING_STRATEGIES:
            raise ValueError(f"strategy must be restricted or polling for wuying proxy type, not {self.strategy!r}")
        if self.strategy == "polling" and self.pollsize <= 0:
            raise ValueError(f"pollsize must be greater than 0 for polling strategy, not {self.pollsize}")

    def _check_managed(self) -> None:
        if not self.strategy:
            raise ValueError("strategy is required for managed proxy type")
        if self.strategy not in _MANAGED_STRATEGIES:
            raise ValueError(
                f"strategy must be polling, sticky, rotating, or matched for managed proxy type, not {self.strategy!r}"
            )
        if not self.user_id:
            raise ValueError("user_id is required for managed proxy type")
        if self.strategy == "matched" and not any((self.isp, self.country, self.province, self.city)):
            raise ValueError("At least one of isp, country, province, or city is required for matched strategy")


@checked_arguments()
@define(slots=False, init=False)
class BrowserOption:
    """How the browser of a session starts.

    Attributes:
        use_stealth: Hide from pages that a program drives the browser, as far as the service can.
        user_agent: What the browser calls itself.
        viewport: The size of the page.
        screen: The size of the screen.
        fingerprint: Which fingerprint the service makes.
        fingerprint_format: A fingerprint of your own.
        fingerprint_persist_path: Where a fingerprint is kept in the session, set by `fingerprint_persistent=True`.
        solve_captchas: Let the service solve captchas.
        auto_login: Let the service log in where it can.
        call_for_user: Notify the program when a person is needed.
        proxies: At most one proxy.
        extension_path: Where the session has the extensions to load.
        cmd_args: Further arguments of the browser's command line.
        default_navigate_url: The page shown first.
        browser_type: "chrome" or "chromium".
    """

    use_stealth: bool
    user_agent: str | None
    viewport: BrowserViewport | None
    screen: BrowserScreen | None
    fingerprint: BrowserFingerprint | None
    fingerprint_format: FingerprintFormat | None
    fingerprint_persist_path: str | None
    solve_captchas: bool
    auto_login: bool
    call_for_user: bool
    proxies: list[BrowserProxy] | None
    extension_path: str | None
    cmd_args: list[str] | None
    default_navigate_url: str | None = field(repr=redacted_repr)
    browser_type: str | None

    def __init__(
        self,
        use_stealth: bool = False,
        user_agent: str | None = None,
        viewport: BrowserViewport | None = None,
        screen: BrowserScreen | None = None,
        fingerprint: BrowserFingerprint | None = None,
        fingerprint_format: FingerprintFormat | None = None,
        fingerprint_persistent: bool = False,
        solve_captchas: bool = False,
        auto_login: bool = False,
        call_for_user: bool = False,
        proxies: list[BrowserProxy] | None = None,
        extension_path: str | None = EXTENSIONS_PATH,
        cmd_args: list[str] | None = None,
        default_navigate_url: str | None = None,
        browser_type: BrowserType | None = None,
    ) -> None:
        self.use_stealth, self.user_agent = use_stealth, user_agent
        self.viewport, self.screen = viewport, screen
        self.fingerprint, self.fingerprint_format = fingerprint, fingerprint_format
        self.fingerprint_persist_path = FINGERPRINT_FILE if fingerprint_persistent else None
        self.solve_captchas, self.auto_login, self.call_for_user = solve_captchas, auto_login, call_for_user
        self.proxies, self.extension_path, self.cmd_args = proxies, extension_path, cmd_args
        self.default_navigate_url, self.browser_type = default_navigate_url, browser_type
        self._check()

    def _check(self) -> None:
        if self.proxies and len(self.proxies) > 1:
            raise ValueError("proxies list length must be limited to 1")
        if self.extension_path is not None and not self.extension_path.strip():
            raise ValueError("extension_path cannot be empty")


@define(slots=False, init=False)
class BrowserNotifyMessage:
    """A message from the browser of a session, or to it.

    Attributes:
        type: Such as "call-for-user".
        id: Which message it is; `send_takeover_done` takes it.
        code: What it is about: 101 a captcha, 102 a login, 103 a payment, 201 and 202 a captcha that is being solved,
            301 and 302 a login that goes on by itself.
        message: The same in words.
        action: What the program shall do: "takeover", "takeoverdone", "pause" or "resume".
        extra_params: Such as `max_wait_time`, in seconds.
    """

    type: str | None
    id: int | None
    code: int | None
    message: str | None
    action: str | None
    extra_params: dict[str, Any]

    def __init__(
        self,
        type: str | None = None,
        id: int | None = None,
        code: int | None = None,
        message: str | None = None,
        action: str | None = None,
        extra_params: dict[str, Any] | None = None,
    ) -> None:
        self.type, self.id, self.code = type, id, code
        self.message, self.action, self.extra_params = message, action, extra_params or {}


def write_option(option: BrowserOption) -> dict[str, Any]:
    """Write the options as the JSON object that the service reads."""
    written: dict[str, Any] = {}
    simulate = os.environ.get("AGENTBAY_BROWSER_BEHAVIOR_SIMULATE", "")
    if simulate:
        written["behaviorSimulate"] = simulate != "0"
    fingerprint = option.fingerprint_format
    fields = {
        "useStealth": option.use_stealth,
        "userAgent": option.user_agent,
        "viewport": option.viewport and _write_size(option.viewport),
        "screen": option.screen and _write_size(option.screen),
        "fingerprint": option.fingerprint and _write_fingerprint(option.fingerprint),
        "fingerprintRawData": fingerprint and fingerprint.encoded(),
        "fingerprintPersistPath": option.fingerprint_persist_path,
        "solveCaptchas": option.solve_captchas,
        "autoLogin": option.auto_login,
        "callForUser": option.call_for_user,
        "proxies": [write_proxy(proxy) for proxy in option.proxies] if option.proxies is not None else None,
        "extensionPath": option.extension_path,
        "cmdArgs": option.cmd_args,
        "defaultNavigateUrl": option.default_navigate_url,
        "browserType": option.browser_type,
    }
    return written | {name: value for name, value in fields.items() if value is not None}


def write_proxy(proxy: BrowserProxy) -> dict[str, Any]:
    """Write a proxy as the service reads it."""
    if proxy.type == "custom":
        found = {"server": proxy.server, "username": proxy.username, "password": proxy.password}
        return {"type": "custom", **{name: value for name, value in found.items() if value}}
    if proxy.type == "wuying":
        poll = {"pollsize": proxy.pollsize} if proxy.strategy == "polling" else {}
        return {"type": "wuying", "strategy": proxy.strategy, **poll}
    place = {"isp": proxy.isp, "country": proxy.country, "province": proxy.province, "city": proxy.city}
    chosen = {name: value for name, value in place.items() if value}
    return {"type": "managed", "strategy": proxy.strategy, "userId": proxy.user_id, **chosen}


def write_message(message: BrowserNotifyMessage) -> dict[str, Any]:
    """Write a message as it travels, without what is empty."""
    fields = {
        "type": message.type,
        "id": message.id,
        "code": message.code,
        "message": message.message,
        "action": message.action,
        "extraParams": message.extra_params or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def read_message(data: Mapping[str, Any]) -> BrowserNotifyMessage:
    """Read a message as it travels."""
    extra = data.get("extraParams")
    return BrowserNotifyMessage(
        data.get("type"),
        data.get("id"),
        data.get("code"),
        data.get("message"),
        data.get("action"),
        extra if isinstance(extra, dict) else None,
    )


def _write_size(size: BrowserViewport | BrowserScreen) -> dict[str, int]:
    return {"width": size.width, "height": size.height}


def _write_fingerprint(fingerprint: BrowserFingerprint) -> dict[str, list[str]]:
    fields = {
        "devices": fingerprint.devices,
        "operatingSystems": fingerprint.operating_systems,
        "locales": fingerprint.locales,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _check_size(width: object, height: object) -> None:
    for name, value in (("width", width), ("height", height)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_PIXELS:
            raise refusal(name, f"a whole number of pixels, 1 to {_MAX_PIXELS}", value)


def _check_list(name: str, value: object) -> None:
    if value is not None and not isinstance(value, list):
        raise ValueError(f"{name} must be a list, not {type(value).__name__}")
