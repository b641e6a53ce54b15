"""The single-threaded process that every sandbox is forked from.

It holds the modules that an agent needs and nothing else: no keys, no environment of the host, no descriptors.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

from agentbay.local.sandbox.inside.init_process import InitProcess
from agentbay.local.sandbox.shared import ipc, seccomp, syscalls
from agentbay.local.sandbox.shared.sandbox_config import SandboxConfig, SandboxTemplate
from agentbay.local.sandbox.zygote import namespaces, no_namespaces, process_title


def main(fd: int) -> NoReturn:
    """Serve requests for sandboxes from the socket `fd` until it closes."""
    control = socket.socket(fileno=fd)
    _set_up_process()
    process_title.set_process_title("agentbay-sandbox")
    program = seccomp.build_filter(syscalls.ARCHITECTURE)
    ipc.send(control, {"event": "ready"})
    while True:
        message, fds = ipc.receive(control)
        if message is None:
            os._exit(0)
        with socket.socket(fileno=fds[0]) as channel:
            _fork(channel, fds[1:], message["frame"], control, program)
        for fd in fds[1:]:
            os.close(fd)


def _set_up_process() -> None:
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) != signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps sandboxes that have ended
    os.chdir("/")
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("500")  # short of memory, the sandboxes, which inherit this, go before the service
    # In a sandbox these paths may lead to files of its user. All that is needed has been imported.
    sys.path.clear()
    gc.collect()
    gc.freeze()  # so that a collection in a child does not touch, and copy, every page
    gc.disable()


def _fork(
    channel: socket.socket, groups: Sequence[int], frame: SandboxTemplate, control: socket.socket, program: bytes
) -> None:
    try:
        pid = os.fork()
    except OSError as error:
        _report(channel, {"event": "failed", "step": "fork", "code": error.errno or 0, "detail": str(error)})
        return
    if pid == 0:
        control.close()
        _run_sandbox(channel, groups, frame, program)


def _run_sandbox(channel: socket.socket, groups: Sequence[int], frame: SandboxTemplate, program: bytes) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        embryo = _prepare_sandbox(frame, groups, channel)
        plan = _receive_config(
            channel
        )  # also after a failure: left unread, it would reset the socket and lose the report
        match embryo:
            case syscalls.SetupFailed():
                raise embryo
            case namespaces.PreparedNamespaces():
                namespaces.complete_setup(embryo, plan, program)
            case None:
                no_namespaces.complete_setup(plan, channel, program)
        InitProcess(channel, plan).serve()
    except syscalls.SetupFailed as failure:
        _report(channel, {"event": "failed", "step": failure.step, "code": failure.code, "detail": failure.detail})
    except BaseException as error:  # noqa: BLE001 - the end of a forked child: whatever it is, the host must hear of it
        _report(channel, {"event": "failed", "step": "agent", "code": 0, "detail": repr(error)})
    finally:
        os._exit(1)


def _prepare_sandbox(
    frame: SandboxTemplate, groups: Sequence[int], channel: socket.socket
) -> namespaces.PreparedNamespaces | syscalls.SetupFailed | None:
    """Do what can be done before the plan is known; a sandbox without namespaces only enters its control groups."""
    try:
        namespaces.join_cgroups(groups)
        return namespaces.unshare_namespaces(frame, channel) if frame["isolation"] == "namespaces" else None
    except syscalls.SetupFailed as failure:
        return failure


def _receive_config(channel: socket.socket) -> SandboxConfig:
    """Wait to be told what to be, which may take its time: a host keeps one in reserve."""
    message, _ = ipc.receive(channel)
    if message is None:
        os._exit(0)
    plan: SandboxConfig = message["plan"]
    return plan


def _report(channel: socket.socket, message: ipc.Message) -> None:
    try:
        ipc.send(channel, message)
    except OSError:  # the host has gone, and with it the one who would read this
        return
