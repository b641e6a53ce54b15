"""Who may talk to a service on the loopback: no web page, by whatever name it comes, and nobody without the key."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


class Guard:
    """Checks requests."""

    def __init__(self, key: str, address: str) -> None:
        self._key = f"Bearer {key}".encode()
        port = address.rpartition(":")[2]
        self._origins = {f"http://{host}:{port}" for host in _LOOPBACK}

    def objection(self, headers: Mapping[str, str]) -> str:
        """Say what is wrong with the headers of a request, or ""."""
        # Under a name of its own that leads to 127.0.0.1, a web page could otherwise read what is served here.
        if _host_name(headers.get("host", "")) not in _LOOPBACK:
            return "The Host header must name the loopback."
        if headers.get("origin", "") not in {"", *self._origins}:
            return "Requests from web pages are not accepted."
        return ""

    def knows(self, authorization: str) -> bool:
        """Whether the field `Authorization` carries the key."""
        return same(authorization, self._key)


def same(given: str, secret: bytes) -> bool:
    """Compare in a time that tells nothing of the secret."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), secret)


def _host_name(host: str) -> str:
    # The published client sends its endpoint as it stands, scheme and path included.
    authority = host.lower().removeprefix("http://").removeprefix("https://").partition("/")[0]
    if authority.startswith("["):
        return authority.partition("]")[0] + "]"
    return authority.partition(":")[0]
