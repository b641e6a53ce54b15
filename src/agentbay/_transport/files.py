"""What the texts of the file tools say, and how contents are cut to what a message may hold."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from typing import Any

from .._wire.tools import ToolReply
from ..errors import FileError
from ..models.filesystem import DirectoryEntry

READ_CHUNK = 50 * 1024
WRITE_CHUNK = 51 * 1024  # of UTF-8; the service's messages hold 63 KB in all


def split_text(text: str, limit: int = WRITE_CHUNK) -> Iterator[str]:
    """Cut a text into pieces of at most `limit` bytes of UTF-8, never inside a character; at least one piece."""
    data = text.encode()
    start = 0
    while True:
        end = min(start + limit, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:  # a continuation byte: step back to its lead
            end -= 1
        yield data[start:end].decode()
        start = end
        if start >= len(data):
            return


def decode_base64(text: str) -> bytes:
    """Read base64.

    Raises:
        FileError: If it is not.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:  # binascii.Error is one, and so is what is raised for text that is not ASCII
        raise FileError(f"Failed to decode base64: {error}") from error


def read_info(text: str) -> dict[str, Any]:
    """Read `key: value` lines; values that look like truth values or numbers become such."""
    pairs = (line.partition(":") for line in text.split("\n") if ":" in line)
    return {key.strip(): _value(value.strip()) for key, _, value in pairs}


def size_of(info: Mapping[str, Any]) -> int:
    """The size that is told of a file, in bytes; 0 if none is."""
    size = info.get("size")
    return int(size) if isinstance(size, (int, float)) and 0 <= size < math.inf else 0


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text


def read_listing(reply: ToolReply) -> list[DirectoryEntry]:
    """Read a directory listing: from the structured answer where there is one, since a name may hold anything."""
    structured = (reply.structured_content or {}).get("entries")
    if isinstance(structured, list):
        return [
            DirectoryEntry(item["name"], item.get("isDirectory") is True, size_of(item))
            for item in structured
            if isinstance(item, dict) and isinstance(item.get("name"), str)
        ]
    return [entry for line in reply.text.split("\n") if (entry := _entry(line))]


def _entry(line: str) -> DirectoryEntry | None:
    line = line.lstrip().removesuffix("\r")  # but not blanks at the end: they are the name's
    for tag, is_directory in (("[DIR]", True), ("[FILE]", False)):
        if line.startswith(tag):
            return DirectoryEntry(line.removeprefix(tag).removeprefix(" "), is_directory)
    return None
