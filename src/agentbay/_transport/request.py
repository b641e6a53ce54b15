"""Turn an action into the bytes of a request."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from .._version import __version__
from .._wire.converter import unstructure
from .._wire.form import write_fields
from .._wire.raw_calls import CALL_HEADER, CONTENT_TYPE
from .._wire.schema import Action
from .._wire.tools import DirectToolCall
from ..config import Settings

API_VERSION = "2025-05-06"
USER_AGENT = f"agentbay-sdk/{__version__} Python/{platform.python_version()} {platform.system()}".encode()

HeaderList = list[tuple[bytes, bytes]]

_FORM_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~ ")
_PERCENT = ord("%")


class HttpRequest(NamedTuple):
    """A request that is ready to be sent.

    Attributes:
        url: The address without path and query, which may be secret; the connection pool's key.
        target: Path and query, as in the request line.
        headers: Header lines in order.
        body: The whole body.
        label: Its name in errors and logs.
        method: The HTTP method.
    """

    url: str
    target: bytes
    headers: HeaderList
    body: bytes
    label: str
    method: str = "POST"


def make_rpc_request(action: Action[Any], settings: Settings) -> HttpRequest:
    """Return the request for an action."""
    name = action.spec.name
    query, form = write_fields(action, f"Bearer {settings.api_key}")
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    fixed, path, headers = _constant_parts(name, settings.url, settings.host)
    target = f"{path}?{fixed}&Timestamp={stamp.replace(':', '%3A')}&SignatureNonce={os.urandom(16).hex()}"
    if query:
        target += "&" + _encode_form(query).decode()
    body = _encode_form(form)
    return HttpRequest(settings.url, target.encode(), [*headers, _content_length(body)], body, name)


def _encode_form(fields: Sequence[tuple[str, str]]) -> bytes:
    return b"&".join(_encode_text(name) + b"=" + _encode_text(value) for name, value in fields)


def _encode_text(text: str) -> bytes:
    """Encode a text for a form.

    One replacement for each byte that occurs is several times as fast as `urlencode`, which looks at each character: a
    file of 64 MiB would hold up the event loop for seconds.
    """
    data = text.encode()
    for byte in sorted(set(data) - _FORM_SAFE, key=_PERCENT.__ne__):  # the percent sign first, before others bring more
        data = data.replace(bytes([byte]), b"%%%02X" % byte)
    return data.replace(b" ", b"+")


@cache
def _constant_parts(name: str, url: str, host: str) -> tuple[str, str, HeaderList]:
    """Return the query, path and headers that all requests for an action share."""
    path = url.partition("://")[2].partition("/")[2]
    headers = [
        (b"host", host.encode()),
        (b"x-acs-version", API_VERSION.encode()),
        (b"x-acs-action", name.encode()),
        (b"content-type", b"application/x-www-form-urlencoded"),
        (b"accept", b"application/json"),
        (b"user-agent", USER_AGENT),
    ]
    return f"Action={name}&Format=json&Version={API_VERSION}", f"/{path}" if path else "/", headers


def make_direct_request(link_url: str, call: DirectToolCall) -> HttpRequest:
    """Return the request for a tool call to the session's own link."""
    text = json.dumps(unstructure(call), ensure_ascii=False, separators=(",", ":"))
    # Paths that are not UTF-8 have lone surrogates, which are written as JSON's own escapes.
    body = text.encode("utf-8", "backslashreplace")
    headers = [(b"content-type", b"application/json"), (b"accept", b"application/json"), _content_length(body)]
    return _link_request(link_url, call, headers, body)


def make_raw_request(link_url: str, call: DirectToolCall, body: bytes, size: int | None = None) -> HttpRequest:
    """Return the request for a tool call with raw bytes.

    Args:
        link_url: The session's own link.
        call: The call, without the bytes.
        body: The bytes.
        size: How many there are, if they are streamed instead.
    """
    # JSON in ASCII, which escapes every character that a header cannot have.
    text = json.dumps({"tool": call.tool, "args": call.args}, separators=(",", ":"))
    length = _content_length(body) if size is None else (b"content-length", str(size).encode())
    headers = [(b"content-type", CONTENT_TYPE.encode()), (b"accept", b"*/*"), length]
    return _link_request(link_url, call, [*headers, (CALL_HEADER.encode(), text.encode())], body)


def _link_request(link_url: str, call: DirectToolCall, headers: HeaderList, body: bytes) -> HttpRequest:
    url = link_url.rstrip("/")
    host, _, path = url.partition("://")[2].partition("/")
    common = [
        (b"host", host.encode()),
        (b"x-access-token", call.token.encode()),
        (b"user-agent", USER_AGENT),
    ]
    target = f"/{path}/callTool" if path else "/callTool"
    return HttpRequest(url.removesuffix(path), target.encode(), [*common, *headers], body, f"callTool/{call.tool}")


def _content_length(body: bytes) -> tuple[bytes, bytes]:
    return b"content-length", str(len(body)).encode()
