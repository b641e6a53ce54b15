"""JSON of large values, encoded in pieces.

One call of `json.dumps` for a large text holds up the event loop for seconds, and with it every other session. Large
texts from sessions are decoded, escaped and sent piece by piece, and never exist as a whole in their JSON form.
"""

from __future__ import annotations

import base64
import codecs
import json
from collections.abc import Iterable, Iterator

LARGE_CHARACTERS = 1 << 18  # from which on a value is encoded in pieces
_SMALL_PART_CHARACTERS = 1 << 10  # a part of a value that is encoded by one call, which is ten times as fast
_PIECE_CHARACTERS = 1 << 16  # about a fifth of a millisecond
_BASE64_PIECE_BYTES = 3 << 14  # a multiple of 3, so that the pieces add up

Bytes = bytes | bytearray | memoryview  # large contents are passed on without a copy


class TextSource:  # no Protocol: `isinstance` with one takes 0.2 ms for each answer
    """A text made in pieces, which JSON holds as a string."""

    def text_pieces(self) -> Iterator[str]:
        """Yield the text."""
        raise NotImplementedError


class DecodedText(TextSource):
    """The text of bytes: UTF-8, with a replacement character for each invalid sequence."""

    def __init__(self, data: Bytes) -> None:
        self._data = data

    def text_pieces(self) -> Iterator[str]:
        """Yield the text."""
        decoder, view = codecs.getincrementaldecoder("utf-8")("replace"), memoryview(self._data)
        for start in range(0, len(view), _PIECE_CHARACTERS):
            yield decoder.decode(view[start : start + _PIECE_CHARACTERS])
        yield decoder.decode(b"", final=True)


class Base64Text(TextSource):
    """The Base64 form of bytes."""

    def __init__(self, data: Bytes) -> None:
        self._data = data

    def text_pieces(self) -> Iterator[str]:
        """Yield the text."""
        view = memoryview(self._data)
        for start in range(0, len(view), _BASE64_PIECE_BYTES):
            yield base64.b64encode(view[start : start + _BASE64_PIECE_BYTES]).decode("ascii")


class JsonText(TextSource):
    """The JSON of a value, to be embedded as a string in other JSON."""

    def __init__(self, value: object) -> None:
        self._value = value

    def text_pieces(self) -> Iterator[str]:
        """Yield the text."""
        return encode_pieces(self._value)


def decoded_text(data: Bytes) -> str | DecodedText:
    """Return bytes as a text, or as a text's source if large."""
    return bytes(data).decode("utf-8", "replace") if len(data) < LARGE_CHARACTERS else DecodedText(data)


def base64_text(data: Bytes) -> str | Base64Text:
    """Return bytes in Base64, as a text or as its source if large."""
    return base64.b64encode(data).decode("ascii") if len(data) < LARGE_CHARACTERS else Base64Text(data)


def dump_json(value: object) -> str | JsonText:
    """Return a value's JSON as a text, or as its source if large."""
    return JsonText(value) if is_large(value) else json.dumps(value, ensure_ascii=False)


def is_large(value: object) -> bool:
    """Return whether a value should be encoded in pieces."""
    return _remaining(value, LARGE_CHARACTERS) < 0


def _remaining(value: object, budget: int) -> int:
    if isinstance(value, str):
        return budget - len(value)
    if isinstance(value, TextSource):
        return -1
    if isinstance(value, dict):
        value = (part for item in value.items() for part in item)
    elif not isinstance(value, (list, tuple)):
        return budget - 8
    parts: Iterable[object] = value
    for part in parts:
        budget = _remaining(part, budget - 2)
        if budget < 0:
            break
    return budget


def encode_pieces(value: object) -> Iterator[str]:
    """Yield the JSON of a value in pieces of a bounded size."""
    pending: list[str] = []
    size = 0
    for part in _encode_parts(value):
        pending.append(part)
        size += len(part)
        if size >= _PIECE_CHARACTERS:
            yield "".join(pending)
            pending.clear()
            size = 0
    yield "".join(pending)


def _encode_parts(value: object) -> Iterator[str]:
    if isinstance(value, str) and len(value) > _PIECE_CHARACTERS:
        yield from _encode_text(value[i : i + _PIECE_CHARACTERS] for i in range(0, len(value), _PIECE_CHARACTERS))
    elif isinstance(value, TextSource):
        yield from _encode_text(value.text_pieces())
    elif isinstance(value, str) or _remaining(value, _SMALL_PART_CHARACTERS) >= 0:
        yield _dump(value)
    elif isinstance(value, dict):
        yield "{"
        for number, (key, item) in enumerate(value.items()):
            yield f"{',' * bool(number)}{_dump(key)}:"
            yield from _encode_parts(item)
        yield "}"
    elif isinstance(value, (list, tuple)):
        yield "["
        for number, item in enumerate(value):
            yield "," * bool(number)
            yield from _encode_parts(item)
        yield "]"
    else:
        yield _dump(value)


def _encode_text(pieces: Iterable[str]) -> Iterator[str]:
    yield '"'
    for piece in pieces:  # the escapes of a text are those of its characters, so pieces add up
        yield _dump(piece)[1:-1]
    yield '"'


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
