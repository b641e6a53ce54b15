"""The RPC: a form in, an envelope out."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from agentbay._wire.converter import Malformed
from agentbay._wire.form import read_fields
from agentbay._wire.schema import Action
from agentbay._wire.sessions import SessionCreated
from agentbay.local import envelope
from agentbay.local.asgi import Request, Response
from agentbay.local.dispatch import ACTION_HANDLERS
from agentbay.local.guard import Guard
from agentbay.local.handlers.links import invalid_port
from agentbay.local.refusals import invalid, not_logged_in, unknown_action
from agentbay.local.runtime import Runtime

_logger = logging.getLogger(__name__)

_MOST_FIELDS = 1000
_FORM = "application/x-www-form-urlencoded"


async def call_action(runtime: Runtime, guard: Guard, request: Request, body: bytes, request_id: str) -> Response:
    """Do what an RPC request asks.

    Raises:
        AgentBayError: It is refused.
    """
    fields = _fields(request, body)
    if not guard.knows(fields.get("Authorization", "")):
        raise not_logged_in()
    name = fields.get("Action") or request.headers.get("x-acs-action", "")
    if name not in ACTION_HANDLERS:
        raise unknown_action(name)
    cls, handler = ACTION_HANDLERS[name]
    _logger.debug("request=%s action=%s", request_id, name)
    result = await handler(runtime, _read(cls, fields))
    response = envelope.success(cls.spec, result, request_id)
    if isinstance(result, SessionCreated):
        return replace(response, undo=partial(runtime.sessions.forsake, result.session_id))
    return response


def _fields(request: Request, body: bytes) -> dict[str, str]:
    """Merge query and form, as clients differ in what they put where."""
    if body and request.content_type not in ("", _FORM):
        raise invalid(f"The body must be a form ({_FORM}).", "InvalidContentType")
    try:
        return {
            name: value
            for text in (request.query, body.decode("ascii"))
            for name, value in parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
        }
    except ValueError as error:
        raise invalid(f"The form cannot be read: {error}.") from error


def _read(cls: type[Action[Any]], fields: dict[str, str]) -> Action[Any]:
    try:
        return read_fields(cls, fields)
    except Malformed as error:
        if str(error).startswith("Port:"):
            raise invalid_port(fields["Port"]) from error
        raise invalid(f"{error}.") from error
