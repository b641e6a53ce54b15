"""Messages between host, zygote and agents: one JSON object a SEQPACKET datagram, with descriptors attached."""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

INLINE, ATTACHED = b"i", b"m"
_MAX_INLINE_BYTES = (
    32 << 10
)  # a datagram must fit the socket's buffer (208 KiB by default); larger bodies go as a memfd
_MAX_FDS = 16


def pack(message: Message) -> tuple[bytes, int | None]:
    """Encode `message`; a long one goes into a memfd, which the caller sends as the first descriptor and closes."""
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) <= _MAX_INLINE_BYTES:
        return INLINE + body, None
    return ATTACHED, make_memfd(body)


def make_memfd(content: bytes) -> int:
    """Return a descriptor, open for reading at 0, of an anonymous file that holds `content`."""
    writer = os.memfd_create("agentbay", os.MFD_CLOEXEC)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(writer, view) :]
        return os.open(f"/proc/self/fd/{writer}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writer)


def send_datagram(sock: socket.socket, data: bytes, fds: Sequence[int]) -> None:
    """Send one datagram with descriptors; these stay open here."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send `message` with descriptors; these stay open here."""
    data, attachment = pack(message)
    if attachment is None:
        send_datagram(sock, data, fds)
        return
    try:
        send_datagram(sock, data, [attachment, *fds])
    finally:
        os.close(attachment)


def receive(sock: socket.socket) -> tuple[Message | None, list[int]]:
    """Receive one message and its descriptors, now the caller's; None when the other side is gone."""
    fds = array.array("i")
    try:
        data, ancillary, _, _ = sock.recvmsg(
            _MAX_INLINE_BYTES + 1, socket.CMSG_SPACE(_MAX_FDS * fds.itemsize), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionError:
        return None, []
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    if not data:
        return None, []
    received = fds.tolist()
    body = _read_all(received.pop(0)) if data == ATTACHED else data[1:]
    return json.loads(body), received


def _read_all(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()
