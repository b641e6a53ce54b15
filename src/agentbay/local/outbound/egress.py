"""Requests that the service makes for a session: to storage that its user has named, and to nothing near this machine.

The service stands where sandboxed code cannot reach. So that nobody talks through it to what trusts this machine or
its network, it connects to public addresses only, and to those that the runtime's command line names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from agentbay.local.outbound.address_check import is_public_address

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
