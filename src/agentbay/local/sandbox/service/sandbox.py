"""One sandbox, as the service sees it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentbay.local.sandbox.service.channel import Channel
from agentbay.local.sandbox.service.errors import SandboxError, SandboxGone
from agentbay.local.sandbox.service.freezer import CgroupFreezer, SignalFreezer, choose_freezer
from agentbay.local.sandbox.service.init_client import InitClient, parse_file_reply
from agentbay.local.sandbox.service.pipe_reader import OutputTail, PipeReader
from agentbay.local.sandbox.service.spec import Completed, ResourceUsage
from agentbay.local.sandbox.service.terminal import Terminal, is_inotify, is_socket, is_terminal
from agentbay.local.sandbox.service.watchdog import ResourceWatchdog
from agentbay.local.sandbox.shared import ipc, proc_fs
from agentbay.local.sandbox.shared.ipc import Message
from agentbay.local.sandbox.shared.sandbox_config import JoinInfo, SandboxConfig
from agentbay.local.sandbox.shared.syscalls import SetupFailed

_OUTPUT_GRACE_SECONDS = 0.05  # seconds that output may still come after a command has ended
_KILL_WAIT_SECONDS = 10.0  # seconds until a killed command is taken for dead although nobody said so
_MAX_DRAINING_PIPES = 64  # pipes of background processes that are still read, for each sandbox
_SIGKILL_EXIT_CODE = 128 + signal.SIGKILL
_MAX_REPLY_BYTES = 4 << 30


class Sandbox:
    """A running sandbox; made by `SandboxHost.create`."""

    def __init__(self, sock: socket.socket, guard: ResourceWatchdog, on_end: Callable[[Sandbox], None]) -> None:
        loop = asyncio.get_running_loop()
        self.pid = 0  # of process 1, as the host counts
        self.watchdog = guard
        self.has_namespaces = True  # in namespaces of its own
        self._on_end = on_end
        self._loop = loop
        self._channel = Channel(sock, self._on_message, self._on_hang_up)
        self._ready: asyncio.Future[None] = loop.create_future()
        self._init_client = InitClient(self._channel, guard.wake)
        self._draining_readers: list[PipeReader] = []
        self._pidfd = -1
        self._proc = -1
        self._listener: socket.socket | None = None
        self._freezer: SignalFreezer | CgroupFreezer | None = None
        self._frozen_at: float | None = None
        self._frozen_total_seconds = 0.0  # seconds, in all earlier freezes
        self._freeze_lock = asyncio.Lock()
        self._thawed = asyncio.Event()
        self._forked = asyncio.Event()  # or failed to
        self._gone = asyncio.Event()

    @property
    def alive(self) -> bool:
        """Whether process 1 still runs."""
        return not self._gone.is_set()

    def send_config(self, plan: SandboxConfig) -> None:
        """Say what the sandbox is to be."""
        self.has_namespaces = plan["isolation"] == "namespaces"
        self._channel.send({"plan": plan})

    async def wait_ready(self) -> None:
        """Return when commands can be run.

        Raises:
            SetupFailed: It could not be made.
        """
        await asyncio.shield(self._ready)

    def take_proxy_listener(self) -> socket.socket | None:
        """Return, once, the socket on which programs look for their proxy; None unless its network is "proxy"."""
        listener, self._listener = self._listener, None
        return listener

    async def wait_closed(self) -> None:
        """Return when every process of the sandbox is dead, whatever the reason."""
        await self._gone.wait()

    async def close(self) -> None:
        """Kill every process; all are dead, and the mounts gone, when this returns."""
        await self._forked.wait()
        if not self.has_namespaces:
            await self._close_without_namespaces()
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:  # it died by itself, and the loop has not heard of it yet
                pass
        await self._gone.wait()

    async def _close_without_namespaces(self) -> None:
        """Have the first process end the others; without a namespace the kernel does not do it."""
        self._channel.close()
        try:
            await asyncio.wait_for(self._gone.wait(), _KILL_WAIT_SECONDS)
        except TimeoutError:  # it was stopped by those whom it should end
            for pid in proc_fs.list_pids(self._proc):
                proc_fs.send_signal(self._proc, pid, proc_fs.KILL)

    async def run(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        timeout: float | None = None,
        output_limit: int | None = None,
        follow: Callable[[OutputTail], None] | None = None,
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
        limit = self.watchdog.limits.output_bytes if output_limit is None else output_limit
        out, err, kills = PipeReader(limit), PipeReader(limit), self.watchdog.kill_counts()
        if follow is not None:
            follow(lambda size: (out.tail(size), err.tail(size)))
        message = {"do": "run", "argv": list(argv), "cwd": cwd, "env": dict(env or {})}
        request, ended = self._init_client.start_request(message, [_input_fd(stdin), out.write_fd, err.write_fd])
        try:
            code, timed_out = await self._wait_or_kill(request, ended, timeout)
            await asyncio.wait({out.ended, err.ended}, timeout=_OUTPUT_GRACE_SECONDS)
        finally:
            self._init_client.dispose(request)
            stdout, stderr = bytes(out.stop_collecting()), bytes(err.stop_collecting())
            self._keep_draining(out, err)
        return Completed(
            code, stdout, stderr + self.watchdog.kill_message(kills), timed_out, out.truncated or err.truncated
        )

    def start_command(
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
        return self._init_client.start_detached(message, fds)

    async def get_join_info(self) -> tuple[JoinInfo, list[int]]:
        """Return what a process from outside needs to become one of this sandbox: facts, and its namespaces.

        The descriptors, in the order of `NAMESPACES`, are the caller's.
        """
        self._check_usable()
        if not self.has_namespaces:
            raise SandboxError("the sandbox has no namespaces that could be entered")
        return await self._init_client.get_join_info()

    def signal(self, leader: int, number: int) -> None:
        """Send a signal to the processes of the session that `leader` leads, a pid as the sandbox counts."""
        self._check_alive()
        for pid, process in proc_fs.read_process_table(self._proc).items():
            if leader in (pid, process.session) and pid != proc_fs.INIT_PID:
                proc_fs.send_signal(self._proc, pid, number)

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
        request, exited = self._init_client.start_request(message)
        try:
            fd = await self._init_client.receive_fd(request, is_terminal)
        except BaseException:
            self._init_client.dispose(request)
            raise
        self._init_client.dispose_on_exit(request)
        return Terminal(fd, exited, lambda: self._init_client.kill(request))

    async def connect(self, port: int) -> socket.socket:
        """Connect to a port of the sandbox's own loopback.

        Raises:
            ConnectionRefusedError: Nobody listens there.
            SandboxError: No socket could be made.
            SandboxGone: The sandbox ended first.
        """
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            made = socket.socket(fileno=await self._request_fd({"do": "socket", "family": int(family)}, is_socket))
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
        return await self._request_fd({"do": "inotify"}, is_inotify)

    async def _request_fd(self, message: Message, fits: Callable[[int], bool]) -> int:
        self._check_usable()
        request, ended = self._init_client.start_request(message)
        ended.set_result(0)  # nothing runs
        try:
            return await self._init_client.receive_fd(request, fits)
        finally:
            self._init_client.dispose(request)

    async def run_file_operation(
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
        await self.watchdog.check_write(operation, len(input or b""), params.get("path"))
        self._check_usable()
        answer = PipeReader(_MAX_REPLY_BYTES)
        message = {"do": "call", "operation": operation, "params": dict(params)}
        request, ended = self._init_client.start_request(message, [_input_fd(input), answer.write_fd])
        try:
            _, timed_out = await self._wait_or_kill(request, ended, timeout)
            if timed_out:
                raise TimeoutError(f"{operation} took longer than {timeout} seconds")
            await answer.ended
        finally:
            self._init_client.dispose(request)
            content = answer.stop_collecting()
            answer.close()
        return parse_file_reply(content, operation)

    def start_file_operation(
        self, operation: str, params: Mapping[str, object], source: int, sink: int
    ) -> asyncio.Future[int]:
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
        return self._init_client.start_detached(message, [source, sink])

    async def run_file_operation_with_input(
        self, operation: str, params: Mapping[str, object], source: int
    ) -> dict[str, Any]:
        """Do a file operation as `call` does, with input from a descriptor, which is closed here; return its result."""
        answer = PipeReader(_MAX_REPLY_BYTES)
        try:
            await self.start_file_operation(operation, params, source, answer.write_fd)
            await answer.ended
        finally:
            content = answer.stop_collecting()
            answer.close()
        return parse_file_reply(content, operation)[0]

    def kill_all(self) -> None:
        """Kill every process but the first, frozen or not."""
        self._channel.send({"do": "kill all"})

    async def freeze(self) -> None:
        """Stop every process, also those being forked; all are stopped when this returns."""
        async with self._freeze_lock:
            if self._frozen_at is not None:
                return
            await self._usable_freezer().freeze()
            self._thawed.clear()
            self._frozen_at = self._loop.time()

    async def thaw(self) -> None:
        """Let the processes go on."""
        async with self._freeze_lock:
            if self._frozen_at is None:
                return
            await self._usable_freezer().thaw()
            self._frozen_total_seconds += self._loop.time() - self._frozen_at
            self._frozen_at = None
            self._thawed.set()

    async def usage(self) -> ResourceUsage:
        """Return what the sandbox uses now."""
        self._check_alive()
        table = proc_fs.read_process_table(self._proc)
        first = proc_fs.INIT_PID if self.has_namespaces else self.pid
        if first not in table and (process := proc_fs.read_process(self._proc, first)):
            table[first] = process
        own = [pid for pid, process in table.items() if pid != first and not process.dead]
        return ResourceUsage(
            cpu_seconds=sum(process.cpu_ticks for process in table.values()) / proc_fs.TICKS_PER_SECOND,
            memory_bytes=sum(proc_fs.private_memory_bytes(self._proc, pid) for pid in own),
            processes=len(own),
        )

    def list_processes(self) -> list[proc_fs.RunningProcess]:
        """Describe what runs, the first process and its file operations left out; also while it is frozen."""
        self._check_alive()
        return proc_fs.list_running(self._proc)

    def _check_alive(self) -> None:
        if self._gone.is_set():
            raise SandboxGone("the sandbox is closed")

    def _check_usable(self) -> None:
        self._check_alive()
        if self._frozen_at is not None:
            raise SandboxError("the sandbox is frozen; thaw it first")

    def _usable_freezer(self) -> SignalFreezer | CgroupFreezer:
        self._check_alive()
        if self._freezer is None:
            raise SandboxError("the sandbox is not ready")
        return self._freezer

    async def _wait_or_kill(self, request: int, ended: asyncio.Future[int], timeout: float | None) -> tuple[int, bool]:
        """Return the exit code, and whether it took a kill because the time was up."""
        if await self.ends_within(ended, timeout):
            return ended.result(), False
        self._init_client.kill(request)
        await asyncio.wait({ended}, timeout=_KILL_WAIT_SECONDS)
        return ended.result() if ended.done() else _SIGKILL_EXIT_CODE, True

    async def ends_within(self, ended: asyncio.Future[Any], timeout: float | None) -> bool:
        """Wait for a future; False if it is not done after `timeout` seconds, those spent frozen not counted."""
        start = self._unfrozen_seconds()
        while not ended.done():
            if self._frozen_at is not None:
                await self._thawed.wait()
                continue
            left = None if timeout is None else start + timeout - self._unfrozen_seconds()
            if left is not None and left <= 0:
                return False
            await asyncio.wait({ended}, timeout=left)
        return True

    def _unfrozen_seconds(self) -> float:
        """A clock that stands still while the sandbox is frozen."""
        return (self._loop.time() if self._frozen_at is None else self._frozen_at) - self._frozen_total_seconds

    def _keep_draining(self, *readers: PipeReader) -> None:
        still = [reader for reader in (*self._draining_readers, *readers) if not reader.ended.done()]
        for reader in still[:-_MAX_DRAINING_PIPES]:
            reader.close()
        self._draining_readers = still[-_MAX_DRAINING_PIPES:]

    def _on_message(self, message: Message, fds: list[int]) -> None:
        match message["event"]:
            case "forked":
                self.pid, self._pidfd = message["pid"], fds[0]
                self._loop.add_reader(self._pidfd, self._on_init_exit)
                self._forked.set()
            case "ready":
                self._proc = fds[0] if self.has_namespaces else proc_fs.SubtreeProcFd(fds[0], self.pid)
                self._listener = socket.socket(fileno=fds[1]) if fds[1:] else None
                self._freezer = choose_freezer(self._proc, self.watchdog.cgroup)
                self.watchdog.start(self._proc, self._init_client, lambda: self._channel.send({"do": "kill all"}))
                self._ready.set_result(None)
            case "failed":
                self._fail(SetupFailed(message["step"], message["code"], message["detail"]))
            case _:
                self._init_client.handle_message(message, fds)

    def _fail(self, error: SetupFailed) -> None:
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # taken note of: after a cancelled creation nobody asks

    def _on_hang_up(self) -> None:
        self._fail(SetupFailed("start", 0, "the process ended before it was ready"))
        if self._pidfd < 0:
            self._on_init_exit()

    def _on_init_exit(self) -> None:
        """Process 1 is dead, hence all are: the kernel has waited for them."""
        if self._gone.is_set():
            return
        self._gone.set()
        self.watchdog.stop()
        self._forked.set()
        self._thawed.set()
        self._frozen_at = None
        self._channel.close()
        self._fail(SetupFailed("start", 0, "the process ended before it was ready"))
        self._init_client.fail_all()
        for reader in self._draining_readers:
            reader.close()
        if listener := self.take_proxy_listener():
            listener.close()
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
        for fd in (self._pidfd, self._proc):
            if fd >= 0:
                os.close(fd)
        self._pidfd = self._proc = -1
        self._on_end(self)


def _input_fd(content: bytes | None) -> int:
    if content is None:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    return ipc.make_memfd(content)


def _check_strings(argv: Sequence[str], env: Mapping[str, str]) -> None:
    if not argv or not argv[0]:
        raise ValueError("a command needs a name")
    if any("\0" in text for text in (*argv, *env, *env.values())):
        raise ValueError("arguments and environment cannot hold NUL")
    for name in env:
        if not name or "=" in name:
            raise ValueError(f"not a name for an environment variable: {name!r}")
