"""Process 1 of a sandbox: starts commands and file operations, reaps, and dies with its host.

Descriptors come with the requests, so no output passes through here. It never blocks on anything but its control
socket, and needs no fork to kill.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from agentbay.local.sandbox.inside import file_operations
from agentbay.local.sandbox.shared import ipc, proc_fs, syscalls
from agentbay.local.sandbox.shared.ipc import Message
from agentbay.local.sandbox.shared.sandbox_config import NAMESPACES, SandboxConfig

FileAction = tuple[Any, ...]  # as posix_spawn wants them

NOT_FOUND_EXIT_CODE, NOT_EXECUTABLE_EXIT_CODE = 127, 126
_TIOCSPTLCK, _TIOCGPTN = 0x40045431, 0x80045430  # ioctl_tty(2): unlock a terminal, tell its number
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_KILL_TIMEOUT_SECONDS, _KILL_RETRY_SECONDS = 0.5, 0.001
_COMMAND_ID_VARIABLE = "AGENTBAY_COMMAND"
PROXY_ADDRESS = ("127.0.0.1", 3128)  # the port that proxies are usually found at
_PROXY = f"http://{PROXY_ADDRESS[0]}:{PROXY_ADDRESS[1]}"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class NotStarted(Exception):
    """A command could not be started; says so in the words of a shell, with a shell's exit code."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code, self.message = exit_code, message


