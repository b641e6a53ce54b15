"""What the service does in a running sandbox: commands, file operations, terminals, connections."""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from agentbay.local.sandbox.service.background_process import BackgroundProcess, ProcessControl
from agentbay.local.sandbox.service.errors import FileOperationFailed, ResourceCreationFailed, SandboxError
from agentbay.local.sandbox.service.futures import retrieve_exception
from agentbay.local.sandbox.service.init_client import parse_file_reply
from agentbay.local.sandbox.service.init_requests import (
    check_strings,
    command_message,
    content_bytes,
    file_operation_message,
    make_error_fd,
    make_input_fd,
)
from agentbay.local.sandbox.service.input_pipe import InputPipe
from agentbay.local.sandbox.service.output_store import OutputStore
from agentbay.local.sandbox.service.pipe_reader import OutputCollector, OutputTail, drain_after_exit
from agentbay.local.sandbox.service.process_list import RunningProcess, list_running, measure_usage
from agentbay.local.sandbox.service.sandbox_lifecycle import SandboxLifecycle
from agentbay.local.sandbox.service.shell_script import is_simple_command, shell_arguments
from agentbay.local.sandbox.service.spec import Completed, ResourceUsage
from agentbay.local.sandbox.service.terminal import Terminal, is_inotify, is_stream_socket, is_terminal
from agentbay.local.sandbox.shared import ipc, proc_fs
from agentbay.local.sandbox.shared.file_protocol import FileRequest, ReplyT
from agentbay.local.sandbox.shared.ipc import Message
from agentbay.local.sandbox.shared.sandbox_config import JoinInfo, mount_point_owner, overlay_parts
from agentbay.local.worker_thread import run_by_size

_KILL_WAIT_SECONDS = 10.0  # until a killed command counts as dead although process 1 has not reported its end
_SIGKILL_EXIT_CODE = 128 + signal.SIGKILL
_MAX_REPLY_BYTES = 128 << 20  # of a list of files, which is held in memory several times over
_OBSTACLE_BYTES = 1 << 15  # the work of inspecting one process, as a size for `run_by_size`
_MAX_OPERATION_SECONDS = 600.0  # of a file operation without a time limit of its own


