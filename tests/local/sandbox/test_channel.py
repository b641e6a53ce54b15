"""What the service makes of messages from the other end of a channel."""

from __future__ import annotations

import array
import asyncio
import os
import socket
from pathlib import Path

import pytest

from agentbay.local.sandbox.service.channel import Channel
from agentbay.local.sandbox.shared import ipc
from agentbay.local.sandbox.shared.ipc import ATTACHED, Message


def test_long_messages_travel_in_a_memfd():
    """A message of any size arrives with its descriptors."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ipc.send(ours, {"text": "x" * 1_000_000}, [ours.fileno()])
        message, fds = ipc.receive(theirs)
        assert message == {"text": "x" * 1_000_000}
        assert os.path.sameopenfile(fds[0], ours.fileno())
        os.close(fds[0])


@pytest.mark.parametrize("kind", ["pipe", "unsealed memfd", "none", "not JSON", "not what is expected"])
def test_malformed_messages_close_the_channel(kind: str):
    """A malformed message never blocks the service.

    The channel closes, and no descriptor stays open.
    """
    before = set(Path("/proc/self/fd").iterdir())
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader, writer = os.pipe()
    unsealed = os.memfd_create("test")
    data, fds = {
        "pipe": (ATTACHED, [reader]),
        "unsealed memfd": (ATTACHED, [unsealed]),
        "none": (ATTACHED, []),
        "not JSON": (b"i{", [reader]),
        "not what is expected": (b'i{"event": "unknown"}', []),
    }[kind]

    async def body() -> None:
        closed = asyncio.Event()

        def on_message(message: Message, fds: list[int]) -> None:
            raise KeyError(message["id"])

        channel = Channel(ours, on_message, closed.set, lambda *_: None)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        theirs.sendmsg([data], rights)
        await asyncio.wait_for(closed.wait(), 10)
        channel.close()

    asyncio.run(body())
    theirs.close()
    for fd in (reader, writer, unsealed):
        os.close(fd)
    assert set(Path("/proc/self/fd").iterdir()) == before
