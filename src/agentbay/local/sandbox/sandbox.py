"""One sandbox, as the service sees it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentbay.local.sandbox import processes, wire
from agentbay.local.sandbox.channel import Channel
from agentbay.local.sandbox.errors import SandboxError, SandboxGone
from agentbay.local.sandbox.freezer import Freezer, GroupFreezer, choose
from agentbay.local.sandbox.guard import Guard
from agentbay.local.sandbox.pipes import PipeReader, Recent
from agentbay.local.sandbox.plan import Entry, Plan
from agentbay.local.sandbox.requests import Requests, read_answer
from agentbay.local.sandbox.spec import Completed, Usage
from agentbay.local.sandbox.syscalls import SetupFailed
from agentbay.local.sandbox.terminal import Terminal, is_inotify, is_socket, is_terminal
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
        self.isolated = True  # in namespaces of its own
        self._on_end = on_end
        self._loop = loop
        self._channel = Channel(sock, self._on_message, self._on_hang_up)
        self._ready: asyncio.Future[None] = loop.create_future()
        self._requests = Requests(self._channel, guard.wake)
        self._lingering: list[PipeReader] = []
        self._pidfd = -1
        self._proc = -1
        self._listener: socket.socket | None = None
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
        self.isolated = plan["isolation"] == "namespaces"
        self._channel.send({"plan": plan})

    async def wait_ready(self) -> None:
        """Return when commands can be run.

        Raises:
            SetupFailed: It could not be made.
        """
        await asyncio.shield(self._ready)

    def take_listener(self) -> socket.socket | None:
        """Return, once, the socket on which programs look for their proxy; None unless its network is "proxy"."""
        listener, self._listener = self._listener, None
        return listener

    async def wait_closed(self) -> None:
        """Return when every process of the sandbox is dead, whatever the reason."""
        await self._gone.wait()

    async def close(self) -> None:
        """Kill every process; all are dead, and the mounts gone, when this returns."""
        await self._forked.wait()
        if not self.isolated:
            await self._close_plain()
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:  # it died by itself, and the loop has not heard of it yet
                pass
        await self._gone.wait()

    async def _close_plain(self) -> None:
        """Have the first process end the others; without a namespace the kernel does not do it."""
        self._channel.close()
        try:
            await asyncio.wait_for(self._gone.wait(), _KILL_GRACE)
        except TimeoutError:  # it was stopped by those whom it should end
            for pid in processes.pids(self._proc):
                processes.send_signal(self._proc, pid, processes.KILL)

    async def run(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        timeout: float | None = None,
        output_limit: int | None = None,
        follow: Callable[[Recent], None] | None = None,
    ) -> Completed:
        """Run a command to its end, or until `timeout` seconds have passed, those spent frozen not counted.

        Args:
            cwd: Relative to home, which is the default.
            env: Over the sandbox's environment.
            output_limit: Bytes kept of each stream; None means as the sandbox's limits have it.
            follow: Called at once with what returns, at any time, the last bytes of both streams so far.

        Raises:
            SandboxGone: The sandbox ended first.
        """
        _check_strings(argv, env or {})
        self._check_usable()
        limit = self.guard.limits.output_bytes if output_limit is None else output_limit
        out, err, kills = PipeReader(limit), PipeReader(limit), self.guard.kills()
        if follow is not None:
            follow(lambda size: (out.recent(size), err.recent(size)))
        message = {"do": "run", "argv": list(argv), "cwd": cwd, "env": dict(env or {})}
        request, ended = self._requests.begin(message, [_source(stdin), out.writer, err.writer])
        try:
            code, timed_out = await self._outcome(request, ended, timeout)
            await asyncio.wait({out.ended, err.ended}, timeout=_PIPE_GRACE)
        finally:
            self._requests.abandon(request)
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
        message = {"do": "run", "argv": list(argv), "cwd": cwd, "env": dict(env or {})}
        return self._requests.start(message, fds)

    async def entry(self) -> tuple[Entry, list[int]]:
        """Return what a process from outside needs to become one of this sandbox: facts, and its namespaces.

        The descriptors, in the order of `NAMESPACES`, are the caller's.
        """
        self._check_usable()
        if not self.isolated:
            raise SandboxError("the sandbox has no namespaces that could be entered")
        return await self._requests.entry()

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
        request, exited = self._requests.begin(message)
        try:
            fd = await self._requests.descriptor(request, is_terminal)
        except BaseException:
            self._requests.abandon(request)
            raise
        self._requests.release(request)
        return Terminal(fd, exited, lambda: self._requests.kill(request))

    async def connect(self, port: int) -> socket.socket:
        """Connect to a port of the sandbox's own loopback.

        Raises:
            ConnectionRefusedError: Nobody listens there.
            SandboxError: No socket could be made.
            SandboxGone: The sandbox ended first.
        """
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            made = socket.socket(fileno=await self._made({"do": "socket", "family": int(family)}, is_socket))
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

    async def make_inotify(self) -> int:
        """Return an inotify descriptor, to which "snapshot" adds what it finds; NotGiven if the kernel has no more."""
        return await self._made({"do": "inotify"}, is_inotify)

    async def _made(self, message: Message, fits: Callable[[int], bool]) -> int:
        self._check_usable()
        request, ended = self._requests.begin(message)
        ended.set_result(0)  # nothing runs
        try:
            return await self._requests.descriptor(request, fits)
        finally:
            self._requests.abandon(request)

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
        request, ended = self._requests.begin(message, [_source(input), answer.writer])
        try:
            _, timed_out = await self._outcome(request, ended, timeout)
            if timed_out:
                raise TimeoutError(f"{operation} took longer than {timeout} seconds")
            await answer.ended
        finally:
            self._requests.abandon(request)
            content = answer.finish()
            answer.close()
        return read_answer(content, operation)

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
        return self._requests.start(message, [source, sink])

    async def call_from(self, operation: str, params: Mapping[str, object], source: int) -> dict[str, Any]:
        """Do a file operation as `call` does, with input from a descriptor, which is closed here; return its result."""
        answer = PipeReader(_ANSWER_LIMIT)
        try:
            await self.start_call(operation, params, source, answer.writer)
            await answer.ended
        finally:
            content = answer.finish()
            answer.close()
        return read_answer(content, operation)[0]

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
        first = processes.INIT if self.isolated else self.pid
        if first not in table and (process := processes.look(self._proc, first)):
            table[first] = process
        own = [pid for pid, process in table.items() if pid != first and not process.dead]
        return Usage(
            cpu_seconds=sum(process.ticks for process in table.values()) / processes.TICKS,
            memory_bytes=sum(processes.memory(self._proc, pid) for pid in own),
            processes=len(own),
        )

    def running(self) -> list[processes.Running]:
        """Describe what runs, the first process and its file operations left out; also while it is frozen."""
        self._check_alive()
        return processes.running(self._proc)

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

    async def _outcome(self, request: int, ended: asyncio.Future[int], timeout: float | None) -> tuple[int, bool]:
        """Return the exit code, and whether it took a kill because the time was up."""
        if await self.ends_within(ended, timeout):
            return ended.result(), False
        self._requests.kill(request)
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

    def _linger(self, *readers: PipeReader) -> None:
        still = [reader for reader in (*self._lingering, *readers) if not reader.ended.done()]
        for reader in still[:-_LINGERING]:
            reader.close()
        self._lingering = still[-_LINGERING:]

    def _on_message(self, message: Message, fds: list[int]) -> None:
        match message["event"]:
            case "forked":
                self.pid, self._pidfd = message["pid"], fds[0]
                self._loop.add_reader(self._pidfd, self._end)
                self._forked.set()
            case "ready":
                self._proc = fds[0] if self.isolated else processes.Proc(fds[0], self.pid)
                self._listener = socket.socket(fileno=fds[1]) if fds[1:] else None
                self._freezer = choose(self._proc, self.guard.group)
                self.guard.start(self._proc, self._requests, lambda: self._channel.send({"do": "kill all"}))
                self._ready.set_result(None)
            case "failed":
                self._fail(SetupFailed(message["step"], message["code"], message["detail"]))
            case _:
                self._requests.answer(message, fds)

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
        self._requests.end()
        for reader in self._lingering:
            reader.close()
        if listener := self.take_listener():
            listener.close()
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
