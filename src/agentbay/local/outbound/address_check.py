"""The check against server-side request forgery (SSRF): which addresses belong to the public internet."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# IANA has assigned public unicast addresses from this block only. So everything else is refused unseen: site-local
# fec0::/10, local NAT64 64:ff9b:1::/48, IPv4-compatible ::/96, IPv4-translated ::ffff:0:0:0/96.
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_DOCUMENTATION = ipaddress.ip_network("3fff::/20")  # Python 3.11 does not know it


class NotPublicAddress(Exception):
    """A host has an address that is not public."""


async def resolve(host: str, port: int, *, public_only: bool) -> list[str]:
    """Resolve a host name to the addresses to connect to.

    The caller connects to one of these addresses and never to the name: against DNS rebinding, which answers the check
    with one address and the connection with another.

    Args:
        public_only: Refuse the host if any of its addresses is not public.

    Raises:
        OSError: The name cannot be resolved.
        NotPublicAddress: An address is not public.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    if public_only and not all(map(is_public_address, addresses)):
        raise NotPublicAddress(f"{host} is not a public address")
    return addresses


def is_public_address(address: str) -> bool:
    """Return whether an address is public, not of this machine or its network."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        # An IPv6 address that embeds an IPv4 address is as public as the address it leads to.
        if parsed in _NAT64:
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        elif embedded := parsed.ipv4_mapped or parsed.sixtofour:
            parsed = embedded
        elif parsed not in _GLOBAL_UNICAST or parsed in _DOCUMENTATION:
            return False
    return parsed.is_global and not parsed.is_multicast
