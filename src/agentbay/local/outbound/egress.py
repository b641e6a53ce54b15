"""Requests that the service makes for a session: to storage that its user has named, and to nothing near this machine.

The service stands where sandboxed code cannot reach. So that nobody talks through it to what trusts this machine or
its network, it connects to public addresses only, and to those that the runtime's command line names.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable

_NAT64 = ipaddress.ip_network("64:ff9b::/96")

_allowed: set[str] = set()  # HOST or HOST:PORT, for the whole process, which is one runtime


class TransferFailed(Exception):
    """A transfer was refused or failed; the message has no more of a URL than its host."""


def allow_hosts(hosts: Iterable[str]) -> None:
    """Let these through wherever they are."""
    _allowed.update(hosts)


async def resolve_public_address(host: str, port: int) -> str:
    """Return the address to connect to; it is that which was looked at, whatever the name means a moment later.

    Raises:
        Refused: The name is not known, or means an address that is not public.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)
    except OSError as error:
        raise TransferFailed(f"{host} cannot be resolved: {error.strerror}") from error
    addresses = [str(entry[4][0]) for entry in found]
    if host not in _allowed and f"{host}:{port}" not in _allowed:
        for address in addresses:
            if not is_public_address(address):
                raise TransferFailed(
                    f"{host} is not a public address, so the local runtime does not connect to it; "
                    f"start it with --storage-host {host}:{port} if it shall"
                )
    return addresses[0]


def is_public_address(address: str) -> bool:
    """Whether an address belongs to the internet, not to this machine or its network."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        # an IPv4 address in disguise is what it leads to
        if parsed in _NAT64:
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        else:
            parsed = parsed.ipv4_mapped or parsed.sixtofour or parsed
    return parsed.is_global and not parsed.is_multicast
