"""JSON of large values, read in pieces.

One call of `json.loads` for a large text holds up every thread for seconds, and what it makes of millions of empty
lists takes 20 times the memory of the text. Here no call into C works on more than `_PIECE_CHARACTERS`, and the number
of values is bounded. This is to be called in the worker thread.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from json.decoder import WHITESPACE, scanstring  # type: ignore[attr-defined]  # not in typeshed
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
from typing import Any

from agentbay.local.worker_thread import LARGE_BYTES

_PIECE_CHARACTERS = 1 << 16
_BATCH_CHARACTERS = 1 << 12  # of items of an array or object, which are read by one call into C
_ENDS_OF_ITEMS = (",", "},", "],", '",')
_ITEMS_WITHOUT_BATCH = 64  # read one by one after items whose end was not found
_MAX_VALUES = 500_000
_VALUES_OF_A_CONTAINER = 10  # which an array or object counts as, since it takes as much memory
_LONGEST_ESCAPE = len("\\ud83d\\ude00")
_HIGH_SURROGATE, _LOW_SURROGATE = re.compile(r"\\u[dD][89abAB]"), re.compile(r"\\u[dD][c-fC-F]")

_Scanner = Callable[[str, int], tuple[Any, int]]
_scan: _Scanner = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


class TooManyValuesError(ValueError):
    """A JSON text has more values than may be read."""


def load_json(text: str | bytes | bytearray, max_values: int = _MAX_VALUES) -> Any:
    """Read JSON as `json.loads` does, in pieces if it is large.

    Args:
        max_values: About how many values a large text may have.

    Raises:
        ValueError: It is no JSON, or no UTF-8.
        TooManyValuesError: It has too many values.
    """
    if len(text) <= LARGE_BYTES:
        return json.loads(text)
    return _Decoder(max_values).decode(text if isinstance(text, str) else decode_utf8(text))


def decode_utf8(data: bytes | bytearray | memoryview) -> str:
    """Decode UTF-8 strictly, in pieces.

    Raises:
        UnicodeDecodeError: It is no UTF-8; `start` is the place in all of the data.
    """
    if len(data) <= _PIECE_CHARACTERS:
        return str(data, "utf-8")
    decoder, view, pieces = codecs.getincrementaldecoder("utf-8")(), memoryview(data), list[str]()
    for start in range(0, len(view) or 1, _PIECE_CHARACTERS):
        kept = len(decoder.getstate()[0])  # bytes of a character that the last piece cut
        end = start + _PIECE_CHARACTERS
        try:
            pieces.append(decoder.decode(view[start:end], final=end >= len(view)))
        except UnicodeDecodeError as error:
            error.start += start - kept
            error.end += start - kept
            raise
    return "".join(pieces)


def encode_utf8(text: str) -> bytearray:
    """Encode UTF-8 strictly, in pieces."""
    data = bytearray()
    for start in range(0, len(text), _PIECE_CHARACTERS):
        data += text[start : start + _PIECE_CHARACTERS].encode()
    return data


class _Decoder(json.JSONDecoder):
    """The standard library's decoder with its scanner in Python."""

    def __init__(self, max_values: int) -> None:
        super().__init__()
        self._max_values = self._values_left = max_values
        self.parse_string = _scan_string
        self.parse_array, self.parse_object = self._parse_array, self._parse_object
        self.scan_once = py_make_scanner(self)

    def _parse_array(self, text_and_start: tuple[str, int], scan_once: _Scanner) -> tuple[list[Any], int]:
        """Read an array from behind its bracket, and return its end too."""
        values = list[Any]()
        return values, self._parse_items(*text_and_start, "[]", scan_once, values)

    def _parse_object(
        self, text_and_start: tuple[str, int], _strict: bool, scan_once: _Scanner, *_: object
    ) -> tuple[dict[str, Any], int]:
        """Read an object from behind its bracket, and return its end too."""
        members = dict[str, Any]()
        return members, self._parse_items(*text_and_start, "{}", scan_once, members)

    def _parse_items(
        self, text: str, start: int, brackets: str, scan_once: _Scanner, found: list[Any] | dict[str, Any]
    ) -> int:
        """Read what is between two brackets, and return where the second one ends."""
        position, one_by_one = _skip_whitespace(text, start), 0
        if text[position : position + 1] == brackets[1]:
            return position + 1
        while True:
            if one_by_one:
                one_by_one -= 1
            elif batch := self._scan_batch(text, position, brackets):
                (found.update if isinstance(found, dict) else found.extend)(batch[0])
                position = _skip_whitespace(text, batch[1])
                continue
            else:
                one_by_one = _ITEMS_WITHOUT_BATCH
            if isinstance(found, dict):
                name, position = _scan_name(text, position)
                found[name], position = self._scan_item(text, position, scan_once)
            else:
                value, position = self._scan_item(text, position, scan_once)
                found.append(value)
            position = _skip_whitespace(text, position)
            mark = text[position : position + 1]
            if mark == brackets[1]:
                return position + 1
            if mark != ",":
                raise json.JSONDecodeError("Expecting ',' delimiter", text, position)
            position = _skip_whitespace(text, position + 1)

    def _scan_batch(self, text: str, start: int, brackets: str) -> tuple[Any, int] | None:
        """Read the items of a piece, or return None without a comma between items."""
        piece = text[start : start + _BATCH_CHARACTERS]
        for mark in _ENDS_OF_ITEMS:
            if (found := piece.rfind(mark)) < 0:
                continue
            # Within an item, a comma leaves a text or a bracket open, and this is no JSON.
            whole = f"{brackets[0]}{piece[: found + len(mark) - 1]}{brackets[1]}"
            values, end = _scan_or_none(whole)
            if values and end == len(whole):
                self._count(whole, end)
                return values, start + found + len(mark)
        return None

    def _scan_item(self, text: str, start: int, scan_once: _Scanner) -> tuple[Any, int]:
        piece = text[start : start + _BATCH_CHARACTERS]
        value, length = _scan_or_none(piece)
        if length and (length < len(piece) or start + length == len(text)):  # otherwise perhaps a part of a number
            self._count(piece, length)
            return value, start + length
        self._count("", 0)
        try:
            return scan_once(text, start)
        except StopIteration as error:
            raise json.JSONDecodeError("Expecting value", text, error.value) from None

    def _count(self, text: str, end: int) -> None:
        # Brackets and commas inside strings are counted too. The bound is so high that this refuses no honest request.
        containers = text.count("[", 0, end) + text.count("{", 0, end)
        self._values_left -= 1 + text.count(",", 0, end) + _VALUES_OF_A_CONTAINER * containers
        if self._values_left < 0:
            raise TooManyValuesError(f"it has more than {self._max_values:,} values")


