"""Process 1 of a sandbox.

It starts commands and file operations, reaps processes, and ends with the service.

Descriptors come with the requests (SCM_RIGHTS), so no output passes through here. It blocks on nothing but its control
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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from agentbay.local.sandbox.inside import file_operations, process_tree
from agentbay.local.sandbox.inside.operation_context import OperationContext
from agentbay.local.sandbox.inside.spawning import (
    NOT_EXECUTABLE_EXIT_CODE,
    PROXY_ADDRESS,
    DirectoryNotEntered,
    FileAction,
    NotStarted,
    make_environment,
    spawn,
    stream_actions,
)
from agentbay.local.sandbox.shared import ipc, proc_fs, python_files, syscalls
from agentbay.local.sandbox.shared.fd_io import closing_fd
from agentbay.local.sandbox.shared.ipc import Message
from agentbay.local.sandbox.shared.sandbox_config import NAMESPACES, SandboxConfig, resolve_path

# to run file operations as another user, and end them
OPERATIONS_CAPABILITIES = (syscalls.CAP_SETUID, syscalls.CAP_KILL)
_TIOCSPTLCK, _TIOCGPTN = 0x40045431, 0x80045430  # ioctl_tty(2): unlock a terminal, get its number
_KILL_TIMEOUT_SECONDS, _KILL_RETRY_SECONDS = 0.5, 0.001
_MAX_SEND_ATTEMPTS, _SEND_RETRY_SECONDS = 500, 0.01
_MAX_REASON_CHARACTERS = 2000  # longer messages would need a descriptor
_NETLINK_SOCK_DIAG = 4


class InitProcess:
    """The state of process 1.

    Args:
        operations_uid: The uid of file operations, None for that of this process.
    """

    def __init__(self, control: socket.socket, config: SandboxConfig, *, operations_uid: int | None) -> None:
        self._control, self._operations_uid = control, operations_uid
        self._uid = config["uid"]
        self._home, self._directory = config["home"], config["directory"]
        self._own_directories = (config["home"], "/tmp", *(writable["target"] for writable in config["writable"]))
        self._python_prefix, self._python_layout = config["python_prefix"], config["python_layout"]
        self._environment = make_environment(config)
        self._network = config["network"]
        self._request_ids_by_pid: dict[int, int] = {}
        self._file_operation_pids: set[int] = set()
        self._proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if config["isolation"] != "namespaces":
            self._proc = proc_fs.SubtreeProcFd(self._proc, os.getpid())
        self._wakeup_fd, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # for its byte in the pipe
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        _detach_standard_streams()

    def send_descriptors(self) -> None:
        """Send the service /proc, a socket for socket diagnosis, and the proxy's listener.

        Raises:
            OSError: They could not be sent.
        """
        fds = {"proc": int(self._proc)}
        with ExitStack() as stack:
            if self._network == "proxy":
                fds["listener"] = stack.enter_context(_proxy_listener()).fileno()
            if self._network != "host" and not isinstance(self._proc, proc_fs.SubtreeProcFd):
                with suppress(OSError):  # this kernel has no sock_diag
                    fds["diag"] = stack.enter_context(_unix_diag_socket()).fileno()
            ipc.send(self._control, {"event": "descriptors", "names": list(fds)}, list(fds.values()))

    def serve(self) -> None:
        """Send "ready", serve requests until the service closes the socket, and kill every process."""
        self._serve()
        self._kill_all()

    def _serve(self) -> None:
        ipc.send(self._control, {"event": "ready"})
        # now, since the service need not wait for it; what is asked for next does
        with suppress(OSError):  # a full disk, which all that is run here will meet too
            python_files.write(self._python_prefix, self._python_layout)  # what was not made ahead
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
        except Exception as error:  # noqa: BLE001 - the end of process 1 would be the end of the session
            self._refuse(message.get("id", 0), 0, f"{type(error).__name__}: {error}")
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _handle(self, message: Message, fds: list[int]) -> None:
        match message["do"]:
            case "run_command":
                self._run_command(message, fds)
            case "run_file_operation":
                self._run_file_operation(message, fds)
            case "open_terminal":
                self._open_terminal(message)
            case "open_socket":
                self._send_socket(message)
            case "open_inotify":
                self._send_inotify(message["id"])
            case "kill":
                self._kill(message["id"])
            case "signal":
                self._signal_group(message["id"], message["number"])
            case "get_join_info":
                self._send_join_info(message["id"])
            case "kill_all":
                self._kill_all()
            case "kill_commands":
                self._kill_commands()
            case unknown:
                raise ValueError(unknown)

    def _run_command(self, message: Message, fds: list[int]) -> None:
        """Start a command on descriptors that become its own from 0 on.

        A failure is written to its standard error, or reported to the caller if the message says so. A working
        directory that cannot be entered is always reported to the caller.
        """
        try:
            pid = self._spawn(message, stream_actions(fds))
        except NotStarted as failure:
            if isinstance(failure, DirectoryNotEntered) and message["cwd"] is not None:
                self._refuse_directory(message["id"], failure)
            elif message["reports_start"]:
                self._refuse(message["id"], failure.exit_code, failure.message)
            else:
                os.write(fds[2], os.fsencode(failure.message + "\n"))
                self._send_exit(message["id"], failure.exit_code)
            return
        if message["reports_start"]:
            self._send({"event": "started", "id": message["id"], "pid": pid})

    def _spawn(self, message: Message, file_actions: Sequence[FileAction]) -> int:
        environment = self._environment | message["env"]
        cwd = resolve_path(message["cwd"] or "", self._home, self._directory)
        pid = spawn(message["argv"], cwd, environment, file_actions, message["id"])
        self._request_ids_by_pid[pid] = message["id"]
        return pid

    def _open_terminal(self, message: Message) -> None:
        """Start a command in a terminal and send the terminal's driving side."""
        try:
            with _open_pty(message["cols"], message["rows"], echo=message["echo"]) as (master, name):
                self._spawn(message, _pty_file_actions(name))
                if not self._send_descriptor(message["id"], master):
                    self._kill(message["id"])
        except DirectoryNotEntered as failure:
            self._refuse_directory(message["id"], failure)
        except NotStarted as failure:
            self._refuse(message["id"], failure.exit_code, failure.message)

    def _send_socket(self, message: Message) -> None:
        """Send an unconnected socket to the service.

        It belongs to this network namespace whoever connects it.
        """
        try:
            with socket.socket(message["family"], socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as made:
                self._send_descriptor(message["id"], made.fileno())
        except OSError as error:
            self._refuse(message["id"], error.errno or 0, f"socket: {error.strerror}")

    def _send_inotify(self, request: int) -> None:
        """Send an inotify descriptor to the service.

        File operations that get it back add watches.
        """
        try:
            fd = syscalls.create_inotify()
        except OSError as error:  # the limit of instances, most likely
            self._refuse(request, error.errno or 0, f"inotify: {error.strerror}")
            return
        self._send_descriptor(request, fd)
        os.close(fd)

    def _send_descriptor(self, request: int, fd: int) -> bool:
        return self._send({"event": "descriptor", "id": request}, [fd])

    def _refuse_directory(self, request: int, failure: DirectoryNotEntered) -> None:
        cut = {"message": failure.reason[:_MAX_REASON_CHARACTERS], "path": failure.cwd[:_MAX_REASON_CHARACTERS]}
        self._send({"event": "directory_not_entered", "id": request, "errno": failure.errno, **cut})

    def _refuse(self, request: int, code: int, reason: str) -> None:
        self._send({"event": "refused", "id": request, "code": code, "message": reason[:_MAX_REASON_CHARACTERS]})

    def _send(self, message: Message, fds: Sequence[int] = ()) -> bool:
        """Send a message, or a refusal if its descriptors cannot be sent.

        This process must survive every error here: other sandboxes of the same host uid can use up what the kernel
        allows to be in flight (ETOOMANYREFS).
        """
        for _ in range(_MAX_SEND_ATTEMPTS):
            try:
                ipc.send(self._control, message, fds)
            except ConnectionError:  # the service is gone, and the next receive will notice
                return False
            except OSError as error:
                if fds:
                    self._refuse(message["id"], error.errno or 0, f"it could not be passed on: {error.strerror}")
                    return False
                time.sleep(_SEND_RETRY_SECONDS)  # the kernel is short of memory
            else:
                return True
        return False

    def _run_file_operation(self, message: Message, fds: list[int]) -> None:
        input_fd, output_fd = fds
        try:
            with self._as_operations_user():
                pid = os.fork()
        except OSError as error:  # the process limit; the caller sees it like an error of the file system
            file_operations.write_reply(output_fd, file_operations.error_reply(error, ""))
            self._send_exit(message["id"], 0)
            return
        if pid == 0:
            # The pipe is shared with process 1, which signals of this child must not wake.
            signal.set_wakeup_fd(-1)
            if self._operations_uid is not None:
                syscalls.set_capabilities()
            context = OperationContext(self._home, self._directory, self._own_directories, input_fd, output_fd)
            file_operations.run_operation(message["operation"], message["fields"], context)
        self._request_ids_by_pid[pid] = message["id"]
        self._file_operation_pids.add(pid)

    @contextmanager
    def _as_operations_user(self) -> Iterator[None]:
        """Fork in this block as a user whom sandboxed code cannot signal."""
        if self._operations_uid is None:
            yield
            return
        init = os.getpid()
        syscalls.become_user_with_files_of(self._operations_uid, self._uid)
        try:
            yield
        finally:
            if os.getpid() == init:
                os.setresuid(self._uid, self._uid, self._uid)
                syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of the uid resets it

    def _kill(self, request: int) -> None:
        for root in [pid for pid, running in self._request_ids_by_pid.items() if running == request]:
            if root in self._file_operation_pids:  # it starts nothing, and its session is that of this process
                proc_fs.send_signal(self._proc, root, signal.SIGKILL)
                continue
            deadline = time.monotonic() + _KILL_TIMEOUT_SECONDS
            # a tree that goes on forking needs several rounds
            while self._kill_process_tree(root, request) and time.monotonic() < deadline:
                time.sleep(_KILL_RETRY_SECONDS)
        self._reap()  # the next list of processes must not show the dead

    def _signal_group(self, request: int, number: int) -> None:
        """Send a signal to the process group of a command, unless it has ended.

        Before the command is reaped no other group can have its number.
        """
        for pid in [pid for pid, running in self._request_ids_by_pid.items() if running == request]:
            # Each process of the group has ended.
            with suppress(ProcessLookupError):
                os.killpg(pid, number)

    def _kill_process_tree(self, root: int, request: int) -> bool:
        """Kill the processes of a command.

        Return False if there were none.
        """
        table = {pid: process for pid, process in proc_fs.read_process_table(self._proc).items() if not process.dead}
        known = process_tree.find_tagged(self._proc, table, request)
        members = process_tree.find_process_tree(root, table, known) - {proc_fs.INIT_PID}
        for pid in sorted(members, key=lambda pid: pid != root):
            proc_fs.send_signal(self._proc, pid, signal.SIGKILL)
        return bool(members)

    def _send_join_info(self, request: int) -> None:
        """Send what a process from outside needs to join this sandbox.

        Process 1 does it, since no other process may open its namespaces.
        """
        fds = [os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in NAMESPACES]
        self._send({"event": "join_info", "id": request, "environment": self._environment}, fds)
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
            os.kill(-1, signal.SIGKILL)  # everything in this pid namespace but this process, atomically

    def _kill_commands(self) -> None:
        """Kill every process but this one and file operations, and continue these."""
        deadline = time.monotonic() + _KILL_TIMEOUT_SECONDS
        spared = {proc_fs.INIT_PID, os.getpid()} | self._file_operation_pids
        while time.monotonic() < deadline:
            table = proc_fs.read_process_table(self._proc)
            alive = [pid for pid, process in table.items() if pid not in spared and not process.dead]
            if not alive:
                break
            for pid in alive:
                proc_fs.send_signal(self._proc, pid, signal.SIGKILL)
            self._reap()
            time.sleep(_KILL_RETRY_SECONDS)
        for pid in self._file_operation_pids:  # a command may have stopped them
            proc_fs.send_signal(self._proc, pid, signal.SIGCONT)

    def _reap(self) -> None:
        for pid, code in proc_fs.reap_children():
            self._file_operation_pids.discard(pid)
            request = self._request_ids_by_pid.pop(pid, None)
            if request is not None:  # not an orphan
                self._send_exit(request, code)

    def _send_exit(self, request: int, code: int) -> None:
        self._send({"event": "exit", "id": request, "code": code})


def _detach_standard_streams() -> None:
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)


