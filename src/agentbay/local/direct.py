"""The direct way to a session's tools, for clients that hold that session's own token instead of the key."""

from __future__ import annotations

import json

from agentbay._wire.converter import Malformed, structure, unstructure
from agentbay._wire.tools import DirectToolCall
from agentbay.errors import AuthenticationError
from agentbay.local.asgi import Request, Response, as_json
from agentbay.local.guard import same
from agentbay.local.refusals import invalid, session_not_found
from agentbay.local.runtime import Runtime
from agentbay.local.tooling import call_tool


async def call_directly(runtime: Runtime, session_id: str, request: Request, body: bytes) -> Response:
    """Call a tool.

    Raises:
        AgentBayError: It is refused.
    """
    if not runtime.offers_links:
        raise session_not_found()
    session = runtime.sessions.find(session_id)
    if not same(request.headers.get("x-access-token", ""), session.token.encode()):
        raise AuthenticationError("The X-Access-Token is not this session's.", 401, code="InvalidAccessToken")
    call = _read(request, body)
    reply = await call_tool(session, call.tool, call.args)
    return as_json({"data": {"result": unstructure(reply)}})


def _read(request: Request, body: bytes) -> DirectToolCall:
    # A page of another site can post a form or plain text, but no JSON, without asking first.
    if request.content_type != "application/json":
        raise invalid("The body must be JSON (application/json).", "InvalidContentType")
    try:
        call: DirectToolCall = structure(json.loads(body), DirectToolCall, path="body")
    except (Malformed, ValueError, RecursionError) as error:
        raise invalid(f"The body cannot be read: {error}.") from error
    return call
