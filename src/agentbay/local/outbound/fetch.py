"""HTTP requests of the service.

Import this late: httpcore takes long to import.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpcore

from agentbay.local.outbound.destinations import TransferFailed, resolve_destination

_STALL_TIMEOUT_SECONDS = 60.0  # without a byte
_TIMEOUTS = {
    "connect": _STALL_TIMEOUT_SECONDS,
    "read": _STALL_TIMEOUT_SECONDS,
    "write": _STALL_TIMEOUT_SECONDS,
    "pool": _STALL_TIMEOUT_SECONDS,
}


class _PublicAddressBackend(httpcore.AsyncNetworkBackend):
    """Connects to the addresses that `resolve_destination` has checked."""

    def __init__(self, allowed_as: str) -> None:
        self._allowed_as = allowed_as
        self._plain: httpcore.AsyncNetworkBackend = httpcore.AnyIOBackend()  # pyright: ignore[reportAttributeAccessIssue]

    async def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
        # Only the TCP connection goes to the address: httpcore checks the certificate against the host name.
        return await self._plain.connect_tcp(
            await resolve_destination(host, port, self._allowed_as), port, *args, **kwargs
        )

    async def sleep(self, seconds: float) -> None:
        await self._plain.sleep(seconds)


@asynccontextmanager
async def stream_request(
    method: str,
    url: str,
    headers: Mapping[str, str],
    content: AsyncIterator[bytes] | None = None,
    *,
    allowed_as: str = "",
) -> AsyncIterator[httpcore.Response]:
    """Send a request and yield the response, whose body the caller reads.

    Redirects are not followed.

    Args:
        allowed_as: The host by which `allow_hosts` may have allowed this one, which is a subdomain of it.

    Raises:
        TransferFailed: The destination was refused, or the request failed.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise TransferFailed("the URL must begin with http:// or https:// and name a host")
    try:
        async with (
            httpcore.AsyncConnectionPool(
                ssl_context=ssl.create_default_context(), network_backend=_PublicAddressBackend(allowed_as)
            ) as pool,
            pool.stream(
                method, url, headers=list(headers.items()), content=content, extensions={"timeout": _TIMEOUTS}
            ) as response,
        ):
            yield response
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, ValueError) as error:
        raise TransferFailed(f"{parts.hostname}: {str(error) or type(error).__name__}") from error
