"""The egress policy: which hosts sandboxes may reach, on which ports."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

DEFAULT_PORTS = (80, 443)  # of a rule without a port
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|[0-9a-f.]*:[0-9a-f:.]*")


class HostPort(NamedTuple):
    """A host, as a name or an IP address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class EgressRule(NamedTuple):
    """An allowed host with its ports.

    Attributes:
        host: A name or an IP address, or one of the patterns "*.DOMAIN" (every subdomain) and "*". A pattern covers
            public addresses only.
    """

    host: str
    ports: tuple[int, ...]

    @property
    def is_pattern(self) -> bool:
        """Whether the rule covers more than a single host."""
        return self.host.startswith("*")

    def matches(self, destination: HostPort) -> bool:
        """Return whether the rule covers a destination."""
        if destination.port not in self.ports:
            return False
        return destination.host.endswith(self.host[1:]) if self.is_pattern else destination.host == self.host

    def overlaps(self, other: EgressRule) -> bool:
        """Return whether both rules cover some destination."""
        shared = set(self.ports) & set(other.ports)
        # A pattern covers a narrower one too, whose host begins with "*." itself.
        return any(
            rule.matches(HostPort(host, port))
            for port in shared
            for rule, host in ((self, other.host), (other, self.host))
        )


class EgressPolicy:
    """The set of rules in force."""

    def __init__(self, rules: Iterable[EgressRule] = ()) -> None:
        self._rules = set(rules)

    def add(self, rules: Iterable[EgressRule]) -> None:
        """Allow more hosts."""
        self._rules.update(rules)

    def find_rule(self, destination: HostPort) -> EgressRule | None:
        """Return a rule that covers a destination, a host name before a pattern."""
        found = [rule for rule in self._rules if rule.matches(destination)]
        # A host that is named may have a private address, which a pattern would refuse.
        return min(found, key=lambda rule: rule.is_pattern, default=None)

    def overlaps(self, rule: EgressRule) -> bool:
        """Return whether some rule covers a destination that this one covers too."""
        return any(own.overlaps(rule) for own in self._rules)


def parse_rule(text: str) -> EgressRule:
    """Parse HOST[:PORT], with an IPv6 address in brackets before a port.

    Raises:
        ValueError: The text is something else.
    """
    host, port = _split(text if text.count(":") < 2 or text.startswith("[") else f"[{text}]")
    base = host.removeprefix("*.") if host != "*" else "any"
    if not _HOST.fullmatch(base):
        raise ValueError(f"{text!r} is not HOST or HOST:PORT; a HOST is a name, an address, *.DOMAIN or *")
    return EgressRule(host, DEFAULT_PORTS if port is None else (port,))


def parse_host_port(authority: str, default_port: int | None = None) -> HostPort:
    """Parse the host and port of a request.

    Raises:
        ValueError: The text is something else.
    """
    host, port = _split(authority)
    port = default_port if port is None else port
    if port is None or not _HOST.fullmatch(host):
        raise ValueError(f"{authority!r} is not HOST:PORT")
    return HostPort(host, port)


def _split(authority: str) -> tuple[str, int | None]:
    parts = urlsplit(f"//{authority}")
    # What urlsplit cuts off or drops could name another host to the next parser (parser differential).
    if parts.netloc != authority or "@" in authority:
        raise ValueError(f"{authority!r} is not HOST or HOST:PORT")
    host, port = parts.hostname or "", parts.port
    if not host.isascii():
        # Rules and requests are compared in the one form that DNS knows.
        host = host.encode("idna").decode()
    if port == 0:
        raise ValueError(f"{authority!r}: there is no port 0")
    # A trailing dot names the same host (a fully qualified name), so both spellings match the same rules.
    return host.removesuffix("."), port
