"""Which hosts the service may connect to for a session.

They are the public ones, and those that the command line names.

The service stands where sandboxed code cannot reach. Without this check, code could talk through the service to hosts
that trust this machine or its network (server-side request forgery, SSRF).
"""

from __future__ import annotations

from collections.abc import Iterable

from agentbay.local.outbound.address_check import NotPublicAddress, resolve

_allowed: set[str] = set()  # HOST or HOST:PORT, for the whole process, which is one runtime


class TransferFailed(Exception):
    """A transfer was refused or failed.

    Of a URL, the message holds the host only: the rest may be a secret.
    """


def allow_hosts(hosts: Iterable[str]) -> None:
    """Allow hosts, given as HOST or HOST:PORT, whatever their addresses are."""
    _allowed.update(hosts)


async def resolve_destination(name: str, port: int, allowed_as: str = "") -> str:
    """Return the address to connect to.

    Args:
        name: The host to connect to.
        allowed_as: The host that `allow_hosts` may have allowed, if it is not this name, such as that of a bucket's.

    Raises:
        TransferFailed: The name cannot be resolved, or its address is not public.
    """
    host = allowed_as or name
    try:
        addresses = await resolve(name, port, public_only=not {host, f"{host}:{port}"} & _allowed)
    except OSError as error:
        raise TransferFailed(f"{name} cannot be resolved: {error.strerror}") from error
    except NotPublicAddress as error:
        raise TransferFailed(
            f"{error}, so the local runtime does not connect to it; "
            f"start it with --storage-host {host}:{port} if it shall"
        ) from error
    return addresses[0]
