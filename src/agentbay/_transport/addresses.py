"""The parts of an address."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit


class Address(NamedTuple):
    """Where a URL leads.

    All parts are empty for a text that is not a URL.
    """

    scheme: str
    host: str
    port: int | None

    @property
    def is_local_socket(self) -> bool:
        """Whether this is the address of a runtime that listens on a unix socket."""
        return self.scheme in ("http", "ws") and self.host == "localhost" and self.port is None


def read_address(url: str) -> Address:
    """Return the parts of a URL."""
    try:
        parts = urlsplit(url)
        return Address(parts.scheme, parts.hostname or "", parts.port)
    except ValueError:  # its message may hold the URL, which may be secret
        return Address("", "", None)
