"""The door: a zygote, and the sandboxes that come from it."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

from agentbay.local.sandbox import ladder, launcher
from agentbay.local.sandbox.channel import Channel
from agentbay.local.sandbox.errors import FileOperationFailed, IsolationUnavailable, SandboxError, SandboxGone
from agentbay.local.sandbox.launcher import Zygote
from agentbay.local.sandbox.sandbox import Sandbox
from agentbay.local.sandbox.spec import Bind, Completed, Limits, SandboxSpec, Usage
from agentbay.local.sandbox.syscalls import SetupFailed
from agentbay.local.sandbox.wire import Message

__all__ = [
    "Bind",
    "Completed",
    "FileOperationFailed",
    "IsolationUnavailable",
    "Limits",
    "Sandbox",
    "SandboxError",
    "SandboxGone",
    "SandboxHost",
    "SandboxSpec",
    "Usage",
]


class SandboxHost:
    """Makes sandboxes; everything it has made dies with it, or with this process."""

    isolation = "namespaces"

    def __init__(self, zygote: Zygote) -> None:
        loop = asyncio.get_running_loop()
        self.owner = launcher.sandbox_owner() or (os.geteuid(), os.getegid())
        self._zygote = zygote
        self._sandboxes: set[Sandbox] = set()
        self._closed = False
        self._ready: asyncio.Future[bool] = loop.create_future()
        self._channel = Channel(zygote.socket, self._on_message, self._on_hang_up)

    @classmethod
    async def start(cls, *, isolation: Literal["auto", "none"] = "auto") -> Self:
        """Start a zygote and try out one sandbox.

        Raises:
            IsolationUnavailable: This machine cannot isolate; says what is missing.
        """
        if isolation == "none":
            raise IsolationUnavailable(["Sandboxes without isolation are not offered by this version."])
        launcher.check_machine()
        zygote = launcher.launch()
        host = cls(zygote)
        try:
            if not await host._ready:
                raise SandboxError(f"the zygote did not start: {zygote.complaint()}")
            await host._try_out()
        except BaseException:
            await host.close()
            raise
        return host

    async def create(self, spec: SandboxSpec) -> Sandbox:
        """Make a sandbox.

        Raises:
            SandboxError: It could not be made.
        """
        try:
            return await self._create(spec)
        except SetupFailed as failure:
            raise SandboxError(f"the sandbox could not be made: {failure}") from failure

    async def close(self) -> None:
        """Kill all sandboxes and the zygote."""
        self._closed = True
        await asyncio.gather(*(sandbox.close() for sandbox in self._sandboxes))
        self._channel.close()
        self._zygote.stop()

    async def _create(self, spec: SandboxSpec) -> Sandbox:
        if self._closed:
            raise SandboxGone("the sandbox host is closed")
        plan = launcher.plan(spec)
        launcher.prepare(plan)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sandbox = Sandbox(ours, self._sandboxes.discard)
        self._sandboxes.add(sandbox)
        self._channel.send({"plan": plan}, [theirs.detach()])
        try:
            await sandbox.wait_ready()
        except BaseException:
            await sandbox.close()
            raise
        return sandbox

    async def _try_out(self) -> None:
        with tempfile.TemporaryDirectory(prefix="agentbay-trial-") as directory:
            try:
                sandbox = await self._create(SandboxSpec(root=Path(directory)))
            except SetupFailed as failure:
                raise IsolationUnavailable([ladder.explain(failure)]) from failure
            await sandbox.close()

    def _on_message(self, message: Message, fds: Iterable[int]) -> None:
        self._ready.set_result(message["event"] == "ready")

    def _on_hang_up(self) -> None:
        self._closed = True
        if not self._ready.done():
            self._ready.set_result(False)
