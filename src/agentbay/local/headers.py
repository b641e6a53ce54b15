"""HTTP headers that a proxy must not forward."""

from __future__ import annotations

from collections.abc import Iterable

Headers = list[tuple[bytes, bytes]]

# RFC 9110, 7.6.1: these describe one connection, not the message.
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)


def drop_hop_by_hop(
    headers: Iterable[tuple[bytes, bytes]],
    *,
    dropped: frozenset[bytes] = frozenset(),
    kept: frozenset[bytes] = frozenset(),
) -> Headers:
    """Return the headers without hop-by-hop ones, also those that Connection names.

    Args:
        headers: With lower-case names.
        dropped: Names to drop, too.
        kept: Names to keep in any case.
    """
    headers = list(headers)
    named = {part.strip().lower() for name, value in headers if name == b"connection" for part in value.split(b",")}
    unwanted = (_HOP_BY_HOP | named | dropped) - kept
    return [(name, value) for name, value in headers if name not in unwanted]
