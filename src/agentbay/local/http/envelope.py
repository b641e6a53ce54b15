"""The envelope of an answer: what surrounds the data of every action, and what an error looks like."""

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
    """Make an id for a request."""
    return str(uuid.uuid4()).upper()


def success_response(spec: ActionSpec, result: object, request_id: str) -> Response:
    """Write the answer of an action that succeeded; `result` is its data, a page of it, or None."""
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
    """Write a refusal: HTTP 400 unless the error says otherwise, the form in which every client notices it."""
    return error_response(error.status_code or 400, error.code or "InvalidParameter", str(error), request_id)


def error_response(status: int, code: str, message: str, request_id: str) -> Response:
    """Write an error."""
    body: dict[str, Any] = {"RequestId": request_id, "HostId": "agentbay.local", "Code": code, "Message": message}
    if status == 200:  # as the service refuses some things
        body |= {"Success": False, "HttpStatusCode": 200}
    return json_response(body, status)
