"""The zygote: the process that warm Python kernels are forked from.

It has imported IPython, numpy, pandas and matplotlib. It runs no code of users, and it reads nothing about sessions: a
request is only a socket, the link of one kernel, and the control groups to fork it into. A child reads from the link
which sandbox to join, so nothing of one session is ever in the memory of another session's kernel.

A kernel is born by a double fork. The first child closes all descriptors but its link, joins the namespaces and drops
all privileges; it is invisible to the sandbox. The second child, the kernel, is visible there from its first moment. It
is made dumpable last, when it holds nothing but its own socket and pipes: before, code of its session could stop it and
take over what it holds.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, NoReturn

from agentbay.local.kernels import own_python
from agentbay.local.kernels.preloaded import PreloadedModules
from agentbay.local.kernels.programs import python_kernel
from agentbay.local.kernels.python_program import python_program
from agentbay.local.sandbox.shared import ipc, proc_fs, seccomp, syscalls
from agentbay.local.sandbox.shared.sandbox_config import NAMESPACES, JoinInfo
from agentbay.local.sandbox.zygote import joining, namespaces, process_title

_FIRST_FREE_FD, _KERNEL_SOCKET_FD = 4, 3
_OOM_SCORE_ADJUSTMENT = "500"  # of 1000: short of memory, kernels are killed before the service


def main(fd: int) -> NoReturn:
    """Fork kernels as requested through the socket `fd`, until it closes."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)  # a kernel's parent exits, and this process gets its exit code
    process_title.set_process_title("agentbay-kernel")  # the command line tells where on the host this package lies
    sys.orig_argv[:] = sys.argv[:1]
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(_OOM_SCORE_ADJUSTMENT)
    control = socket.socket(fileno=fd)
    message, _ = ipc.receive(control)
    if message is None:
        os._exit(0)
    os.environ.update(message["environment"])
    sys.path += [path for path in message["package_directories"] if path not in sys.path]
    shell = python_kernel.create_shell()
    own_modules = frozenset(sys.modules)
    python_kernel.warm_up(shell)
    os.chdir("/")
    os.umask(0o022)
    preloaded = PreloadedModules(own_modules, lambda: own_python.find_installed(sys.prefix))
    gc.collect()
    gc.freeze()  # so that a collection in a child does not touch, and copy, every page
    KernelZygote(control, shell, preloaded).serve()


class _Joining(NamedTuple):
    """A first child on its way into a sandbox."""

    pid_pipe: int  # brings the kernel's pid
    link: socket.socket


