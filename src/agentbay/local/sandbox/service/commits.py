"""Asking the zygote to change the mounts of a running sandbox."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import closing

from agentbay.local.sandbox.service.channel import Channel
from agentbay.local.sandbox.shared.ipc import Message
from agentbay.local.sandbox.shared.sandbox_config import CommitOrder
from agentbay.local.sandbox.shared.setup_errors import SetupFailed


async def order_commit(
    send: Callable[[Message, Sequence[int]], None], order: CommitOrder, namespaces: Sequence[int]
) -> None:
    """Have the zygote replace the mounts of a running sandbox.

    Args:
        send: Passes a message with descriptors, which it closes, to the zygote.

    Raises:
        SetupFailed: In the step "switch", the sandbox is half changed; otherwise it is as before.
    """
    answered: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    gone: Message = {"event": "failed", "step": "switch", "code": 0, "detail": "the process that did it was killed"}
    unsent: Message = {"event": "failed", "step": "send", "code": 0, "detail": "the zygote could not be asked"}

    def answer(message: Message) -> None:
        if not answered.done():
            answered.set_result(message)

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(Channel(ours, lambda message, _: answer(message), lambda: answer(gone), lambda *_: answer(unsent))):
        send({"commit": order}, [theirs.detach(), *namespaces])
        message = await answered
    if message["event"] != "done":
        raise SetupFailed(message["step"], message["code"], message["detail"])
