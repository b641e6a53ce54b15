"""The zygote: the single-threaded process that every sandbox is forked from.

It holds the modules that process 1 needs and nothing else: no keys, no environment of the host, no descriptors.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

from agentbay.local.sandbox.inside.init_process import OPERATIONS_CAPABILITIES, InitProcess
from agentbay.local.sandbox.shared import ipc, seccomp, syscalls
from agentbay.local.sandbox.shared.sandbox_config import CommitOrder, SandboxConfig, SandboxTemplate, operations_uid
from agentbay.local.sandbox.shared.setup_errors import SetupFailed
from agentbay.local.sandbox.zygote import commit, idmap, joining, namespaces, no_namespaces, process_title


def main(fd: int) -> NoReturn:
    """Serve requests for sandboxes from the socket `fd` until it closes."""
    control = socket.socket(fileno=fd)
    _set_up_process()
    process_title.set_process_title("agentbay-sandbox")
    seccomp_filters = {has_root: seccomp.build_filter(syscalls.ARCHITECTURE, has_root) for has_root in (False, True)}
    ipc.send(control, {"event": "ready"})
    while True:
        message, fds = ipc.receive(control)
        if message is None:
            os._exit(0)
        template: SandboxTemplate | None = message.get("template")
        if template and template["root_ids"]:
            idmap.open_programs_idmap(*template["root_ids"])
        # No copy of the channel stays open here: the service must see its end as soon as process 1 ends.
        with socket.socket(fileno=fds[0]) as channel:
            entrances = fds[1:] if template else []
            if _fork(channel, entrances) == 0:
                control.close()
                if template is None:
                    _run_commit(channel, fds[1:], message["commit"])
                _run_sandbox(channel, entrances, template, seccomp_filters[template["root_ids"] is not None])
        for fd in fds[1:]:
            os.close(fd)


def _set_up_process() -> None:
    # A killed service cannot clean up: the kernel then ends this process, and with it every sandbox.
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent of process 1 exits at once; the kernel then makes this process its parent, whose end kills it.
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    # Ignored signals survive exec (nohup ignores SIGHUP): every command of a sandbox would ignore them too.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) != signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    # A closed pipe and the limit of file size must be errors of one call (EPIPE, EFBIG), not the end of process 1.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps sandboxes that have ended
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
    os.chdir("/")
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("500")  # sandboxes inherit it: the OOM killer takes them before the service
    # In a sandbox these paths may lead to files of its user. All that is needed has been imported.
    sys.path.clear()
    gc.collect()
    gc.freeze()  # a collection in a child would touch every page, and so copy it (copy-on-write)
    gc.disable()


def _fork(channel: socket.socket, entrances: list[int]) -> int:
    """Fork, and return 0 in the child."""
    try:
        return joining.fork_into(entrances)
    except OSError as error:
        _report_failure(channel, SetupFailed("fork", error.errno or 0, str(error)))
        return -1


def _run_commit(channel: socket.socket, namespace_fds: Sequence[int], order: CommitOrder) -> NoReturn:
    """Change the mounts of a running sandbox, in a child of the zygote."""
    try:
        commit.commit(order, namespace_fds)
        _report(channel, {"event": "done"})
    except SetupFailed as failure:
        _report_failure(channel, failure)
    except BaseException as error:  # noqa: BLE001 - as in `_run_sandbox`
        _report_failure(channel, SetupFailed("switch", 0, repr(error)))
    finally:
        os._exit(0)


def _run_sandbox(
    channel: socket.socket, entrances: Sequence[int], template: SandboxTemplate, seccomp_filter: bytes
) -> NoReturn:
    """Become process 1 of a sandbox, or report the step that failed.

    This runs in a child of the zygote.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        prepared = _prepare_sandbox(template, entrances, channel)
        # also after a failure: an unread config would reset the socket and lose the report
        config = _receive_config(channel)
        if isinstance(prepared, SetupFailed):
            raise prepared
        if prepared:
            namespaces.enter_sandbox(prepared, config)
        else:
            no_namespaces.enter_sandbox(config, channel)
        # Only where the zygote is root: an ordinary user can map no uid but their own.
        has_operations_user = prepared is not None and namespaces.has_operations_user(config["uid"])
        operator = operations_uid(config["uid"]) if has_operations_user else None
        init = InitProcess(channel, config, operations_uid=operator)
        # before the limits: other sandboxes of this host uid may have as many descriptors in flight as they allow
        init.send_descriptors()
        if prepared:
            kept = OPERATIONS_CAPABILITIES if has_operations_user else ()
            namespaces.drop_privileges(config["limits"], seccomp_filter, config["network"], kept)
            namespaces.set_parent_death_signal(prepared.intermediate_pidfd)
        else:
            no_namespaces.drop_privileges(config, seccomp_filter)
        init.serve()
    except SetupFailed as failure:
        _report_failure(channel, failure)
    except BaseException as error:  # noqa: BLE001 - a forked child must end here, and the service must hear why
        _report_failure(channel, SetupFailed("init", 0, repr(error)))
    finally:
        os._exit(1)


def _prepare_sandbox(
    template: SandboxTemplate, entrances: Sequence[int], channel: socket.socket
) -> namespaces.PreparedNamespaces | SetupFailed | None:
    """Do the part of the setup that needs only the template.

    Without namespaces it only joins the control groups.
    """
    try:
        joining.join_cgroups(entrances)
        return namespaces.unshare_namespaces(template, channel) if template["isolation"] == "namespaces" else None
    except SetupFailed as failure:
        return failure


def _receive_config(channel: socket.socket) -> SandboxConfig:
    """Wait for the config, perhaps for long, in the warm pool."""
    message, _ = ipc.receive(channel)
    if message is None:
        os._exit(0)
    config: SandboxConfig = message["config"]
    return config


def _report_failure(channel: socket.socket, failure: SetupFailed) -> None:
    _report(channel, {"event": "failed", "step": failure.step, "code": failure.code, "detail": failure.detail})


def _report(channel: socket.socket, message: ipc.Message) -> None:
    try:
        ipc.send(channel, message)
    except OSError:  # the service is gone, so nobody would read it
        return
