"""One running sandbox, as the service drives it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from agentbay.local.sandbox.service.channel import Channel
from agentbay.local.sandbox.service.errors import SandboxError, SandboxGone
from agentbay.local.sandbox.service.freezer import CgroupFreezer, SignalFreezer, choose_freezer
from agentbay.local.sandbox.service.frozen_clock import FrozenClock
from agentbay.local.sandbox.service.init_client import InitClient, parse_file_reply
from agentbay.local.sandbox.service.pipe_reader import BackgroundReaders, OutputTail, PipeReader, drain_after_exit
from agentbay.local.sandbox.service.process_list import RunningProcess, list_running, measure_usage
from agentbay.local.sandbox.service.spec import Completed, ResourceUsage
from agentbay.local.sandbox.service.terminal import Terminal, is_inotify, is_socket, is_terminal
from agentbay.local.sandbox.service.watchdog import ResourceWatchdog
from agentbay.local.sandbox.shared import ipc, proc_fs
from agentbay.local.sandbox.shared.file_protocol import FileRequest, ReplyT
from agentbay.local.sandbox.shared.ipc import Message
from agentbay.local.sandbox.shared.sandbox_config import JoinInfo, SandboxConfig
from agentbay.local.sandbox.shared.setup_errors import SetupFailed

_KILL_WAIT_SECONDS = 10.0  # until a killed command counts as dead although process 1 has not reported its end
_SIGKILL_EXIT_CODE = 128 + signal.SIGKILL
_MAX_REPLY_BYTES = 4 << 30


class Sandbox:
    """A running sandbox.

    Created by `SandboxManager.create`.
    """

    def __init__(self, sock: socket.socket, watchdog: ResourceWatchdog, on_end: Callable[[Sandbox], None]) -> None:
        loop = asyncio.get_running_loop()
        self.pid = 0  # of process 1, in the host's pid namespace
        self.watchdog = watchdog
        self.has_namespaces = True
        self.clock = FrozenClock()
        self.python = ""  # the interpreter of its Python environment, as it sees it
        self.host_ids: tuple[int, int] | None = None  # uid and gid of its processes; None means the service's own
        self._on_end = on_end
        self._loop = loop
        self._channel = Channel(sock, self._on_message, self._on_hang_up, self._on_send_error)
        self._ready: asyncio.Future[None] = loop.create_future()
        self._init_client = InitClient(self._channel, watchdog.wake)
        self._background_readers = BackgroundReaders()
        self._pidfd = -1
        self._proc = -1
        self._listener: socket.socket | None = None
        self._diag: socket.socket | None = None
        self._freezer: SignalFreezer | CgroupFreezer | None = None
        self._freeze_lock = asyncio.Lock()
        self._forked = asyncio.Event()  # set too when it failed to
        self._gone = asyncio.Event()

    @property
    def alive(self) -> bool:
        """Whether process 1 still runs."""
        return not self._gone.is_set()

    def send_config(self, config: SandboxConfig) -> None:
        """Send the config to the preforked process."""
        self.has_namespaces = config["isolation"] == "namespaces"
        self.python = f"{config['python_prefix']}/bin/python"
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
        """Run a command to its end, or for `timeout` seconds.

        Time spent frozen does not count.

        Args:
            cwd: Relative to home, which is the default.
            env: Variables over the sandbox's environment.
            output_limit: Bytes kept of each stream; None means the sandbox's limit.
            follow: Called at once with a function that returns the last bytes of both streams so far.

        Raises:
            SandboxGone: The sandbox ended first.
        """
        _check_strings(argv, env or {})
        self._check_usable()
        limit = self.watchdog.limits.output_bytes if output_limit is None else output_limit
        out, err, kills = PipeReader(limit), PipeReader(limit), self.watchdog.kill_counts()
        if follow is not None:
            follow(lambda size: (out.tail(size), err.tail(size)))
        message = {"do": "run_command", "argv": list(argv), "cwd": cwd, "env": dict(env or {})}
        request, ended = self._init_client.start_request(message, [_input_fd(stdin), out.write_fd, err.write_fd])
        try:
            code, timed_out = await self._wait_or_kill(request, ended, timeout)
            await drain_after_exit(out, err)
        finally:
            self._init_client.dispose(request)
            stdout, stderr = bytes(out.stop_collecting()), bytes(err.stop_collecting())
            self._background_readers.add(out, err)
        return Completed(
            code, stdout, stderr + self.watchdog.kill_message(kills), timed_out, out.truncated or err.truncated
        )

    def start_command(
        self, argv: Sequence[str], fds: Sequence[int], *, cwd: str | None = None, env: Mapping[str, str] | None = None
    ) -> asyncio.Future[int]:
        """Start a command on three descriptors, and return the future of its exit code.

        The descriptors are closed here. The command leads a session of its own. The future fails with SandboxGone if
        the sandbox ends first.
        """
        try:
            _check_strings(argv, env or {})
            self._check_usable()
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        message = {"do": "run_command", "argv": list(argv), "cwd": cwd, "env": dict(env or {})}
        return self._init_client.start_detached(message, fds)

    async def get_join_info(self) -> tuple[JoinInfo, list[int]]:
        """Return what a process from outside needs to join this sandbox.

        The caller owns the descriptors, which are in the order of `NAMESPACES`.
        """
        self._check_usable()
        if not self.has_namespaces:
            raise SandboxError("the sandbox has no namespaces that could be entered")
        return await self._init_client.get_join_info()

    def signal(self, leader: int, number: int) -> None:
        """Send a signal to the session that `leader`, a pid inside, leads."""
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
        """Start a command in a terminal of its own.

        Arguments as for `run`.

        Raises:
            ResourceCreationFailed: The terminal could not be opened, or the command not be started.
            SandboxGone: The sandbox ended first.
        """
        _check_strings(argv, env or {})
        self._check_usable()
        message = {
            "do": "open_terminal",
            "argv": list(argv),
            "cols": cols,
            "rows": rows,
            "cwd": cwd,
            "env": dict(env or {}),
        }
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
            ConnectionRefusedError: No process listens there.
            SandboxError: No socket could be created.
            SandboxGone: The sandbox ended first.
        """
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            message = {"do": "open_socket", "family": int(family)}
            made = socket.socket(fileno=await self._request_fd(message, is_socket))
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
        """Return an inotify descriptor, to which `SnapshotTree` adds watches.

        Raises:
            ResourceCreationFailed: The limit of inotify instances is reached.
        """
        return await self._request_fd({"do": "open_inotify"}, is_inotify)

    async def _request_fd(self, message: Message, is_expected: Callable[[int], bool]) -> int:
        self._check_usable()
        request, ended = self._init_client.start_request(message)
        ended.set_result(0)  # no process belongs to this request
        try:
            return await self._init_client.receive_fd(request, is_expected)
        finally:
            self._init_client.dispose(request)

    async def run_file_operation(
        self, request: FileRequest[ReplyT], *, input: bytes | None = None, timeout: float | None = None
    ) -> tuple[ReplyT, bytes]:
        """Do one file operation as the sandbox's user.

        Return its reply and its payload.

        Raises:
            FileOperationFailed: The operation failed.
            TimeoutError: It took longer than `timeout` seconds and was killed.
            SandboxGone: The sandbox ended first.
        """
        self._check_usable()
        # The check may measure the disk, and meanwhile the sandbox may end or be frozen: hence two checks.
        await self.watchdog.check_write(request, len(input or b""))
        self._check_usable()
        reply = PipeReader(_MAX_REPLY_BYTES)
        number, ended = self._init_client.start_request(
            _file_operation_message(request), [_input_fd(input), reply.write_fd]
        )
        try:
            _, timed_out = await self._wait_or_kill(number, ended, timeout)
            if timed_out:
                raise TimeoutError(f"{type(request).__name__} took longer than {timeout} seconds")
            # The news of the exit and the last bytes of the pipe arrive in any order.
            await reply.ended
        finally:
            self._init_client.dispose(number)
            content = reply.stop_collecting()
            reply.close()
        return parse_file_reply(content, request)

    def start_file_operation(self, request: FileRequest[Any], input_fd: int, output_fd: int) -> asyncio.Future[int]:
        """Start a file operation on pipes of the caller's.

        Both descriptors are closed here.

        The output gets payload and reply. The future is done when the process has ended, and fails with SandboxGone if
        the sandbox ends first.
        """
        try:
            self._check_usable()
        except BaseException:
            for fd in (input_fd, output_fd):
                os.close(fd)
            raise
        return self._init_client.start_detached(_file_operation_message(request), [input_fd, output_fd])

    async def run_file_operation_with_input(self, request: FileRequest[ReplyT], input_fd: int) -> ReplyT:
        """Do a file operation with input from a descriptor, which is closed here.

        Return its reply.
        """
        reply = PipeReader(_MAX_REPLY_BYTES)
        try:
            await self.start_file_operation(request, input_fd, reply.write_fd)
            await reply.ended
        finally:
            content = reply.stop_collecting()
            reply.close()
        return parse_file_reply(content, request)[0]

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

    async def usage(self) -> ResourceUsage:
        """Return what the sandbox uses now."""
        self._check_alive()
        return measure_usage(self._proc, proc_fs.INIT_PID if self.has_namespaces else self.pid)

    def list_processes(self) -> list[RunningProcess]:
        """Describe every process but process 1 and its file operations.

        Also while frozen.
        """
        self._check_alive()
        return list_running(self._proc)

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

    async def _wait_or_kill(self, request: int, ended: asyncio.Future[int], timeout: float | None) -> tuple[int, bool]:
        """Return the exit code, and whether the command was killed at its time limit."""
        if await self.clock.ends_within(ended, timeout):
            return ended.result(), False
        self._init_client.kill(request)
        await asyncio.wait({ended}, timeout=_KILL_WAIT_SECONDS)
        return ended.result() if ended.done() else _SIGKILL_EXIT_CODE, True

    def _on_message(self, message: Message, fds: list[int]) -> None:
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
            case _:
                self._init_client.handle_message(message, fds)

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


def _file_operation_message(request: FileRequest[Any]) -> Message:
    return {"do": "run_file_operation", "operation": type(request).__name__, "fields": request.to_json()}


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
