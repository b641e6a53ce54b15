"""The key of a request to the cloud's MCP endpoint.

It is asked for before the endpoint is loaded.
"""

from __future__ import annotations

from urllib.parse import parse_qs

from agentbay.local.http.asgi import Request
from agentbay.local.http.origin_check import OriginCheck


def read_mcp_query(request: Request) -> dict[str, str]:
    """Return the query of a request, with names in upper case."""
    return {name.upper(): values[-1] for name, values in parse_qs(request.query).items()}


def has_mcp_key(request: Request, origin_check: OriginCheck) -> bool:
    """Return whether a request shows the key, in its query or a header."""
    key = read_mcp_query(request).get("APIKEY")
    return origin_check.has_valid_key(request.headers.get("authorization", "") if key is None else f"Bearer {key}")
