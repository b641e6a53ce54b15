"""Links to ports inside sessions."""

from __future__ import annotations

from agentbay._wire.sessions import GetLink, LinkData
from agentbay.errors import InvalidRequestError
from agentbay.local import images
from agentbay.local.dispatch import answers
from agentbay.local.ports import FIRST, LAST, make_token
from agentbay.local.refusals import invalid
from agentbay.local.runtime import Runtime
from agentbay.local.session import Session


def invalid_port(port: object) -> InvalidRequestError:
    """Refuse a port."""
    message = f"Invalid port value: {port}. Port must be an integer in the range [{FIRST}, {LAST}]."
    return invalid(message, "InvalidPort")


@answers(GetLink)
async def get_link(runtime: Runtime, action: GetLink) -> LinkData:
    session = runtime.sessions.find(action.session_id)
    protocol = action.protocol_type or "wss"
    if protocol not in ("https", "wss"):
        raise invalid(f"{protocol} not supported", "InvalidParameter.ProtocolType")
    if action.port is None:
        raise _no_port(session, protocol)
    if not FIRST <= action.port <= LAST:
        raise invalid_port(action.port)
    token = make_token(session, action.port)
    if protocol == "https":
        return LinkData(url=f"{runtime.place.http}/request_ai/{token}/path/")
    return LinkData(url=f"{runtime.place.ws}/websocket_ai/{token}")


def _no_port(session: Session, protocol: str) -> InvalidRequestError:
    if protocol == "https":
        return invalid("port is not valid", "InvalidPort")
    if images.has_browser(session.image_id):
        return invalid("The local runtime does not offer a browser yet.", "BrowserNotSupported.Local")
    return invalid("no port specified, cdp default, but only BrowserUse image support cdp", "InvalidPort")
