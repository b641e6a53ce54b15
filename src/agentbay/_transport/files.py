"""Read the texts of the file tools, and split contents into messages."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .._wire.tools import ToolReply
from ..errors import FileError, InvalidArgumentError
from ..models.filesystem import DirectoryEntry, FileChangeEvent

READ_CHUNK_BYTES = 50 * 1024  # bytes that one read_file returns, as the published client asks for
WRITE_CHUNK_BYTES = 51 * 1024  # bytes of UTF-8 in one write_file; the service's messages hold 63 KB in all


def split_text(text: str, limit: int = WRITE_CHUNK_BYTES) -> Iterator[str]:
    """Split a text into pieces of at most `limit` bytes of UTF-8.

    No character is split. There is at least one piece, which may be empty.
    """
    data = text.encode()
    start = 0
    while True:
        end = min(start + limit, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:  # a continuation byte: step back to the lead byte
            end -= 1
        yield data[start:end].decode()
        start = end
        if start >= len(data):
            return


def to_bytes(content: object, name: str) -> bytes:
    """Return text as UTF-8, or bytes as they are.

    Raises:
        TypeError: If the argument `name` is neither; `bytes(5)` would be five NUL bytes.
        InvalidArgumentError: If the text holds half a surrogate pair, which no file can hold.
    """
    if isinstance(content, str):
        try:
            return content.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgumentError(f"{name} is not valid Unicode text: {error.reason}") from None
    if isinstance(content, (bytes, bytearray, memoryview)):
        return bytes(content)
    raise TypeError(f"{name} must be text or bytes, not {type(content).__name__}")


def decode_base64(text: str) -> bytes:
    """Decode base64.

    Raises:
        FileError: If the text is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:  # binascii.Error is one; text that is not ASCII raises a plain one
        raise FileError(f"Failed to decode base64: {error}") from error


def read_info(text: str) -> dict[str, Any]:
    """Read `key: value` lines, and convert numbers and booleans."""
    pairs = (line.partition(":") for line in text.split("\n") if ":" in line)
    return {key.strip(): _parse_value(value.strip()) for key, _, value in pairs}


def get_size(info: Mapping[str, Any]) -> int:
    """Return the size in bytes that a file's information has, else 0."""
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
    """Decode UTF-8.

    Raises:
        FileError: If the bytes are not UTF-8; names the position of the first wrong one.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        message = f"{path} is not UTF-8 text: it has the byte {data[error.start]:#04x} at position {error.start}."
        raise FileError(message, hint='Read it with format="bytes".') from error


def read_directory_listing(reply: ToolReply) -> list[DirectoryEntry]:
    """Return the entries of a directory.

    The structured answer is preferred, since a name with a line break cannot be recognised in the lines of the text.
    """
    structured = (reply.structured_content or {}).get("entries")
    if isinstance(structured, list):
        return [
            DirectoryEntry(item["name"], item.get("isDirectory") is True, get_size(item))
            for item in structured
            if isinstance(item, dict) and isinstance(item.get("name"), str)
        ]
    return [entry for line in reply.text.split("\n") if (entry := _parse_entry(line))]


def _parse_entry(line: str) -> DirectoryEntry | None:
    line = line.lstrip().removesuffix("\r")  # blanks at the end stay, as they belong to the name
    for tag, is_directory in (("[DIR]", True), ("[FILE]", False)):
        if line.startswith(tag):
            return DirectoryEntry(line.removeprefix(tag).removeprefix(" "), is_directory)
    return None


def read_matches(reply: ToolReply) -> list[str]:
    """Return the paths of a search, from the structured answer or the lines."""
    structured = (reply.structured_content or {}).get("matches")
    if isinstance(structured, list):
        return [path for path in structured if isinstance(path, str)]
    lines = [line.removesuffix("\r") for line in reply.text.split("\n")]
    return [] if lines == ["No matches found"] else [line for line in lines if line.strip()]


def read_edit_diff(reply: ToolReply) -> str:
    """Return the diff of an edit, or "" if the service sends none."""
    structured = (reply.structured_content or {}).get("diff")
    if isinstance(structured, str):
        return structured
    return reply.text if "@@" in reply.text else ""


def read_changes(text: str) -> list[FileChangeEvent]:
    """Read a JSON array of changes, and ignore everything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return parse_changes(found)


def parse_changes(found: object) -> list[FileChangeEvent]:
    """Return the changes in a parsed JSON array, and ignore everything else."""
    items = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    return [FileChangeEvent(*(str(item.get(name, "")) for name in ("eventType", "path", "pathType"))) for item in items]


_ERROR_PREFIX = "Error - "


def read_contents(reply: ToolReply, paths: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the contents of several files, and the errors of others, each by path.

    In the text a file is `path:`, its content and an end of line, and `---` stands between two. A content may hold that
    too, so a new file begins only where one of the requested paths is announced. If that is ambiguous, the text is read
    line by line and without blanks at the ends, as the published client does.
    """
    structured = (reply.structured_content or {}).get("files")
    if isinstance(structured, list):
        items = [item for item in structured if isinstance(item, dict)]
        parts = [(str(item.get("path")), item.get("content"), item.get("error")) for item in items]
        contents = {path: content for path, content, error in parts if isinstance(content, str) and error is None}
        return contents, {path: error for path, _, error in parts if isinstance(error, str)}
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
    """Split the text where a path is announced, or return None if ambiguous."""
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
