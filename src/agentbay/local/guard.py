"""Who may talk to the service: no web page, by whatever name it comes, and nobody without the key."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from agentbay.local.listening import Place

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


class Guard:
    """Checks requests."""

    def __init__(self, key: str, place: Place) -> None:
        self._key = f"Bearer {key}".encode()
        self._hosts = _LOOPBACK | {place.host}
        scheme, usual = ("https", 443) if place.secure else ("http", 80)
        port = "" if place.port in (0, usual) else f":{place.port}"
        self._origins = {f"{scheme}://{host}{port}" for host in self._hosts}

    def objection(self, headers: Mapping[str, str]) -> str:
        """Say what is wrong with the headers of a request, or ""."""
        # Under a name of its own that leads to 127.0.0.1, a web page could otherwise read what is served here.
        if _host_name(headers.get("host", "")) not in self._hosts:
            return "The Host header must name the loopback, or the host that this runtime serves."
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
