"""What the service makes of the replies of a desktop whose place code of the session has taken."""

from __future__ import annotations

import asyncio
import socket

import pytest

from agentbay.local.desktop.connection import DesktopConnection, Reply


def test_numbers() -> None:
    """Only a short number is one."""
    assert Reply(False, b"30100").number == 30100
    assert [Reply(False, body).number for body in (b"9" * 5000, b"-1", "\uff11".encode(), b"1\n", b"")] == [0] * 5


def test_text_is_bounded() -> None:
    """A text is cut, since nothing says how long titles of windows are."""
    assert len(Reply(False, b"\xff" * (8 << 20)).text) == 1 << 20


def test_large_replies() -> None:
    """A reply that is too large ends the connection before it is read."""

    async def receive() -> None:
        ours, theirs = socket.socketpair()
        connection = DesktopConnection(ours)
        theirs.sendall((64 << 20).to_bytes(4, "little") + b"\0")
        with theirs, pytest.raises(EOFError):
            await connection.receive()
        connection.close()

    asyncio.run(receive())
