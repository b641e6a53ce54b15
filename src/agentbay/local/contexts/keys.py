"""Keys: the absolute in-session paths under which a context keeps its files."""

from __future__ import annotations

import re

from agentbay.local.api_errors import invalid_request
from agentbay.local.sandbox.shared.dirfd import MAX_DEPTH

_WINDOWS = re.compile(r"^([A-Za-z]):[\\/]")
_LONGEST_NAME, _LONGEST_PATH = 255, 4095  # bytes, Linux's own limits


def normalize(path: str, field: str = "Path") -> str:
    """Return a path as a key: absolute, without empty parts; a Windows path becomes `/c:/...`.

    Raises:
        InvalidRequestError: It leaves the context (`..`), or no file could have that name.
    """
    if _WINDOWS.match(path):
        path = "/" + path[0].lower() + path[1:].replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise invalid_request(f"{field}: must not contain '..': {path:.200}", "InvalidParameter.Path")
    if "\0" in path:
        raise invalid_request(f"{field}: must not contain NUL.", "InvalidParameter.Path")
    too_long = len(encode(path)) > _LONGEST_PATH or any(len(encode(part)) > _LONGEST_NAME for part in parts)
    if too_long or len(parts) > MAX_DEPTH:
        limits = f"names have up to {_LONGEST_NAME} bytes, paths {_LONGEST_PATH}, and {MAX_DEPTH} levels"
        raise invalid_request(f"{field}: is too long; {limits}.", "InvalidParameter.Path")
    return "/" + "/".join(parts)


def encode(key: str) -> bytes:
    """Return the bytes of a key; names that are no UTF-8 hold lone surrogates."""
    return key.encode("utf-8", "surrogateescape")


def decode(key: bytes) -> str:
    """Return a key from its bytes."""
    return key.decode("utf-8", "surrogateescape")


def split(key: str) -> list[str]:
    """Return the names that lead to a key."""
    return [part for part in key.split("/") if part]


def join(top: str, path: str) -> str:
    """Return the key of `path` below `top`."""
    return f"{top.rstrip('/')}/{path}" if path else top


def relative_to(key: str, top: str) -> str | None:
    """Return what of `key` lies below `top` ("" for itself), or None."""
    if key == top:
        return ""
    start = top.rstrip("/") + "/"
    return key[len(start) :] if key.startswith(start) else None
