"""Write and read the plain heads of HTTP/1.1 that nearly all calls have.

A head is plain if it can be read in one way only: what it says of the body is a single length, and each line is well
formed. Everything else is left to h11, whose checks take half of the client's time in a call.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .request import HttpRequest

# RFC 9110 5.6.2 and 5.5: a name is a token, and a value has no control characters but tabs.
_NAME = r"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_VALUE = r"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?"
_REQUEST = re.compile(rf"(?:GET|POST|PUT) [!-~]+ HTTP/1\.1\r\n(?:{_NAME}: {_VALUE}\r\n)+\r\n".encode("ascii"))
_RESPONSE = re.compile(rf"HTTP/1\.1 ([2-5]\d\d)(?: [\t -~\x80-\xff]*)?\r\n((?:{_NAME}:[\t -~\x80-\xff]*\r\n)*)\r\n")
_FIELD = re.compile(r"([^:\r\n]+):[\t ]*([^\r\n]*?)[\t ]*\r\n")
_LENGTH = re.compile(r"[0-9]{1,18}")
_FRAMING_NAMES = frozenset((b"connection", b"expect", b"transfer-encoding", b"upgrade"))
_WITHOUT_BODY = (204, 304)


class ResponseHead(NamedTuple):
    """The head of an answer.

    Attributes:
        headers: By name in lower case. Values of a repeated name are joined by commas.
    """

    status_code: int
    headers: dict[str, str]


def write_plain_request(outgoing: HttpRequest) -> bytes | None:
    """Return a request with its body, or None if h11 has to write it."""
    headers, body = outgoing.headers, outgoing.body
    lengths = [value for name, value in headers if name == b"content-length"]
    expected = [str(len(body)).encode()] if body or lengths else []
    if lengths != expected or not _FRAMING_NAMES.isdisjoint(name for name, _ in headers):
        return None
    lines = [name + b": " + value for name, value in headers]
    head = b"\r\n".join((b"%b %b HTTP/1.1" % (outgoing.method.encode(), outgoing.target), *lines, b"", b""))
    # A line more than there are headers would be one that a value brought in.
    if head.count(b"\n") != len(headers) + 2 or not _REQUEST.fullmatch(head):
        return None
    return head + body


def read_plain_head(data: bytes) -> tuple[ResponseHead, int] | None:
    """Return a plain head and the length of its body, or None.

    Args:
        data: The head, up to and with its empty line.
    """
    text = data.decode("latin-1")
    found = _RESPONSE.fullmatch(text)
    if found is None:
        return None
    status, headers = int(found[1]), join_headers(_FIELD.findall(found[2]))
    length = headers.get("content-length", "")
    if (
        not _LENGTH.fullmatch(length)
        or status in _WITHOUT_BODY
        or "transfer-encoding" in headers
        or headers.get("connection", "keep-alive").lower() != "keep-alive"
    ):
        return None
    return ResponseHead(status, headers), int(length)


def join_headers(fields: list[tuple[str, str]]) -> dict[str, str]:
    """Join header fields by name, in lower case."""
    found: dict[str, str] = {}
    for raw_name, value in fields:
        name = raw_name.lower()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found
