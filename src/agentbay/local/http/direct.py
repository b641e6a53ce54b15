"""Direct tool calls, for clients that hold a session's token instead of the key."""

from __future__ import annotations

from collections.abc import Mapping

from agentbay._wire.converter import MalformedError, structure, unstructure
from agentbay._wire.tools import DirectToolCall
from agentbay.errors import AuthenticationError, SessionNotFoundError
from agentbay.local.api_errors import invalid_request, session_not_found
from agentbay.local.handlers.tool_calls import call_tool
from agentbay.local.http.asgi import Request, Response, json_response, require_json
from agentbay.local.ids import is_same_secret
from agentbay.local.large_json_decoder import load_json
from agentbay.local.runtime import Runtime
from agentbay.local.sessions.session import Session
from agentbay.local.worker_thread import run_by_size


async def call_tool_directly(runtime: Runtime, session_id: str, request: Request, body: bytearray) -> Response:
    """Call a tool of a session for a client that shows the session's token.

    Raises:
        AgentBayError: The call is refused.
    """
    session = find_authorized_session(runtime, session_id, request)
    call = await run_by_size(len(body), _parse_tool_call, request, body)
    reply = await call_tool(session, call.tool, call.args)
    return json_response({"data": {"result": unstructure(reply)}})


def find_authorized_session(runtime: Runtime, session_id: str, request: Request) -> Session:
    """Return the session that a direct call is for.

    Raises:
        AgentBayError: The request does not show its token, or there is no such session.
    """
    if not runtime.direct_calls_enabled:
        raise session_not_found()
    session = runtime.sessions.find(session_id)
    require_session_token(session, request.headers)
    request.mark_authenticated()
    return session


def has_session_token(runtime: Runtime, session_id: str, request: Request) -> bool:
    """Return whether a request shows the token of a session."""
    try:
        session = runtime.sessions.find(session_id)
    except SessionNotFoundError:
        # No error, since the body budget asks this before the body is read, and the call itself refuses later.
        return False
    return _is_token_of(session, request.headers)


def require_session_token(session: Session, headers: Mapping[str, str]) -> None:
    """Raise AuthenticationError unless headers carry the token of a session."""
    if not _is_token_of(session, headers):
        raise AuthenticationError("The X-Access-Token is not this session's.", 401, code="InvalidAccessToken")


def _is_token_of(session: Session, headers: Mapping[str, str]) -> bool:
    return is_same_secret(headers.get("x-access-token", ""), session.token.encode())


def _parse_tool_call(request: Request, body: bytearray) -> DirectToolCall:
    require_json(request)
    try:
        call: DirectToolCall = structure(load_json(body), DirectToolCall, path="body")
    except (MalformedError, ValueError, RecursionError) as error:
        raise invalid_request(f"The body cannot be read: {error}.") from error
    return call
