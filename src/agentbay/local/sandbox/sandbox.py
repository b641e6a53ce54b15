"""One sandbox, as the service sees it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentbay.local.sandbox import files, processes, wire
from agentbay.local.sandbox.channel import Channel
from agentbay.local.sandbox.errors import FileOperationFailed, NotGiven, SandboxError, SandboxGone
from agentbay.local.sandbox.freezer import Freezer, GroupFreezer, choose
from agentbay.local.sandbox.guard import Guard
from agentbay.local.sandbox.pipes import PipeReader
from agentbay.local.sandbox.plan import Entry, Plan
from agentbay.local.sandbox.spec import MIB, Completed, Usage
from agentbay.local.sandbox.syscalls import SetupFailed
from agentbay.local.sandbox.terminal import Terminal, is_socket, is_terminal
from agentbay.local.sandbox.wire import Message

_PIPE_GRACE = 0.05  # seconds that output may still come after a command has ended
_KILL_GRACE = 10.0  # seconds until a killed command is taken for dead although nobody said so
_LINGERING = 64  # pipes of background processes that are still read, for each sandbox
_KILLED = 128 + signal.SIGKILL
_ANSWER_LIMIT = 4 << 30


class Sandbox:
    """A running sandbox; made by `SandboxHost.create`."""

    def __init__(self, sock: socket.socket, guard: Guard, on_end: Callable[[Sandbox], None]) -> None:
        loop = asyncio.get_running_loop()
        self.pid = 0  # of process 1, as the host counts
        self.guard = guard
        self._on_end = on_end
        self._loop = loop
        self._channel = Channel(sock, self._on_message, self._on_hang_up)
        self._ready: asyncio.Future[None] = loop.create_future()
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._given: dict[int, asyncio.Future[int]] = {}  # descriptors that are awaited
        self._entries: dict[int, asyncio.Future[tuple[Entry, list[int]]]] = {}
        self._lingering: list[PipeReader] = []
        self._requests = 0
        self._pidfd = -1
        self._proc = -1
        self._freezer: Freezer | GroupFreezer | None = None
        self._frozen_at: float | None = None
        self._frozen_before = 0.0  # seconds, in all earlier freezes
        self._changing = asyncio.Lock()
        self._thawed = asyncio.Event()
        self._forked = asyncio.Event()  # or failed to
        self._gone = asyncio.Event()

    @property
    def alive(self) -> bool:
        """Whether process 1 still runs."""
        return not self._gone.is_set()

    def begin(self, plan: Plan) -> None:
        """Say what the sandbox is to be."""
        self._channel.send({"plan": plan})

    async def wait_ready(self) -> None:
        """Return when commands can be run.

        Raises:
            SetupFailed: It could not be made.
        """
        await asyncio.shield(self._ready)

    async def wait_closed(self) -> None:
        """Return when every process of the sandbox is dead, whatever the reason."""
        await self._gone.wait()

    async def close(self) -> None:
        """Kill every process; all are dead, and the mounts gone, when this returns."""
        await self._forked.wait()
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:  # it died by itself, and the loop has not heard of it yet
                pass
        await self._gone.wait()

    async def run(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        timeout: float | None = None,
        output_limit: int = 64 * MIB,
    ) -> Completed:
        """Run a command to its end, or until `timeout` seconds have passed, those spent frozen not counted.

        Args:
            cwd: Relative to home, which is the default.
            env: Over the sandbox's environment.
            output_limit: Bytes kept of each stream.

        Raises:
            SandboxGone: The sandbox ended first.
        """
        _check_strings(argv, env or {})
        self._check_usable()
        out, err, kills = PipeReader(output_limit), PipeReader(output_limit), self.guard.kills()
        message = {"do": "run", "argv": list(argv), "cwd": cwd, "env": dict(env or {})}
        request, ended = self._request(message, [_source(stdin), out.writer, err.writer])
        try:
            code, timed_out = await self._outcome(request, ended, timeout)
            await asyncio.wait({out.ended, err.ended}, timeout=_PIPE_GRACE)
        finally:
            self._abandon(request)
            stdout, stderr = bytes(out.finish()), bytes(err.finish())
            self._linger(out, err)
        return Completed(code, stdout, stderr + self.guard.explain(kills), timed_out, out.truncated or err.truncated)

    def start(
        self, argv: Sequence[str], fds: Sequence[int], *, cwd: str | None = None, env: Mapping[str, str] | None = None
    ) -> asyncio.Future[int]:
        """Start a command with `fds`, which are closed here, as its three standard streams; return its exit code to be.

        The command leads a session of its own. The future fails with SandboxGone if the sandbox ends first.
        """
        try:
            _check_strings(argv, env or {})
            self._check_usable()
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        request, ended = self._request({"do": "run", "argv": list(argv), "cwd": cwd, "env": dict(env or {})}, fds)

        def forget(_: asyncio.Future[int]) -> None:
            del self._exits[request]
            if not ended.cancelled():
                ended.exception()  # taken note of, whoever waited

        ended.add_done_callback(forget)
        return ended

    async def entry(self) -> tuple[Entry, list[int]]:
        """Return what a process from outside needs to become one of this sandbox: facts, and its namespaces.

        The descriptors, in the order of `NAMESPACES`, are the caller's.
        """
        self._check_usable()
        self._requests += 1
        request = self._requests
        answer: asyncio.Future[tuple[Entry, list[int]]] = self._loop.create_future()
        self._entries[request] = answer
        self._channel.send({"do": "entry", "id": request})
        self.guard.wake()
        try:
            return await answer
        finally:
            del self._entries[request]

    def signal(self, leader: int, number: int) -> None:
        """Send a signal to the processes of the session that `leader` leads, a pid as the sandbox counts."""
        self._check_alive()
        for pid, process in processes.snapshot(self._proc).items():
            if leader in (pid, process.session) and pid != processes.INIT:
                processes.send_signal(self._proc, pid, number)

    async def open_terminal(
        self,
        argv: Sequence[str],
        *,
        cols: int,
        rows: int,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Terminal:
        """Start a command in a terminal of its own; arguments as for `run`.

        Raises:
            NotGiven: It could not be started.
            SandboxGone: The sandbox ended first.
        """
        _check_strings(argv, env or {})
        self._check_usable()
        message = {"do": "terminal", "argv": list(argv), "cols": cols, "rows": rows, "cwd": cwd, "env": dict(env or {})}
        request, exited = self._request(message, ())
        try:
            fd = await self._descriptor(request, is_terminal)
        except BaseException:
            self._abandon(request)
            raise
        exited.add_done_callback(lambda _: self._exits.pop(request, None))
        return Terminal(fd, exited, lambda: self._channel.send({"do": "kill", "id": request}))

    async def connect(self, port: int) -> socket.socket:
        """Connect to a port of the sandbox's own loopback.

        Raises:
            ConnectionRefusedError: Nobody listens there.
            SandboxError: No socket could be made.
            SandboxGone: The sandbox ended first.
        """
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            made = await self._make_socket(family)
            try:
                await self._loop.sock_connect(made, (host, port))
            except OSError:
                made.close()
            except BaseException:
                made.close()
                raise
            else:
                return made
        raise ConnectionRefusedError(f"nobody listens on port {port}")

    async def _make_socket(self, family: socket.AddressFamily) -> socket.socket:
        self._check_usable()
        request, ended = self._request({"do": "socket", "family": int(family)}, ())
        ended.set_result(0)  # nothing runs
        try:
            return socket.socket(fileno=await self._descriptor(request, is_socket))
        finally:
            self._abandon(request)

    async def _descriptor(self, request: int, fits: Callable[[int], bool]) -> int:
        given: asyncio.Future[int] = self._loop.create_future()
        self._given[request] = given
        try:
            fd = await given
        except asyncio.CancelledError:
            if given.done() and not given.cancelled() and given.exception() is None:
                os.close(given.result())
            raise
        finally:
            del self._given[request]
        if not fits(fd):
            os.close(fd)
            raise SandboxError("the sandbox gave a descriptor of another kind")
        return fd

    async def call(
        self,
        operation: str,
        params: Mapping[str, object],
        *,
        input: bytes | None = None,
        timeout: float | None = None,
    ) -> tuple[dict[str, Any], bytes]:
        """Do one file operation (see `files.OPERATIONS`) as the sandbox's user; return its result and its payload.

        Raises:
            FileOperationFailed: The operation was refused.
            TimeoutError: It took longer than `timeout` seconds and was killed.
            SandboxGone: The sandbox ended first.
        """
        self._check_usable()
        await self.guard.admit(operation, len(input or b""), params.get("path"))
        self._check_usable()
        answer = PipeReader(_ANSWER_LIMIT)
        message = {"do": "call", "operation": operation, "params": dict(params)}
        request, ended = self._request(message, [_source(input), answer.writer])
        try:
            _, timed_out = await self._outcome(request, ended, timeout)
            if timed_out:
                raise TimeoutError(f"{operation} took longer than {timeout} seconds")
            await answer.ended
        finally:
            self._abandon(request)
            content = answer.finish()
            answer.close()
        return _parse(content, operation)

    def start_call(self, operation: str, params: Mapping[str, object], source: int, sink: int) -> asyncio.Future[int]:
        """Begin a file operation on pipes of the caller's; both descriptors are closed here.

        The sink gets payload and result as `call` would read them. The future is done when the process has ended, and
        fails with SandboxGone if the sandbox ends first.
        """
        try:
            self._check_usable()
        except BaseException:
            for fd in (source, sink):
                os.close(fd)
            raise
        message = {"do": "call", "operation": operation, "params": dict(params)}
        request, ended = self._request(message, [source, sink])

        def forget(_: asyncio.Future[int]) -> None:
            del self._exits[request]
            if not ended.cancelled():
                ended.exception()  # taken note of, whoever waited

        ended.add_done_callback(forget)
        return ended

    async def call_from(self, operation: str, params: Mapping[str, object], source: int) -> dict[str, Any]:
        """Do a file operation as `call` does, with input from a descriptor, which is closed here; return its result."""
        answer = PipeReader(_ANSWER_LIMIT)
        try:
            await self.start_call(operation, params, source, answer.writer)
            await answer.ended
        finally:
            content = answer.finish()
            answer.close()
        return _parse(content, operation)[0]

    def kill_all(self) -> None:
        """Kill every process but the first, frozen or not."""
        self._channel.send({"do": "kill all"})

    async def freeze(self) -> None:
        """Stop every process, also those being forked; all are stopped when this returns."""
        async with self._changing:
            if self._frozen_at is not None:
                return
            await self._usable_freezer().freeze()
            self._thawed.clear()
            self._frozen_at = self._loop.time()

    async def thaw(self) -> None:
        """Let the processes go on."""
        async with self._changing:
            if self._frozen_at is None:
                return
            await self._usable_freezer().thaw()
            self._frozen_before += self._loop.time() - self._frozen_at
            self._frozen_at = None
            self._thawed.set()

    async def usage(self) -> Usage:
        """Return what the sandbox uses now."""
        self._check_alive()
        table = processes.snapshot(self._proc)
        own = [pid for pid, process in table.items() if pid != processes.INIT and not process.dead]
        return Usage(
            cpu_seconds=sum(process.ticks for process in table.values()) / processes.TICKS,
            memory_bytes=sum(processes.memory(self._proc, pid) for pid in own),
            processes=len(own),
        )

    def _check_alive(self) -> None:
        if self._gone.is_set():
            raise SandboxGone("the sandbox is closed")

    def _check_usable(self) -> None:
        self._check_alive()
        if self._frozen_at is not None:
            raise SandboxError("the sandbox is frozen; thaw it first")

    def _usable_freezer(self) -> Freezer | GroupFreezer:
        self._check_alive()
        if self._freezer is None:
            raise SandboxError("the sandbox is not ready")
        return self._freezer

    def _request(self, message: Message, fds: Sequence[int]) -> tuple[int, asyncio.Future[int]]:
        self._requests += 1
        ended = self._exits[self._requests] = self._loop.create_future()
        self._channel.send({**message, "id": self._requests}, fds)
        self.guard.wake()
        return self._requests, ended

    async def _outcome(self, request: int, ended: asyncio.Future[int], timeout: float | None) -> tuple[int, bool]:
        """Return the exit code, and whether it took a kill because the time was up."""
        if await self.ends_within(ended, timeout):
            return ended.result(), False
        self._channel.send({"do": "kill", "id": request})
        await asyncio.wait({ended}, timeout=_KILL_GRACE)
        return ended.result() if ended.done() else _KILLED, True

    async def ends_within(self, ended: asyncio.Future[Any], timeout: float | None) -> bool:
        """Wait for a future; False if it is not done after `timeout` seconds, those spent frozen not counted."""
        start = self._active_time()
        while not ended.done():
            if self._frozen_at is not None:
                await self._thawed.wait()
                continue
            left = None if timeout is None else start + timeout - self._active_time()
            if left is not None and left <= 0:
                return False
            await asyncio.wait({ended}, timeout=left)
        return True

    def _active_time(self) -> float:
        """A clock that stands still while the sandbox is frozen."""
        return (self._loop.time() if self._frozen_at is None else self._frozen_at) - self._frozen_before

    def _abandon(self, request: int) -> None:
        """Forget a request; kill what it started if that still runs, as after a cancellation."""
        ended = self._exits.pop(request)
        if not ended.done():
            self._channel.send({"do": "kill", "id": request})
        elif not ended.cancelled():
            ended.exception()  # taken note of, whoever waited

    def _linger(self, *readers: PipeReader) -> None:
        still = [reader for reader in (*self._lingering, *readers) if not reader.ended.done()]
        for reader in still[:-_LINGERING]:
            reader.close()
        self._lingering = still[-_LINGERING:]

    def _on_message(self, message: Message, fds: list[int]) -> None:
        match message["event"]:
            case "exit":
                ended = self._exits.get(message["id"])
                if ended and not ended.done():
                    ended.set_result(message["code"])
            case "entry":
                answer = self._entries.get(message["id"])
                if answer and not answer.done():
                    answer.set_result((message["entry"], fds))
                else:
                    for fd in fds:
                        os.close(fd)
            case "given":
                self._on_given(message["id"], fds)
            case "refused":
                self._on_refused(message["id"], NotGiven(message["message"]))
            case "forked":
                self.pid, self._pidfd = message["pid"], fds[0]
                self._loop.add_reader(self._pidfd, self._end)
                self._forked.set()
            case "ready":
                self._proc = fds[0]
                self._freezer = choose(self._proc, self.guard.group)
                self.guard.start(self._proc, self._exits, lambda: self._channel.send({"do": "kill all"}))
                self._ready.set_result(None)
            case "failed":
                self._fail(SetupFailed(message["step"], message["code"], message["detail"]))
            case unknown:
                raise ValueError(unknown)

    def _on_given(self, request: int, fds: list[int]) -> None:
        given = self._given.get(request)
        if given is not None and not given.done() and fds:
            given.set_result(fds.pop(0))
        for fd in fds:  # nobody waits for it any more
            os.close(fd)

    def _on_refused(self, request: int, error: SandboxError) -> None:
        for waiting in (self._given.get(request), self._exits.get(request)):
            if waiting is not None and not waiting.done():
                waiting.set_exception(error)

    def _fail(self, error: SetupFailed) -> None:
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # taken note of: after a cancelled creation nobody asks

    def _on_hang_up(self) -> None:
        self._fail(SetupFailed("start", 0, "the process ended before it was ready"))
        if self._pidfd < 0:
            self._end()

    def _end(self) -> None:
        """Process 1 is dead, hence all are: the kernel has waited for them."""
        if self._gone.is_set():
            return
        self._gone.set()
        self.guard.stop()
        self._forked.set()
        self._thawed.set()
        self._frozen_at = None
        self._channel.close()
        self._fail(SetupFailed("start", 0, "the process ended before it was ready"))
        waiting: list[asyncio.Future[Any]] = [*self._exits.values(), *self._entries.values(), *self._given.values()]
        for ended in waiting:
            if not ended.done():
                ended.set_exception(SandboxGone("the sandbox ended while this ran"))
        for reader in self._lingering:
            reader.close()
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
        for fd in (self._pidfd, self._proc):
            if fd >= 0:
                os.close(fd)
        self._pidfd = self._proc = -1
        self._on_end(self)


def _source(content: bytes | None) -> int:
    if content is None:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    return wire.memory_file(content)


def _check_strings(argv: Sequence[str], env: Mapping[str, str]) -> None:
    if not argv or not argv[0]:
        raise ValueError("a command needs a name")
    if any("\0" in text for text in (*argv, *env, *env.values())):
        raise ValueError("arguments and environment cannot hold NUL")
    for name in env:
        if not name or "=" in name:
            raise ValueError(f"not a name for an environment variable: {name!r}")


def _parse(content: bytearray, operation: str) -> tuple[dict[str, Any], bytes]:
    trailer = files.TRAILER.size
    if len(content) < trailer:
        raise SandboxError(f"{operation} was killed before it could answer")
    (length,) = files.TRAILER.unpack(content[-trailer:])
    end = len(content) - trailer - length
    result: dict[str, Any] = json.loads(content[end:-trailer])
    if failure := result.get("failure"):
        raise FileOperationFailed(failure["errno"], failure["strerror"], failure["path"])
    if "crash" in result:
        raise SandboxError(f"{operation} failed: {result['crash']}")
    return result, bytes(memoryview(content)[:end])
