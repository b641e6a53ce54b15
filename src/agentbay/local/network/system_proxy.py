"""Connections through the proxy that this machine's own programs use."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import socket
import ssl
from asyncio import StreamReader, StreamWriter
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from agentbay.local.network.dialer import CONNECT_TIMEOUT_SECONDS, MAX_HEAD_BYTES, ProxyError, UpstreamConnection
from agentbay.local.network.egress_policy import HostPort
from agentbay.local.outbound.address_check import is_public_address


def _may_be_public(host: str) -> bool:
    with contextlib.suppress(OSError):
        return is_public_address(socket.inet_ntoa(socket.inet_aton(host)))  # also 127.1, 0x7f000001 and 2130706433
    with contextlib.suppress(ValueError):
        return is_public_address(str(ipaddress.ip_address(host)))
    return "." in host and not host.endswith((".localhost", ".local", ".internal"))


def find(destination: HostPort, scheme: str) -> SplitResult | None:
    """Return the proxy that this machine's own programs would use, by the usual variables."""
    if proxy_bypass(str(destination)) or not _may_be_public(destination.host):  # local hosts need no proxy
        return None
    proxies = getproxies()
    url = proxies.get(scheme) or proxies.get("all")
    return urlsplit(url if "://" in url else f"http://{url}") if url else None


async def connect(proxy: SplitResult, destination: HostPort, scheme: str) -> UpstreamConnection:
    """Connect to the machine's own proxy, and let it open a tunnel for "https"."""
    if proxy.scheme not in ("http", "https") or not proxy.hostname:
        raise ProxyError(502, f"the machine's own proxy is of the kind {proxy.scheme}, which is not supported")
    tls = ssl.create_default_context() if proxy.scheme == "https" else None
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(
                proxy.hostname, proxy.port or (443 if tls else 80), ssl=tls, limit=MAX_HEAD_BYTES
            )
    except (TimeoutError, OSError) as error:
        raise ProxyError(502, "the machine's own proxy cannot be reached") from error
    login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}" if proxy.username else ""
    authorization = b"Basic " + base64.b64encode(login.encode()) if login else b""
    if scheme == "https":
        try:
            await _open_tunnel(reader, writer, destination, authorization)
        except BaseException:
            writer.close()
            raise
    return UpstreamConnection(reader, writer, True, authorization)


async def _open_tunnel(reader: StreamReader, writer: StreamWriter, destination: HostPort, authorization: bytes) -> None:
    head = f"CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n".encode()
    writer.write(head + (b"Proxy-Authorization: " + authorization + b"\r\n" if authorization else b"") + b"\r\n")
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            answer = await reader.readuntil(b"\r\n\r\n")
    except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise ProxyError(502, "the machine's own proxy gave no answer") from error
    status = answer.split(b" ", 2)[1:2]
    if not status or not status[0].startswith(b"2"):
        status_line = answer.split(b"\r\n", 1)[0].decode("latin-1")
        raise ProxyError(502, f"the machine's own proxy answered {status_line}")
