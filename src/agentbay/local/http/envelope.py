"""The envelope around the data of every action's answer, and the form of errors."""

from __future__ import annotations

import json
import uuid
from typing import Any

from agentbay._wire.converter import unstructure
from agentbay._wire.schema import ActionSpec
from agentbay.errors import AgentBayError
from agentbay.local.handlers.paging import ListPage
from agentbay.local.http.asgi import Response, json_response


def new_request_id() -> str:
    """Make the id of a request: an upper-case UUID."""
    return str(uuid.uuid4()).upper()


def success_response(spec: ActionSpec, result: object, request_id: str) -> Response:
    """Write the answer of an action that succeeded.

    Args:
        result: The data of the answer, a `ListPage` of it, or None.
    """
    body: dict[str, Any] = {
        "RequestId": request_id,
        "Success": True,
        "Code": "ok",
        "HttpStatusCode": 200,
        "Message": "",
    }
    if isinstance(result, ListPage):
        body |= {
            "NextToken": result.next_token,
            "MaxResults": result.max_results,
            result.total_field: result.total_count,
        }
        result = list(result.items)
    if result is not None:
        data = unstructure(result)
        body["Data"] = json.dumps(data) if spec.data_as_text else data
    return json_response(body)


def response_for_error(error: AgentBayError, request_id: str) -> Response:
    """Write an error with its own HTTP status, or 400, which every client notices."""
    return error_response(error.status_code or 400, error.code or "InvalidParameter", str(error), request_id)


def error_response(status: int, code: str, message: str, request_id: str) -> Response:
    """Write the answer of an action that failed."""
    body: dict[str, Any] = {"RequestId": request_id, "HostId": "agentbay.local", "Code": code, "Message": message}
    if status == 200:  # some clients expect a few refusals in this form
        body |= {"Success": False, "HttpStatusCode": 200}
    return json_response(body, status)
