"""The forms of what a Python kernel displays, as JSON can carry them."""

from __future__ import annotations

import base64
import math
from typing import Any

from agentbay.local.kernels.programs.error_text import escape_surrogates
from agentbay.local.kernels.programs.service_connection import encode

_MAX_DISPLAY_BYTES = 24 << 20  # on the wire, of all forms of one display; the service takes frames of up to 32 MiB
_MAX_JSON_PARTS, _MAX_JSON_CHARS, _MAX_JSON_NESTING = 100_000, 4 << 20, 50  # of a value that is sent as JSON as well
_MAX_INT_BITS = 1024


def make_mime_bundle(data: dict[str, Any]) -> dict[str, Any]:
    """Return the forms as JSON can carry them, without those that are too large."""
    forms: dict[str, Any] = {}
    for mime, value in data.items():
        form = base64.b64encode(value).decode() if isinstance(value, (bytes, bytearray)) else value
        forms[mime] = escape_surrogates(form) if isinstance(form, str) else form
    sizes = {mime: len(encode(form)) for mime, form in forms.items()}
    left_out = 0
    while sum(sizes.values()) > _MAX_DISPLAY_BYTES:
        largest = max(sizes, key=sizes.__getitem__)
        left_out = max(left_out, sizes.pop(largest))
        del forms[largest]
    if left_out:
        note = f"[left out: {left_out} bytes are more than can be shown]"
        forms["text/plain"] = f"{forms['text/plain']}\n{note}" if "text/plain" in forms else note
    return forms


def can_be_json(value: object) -> bool:
    """Return whether JSON holds a value as it is, within bounds.

    Tuples in it count as lists.
    """
    level, parts, chars = [value], 0, 0
    for _ in range(_MAX_JSON_NESTING):
        inner: list[Any] = []
        for part in level:
            if isinstance(part, str):
                chars += len(part)
            elif isinstance(part, dict) and all(isinstance(key, str) for key in part):
                chars += sum(map(len, part))
                inner += part.values()
            elif isinstance(part, (list, tuple)):
                inner += part
            elif isinstance(part, int):
                if part.bit_length() > _MAX_INT_BITS:
                    return False
            elif part is not None and not (isinstance(part, float) and math.isfinite(part)):
                return False
        parts += len(inner)
        if parts > _MAX_JSON_PARTS or chars > _MAX_JSON_CHARS:
            return False
        if not inner:
            return True
        level = inner
    return False
