"""The process that warm Python kernels are forked from.

It holds IPython, numpy, pandas and matplotlib, ready to run; no keys, nothing of the host's environment. It runs no
user's code: a child first joins the sandbox and gives up every right, then the kernel is forked from that child.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from agentbay.local.kernels.programs import python_kernel
from agentbay.local.sandbox.shared import ipc, proc_fs, seccomp, syscalls
from agentbay.local.sandbox.shared.sandbox_config import NAMESPACES, JoinInfo
from agentbay.local.sandbox.zygote import namespaces

_DESCRIPTORS = 4096


def main(fd: int) -> NoReturn:
    """Fork kernels as asked through the socket `fd`, until it closes."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)  # kernels are grandchildren
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("500")
    shell = python_kernel.create_shell()
    python_kernel.warm_up(shell)
    os.chdir("/")
    os.umask(0o022)
    gc.collect()
    gc.freeze()  # so that a collection in a child does not touch, and copy, every page
    KernelZygote(socket.socket(fileno=fd), shell).serve()


class KernelZygote:
    """Forks, and says of each kernel how it ended."""

    def __init__(self, control: socket.socket, shell: Any) -> None:
        self._control, self._shell = control, shell
        self._seccomp_filter = seccomp.build_filter(syscalls.ARCHITECTURE)
        self._request_by_pid: dict[int, int] = {}  # request id by pid
        self._wakeup_fd, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only for its byte in the pipe
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def serve(self) -> NoReturn:
        """Serve the host until it goes away; the kernels go with their sandboxes."""
        ipc.send(self._control, {"event": "ready"})
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wakeup_fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._wakeup_fd:
                    os.read(fd, 4096)
                    self._reap()
                else:
                    self._handle_next()

    def _handle_next(self) -> None:
        message, fds = ipc.receive(self._control)
        if message is None:
            os._exit(0)
        try:
            self._fork(message["id"], message["entry"], fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _fork(self, request: int, entry: JoinInfo, fds: list[int]) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.fork()
        except OSError as error:
            pid = -1
            os.write(writer, json.dumps({"failure": str(error)}).encode())
        if pid == 0:
            self._join_sandbox(entry, fds, writer)
        os.close(writer)
        with open(reader, "rb") as pipe:
            told = json.loads(pipe.read() or b'{"failure": "it died on its way into the sandbox"}')
        if pid > 0:
            os.waitpid(pid, 0)
        if "pid" in told:
            self._request_by_pid[told["pid"]] = request
        else:
            ipc.send(self._control, {"event": "failed", "id": request, "detail": told["failure"]})

    def _join_sandbox(self, entry: JoinInfo, fds: list[int], writer: int) -> NoReturn:
        try:
            streams = len(NAMESPACES)
            for door in fds[streams + 3 :]:
                os.write(door, b"0")  # into the sandbox's control groups
            namespaces.join_namespaces(fds[:streams], entry, self._seccomp_filter)
            pid = os.fork()
            if pid == 0:
                _run_kernel(self._shell, entry, fds[streams : streams + 3])
            os.write(writer, json.dumps({"pid": pid}).encode())
        except BaseException as error:  # noqa: BLE001 - the end of a forked child: whatever it is, the host must hear of it
            os.write(writer, json.dumps({"failure": str(error) or repr(error)}).encode())
        finally:
            os._exit(1)

    def _reap(self) -> None:
        for pid, code in proc_fs.reap_children():
            request = self._request_by_pid.pop(pid, None)
            if request is not None:
                ipc.send(self._control, {"event": "exit", "id": request, "code": code})


def _run_kernel(shell: Any, entry: JoinInfo, streams: Sequence[int]) -> NoReturn:
    """Become a kernel, as if this process had been started in the sandbox."""
    try:
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)  # or it could not read its own /proc
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        control = os.dup(streams[0])
        for stream, fd in enumerate((os.open(os.devnull, os.O_RDONLY), *streams[1:])):
            os.dup2(fd, stream)
        os.dup2(control, 3)
        os.closerange(4, _DESCRIPTORS)
        os.environ.clear()
        os.environ.update(entry["environment"])
        os.chdir(entry["home"])
        gc.enable()
        for name in [name for name in sys.modules if name.partition(".")[0] == "agentbay"]:
            del sys.modules[name]  # the user may have a package of that name, or want to install ours
        del sys.path[0]
        python_kernel.serve(shell, socket.socket(fileno=3))
    finally:
        os._exit(1)
