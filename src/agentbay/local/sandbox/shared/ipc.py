"""Messages between service, zygote and process 1.

Each is one JSON object in a SEQPACKET datagram, with file descriptors attached (SCM_RIGHTS).
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import socket
from collections.abc import Sequence
from typing import Any

from agentbay.local.sandbox.shared.fd_io import closing_fd, write_all

Message = dict[str, Any]

INLINE, ATTACHED = b"i", b"m"
# a datagram must fit into the socket's buffer (208 KiB by default), so larger bodies go as a memfd
_MAX_INLINE_BYTES = 32 << 10
_MAX_ATTACHED_BYTES = 64 << 20
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_MAX_FDS = 16


def pack(message: Message) -> tuple[bytes, int | None]:
    """Encode `message`.

    A long one goes into a memfd, which the caller sends as the first descriptor and closes.
    """
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) <= _MAX_INLINE_BYTES:
        return INLINE + body, None
    return ATTACHED, make_memfd(body)


def make_memfd(content: bytes | bytearray) -> int:
    """Return a descriptor, open for reading, of a sealed memfd that holds `content`."""
    with closing_fd(os.memfd_create("agentbay", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)) as writer:
        write_all(writer, content)
        fcntl.fcntl(writer, fcntl.F_ADD_SEALS, _SEALS)
        # Opened anew: the reader starts at offset 0, and cannot write.
        return os.open(f"/proc/self/fd/{writer}", os.O_RDONLY | os.O_CLOEXEC)


def send_datagram(sock: socket.socket, data: bytes, fds: Sequence[int]) -> None:
    """Send one datagram with descriptors.

    These stay open here.
    """
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send `message` with descriptors.

    These stay open here.
    """
    data, attachment = pack(message)
    if attachment is None:
        send_datagram(sock, data, fds)
        return
    with closing_fd(attachment):
        send_datagram(sock, data, [attachment, *fds])


def receive(sock: socket.socket) -> tuple[Message | None, list[int]]:
    """Receive one message and its descriptors, now the caller's.

    The message is None when the other side is gone.

    Raises:
        OSError: Nothing could be received; BlockingIOError if there is nothing.
        ValueError: The message is malformed.
        LookupError: The message is malformed.
    """
    fds = array.array("i")
    try:
        data, ancillary, _, _ = sock.recvmsg(
            _MAX_INLINE_BYTES + 1, socket.CMSG_SPACE(_MAX_FDS * fds.itemsize), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionError:
        return None, []
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            # Truncated ancillary data may end in the middle of a descriptor (see socket.recvmsg).
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    if not data:
        return None, []
    received = fds.tolist()
    try:
        body = data[1:]
        if data == ATTACHED:
            body = _read_attachment(received[0])
            os.close(received.pop(0))
        message = json.loads(body)
        if not isinstance(message, dict):
            raise ValueError("a message must be an object")
        return message, received
    except (OSError, ValueError, LookupError, RecursionError):
        for fd in received:
            os.close(fd)
        raise


def _read_attachment(fd: int) -> bytes:
    """Read a memfd, and refuse descriptors that could block, such as pipes."""
    # EINVAL for what is no memfd; without seals its sender could still change or enlarge it
    if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS or os.fstat(fd).st_size > _MAX_ATTACHED_BYTES:
        raise ValueError("the attachment of a message must be a sealed memfd of bounded size")
    with open(fd, "rb", closefd=False) as file:
        return file.read()
