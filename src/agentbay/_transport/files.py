"""What the texts of the file tools say, and how contents are cut to what a message may hold."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .._wire.tools import ToolReply
from ..errors import FileError
from ..models.filesystem import DirectoryEntry, FileChangeEvent

READ_CHUNK_BYTES = 50 * 1024
WRITE_CHUNK_BYTES = 51 * 1024  # of UTF-8; the service's messages hold 63 KB in all


def split_text(text: str, limit: int = WRITE_CHUNK_BYTES) -> Iterator[str]:
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
    return {key.strip(): _parse_value(value.strip()) for key, _, value in pairs}


def get_size(info: Mapping[str, Any]) -> int:
    """The size that is told of a file, in bytes; 0 if none is."""
    size = info.get("size")
    return int(size) if isinstance(size, (int, float)) and 0 <= size < math.inf else 0


def _parse_value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text


def decode_text(data: bytes, path: str) -> str:
    """Read UTF-8.

    Raises:
        FileError: If it is not.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        message = f"{path} is not UTF-8 text: it has the byte {data[error.start]:#04x} at position {error.start}."
        raise FileError(message, hint='Read it with format="bytes".') from error


def read_directory_listing(reply: ToolReply) -> list[DirectoryEntry]:
    """Read a directory listing: from the structured answer where there is one, since a name may hold anything."""
    structured = (reply.structured_content or {}).get("entries")
    if isinstance(structured, list):
        return [
            DirectoryEntry(item["name"], item.get("isDirectory") is True, get_size(item))
            for item in structured
            if isinstance(item, dict) and isinstance(item.get("name"), str)
        ]
    return [entry for line in reply.text.split("\n") if (entry := _parse_entry(line))]


def _parse_entry(line: str) -> DirectoryEntry | None:
    line = line.lstrip().removesuffix("\r")  # but not blanks at the end: they are the name's
    for tag, is_directory in (("[DIR]", True), ("[FILE]", False)):
        if line.startswith(tag):
            return DirectoryEntry(line.removeprefix(tag).removeprefix(" "), is_directory)
    return None


def read_matches(reply: ToolReply) -> list[str]:
    """Read the paths that were found: one a line, unless there is a structured answer."""
    structured = (reply.structured_content or {}).get("matches")
    if isinstance(structured, list):
        return [path for path in structured if isinstance(path, str)]
    lines = [line.removesuffix("\r") for line in reply.text.split("\n")]
    return [] if lines == ["No matches found"] else [line for line in lines if line.strip()]


def read_edit_diff(reply: ToolReply) -> str:
    """Read the change that an edit made, "" where the service does not tell."""
    structured = (reply.structured_content or {}).get("diff")
    if isinstance(structured, str):
        return structured
    return reply.text if "@@" in reply.text else ""


def read_changes(text: str) -> list[FileChangeEvent]:
    """Read a JSON array of changes; what is none of them is passed over."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return parse_changes(found)


def parse_changes(found: object) -> list[FileChangeEvent]:
    """Read changes as JSON has them; what is none of them is passed over."""
    items = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    return [FileChangeEvent(*(str(item.get(name, "")) for name in ("eventType", "path", "pathType"))) for item in items]


_ERROR_PREFIX = "Error - "


def read_contents(reply: ToolReply, paths: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Read the contents of several files, and why others could not be read, each by path.

    In the text a file is `path:`, its content and an end of line, and `---` stands between two. A content may hold
    that too, so the paths that were asked for tell where a file begins; only where they do not the text is read as
    the reference reads it, line by line and without blanks at the ends.
    """
    structured = (reply.structured_content or {}).get("files")
    if isinstance(structured, list):
        items = [item for item in structured if isinstance(item, dict)]
        told = [(str(item.get("path")), item.get("content"), item.get("error")) for item in items]
        contents = {path: content for path, content, error in told if isinstance(content, str) and error is None}
        return contents, {path: error for path, _, error in told if isinstance(error, str)}
    found = _split_by_paths(reply.text, paths)
    if found is None:
        found = _split_by_lines(reply.text)
    failed = {
        path: part.removeprefix(_ERROR_PREFIX)
        for path, part, inline in found
        if inline and part.startswith(_ERROR_PREFIX)
    }
    return {path: part for path, part, _ in found if path not in failed}, failed


def _split_by_paths(text: str, paths: Sequence[str]) -> list[tuple[str, str, bool]] | None:
    """Cut the text where the next path is announced; None unless that is possible in one way only."""
    found: list[tuple[str, str, bool]] = []
    rest = text
    for index, path in enumerate(paths):
        if not rest.startswith(f"{path}:"):
            return None
        rest = rest[len(path) + 1 :]
        part = rest
        if index + 1 < len(paths):
            mark = f"\n---\n{paths[index + 1]}:"
            if rest.count(mark) != 1:
                return None
            part, _, _ = rest.partition(mark)
            rest = rest[len(part) + len("\n---\n") :]
        inline = not part.startswith("\n")
        if not inline and not part.endswith("\n"):
            return None
        found.append((path, part.strip(), True) if inline else (path, part[1:-1], False))
    return found


def _split_by_lines(text: str) -> list[tuple[str, str, bool]]:
    found: list[tuple[str, str, bool]] = []
    path: str | None = None
    first, lines = "", list[str]()
    for line in [*text.split("\n"), "---"]:
        if line.strip() == "---":
            if path is not None:
                found.append((path, "\n".join([first, *lines]).strip(), bool(first)))
            path, lines = None, []
        elif path is None:
            if ":" in line:
                path, _, first = (part.strip() for part in line.partition(":"))
        else:
            lines.append(line)
    return found