class Sandbox(SandboxLifecycle):
    """A running sandbox.

    Created by `SandboxManager.create`.
    """

    async def run(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        merge_stderr: bool = False,
        script: bytes | None = None,
        timeout: float | None = None,
        output_limit: int | None = None,
        follow: Callable[[OutputTail], None] | None = None,
    ) -> Completed:
        """Run a command to its end, or for `timeout` seconds.

        Time spent frozen does not count.

        Args:
            cwd: Relative to the sandbox's directory, which is the default.
            env: Variables over the sandbox's environment.
            merge_stderr: Whether standard error goes where standard output goes.
            script: The content of descriptor 3, see `shell_arguments`.
            output_limit: Bytes kept of each stream; None means the sandbox's limit.
            follow: Called at once with a function that returns the last bytes of both streams so far.

        Raises:
            DirectoryNotEntered: Its working directory cannot be entered.
            SandboxGone: The sandbox ended first.
        """
        check_strings(argv, env or {})
        self._check_usable()
        limit = self.watchdog.limits.output_bytes if output_limit is None else output_limit
        out, err, kills = OutputCollector(limit), OutputCollector(limit), self.watchdog.kill_counts()
        if follow is not None:
            follow(lambda size: (out.tail(size), err.tail(size)))
        fds = [make_input_fd(stdin), out.write_fd, make_error_fd(out.write_fd, err.write_fd, merge=merge_stderr)]
        if script is not None:
            fds.append(ipc.make_memfd(script))
        request, ended = self._init_client.start_request(command_message(argv, cwd, env), fds)
        try:
            code, timed_out = await self._wait_or_kill(request, ended, timeout)
            await drain_after_exit(out, err)
        finally:
            self._init_client.dispose(request)
            stdout, stderr = out.stop_collecting(), err.stop_collecting()
            self._background_readers.add(out, err)
        (stdout if merge_stderr else stderr).extend(self.watchdog.kill_message(kills))
        return Completed(code, stdout, stderr, timed_out, out.truncated or err.truncated)

    def start_command(
        self, argv: Sequence[str], fds: Sequence[int], *, cwd: str | None = None, env: Mapping[str, str] | None = None
    ) -> asyncio.Future[int]:
        """Start a command on three descriptors, and return the future of its exit code.

        The descriptors are closed here. The command leads a session of its own. The future fails with SandboxGone if
        the sandbox ends first.
        """
        self._check_start(argv, fds, env)
        return self._init_client.start_detached(command_message(argv, cwd, env), fds)

    def _check_start(self, argv: Sequence[str], fds: Sequence[int], env: Mapping[str, str] | None) -> None:
        try:
            check_strings(argv, env or {})
            self._check_usable()
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise

    async def start_background(
        self,
        command: str | Sequence[str],
        stores: tuple[str, str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        merge_stderr: bool = False,
    ) -> BackgroundProcess:
        """Start a command in the background.

        Args:
            command: A shell script of any length, or a program and its arguments.
            stores: Paths of new files, outside of the sandbox, for standard output and standard error.
            cwd: Relative to the sandbox's directory, which is the default.
            env: Variables over the sandbox's environment.
            stdin: All of its input; None leaves it open.
            merge_stderr: Whether standard error goes where standard output goes.

        Raises:
            DirectoryNotEntered: Its working directory cannot be entered.
            ResourceCreationFailed: It could not be started.
            SandboxGone: The sandbox ended first.
        """
        argv, content, is_simple = self._background_arguments(command)
        check_strings(argv, env or {})
        self._check_usable()
        # The shell would start and then fail to do anything, and the caller would take that for the command's own end.
        limit = self.watchdog.limits.processes
        if limit is not None and len(proc_fs.list_pids(self._proc)) + (1 if is_simple else 2) > limit:
            raise ResourceCreationFailed(f"cannot fork: the session has reached its limit of processes ({limit})")
        pipe, stdout, stderr = InputPipe(self.clock, stdin), OutputStore(stores[0]), OutputStore(stores[1])
        fds = [pipe.read_fd, stdout.write_fd, make_error_fd(stdout.write_fd, stderr.write_fd, merge=merge_stderr)]
        if content is not None:
            fds.append(ipc.make_memfd(content))
        request, exited = self._init_client.start_request(command_message(argv, cwd, env, reports_start=True), fds)
        try:
            pid = await self._init_client.receive_pid(request)
        except BaseException:
            pipe.close()
            for store in (stdout, stderr):
                store.remove()
            self._init_client.dispose(request)
            raise
        self._init_client.dispose_on_exit(request)
        control = self._control(request)
        return BackgroundProcess(pid, pipe, stdout, stderr, exited, self.clock, control)

    def start_controlled(
        self, argv: Sequence[str], fds: Sequence[int], *, cwd: str | None, env: Mapping[str, str]
    ) -> tuple[asyncio.Future[int], ProcessControl]:
        """Start a command as `start_command` does, and return what controls it too."""
        self._check_start(argv, fds, env)
        request, ended = self._init_client.start_request(command_message(argv, cwd, env), fds)
        self._init_client.dispose_on_exit(request)
        ended.add_done_callback(retrieve_exception)
        return ended, self._control(request)

    def _control(self, request: int) -> ProcessControl:
        return ProcessControl(
            lambda number: self._init_client.signal(request, number), lambda: self._init_client.kill(request)
        )

    @property
    def has_shell(self) -> bool:
        """Whether it has `sh`: not every image does."""
        return self.image is None or self.image.has_shell

    def shell_arguments(self, script: str) -> tuple[list[str], bytes | None]:
        """Return the arguments that run a script, and their descriptor 3.

        Raises:
            ValueError: It needs a shell, and the image has none.
        """
        if self.has_shell:
            return shell_arguments(script)
        if not is_simple_command(script):
            raise ValueError(
                "The image of this session has no shell (/bin/sh), so a command can only be one program with its "
                "arguments."
            )
        return shlex.split(script), None

    def _background_arguments(self, command: str | Sequence[str]) -> tuple[list[str], bytes | None, bool]:
        """Return arguments, the content of descriptor 3, and whether no shell stays."""
        if not isinstance(command, str):
            return list(command), None, True
        is_simple = is_simple_command(command)
        return *self.shell_arguments(f"exec {command}" if is_simple and self.has_shell else command), is_simple

    async def get_join_info(self) -> tuple[JoinInfo, list[int]]:
        """Return what a process from outside needs to join this sandbox.

        The caller owns the descriptors, which are in the order of `NAMESPACES`.
        """
        self._check_usable()
        if not self.has_namespaces:
            raise SandboxError("the sandbox has no namespaces that could be entered")
        environment, fds = await self._init_client.get_join_info()
        # The rest from here: sandboxed code that has taken over process 1 must not choose it.
        assert self._config is not None
        config = self._config
        return {
            "environment": environment,
            "directory": config["directory"],
            "python_prefix": config["python_prefix"],
            "network": config["network"],
            "limits": config["limits"],
            "uid": config["uid"],
            "gid": config["gid"],
        }, fds

    async def environment(self) -> dict[str, str]:
        """Return the variables that its commands start with.

        It must have namespaces.
        """
        information, fds = await self.get_join_info()
        for fd in fds:
            os.close(fd)
        return information["environment"]

    @property
    def overlay_parts(self) -> dict[str, str]:
        """The directories that it has, or can have, from an overlay.

        Keys are their places there, values the paths that the sandbox sees.
        """
        assert self._config is not None
        return overlay_parts(self._config)

    def mount_point_owner(self, path: str) -> tuple[int, int] | None:
        """Return the host ids of directories that are made for a mount point."""
        assert self._config is not None
        return mount_point_owner(path, self._config)

    async def find_obstacle(self) -> str:
        """Return what keeps it from getting a new overlay, or "".

        It must be frozen.
        """
        from agentbay.local.sandbox.service.obstacles import find_obstacle  # here, since only forks need it

        size = len(proc_fs.list_pids(self._proc)) * _OBSTACLE_BYTES
        return await run_by_size(size, find_obstacle, self._proc, self.overlay_parts.values())

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
        echo: bool = True,
    ) -> Terminal:
        """Start a command in a terminal of its own.

        Arguments as for `run`; `echo` is whether the terminal shows what is typed.

        Raises:
            ResourceCreationFailed: The terminal could not be opened, or the command not be started.
            SandboxGone: The sandbox ended first.
        """
        check_strings(argv, env or {})
        self._check_usable()
        message = {
            "do": "open_terminal",
            "argv": list(argv),
            "cols": cols,
            "rows": rows,
            "echo": echo,
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
            made = socket.socket(fileno=await self._request_fd(message, partial(is_stream_socket, family=family)))
            made.setblocking(False)
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
        self, request: FileRequest[ReplyT], *, input: bytes | bytearray | None = None, timeout: float | None = None
    ) -> tuple[ReplyT, bytearray]:
        """Do one file operation as the sandbox's user.

        Return its reply and its payload.

        Raises:
            FileOperationFailed: The operation failed, was killed, or took longer than the general time limit.
            TimeoutError: It took longer than `timeout` seconds and was killed.
            SandboxGone: The sandbox ended first.
        """
        self._check_usable()
        # The check may measure the disk, and meanwhile the sandbox may end or be frozen: hence two checks.
        await self.watchdog.check_write(request, len(input or b""))
        input_fd = await run_by_size(len(input or b""), make_input_fd, input)
        try:
            self._check_usable()
        except BaseException:
            os.close(input_fd)
            raise
        reply = OutputCollector(_MAX_REPLY_BYTES + content_bytes(request))
        number, ended = self._init_client.start_request(file_operation_message(request), [input_fd, reply.write_fd])
        try:
            _, timed_out = await self._wait_or_kill(number, ended, timeout or _MAX_OPERATION_SECONDS)
            if timed_out and timeout is None:
                # Code of the session can stop it where it has the uid of the session's user.
                reason = f"It took longer than {_MAX_OPERATION_SECONDS:.0f} seconds; perhaps a program stopped it"
                raise FileOperationFailed(errno.ETIMEDOUT, reason, vars(request).get("path", ""))
            if timed_out:
                raise TimeoutError(f"{type(request).__name__} took longer than {timeout} seconds")
            # The report of the exit and the last bytes of the pipe arrive in any order.
            await reply.ended
        finally:
            self._init_client.dispose(number)
            content = reply.stop_collecting()
            reply.close()
        if reply.truncated:
            reason = f"There is too much for one answer, which can have {_MAX_REPLY_BYTES >> 20} MiB"
            raise FileOperationFailed(errno.E2BIG, reason, vars(request).get("path", ""))
        return await run_by_size(len(content), parse_file_reply, content, request)

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
        return self._init_client.start_detached(file_operation_message(request), [input_fd, output_fd])

    async def run_file_operation_with_input(self, request: FileRequest[ReplyT], input_fd: int) -> ReplyT:
        """Do a file operation with input from a descriptor, which is closed here.

        Return its reply.
        """
        reply = OutputCollector(_MAX_REPLY_BYTES)
        try:
            await self.start_file_operation(request, input_fd, reply.write_fd)
            await reply.ended
        finally:
            content = reply.stop_collecting()
            reply.close()
        return (await run_by_size(len(content), parse_file_reply, content, request))[0]

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

    async def _wait_or_kill(self, request: int, ended: asyncio.Future[int], timeout: float | None) -> tuple[int, bool]:
        """Return the exit code, and whether the command was killed at its time limit."""
        if await self.clock.ends_within(ended, timeout):
            return ended.result(), False
        self._init_client.kill(request)
        await asyncio.wait({ended}, timeout=_KILL_WAIT_SECONDS)
        return ended.result() if ended.done() else _SIGKILL_EXIT_CODE, True