class InitProcess:
    """The state of process 1."""

    def __init__(self, control: socket.socket, plan: SandboxConfig) -> None:
        self._control = control
        self._home = plan["home"]
        self._limits = plan["limits"]
        self._environment = _environment(plan)
        self._network = plan["network"]
        self._request_ids_by_pid: dict[int, int] = {}  # request id by pid
        self._proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if plan["isolation"] != "namespaces":
            self._proc = proc_fs.SubtreeProcFd(self._proc, os.getpid())
        self._wakeup_fd, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only for its byte in the pipe
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        _detach_standard_streams()

    def serve(self) -> None:
        """Tell the host that all is ready, serve it until it goes away, and leave nothing behind."""
        self._serve()
        self._kill_all()

    def _serve(self) -> None:
        with _proxy_listener() if self._network == "proxy" else nullcontext() as listener:
            ipc.send(self._control, {"event": "ready"}, [self._proc, *([listener.fileno()] if listener else [])])
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wakeup_fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._wakeup_fd:
                    os.read(fd, 4096)
                    self._reap()
                elif not self._handle_next():
                    return

    def _handle_next(self) -> bool:
        message, fds = ipc.receive(self._control)
        if message is None:
            return False
        try:
            self._handle(message, fds)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _handle(self, message: Message, fds: list[int]) -> None:
        match message["do"]:
            case "run":
                self._run(message, fds)
            case "call":
                self._run_file_operation(message, fds)
            case "terminal":
                self._open_terminal(message)
            case "socket":
                self._send_socket(message)
            case "inotify":
                self._send_inotify(message["id"])
            case "kill":
                self._kill(message["id"])
            case "entry":
                self._send_join_info(message["id"])
            case "kill all":
                self._kill_all()
            case unknown:
                raise ValueError(unknown)

    def _run(self, message: Message, fds: list[int]) -> None:
        environment = self._environment | message["env"] | {_COMMAND_ID_VARIABLE: str(message["id"])}
        cwd = file_operations.resolve_path(message["cwd"] or "", self._home)
        try:
            pid = _spawn(message["argv"], cwd, environment, _streams(fds))
        except NotStarted as failure:
            os.write(fds[2], os.fsencode(failure.message + "\n"))
            self._send_exit(message["id"], failure.exit_code)
        else:
            self._request_ids_by_pid[pid] = message["id"]

    def _open_terminal(self, message: Message) -> None:
        """Start a command in a terminal of its own and pass the terminal's other side to the host."""
        environment = self._environment | message["env"] | {_COMMAND_ID_VARIABLE: str(message["id"])}
        cwd = file_operations.resolve_path(message["cwd"] or "", self._home)
        try:
            with _open_pty(message["cols"], message["rows"]) as (master, name):
                pid = _spawn(message["argv"], cwd, environment, _pty_file_actions(name))
                self._request_ids_by_pid[pid] = message["id"]
                ipc.send(self._control, {"event": "given", "id": message["id"]}, [master])
        except NotStarted as failure:
            self._send_refused(message["id"], failure.exit_code, failure.message)

    def _send_socket(self, message: Message) -> None:
        """Pass an unconnected socket to the host: it belongs to this network, whoever connects it, and never blocks."""
        try:
            with socket.socket(message["family"], socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as made:
                ipc.send(self._control, {"event": "given", "id": message["id"]}, [made.fileno()])
        except OSError as error:
            self._send_refused(message["id"], error.errno or 0, f"socket: {error.strerror}")

    def _send_inotify(self, request: int) -> None:
        """Pass an inotify descriptor to the host; operations that it comes back with add what it tells of."""
        try:
            fd = syscalls.create_inotify()
        except OSError as error:  # there is a limit on how many
            self._send_refused(request, error.errno or 0, f"inotify: {error.strerror}")
            return
        ipc.send(self._control, {"event": "given", "id": request}, [fd])
        os.close(fd)

    def _send_refused(self, request: int, code: int, why: str) -> None:
        ipc.send(self._control, {"event": "refused", "id": request, "code": code, "message": why})

    def _run_file_operation(self, message: Message, fds: list[int]) -> None:
        try:
            pid = os.fork()
        except OSError as error:  # the process limit: let the caller see it as the file system's answer
            file_operations.write_reply(fds[1], file_operations.error_reply(error, ""))
            self._send_exit(message["id"], 0)
            return
        if pid == 0:
            signal.set_wakeup_fd(-1)
            file_operations.run_operation(
                message["operation"], message["params"], self._home, source=fds[0], sink=fds[1]
            )
        self._request_ids_by_pid[pid] = message["id"]

    def _kill(self, request: int) -> None:
        for root in [pid for pid, running in self._request_ids_by_pid.items() if running == request]:
            deadline = time.monotonic() + _KILL_TIMEOUT_SECONDS
            # a tree that forks all the while needs several rounds
            while self._kill_process_tree(root, _command_id_entry(request)) and time.monotonic() < deadline:
                time.sleep(_KILL_RETRY_SECONDS)
        self._reap()  # whoever asks next for processes is not to see the dead

    def _kill_process_tree(self, root: int, mark: str) -> bool:
        """Kill what belongs to a command, though it may have left its group and session; False if nothing was left."""
        table = {pid: process for pid, process in proc_fs.read_process_table(self._proc).items() if not process.dead}
        known = proc_fs.find_by_environment(self._proc, table, mark.encode())
        members = proc_fs.find_process_tree(root, table, known) - {proc_fs.INIT_PID}
        for pid in sorted(members, key=lambda pid: pid != root):
            proc_fs.send_signal(self._proc, pid, signal.SIGKILL)
        return bool(members)

    def _send_join_info(self, request: int) -> None:
        """Hand out what a process from outside needs to become one of this sandbox; only this one may open it."""
        fds = [os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in NAMESPACES]
        entry = {"environment": self._environment, "home": self._home, "network": self._network, "limits": self._limits}
        ipc.send(self._control, {"event": "entry", "id": request, "entry": entry}, fds)
        for fd in fds:
            os.close(fd)

    def _kill_all(self) -> None:
        if isinstance(self._proc, proc_fs.SubtreeProcFd):
            while found := proc_fs.read_process_table(self._proc):
                for pid, process in found.items():
                    if not process.dead:
                        proc_fs.send_signal(self._proc, pid, signal.SIGKILL)
                self._reap()
                time.sleep(_KILL_RETRY_SECONDS)
            return
        with suppress(ProcessLookupError):  # there is nothing else
            os.kill(-1, signal.SIGKILL)  # at one blow: everything here but this process

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            request = self._request_ids_by_pid.pop(pid, None)  # None: an orphan
            if request is not None:
                code = os.waitstatus_to_exitcode(status)
                self._send_exit(request, code if code >= 0 else 128 - code)

    def _send_exit(self, request: int, code: int) -> None:
        ipc.send(self._control, {"event": "exit", "id": request, "code": code})


def _command_id_entry(request: int) -> str:
    """The entry in the environment of a command by which a timeout finds also those that have become daemons."""
    return f"{_COMMAND_ID_VARIABLE}={request}"


def _detach_standard_streams() -> None:
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)


