"""Forms (application/x-www-form-urlencoded), read in pieces, since one may hold a file of 64 MiB."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from agentbay.local.large_json_decoder import decode_utf8

# A body of 64 MiB could hold millions of empty fields, each of them a pair of Python objects.
_MAX_FIELDS = 1000
_PIECE_BYTES = 1 << 16
_ESCAPE_BYTES = len("%00")


def read_form(form: bytes | bytearray) -> Iterator[tuple[str, str]]:
    """Yield the names and values of a form.

    Raises:
        ValueError: It has too many fields, or one that is not UTF-8.
    """
    if not form.isascii():
        raise ValueError("it has a byte that is not ASCII")
    if form.count(b"&") >= _MAX_FIELDS:
        raise ValueError(f"it has more than {_MAX_FIELDS:,} fields")
    start = 0
    while start < len(form):
        if (end := form.find(b"&", start)) < 0:
            end = len(form)
        if (equals := form.find(b"=", start, end)) < 0:
            equals = end
        if start < end:
            yield _unescape(form, start, equals), _unescape(form, equals + 1, end)
        start = end + 1


def _unescape(form: bytes | bytearray, start: int, end: int) -> str:
    if end - start <= _PIECE_BYTES:
        return str(unquote_to_bytes(bytes(form[start:end]).replace(b"+", b" ")), "utf-8")
    unescaped = bytearray()
    while start < end:
        cut = min(start + _PIECE_BYTES, end)
        if cut < end and (escape := form.rfind(b"%", cut - _ESCAPE_BYTES + 1, cut)) >= 0:
            cut = escape
        unescaped += unquote_to_bytes(bytes(form[start:cut]).replace(b"+", b" "))
        start = cut
    return decode_utf8(unescaped)
