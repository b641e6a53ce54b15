"""Keys: the absolute in-session paths under which a context keeps its files."""

from __future__ import annotations

import re

from agentbay.local.api_errors import invalid_request
from agentbay.local.sandbox.shared.dirfd import MAX_DEPTH

_WINDOWS = re.compile(r"^([A-Za-z]):[\\/]")
# The limits of Linux; of 4,095 bytes for a path, the state directory needs some.
MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 3072


def normalize(path: str, field: str = "Path") -> str:
    """Normalise a path to a key, which is absolute and has no empty parts.

    A Windows path becomes `/c:/...`.

    Raises:
        InvalidRequestError: Path traversal (`..`), or a name that no file can have.
    """
    if _WINDOWS.match(path):
        path = "/" + path[0].lower() + path[1:].replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise invalid_request(f"{field}: must not contain '..': {path:.200}", "InvalidParameter.Path")
    if "\0" in path:
        raise invalid_request(f"{field}: must not contain NUL.", "InvalidParameter.Path")
    if not fits(path, parts):
        limits = f"names have up to {MAX_NAME_BYTES} bytes, paths {MAX_PATH_BYTES}, and {MAX_DEPTH} levels"
        raise invalid_request(f"{field}: is too long; {limits}.", "InvalidParameter.Path")
    return "/" + "/".join(parts)


def fits(path: str, parts: list[str]) -> bool:
    """Return whether a path of these parts is short enough for a file."""
    too_long = len(encode(path)) > MAX_PATH_BYTES or any(len(encode(part)) > MAX_NAME_BYTES for part in parts)
    return not too_long and len(parts) <= MAX_DEPTH


def encode(key: str) -> bytes:
    """Encode a key to bytes.

    Names that are not UTF-8 hold lone surrogates.
    """
    return key.encode("utf-8", "surrogateescape")


def decode(key: bytes) -> str:
    """Decode a key from bytes."""
    return key.decode("utf-8", "surrogateescape")


def split(key: str) -> list[str]:
    """Split a key into its path components."""
    return [part for part in key.split("/") if part]


def join(top: str, path: str) -> str:
    """Return the key of `path` below `top`."""
    return f"{top.rstrip('/')}/{path}" if path else top


def relative_to(key: str, top: str) -> str | None:
    """Return `key` relative to `top`, or None if it is not below it.

    For `top` itself that is "".
    """
    if key == top:
        return ""
    start = top.rstrip("/") + "/"
    return key[len(start) :] if key.startswith(start) else None
