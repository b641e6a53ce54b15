"""Requests to presigned URLs, and their answers.

A presigned URL is a secret: no error and no log names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, urljoin, urlsplit

from ..errors import APIError, ReplyError
from .reply import HttpAnswer, make_api_error
from .request import USER_AGENT, HeaderList, HttpRequest

IDLE_TIMEOUT_SECONDS = 60.0  # longest time without a byte; a whole transfer has no time limit
MAX_REDIRECTS = 3  # hops; a storage may send to another region once or twice
# With %, since quoting an escape again would change the URL, and so break its signature.
_UNQUOTED_CHARACTERS = "%/:=&?~+!$,;'@()*[]"
_STORAGE_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")
_MD5 = re.compile(r"[0-9a-f]{32}")


def make_put(url: str, size: int, label: str, content_type: str | None) -> HttpRequest:
    """Return the request that uploads a file, without its body."""
    headers: HeaderList = [(b"content-length", str(size).encode())]
    if content_type:
        headers.append((b"content-type", content_type.encode()))
    return _make_request("PUT", url, headers, label)


def make_get(url: str, label: str, *, first_byte: bool = False) -> HttpRequest:
    """Return the request that downloads a file, or only its first byte.

    The answer to the latter tells the size.
    """
    # A compressed answer would have another length than the file.
    headers: HeaderList = [(b"accept-encoding", b"identity")]
    if first_byte:
        # Not HEAD: a presigned URL is signed for one method.
        headers.append((b"range", b"bytes=0-0"))
    return _make_request("GET", url, headers, label)


def _make_request(method: str, url: str, headers: HeaderList, label: str) -> HttpRequest:
    try:
        parts = urlsplit(url)
        host = parts.netloc.encode("idna")
    except ValueError:  # UnicodeError is one
        parts, host = urlsplit(""), b""
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ReplyError(f"The presigned URL for the {label} cannot be used.", action=label)
    query = f"?{parts.query}" if parts.query else ""
    target = quote(f"{parts.path or '/'}{query}", safe=_UNQUOTED_CHARACTERS).encode()
    common: HeaderList = [(b"host", host), (b"accept", b"*/*"), (b"user-agent", USER_AGENT)]
    return HttpRequest(f"{parts.scheme}://{parts.netloc}", target, [*common, *headers], b"", label, method)


def redirect_target(outgoing: HttpRequest, status: int, headers: Mapping[str, str]) -> str:
    """Return the URL of a redirect, or "" if the answer is no redirect.

    Raises:
        ReplyError: If it cannot be followed: it has no address, needs another method, or leaves TLS.
    """
    if status not in (301, 302, 303, 307, 308):
        return ""
    url = urljoin(outgoing.url + outgoing.target.decode(), headers.get("location", ""))
    # Over plain HTTP anybody on the way could read the URL, and use it.
    downgraded = outgoing.url.startswith("https:") and not url.startswith("https:")
    if "location" not in headers or downgraded or (status == 303 and outgoing.method != "GET"):
        raise ReplyError(
            f"The storage answered the {outgoing.label} with a redirect (HTTP {status}) that cannot be followed.",
            action=outgoing.label,
            status_code=status,
        )
    return url


def storage_error(outgoing: HttpRequest, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
    """Return the error of an answer.

    Of the body only the storage's error code is used, since the rest may repeat the URL.
    """
    found = _STORAGE_CODE.search(body)
    code = found.group(1).decode() if found else ""
    message = f"The storage answered the {outgoing.label} with HTTP {status}{f' ({code})' if code else ''}."
    error = make_api_error(HttpAnswer(status, headers, b"", outgoing.label), "", message, "")
    error.code = code
    error.hint = "Presigned URLs expire, usually after an hour." if status == 403 else ""
    return error


def size_from_headers(status: int, headers: Mapping[str, str]) -> int | None:
    """Return the size of the whole file in bytes, or None if unknown."""
    # An empty file has no first byte: the storage refuses the range with 416, and names the size all the same.
    text = headers.get("content-range", "").rpartition("/")[2] if status in (206, 416) else ""
    if status == 200:
        text = headers.get("content-length", "")
    return int(text) if text.isdecimal() else None


def is_checksum_equal(etag: str, md5: str) -> bool:
    """Whether an ETag is the MD5 of the uploaded bytes.

    False for an ETag of another kind, which proves nothing.
    """
    plain = etag.strip('"').lower()
    return bool(_MD5.fullmatch(plain)) and plain == md5
