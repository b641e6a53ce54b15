"""What sandboxes may reach: hosts that were named, on the ports that were named."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

DEFAULT_PORTS = (80, 443)  # what a name without a port stands for
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|[0-9a-f.]*:[0-9a-f:.]*")


class HostPort(NamedTuple):
    """A host, as a name or an address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class EgressRule(NamedTuple):
    """A host, "*.DOMAIN" for what is below a domain, or "*"; ports. A pattern stands for public addresses only."""

    host: str
    ports: tuple[int, ...]

    @property
    def is_pattern(self) -> bool:
        """Whether it names no single host."""
        return self.host.startswith("*")

    def matches(self, place: HostPort) -> bool:
        """Whether it names this place."""
        if place.port not in self.ports:
            return False
        return place.host.endswith(self.host[1:]) if self.is_pattern else place.host == self.host


class EgressPolicy:
    """Rules in force."""

    def __init__(self, rules: Iterable[EgressRule] = ()) -> None:
        self._rules = set(rules)

    def add(self, rules: Iterable[EgressRule]) -> None:
        """Allow more."""
        self._rules.update(rules)

    def find_rule(self, place: HostPort) -> EgressRule | None:
        """Return a rule that covers a place, one that names it rather than a pattern."""
        found = [rule for rule in self._rules if rule.matches(place)]
        return min(found, key=lambda rule: rule.is_pattern, default=None)


def parse_rule(text: str) -> EgressRule:
    """Read HOST[:PORT], as users write it; an IPv6 address with a port stands in brackets.

    Raises:
        ValueError: It is something else; says what.
    """
    host, port = _split(text if text.count(":") < 2 or text.startswith("[") else f"[{text}]")
    base = host.removeprefix("*.") if host != "*" else "any"
    if not _HOST.fullmatch(base):
        raise ValueError(f"{text!r} is not HOST or HOST:PORT; a HOST is a name, an address, *.DOMAIN or *")
    return EgressRule(host, DEFAULT_PORTS if port is None else (port,))


def parse_host_port(authority: str, default_port: int | None = None) -> HostPort:
    """Read the host and port of a request.

    Raises:
        ValueError: It is something else.
    """
    host, port = _split(authority)
    port = default_port if port is None else port
    if port is None or not _HOST.fullmatch(host):
        raise ValueError(f"{authority!r} is not HOST:PORT")
    return HostPort(host, port)


def _split(authority: str) -> tuple[str, int | None]:
    parts = urlsplit(f"//{authority}")
    if parts.netloc != authority or "@" in authority:
        raise ValueError(f"{authority!r} is not HOST or HOST:PORT")
    host, port = parts.hostname or "", parts.port
    if not host.isascii():
        host = host.encode("idna").decode()
    if port == 0:
        raise ValueError(f"{authority!r}: there is no port 0")
    return host.removesuffix("."), port
