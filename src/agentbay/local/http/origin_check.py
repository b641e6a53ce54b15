"""The check of Host and Origin headers, and of the key.

It stops web pages in the user's browser from using the service: by DNS rebinding, where the page's own host name is
made to resolve to 127.0.0.1, and by cross-site request forgery (CSRF), where the page posts to this port.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Container, Mapping
from contextlib import suppress
from urllib.parse import parse_qs

from agentbay.local.ids import is_same_secret
from agentbay.local.listening import ServerAddress

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
# The published client sends its whole endpoint as Host, with scheme and path.
_HOST = re.compile(r"(?:https?://)?(\[[^\]]*\]|[^:/]*)(?::(\d{0,5}))?(?:/.*)?")


class OriginCheck:
    """Checks the headers and the key of requests to one runtime."""

    def __init__(self, key: str, address: ServerAddress) -> None:
        self._authorization = f"Bearer {key}".encode()
        self._allowed_hosts = LOOPBACK_NAMES | address.host_names
        self._scheme, default_port = ("https", 443) if address.uses_tls else ("http", 80)
        port = "" if address.port in (0, default_port) else f":{address.port}"
        self._allowed_origins = {"", *(f"{self._scheme}://{host}{port}" for host in self._allowed_hosts)}

    def rejection_reason(
        self, headers: Mapping[str, str], local_address: str, allowed_origins: Container[str] = ()
    ) -> str:
        """Return why a request is refused, or "" if its headers are right.

        Args:
            local_address: The address of this machine that the client connected to.
            allowed_origins: Origins beside that of the service, for requests that carry a token in their URL.
        """
        host = headers.get("host", "")
        name, _ = parse_host_header(host)
        # Against DNS rebinding: the browser sends the name that the page was loaded from.
        if name not in self._allowed_hosts and not _is_connection_address(name, local_address):
            return "The Host header must name the loopback, or the host that this runtime serves (--server-name)."
        # Against CSRF: browsers name the page's origin, and other clients send none.
        origin = headers.get("origin", "")
        # Through a forwarded port (ssh -L), Host and Origin both have another port than the socket. The host has passed
        # the check above, so an origin that equals it is a page of this runtime.
        is_own_origin = origin in self._allowed_origins or origin == f"{self._scheme}://{host}"
        if not is_own_origin and origin not in allowed_origins:
            return "Requests from web pages are not accepted."
        return ""

    def has_valid_key(self, authorization: str) -> bool:
        """Return whether the value of an `Authorization` header carries the key."""
        return is_same_secret(authorization, self._authorization)

    def has_mcp_key(self, query: str, headers: Mapping[str, str]) -> bool:
        """Return whether a client of the cloud's MCP endpoint shows the key.

        It may be in its query or a header.
        """
        key = read_mcp_query(query).get("APIKEY")
        return self.has_valid_key(headers.get("authorization", "") if key is None else f"Bearer {key}")


def read_mcp_query(query: str) -> dict[str, str]:
    """Return the query of the MCP endpoint by upper-case names."""
    return {name.upper(): values[-1] for name, values in parse_qs(query).items()}


def parse_host_header(host: str) -> tuple[str, int]:
    """Return the name and the port of a Host header.

    The port is 0 if there is none, the name "" if the header cannot be read.
    """
    match = _HOST.fullmatch(host.lower())
    return (match[1], int(match[2] or 0)) if match else ("", 0)


def _is_connection_address(name: str, local_address: str) -> bool:
    # An IP address as Host cannot come from DNS rebinding, which needs a name.
    with suppress(ValueError):
        address = ipaddress.ip_address(local_address)
        # A dual-stack socket shows an IPv4 address as ::ffff:a.b.c.d, while the Host header has a.b.c.d.
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return ipaddress.ip_address(name.strip("[]")) == (mapped or address)
    return False