def _proxy_listener() -> socket.socket:
    """Listen at the usual address of a proxy.

    The service accepts the connections, so its proxy serves this network namespace only.
    """
    return socket.create_server(PROXY_ADDRESS, backlog=128)


def _unix_diag_socket() -> socket.socket:
    """Open a netlink socket that lists the unix sockets of this network namespace."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_SOCK_DIAG)


def _pty_file_actions(name: str) -> list[FileAction]:
    """Return actions that make a terminal the standard streams.

    Opened by the leader of a session, it becomes the controlling terminal.
    """
    return [(os.POSIX_SPAWN_OPEN, 0, name, os.O_RDWR, 0), (os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]


@contextmanager
def _open_pty(cols: int, rows: int, *, echo: bool) -> Iterator[tuple[int, str]]:
    """Open a terminal for the block.

    Yield the descriptor of its driving side and the path of the other.
    """
    try:
        master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:  # the limit of terminals, most likely
        raise NotStarted(NOT_EXECUTABLE_EXIT_CODE, f"terminal: {error.strerror}") from error
    with closing_fd(master):
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        (number,) = struct.unpack("I", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
        if not echo:
            _turn_echo_off(master)  # before the program starts, which may look at it
        yield master, f"/dev/pts/{number}"


def _turn_echo_off(terminal: int) -> None:
    settings = termios.tcgetattr(terminal)
    settings[3] &= ~termios.ECHO  # the local modes
    termios.tcsetattr(terminal, termios.TCSANOW, settings)