def _scan_or_none(text: str) -> tuple[Any, int]:
    """Return a text's first value and its length, or a length of 0."""
    try:
        return _scan(text, 0)
    except (ValueError, StopIteration, RecursionError):
        return None, 0


def _scan_name(text: str, position: int) -> tuple[str, int]:
    """Read the name of a member, and return where its value begins."""
    if text[position : position + 1] != '"':
        raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, position)
    name, position = _scan_string(text, position + 1)
    position = _skip_whitespace(text, position)
    if text[position : position + 1] != ":":
        raise json.JSONDecodeError("Expecting ':' delimiter", text, position)
    return name, _skip_whitespace(text, position + 1)


def _skip_whitespace(text: str, position: int) -> int:
    return int(WHITESPACE.match(text, position).end())


def _scan_string(text: str, start: int, strict: bool = True) -> tuple[str, int]:
    """Read a string from behind its opening quote, and return its end too."""
    pieces: list[str] = []
    for begin, end in _cuts(text, start):
        # The quote that is added here ends the piece, unless the string has ended before.
        piece, length = scanstring(text[begin:end] + '"', 0, strict)
        pieces.append(piece)
        if length <= end - begin:
            return "".join(pieces), begin + length
    raise json.JSONDecodeError("Unterminated string starting at", text, start - 1)


def _cuts(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Yield pieces that begin and end between escapes, the first one short."""
    size = _BATCH_CHARACTERS
    while start < len(text):
        end = min(start + size, len(text))
        if end < len(text):
            end = _before_escape(text, start, end)
        yield start, end
        start, size = end, _PIECE_CHARACTERS


def _before_escape(text: str, start: int, end: int) -> int:
    """Return the end, or where the escape begins that it would cut."""
    first = text.find("\\", max(start, end - _LONGEST_ESCAPE), end)
    if first < 0:
        return end
    if not _begins_escape(text, start, first):
        return first - 1  # it is the second one of an escaped backslash
    high = first - len("\\ud83d")
    is_pair = _LOW_SURROGATE.match(text, first) and _HIGH_SURROGATE.match(text, high) if high >= start else None
    return high if is_pair and _begins_escape(text, start, high) else first


def _begins_escape(text: str, start: int, backslash: int) -> bool:
    """Return whether a backslash begins an escape: an odd number of them stands there."""
    run = text[start : backslash + 1]
    return (len(run) - len(run.rstrip("\\"))) % 2 == 1
