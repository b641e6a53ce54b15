"""Actions on the browser and the phone of a session."""

from __future__ import annotations

from typing import Any

from .schema import JSON, Action, action, pascal_payload, wire_field


@pascal_payload
class LinkUrlData:
    """A URL that leads to something in a session."""

    url: str = wire_field(default="", repr=False)


@action("GetAdbLink", idempotent=True)
class GetAdbLink(Action[LinkUrlData]):
    """Ask for the address at which `adb connect` finds the phone of a session."""

    session_id: str
    option: dict[str, Any] = wire_field(codec=JSON, repr=False)


@pascal_payload
class BrowserPortData:
    """The port of a browser that was started."""

    port: int | None = None


@action("InitBrowser", idempotent=True)
class InitBrowser(Action[BrowserPortData]):
    """Start the browser of a session."""

    session_id: str
    persistent_path: str
    browser_option: dict[str, Any] = wire_field(codec=JSON, repr=False)


@action("GetCdpLink", idempotent=True)
class GetCdpLink(Action[LinkUrlData]):
    """Ask for the WebSocket URL at which a browser speaks the DevTools protocol."""

    session_id: str
