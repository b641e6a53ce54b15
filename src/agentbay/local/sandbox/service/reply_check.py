"""The check that a reply of a file operation has its fields.

Code of a session may have forged it.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any, cast, get_args, get_origin, get_type_hints, is_typeddict

from agentbay.local.sandbox.shared.file_protocol import FileReply

_MAX_INTEGER = 1 << 100  # some file systems keep times of a billion years, here in nanoseconds


def check_reply(reply_class: type[FileReply], fields: dict[str, Any]) -> None:
    """Raise ValueError if fields are missing, unknown or of another type."""
    hints = _field_types(cast(Hashable, reply_class))
    required = {name for name in hints if not hasattr(reply_class, name)}
    if not required <= fields.keys() <= hints.keys():
        raise ValueError("a reply has other fields")
    for name, value in fields.items():
        if not _is_of(value, hints[name]):
            raise ValueError(f"the field {name} of a reply has another type")


@cache
def _field_types(cls: Hashable) -> dict[str, Any]:
    return get_type_hints(cls)


def _is_of(value: Any, kind: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is list:
        return isinstance(value, list) and all(_is_of(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_is_of(item, arguments[1]) for item in value.values())
    if is_typeddict(kind):
        hints = _field_types(kind)
        return (
            isinstance(value, dict)
            and value.keys() == hints.keys()
            and all(_is_of(item, hints[name]) for name, item in value.items())
        )
    if kind is int:
        return isinstance(value, int) and -_MAX_INTEGER < value < _MAX_INTEGER
    if kind is float:
        return isinstance(value, (int, float)) and abs(value) < _MAX_INTEGER
    return isinstance(value, kind)
