"""The envelope of an answer: what surrounds the data of every action, and what an error looks like."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentbay._wire.converter import unstructure
from agentbay._wire.schema import ActionSpec
from agentbay.errors import AgentBayError
from agentbay.local.asgi import Response, as_json


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list, and where the next one begins ("": nowhere)."""

    items: Sequence[object]
    next_token: str
    max_results: int
    total_count: int
    counted_as: str = "TotalCount"


def new_request_id() -> str:
    """Make an id for a request."""
    return str(uuid.uuid4()).upper()


def success(spec: ActionSpec, result: object, request_id: str) -> Response:
    """Write the answer of an action that succeeded; `result` is its data, a page of it, or None."""
    body: dict[str, Any] = {
        "RequestId": request_id,
        "Success": True,
        "Code": "ok",
        "HttpStatusCode": 200,
        "Message": "",
    }
    if isinstance(result, Page):
        body |= {
            "NextToken": result.next_token,
            "MaxResults": result.max_results,
            result.counted_as: result.total_count,
        }
        result = list(result.items)
    if result is not None:
        data = unstructure(result)
        body["Data"] = json.dumps(data) if spec.data_as_text else data
    return as_json(body)


def refusal(error: AgentBayError, request_id: str) -> Response:
    """Write a refusal: HTTP 400 unless the error says otherwise, the form in which every client notices it."""
    return failure(error.status_code or 400, error.code or "InvalidParameter", str(error), request_id)


def failure(status: int, code: str, message: str, request_id: str) -> Response:
    """Write an error."""
    body: dict[str, Any] = {"RequestId": request_id, "HostId": "agentbay.local", "Code": code, "Message": message}
    if status == 200:  # as the service refuses some things
        body |= {"Success": False, "HttpStatusCode": 200}
    return as_json(body, status)