def _environment(plan: SandboxConfig) -> dict[str, str]:
    home, user = plan["home"], plan["user"]
    path = f"{home}/.local/bin:{_PATH}"
    if not os.path.exists("/usr/bin/python3"):
        path = ":".join([path, *(bind["target"] for bind in plan["binds"] if bind["target"].endswith("/bin"))])
    default = {
        "HOME": home,
        "USER": user,
        "LOGNAME": user,
        "SHELL": "/bin/bash",
        "PATH": path,
        "LANG": "C.UTF-8",
        "TERM": "dumb",
    }
    if plan["network"] == "proxy":
        local = f"localhost,127.0.0.1,::1,0.0.0.0,{plan['hostname']}"
        proxied = {"HTTP_PROXY": _PROXY, "HTTPS_PROXY": _PROXY, "NO_PROXY": local}
        default |= proxied | {name.lower(): value for name, value in proxied.items()} | {"NODE_USE_ENV_PROXY": "1"}
    if plan["isolation"] == "namespaces":
        # the system's packages are out of reach, so installing is for this user
        default |= {"PIP_BREAK_SYSTEM_PACKAGES": "1", "NPM_CONFIG_PREFIX": f"{home}/.local"}
    else:
        default["TMPDIR"] = os.path.join(plan["root"], "tmp")
    return default | plan["env"]


def _proxy_listener() -> socket.socket:
    """Listen where programs look for their proxy; the host accepts, so its proxy sees nothing but this network."""
    return socket.create_server(PROXY_ADDRESS, backlog=128)


def _streams(fds: Sequence[int]) -> list[FileAction]:
    """Make these the standard streams."""
    return [(os.POSIX_SPAWN_DUP2, fds[stream], stream) for stream in range(3)]


def _pty_file_actions(name: str) -> list[FileAction]:
    """Make a terminal the standard streams; who opens one as the leader of a session is controlled by it."""
    return [(os.POSIX_SPAWN_OPEN, 0, name, os.O_RDWR, 0), (os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]


@contextmanager
def _open_pty(cols: int, rows: int) -> Iterator[tuple[int, str]]:
    """Make a terminal for the time of the block: the side from which it is driven, and the name of the other."""
    try:
        master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:  # there is a limit on how many
        raise NotStarted(NOT_EXECUTABLE_EXIT_CODE, f"terminal: {error.strerror}") from error
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        (number,) = struct.unpack("I", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
        yield master, f"/dev/pts/{number}"
    finally:
        os.close(master)


def _spawn(argv: list[str], cwd: str, environment: Mapping[str, str], file_actions: Sequence[FileAction]) -> int:
    """Start a command in a session of its own and return its pid."""
    try:
        os.chdir(cwd)
    except OSError as error:
        raise NotStarted(NOT_EXECUTABLE_EXIT_CODE, f"cd: {cwd}: {error.strerror}") from error
    try:
        return os.posix_spawn(
            _find_executable(argv[0], environment.get("PATH", _PATH)),
            argv,
            environment,
            file_actions=file_actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_IGNORED_BY_PYTHON,
        )
    except FileNotFoundError as error:
        reason = error.strerror if "/" in argv[0] else "command not found"
        raise NotStarted(NOT_FOUND_EXIT_CODE, f"{argv[0]}: {reason}") from error
    except OSError as error:
        raise NotStarted(NOT_EXECUTABLE_EXIT_CODE, f"{argv[0]}: {error.strerror}") from error
    finally:
        os.chdir("/")


def _find_executable(command: str, path: str) -> str:
    """Find a command as a shell does, and then where the system's are: what we start by name is to be found anyhow.

    posix_spawnp would look along the PATH of this process.
    """
    if "/" in command:
        if os.path.isdir(command):
            raise IsADirectoryError(21, "Is a directory")
        return command
    found = [os.path.join(directory or ".", command) for directory in f"{path}:{_PATH}".split(":")]
    present = [candidate for candidate in found if os.path.isfile(candidate)]
    for candidate in present:
        if os.access(candidate, os.X_OK):
            return candidate
    if present:
        return present[0]  # the kernel will say why not
    raise FileNotFoundError
