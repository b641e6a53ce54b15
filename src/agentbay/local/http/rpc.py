"""Remote procedure calls: actions in forms, answers in envelopes."""

from __future__ import annotations

import logging
import re
from functools import partial
from typing import Any
from urllib.parse import unquote_plus

from attrs import evolve

from agentbay._wire.converter import MalformedError
from agentbay._wire.form import read_fields
from agentbay._wire.images import ForkSession
from agentbay._wire.schema import Action
from agentbay._wire.sessions import CreateMcpSession
from agentbay.local.api_errors import invalid_port, invalid_request, not_logged_in, unknown_action
from agentbay.local.handlers.registry import ACTIONS
from agentbay.local.http import envelope
from agentbay.local.http.asgi import Request, Response
from agentbay.local.http.form import read_form
from agentbay.local.http.origin_check import OriginCheck
from agentbay.local.large_json_decoder import load_json
from agentbay.local.runtime import Runtime
from agentbay.local.worker_thread import run_by_size

_logger = logging.getLogger(__name__)

# The & must follow, because the beginning of a body can end within the key, and half a key is not valid.
_AUTHORIZATION = re.compile(r"(?:^|&)Authorization=([^&]*)&")
_FORM_CONTENT_TYPE = "application/x-www-form-urlencoded"


async def call_action(
    runtime: Runtime,
    origin_check: OriginCheck,
    request: Request,
    body: bytearray,
    request_id: str,
) -> Response:
    """Do the action that a request names.

    Raises:
        AgentBayError: The request is refused, or the action failed.
    """
    fields = await run_by_size(len(body), _fields, request, body)
    if not origin_check.has_valid_key(fields.get("Authorization", "")):
        raise not_logged_in()
    request.mark_authenticated()
    name = fields.get("Action") or request.headers.get("x-acs-action", "")
    if (handler := await ACTIONS.find(name)) is None:
        raise unknown_action(name)
    _logger.debug("request=%s action=%s", request_id, name)
    action = await run_by_size(len(body), _parse_action, handler.action, fields)
    result = await handler.run(runtime, action)
    response = envelope.success_response(handler.action.spec, result, request_id)
    # A client that has disconnected never learns the ids, so nobody would delete the sessions.
    if created := _created_sessions(action, result):
        return evolve(response, on_undelivered=partial(runtime.sessions.delete_undelivered, created))
    return response


def _created_sessions(action: Action[Any], result: Any) -> list[str]:
    """Return the ids of the sessions that an action has created."""
    made = result if isinstance(action, ForkSession) else [result] if isinstance(action, CreateMcpSession) else []
    return [session.session_id for session in made]


def find_authorization(request: Request, beginning_of_body: bytes) -> list[str]:
    """Return possible keys from the query and the form's beginning."""
    texts = (request.query, beginning_of_body.decode("ascii", "replace"))
    return [unquote_plus(value) for text in texts for value in _AUTHORIZATION.findall(text)]


def _fields(request: Request, body: bytearray) -> dict[str, str]:
    # Query and form are merged, since clients differ in which field they put where.
    if body and request.content_type not in ("", _FORM_CONTENT_TYPE):
        raise invalid_request(f"The body must be a form ({_FORM_CONTENT_TYPE}).", "InvalidContentType")
    try:
        return dict([*read_form(request.query.encode("latin-1")), *read_form(body)])
    except ValueError as error:
        raise invalid_request(f"The form cannot be read: {error}.") from error


def _parse_action(cls: type[Action[Any]], fields: dict[str, str]) -> Action[Any]:
    try:
        return read_fields(cls, fields, load_json)
    except MalformedError as error:
        if error.field == "Port":
            raise invalid_port(fields["Port"]) from error
        raise invalid_request(f"{error}.") from error
