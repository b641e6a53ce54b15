"""The life of a sandbox, as the service drives it: start, freezes and end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from agentbay.local.sandbox.service.channel import Channel
from agentbay.local.sandbox.service.errors import SandboxError, SandboxGone
from agentbay.local.sandbox.service.freezer import CgroupFreezer, SignalFreezer, choose_freezer
from agentbay.local.sandbox.service.frozen_clock import FrozenClock
from agentbay.local.sandbox.service.init_client import InitClient
from agentbay.local.sandbox.service.pipe_reader import BackgroundReaders
from agentbay.local.sandbox.service.spec import ImageRoot
from agentbay.local.sandbox.service.watchdog import ResourceWatchdog
from agentbay.local.sandbox.shared import proc_fs
from agentbay.local.sandbox.shared.ipc import Message
from agentbay.local.sandbox.shared.sandbox_config import SandboxConfig
from agentbay.local.sandbox.shared.setup_errors import SetupFailed

_KILL_WAIT_SECONDS = 10.0  # for process 1 to kill the others where there are no namespaces


class SandboxLifecycle:
    """Process 1 of a sandbox, from the fork to its death."""

    def __init__(self, sock: socket.socket, watchdog: ResourceWatchdog, on_end: Callable[[Any], None]) -> None:
        loop = asyncio.get_running_loop()
        self.pid = 0  # of process 1, in the host's pid namespace
        self.watchdog = watchdog
        self.has_namespaces = True
        self.clock = FrozenClock()
        self.python = ""  # the interpreter for code, as it sees it
        self.image: ImageRoot | None = None
        self.host_ids: tuple[int, int] | None = None  # uid and gid of its processes; None means the service's own
        self._on_end = on_end
        self._loop = loop
        self._channel = Channel(sock, self._on_message, self._on_hang_up, self._on_send_error)
        self._ready: asyncio.Future[None] = loop.create_future()
        self._init_client = InitClient(self._channel, watchdog.wake)
        self._background_readers = BackgroundReaders(watchdog.limits.processes)
        self._pidfd = -1
        self._proc = -1
        self._listener: socket.socket | None = None
        self._diag: socket.socket | None = None
        self._freezer: SignalFreezer | CgroupFreezer | None = None
        self._freeze_lock = asyncio.Lock()
        self._forked = asyncio.Event()  # set too when it failed to
        self._gone = asyncio.Event()
        self._config: SandboxConfig | None = None

    @property
    def alive(self) -> bool:
        """Whether process 1 still runs."""
        return not self._gone.is_set()

    def send_config(self, config: SandboxConfig) -> None:
        """Send the config to the preforked process."""
        self._config = config
        self.has_namespaces = config["isolation"] == "namespaces"
        self.python = config["python"]
        self.host_ids = config["host_ids"]
        self._channel.send({"config": config})

    async def wait_ready(self) -> None:
        """Wait until commands can be run.

        Raises:
            SetupFailed: A step of the setup failed.
        """
        # Cancelling a waiter would cancel the future too, and `_on_message` could not resolve it any more.
        await asyncio.shield(self._ready)

    def take_proxy_listener(self) -> socket.socket | None:
        """Return the listener for the proxy, or None.

        The caller then owns it. There is one only if the network is "proxy".
        """
        listener, self._listener = self._listener, None
        return listener

    async def wait_closed(self) -> None:
        """Wait until every process of the sandbox is dead, whatever the reason."""
        await self._gone.wait()

    async def close(self) -> None:
        """Kill every process.

        Afterwards all are dead and the mounts gone.
        """
        # Before that there is no pidfd to kill by, and process 1 could appear after the kill.
        await self._forked.wait()
        if not self.has_namespaces:
            await self._close_without_namespaces()
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:  # it died by itself, and the loop has not seen it yet
                pass
        await self._gone.wait()

    async def _close_without_namespaces(self) -> None:
        """Have the first process kill the others.

        Without a pid namespace the kernel does not do it.
        """
        # At the end of its channel the first process kills its descendants and exits.
        self._channel.close()
        try:
            await asyncio.wait_for(self._gone.wait(), _KILL_WAIT_SECONDS)
        except TimeoutError:  # sandboxed code has stopped it
            for pid in proc_fs.list_pids(self._proc):
                proc_fs.send_signal(self._proc, pid, signal.SIGKILL)

    def kill_all(self) -> None:
        """Kill every process but process 1, frozen or not."""
        self._channel.send({"do": "kill_all"})

    def kill_commands(self) -> None:
        """Kill every process but process 1 and file operations, which are continued."""
        self._channel.send({"do": "kill_commands"})

    async def freeze(self) -> None:
        """Stop every process, also those being forked.

        Afterwards all are stopped.
        """
        async with self._freeze_lock:
            # Under the lock: freezing awaits, and a thaw in between would find only some of the processes stopped.
            if self.clock.is_frozen:
                return
            await self._usable_freezer().freeze()
            self.clock.stop()

    async def thaw(self) -> None:
        """Let the processes continue."""
        async with self._freeze_lock:
            if not self.clock.is_frozen:
                return
            await self._usable_freezer().thaw()
            self.clock.resume()

    def _check_alive(self) -> None:
        if self._gone.is_set():
            raise SandboxGone("the sandbox is closed")

    def _check_usable(self) -> None:
        self._check_alive()
        if self.clock.is_frozen:
            raise SandboxError("the sandbox is frozen; thaw it first")

    def _usable_freezer(self) -> SignalFreezer | CgroupFreezer:
        self._check_alive()
        if self._freezer is None:
            raise SandboxError("the sandbox is not ready")
        return self._freezer

    def _on_message(self, message: Message, fds: list[int]) -> None:
        # From here on, process 1 is not trusted. A setup may fail before the news of the fork arrives.
        if self._ready.done() and self._forked.is_set():
            self._init_client.handle_message(message, fds)
            return
        match message["event"]:
            case "forked":
                self.pid, self._pidfd = message["pid"], fds[0]
                self._loop.add_reader(self._pidfd, self._on_init_exit)
                self._forked.set()
            case "descriptors":
                named = dict(zip(message["names"], fds, strict=True))
                proc = named["proc"]
                self._proc = proc if self.has_namespaces else proc_fs.SubtreeProcFd(proc, self.pid)
                self._listener = socket.socket(fileno=named["listener"]) if "listener" in named else None
                self._diag = socket.socket(fileno=named["diag"]) if "diag" in named else None
                if self._diag and not self.watchdog.counts_memory:
                    self._diag.close()
            case "ready":
                self._freezer = choose_freezer(self._proc, self.watchdog.cgroup)
                self.watchdog.start(self._proc, self._init_client, self.kill_all, self._diag)
                self._ready.set_result(None)
            case "failed":
                self._fail(SetupFailed(message["step"], message["code"], message["detail"]))
            case unknown:
                raise ValueError(unknown)

    def _fail(self, error: SetupFailed) -> None:
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # marks it as retrieved: after a cancelled creation nobody awaits it

    def _on_send_error(self, message: Message, error: OSError) -> None:
        if "config" in message:
            self._fail(SetupFailed("start", error.errno or 0, str(error)))
        elif "id" in message:
            self._init_client.refuse(message["id"], f"the request could not be sent: {error.strerror}")

    def _on_hang_up(self) -> None:
        if self._pidfd >= 0 and self.has_namespaces:  # it ends anyway, unless it has sent something malformed
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self._fail(SetupFailed("start", 0, "the process ended before it was ready"))
        if self._pidfd < 0:
            self._on_init_exit()

    def _on_init_exit(self) -> None:
        """Clean up after the end of process 1.

        All others are dead too, since the kernel waits for them.
        """
        if self._gone.is_set():
            return
        self._gone.set()
        self.watchdog.stop()
        self._forked.set()
        self.clock.resume()
        self._channel.close()
        self._fail(SetupFailed("start", 0, "the process ended before it was ready"))
        self._init_client.fail_all()
        self._background_readers.close()
        for sock in (self.take_proxy_listener(), self._diag):
            if sock:
                sock.close()
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
        for fd in (self._pidfd, self._proc):
            if fd >= 0:
                os.close(fd)
        # The kernel gives closed numbers out again, so a late caller must not use these.
        self._pidfd = self._proc = -1
        self._on_end(self)