class KernelZygote:
    """Forks kernels, and reports to each one's link how it ended.

    It never waits for a child: code of a session can slow down or stop the processes in its sandbox.
    """

    def __init__(self, control: socket.socket, shell: Any, preloaded: PreloadedModules) -> None:
        self._control, self._shell, self._preloaded = control, shell, preloaded
        self._loaded = own_python.loaded_packages()
        self._program = python_program()
        self._seccomp_filter = seccomp.build_filter(syscalls.ARCHITECTURE)
        self._joining: dict[int, _Joining] = {}  # by pid of the first child
        self._links: dict[int, socket.socket] = {}  # by pid of the kernel
        self._unclaimed_exits: dict[int, int] = {}  # exit codes of kernels whose first child has not been reaped yet
        self._poll = select.poll()
        self._open_files_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        # each kernel takes a descriptor here; children get the former limit back
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._open_files_limit[1], self._open_files_limit[1]))
        self._wakeup_fd, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only for its byte in the pipe
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def serve(self) -> NoReturn:
        """Serve the host until it disconnects."""
        ipc.send(self._control, {"event": "ready"})
        self._poll.register(self._control, select.POLLIN)
        self._poll.register(self._wakeup_fd, select.POLLIN)
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._wakeup_fd:
                    os.read(fd, 4096)
                    self._reap()
                elif fd == self._control.fileno():
                    self._handle_request()
                else:
                    self._kill_abandoned(fd)

    def _handle_request(self) -> None:
        message, fds = ipc.receive(self._control)
        if message is None:
            os._exit(0)
        self._fork(socket.socket(fileno=fds[0]), fds[1:])

    def _fork(self, link: socket.socket, entrances: list[int]) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            pid = joining.fork_into(entrances)
        except OSError as error:
            os.close(reader)
            _report_and_close(link, {"failure": str(error)})
        else:
            if pid == 0:
                self._join_sandbox(link, writer, entrances)
            self._joining[pid] = _Joining(reader, link)
        for fd in (writer, *entrances):
            os.close(fd)

    def _join_sandbox(self, link: socket.socket, pid_pipe: int, entrances: Sequence[int]) -> NoReturn:
        """Join the sandbox that the link names, and fork the kernel there."""
        try:
            # The pipe is shared with the zygote, which signals of this child must not wake.
            signal.set_wakeup_fd(-1)
            joining.join_cgroups(entrances)
            _close_all_but({link.fileno(), pid_pipe})  # nothing here may reach a sandbox, other sessions' least of all
            message, fds = ipc.receive(link)
            if message is None:
                os._exit(0)
            join_info: JoinInfo = message["join_info"]
            count = len(NAMESPACES)
            resource.setrlimit(resource.RLIMIT_NOFILE, self._open_files_limit)
            namespaces.join_namespaces(fds[:count], join_info, self._seccomp_filter)
            for fd in fds[:count]:
                os.close(fd)
            pid = os.fork()
            if pid == 0:
                os.close(pid_pipe)
                link.close()
                self._run_kernel(join_info, fds[count:])
            os.write(pid_pipe, b"%d" % pid)
        except BaseException as error:  # noqa: BLE001 - the end of a forked child: whatever it is, the host must hear of it
            _report_and_close(link, {"failure": str(error) or repr(error)})
        finally:
            os._exit(1)

    def _run_kernel(self, join_info: JoinInfo, streams: Sequence[int]) -> NoReturn:
        """Become a kernel, as if this process had been started in the sandbox."""
        try:
            os.setsid()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _set_streams(streams)
            os.environ.clear()
            os.environ.update(join_info["environment"])
            os.chdir(join_info["directory"])
            prefix = join_info["python_prefix"]
            if own_python.replaces_any(prefix, self._loaded):
                os.dup2(_KERNEL_SOCKET_FD, 0)
                os.close(_KERNEL_SOCKET_FD)
                own_python.start_anew(prefix, self._program)
            gc.enable()
            own_python.adopt(prefix)
            for name in [name for name in sys.modules if name.partition(".")[0] == "agentbay"]:
                del sys.modules[name]  # the user may have a package of that name, or want to install ours
            python_kernel.adapt_to_sandbox(self._shell)
            self._preloaded.hide()
            kernel_socket = socket.socket(fileno=_KERNEL_SOCKET_FD)
            # Last, since it opens /proc/PID/mem and /proc/PID/fd to the sandbox's other processes. Without it, the
            # kernel could not read its own /proc.
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
            python_kernel.serve(self._shell, kernel_socket)
        finally:
            os._exit(1)

    def _reap(self) -> None:
        for pid, code in proc_fs.reap_children():
            if pid in self._joining:
                self._on_joined(*self._joining.pop(pid))
            elif pid in self._links:
                self._on_kernel_exit(pid, code)
            else:
                self._unclaimed_exits[pid] = code

    def _on_joined(self, pid_pipe: int, link: socket.socket) -> None:
        """Record the kernel of a first child that has exited."""
        try:
            text = os.read(pid_pipe, 32)
        except BlockingIOError:  # it was killed, and its kernel still holds the other end
            text = b""
        os.close(pid_pipe)
        if not text:
            _report_and_close(link, {"failure": "it died on its way into the sandbox"})
            return
        pid = int(text)
        self._links[pid] = link
        self._poll.register(link, 0)  # its end is always reported
        if pid in self._unclaimed_exits:
            self._on_kernel_exit(pid, self._unclaimed_exits.pop(pid))

    def _on_kernel_exit(self, pid: int, code: int) -> None:
        link = self._links.pop(pid)
        # `_kill_abandoned` has unregistered it already.
        with contextlib.suppress(KeyError):
            self._poll.unregister(link)
        _report_and_close(link, {"code": code})

    def _kill_abandoned(self, fd: int) -> None:
        """Kill the kernel whose link the host has closed."""
        self._poll.unregister(fd)
        for pid, link in self._links.items():
            if link.fileno() == fd:
                # Its link is removed when it is reaped, so until then the pid cannot mean another process.
                os.kill(pid, signal.SIGKILL)


def _report_and_close(link: socket.socket, report: dict[str, Any]) -> None:
    with link, contextlib.suppress(OSError):  # the host has closed its end
        link.send(json.dumps(report).encode(), socket.MSG_DONTWAIT)


def _close_all_but(kept: Collection[int]) -> None:
    """Close all other descriptors, and open /dev/null as standard streams."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with contextlib.suppress(OSError):  # the one by which the directory was read
                os.close(int(name))
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)  # 0, the lowest that is free
    for stream in 1, 2:
        os.dup2(null, stream)


def _set_streams(streams: Sequence[int]) -> None:
    """Put socket and pipes at their numbers, and close all else."""
    control, null = os.dup(streams[0]), os.open(os.devnull, os.O_RDONLY)
    for stream, fd in enumerate((null, *streams[1:])):
        os.dup2(fd, stream)
    os.dup2(control, _KERNEL_SOCKET_FD)
    os.closerange(_FIRST_FREE_FD, max(*streams, control, null) + 1)  # the first child has left no others
