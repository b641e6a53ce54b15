"""Links to ports inside sessions."""

from __future__ import annotations

from agentbay._wire.sessions import GetLink, LinkData
from agentbay.errors import InvalidRequestError
from agentbay.local.api_errors import ALL_PORTS, invalid_port, invalid_request
from agentbay.local.handlers.browser import browser_not_started, make_cdp_url
from agentbay.local.handlers.desktop import make_desktop_url
from agentbay.local.handlers.handler_tables import action_handler
from agentbay.local.runtime import Runtime
from agentbay.local.sandbox.shared.sandbox_config import PROXY_PORT
from agentbay.local.sessions import images
from agentbay.local.sessions.port_tokens import make_port_token
from agentbay.local.sessions.session import Session

_CLOUD_PORTS = range(30100, 30200)  # those of links in the cloud


def _check_port(session: Session, port: int) -> None:
    # In the network of the machine, a link to any port would open the servers of others.
    has_own_network = session.sandbox.has_namespaces and session.policy_id != "host"
    allowed = ALL_PORTS if has_own_network else _CLOUD_PORTS
    if port not in allowed:
        raise invalid_port(port, allowed)
    if port == PROXY_PORT and session.policy_id == "proxy":
        raise invalid_request(f"Invalid port value: {port} is the port of the session's egress proxy.", "InvalidPort")


@action_handler(GetLink)
async def get_link(runtime: Runtime, action: GetLink) -> LinkData:
    session = runtime.sessions.find(action.session_id)
    protocol = action.protocol_type or "wss"
    if protocol not in ("https", "wss"):
        raise invalid_request(f"{protocol} not supported: it must be https or wss", "InvalidParameter.ProtocolType")
    if action.port is None:
        if protocol == "wss" and session.browser.was_started:
            return LinkData(url=await make_cdp_url(runtime, session))
        if action.protocol_type in (None, "https") and _has_desktop(session):
            return LinkData(url=await make_desktop_url(runtime, session))
        raise _no_port(session, protocol)
    _check_port(session, action.port)
    token = make_port_token(session, action.port)
    if protocol == "https":
        return LinkData(url=f"{runtime.address.http_url}/request_ai/{token}/path/")
    return LinkData(url=f"{runtime.address.ws_url}/websocket_ai/{token}")


def _has_desktop(session: Session) -> bool:
    return session.desktop.was_started or images.has_desktop(session.image_id)


def _no_port(session: Session, protocol: str) -> InvalidRequestError:
    if protocol == "https":
        return invalid_request("port is not valid", "InvalidPort")
    if images.has_browser(session.image_id):
        return browser_not_started()
    return invalid_request("no port specified, cdp default, but only BrowserUse image support cdp", "InvalidPort")
