"""Who may talk to the service: no web page, by whatever name it comes, and nobody without the key."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from contextlib import suppress

from agentbay.local.ids import is_same_secret
from agentbay.local.listening import ServerAddress

_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
# The published client sends its endpoint as it stands, scheme and path included.
_HOST = re.compile(r"(?:https?://)?(\[[^\]]*\]|[^:/]*)(?::(\d{0,5}))?(?:/.*)?")


class OriginCheck:
    """Checks requests."""

    def __init__(self, key: str, place: ServerAddress) -> None:
        self._key = f"Bearer {key}".encode()
        self._allowed_hosts = _LOOPBACK_NAMES | place.host_names
        self._scheme, usual = ("https", 443) if place.uses_tls else ("http", 80)
        port = "" if place.port in (0, usual) else f":{place.port}"
        self._allowed_origins = {"", *(f"{self._scheme}://{host}{port}" for host in self._allowed_hosts)}

    def rejection_reason(self, headers: Mapping[str, str], reached: str) -> str:
        """Say what is wrong with the headers of a request to an address of this machine, or ""."""
        host = headers.get("host", "")
        name, _ = parse_host_header(host)
        # Under a name of its own that leads to 127.0.0.1, a web page could otherwise read what is served here.
        if name not in self._allowed_hosts and not _is_connection_address(name, reached):
            return "The Host header must name the loopback, or the host that this runtime serves (--server-name)."
        origin = headers.get("origin", "")
        if origin not in self._allowed_origins and origin != f"{self._scheme}://{host}":
            return "Requests from web pages are not accepted."
        return ""

    def has_valid_key(self, authorization: str) -> bool:
        """Whether the field `Authorization` carries the key."""
        return is_same_secret(authorization, self._key)


def parse_host_header(host: str) -> tuple[str, int]:
    """Return name and port of a Host header: 0 if it has none, and no name if it cannot be read."""
    found = _HOST.fullmatch(host.lower())
    return (found[1], int(found[2] or 0)) if found else ("", 0)


def _is_connection_address(name: str, reached: str) -> bool:
    """Whether a host is the very address that a connection has reached."""
    with suppress(ValueError):
        address = ipaddress.ip_address(reached)
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return ipaddress.ip_address(name.strip("[]")) == (mapped or address)
    return False
