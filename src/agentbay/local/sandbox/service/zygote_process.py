"""Starting zygotes and helper programs, with nothing of the host's environment."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from agentbay.local.sandbox.service.errors import IsolationUnavailable
from agentbay.local.sandbox.shared import seccomp

_IMPORT_ROOT = str(Path(__file__).resolve().parents[4])
_BOOTSTRAP_CODE = "import sys; sys.path.insert(0, {root!r}); from {module} import main; main({argument})"
_ZYGOTE_MODULE = "agentbay.local.sandbox.zygote.main"  # a name, not an import: it runs in another process
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}  # nothing of the host's: it may hold keys


class ZygoteProcess:
    """A zygote process and the socket to it."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket, stderr: int) -> None:
        self._process, self.socket, self._stderr = process, sock, stderr

    def stderr_text(self) -> str:
        """Return what it has written to its standard error."""
        return os.pread(self._stderr, 1 << 16, 0).decode(errors="replace").strip()

    def stop(self) -> None:
        """Kill it, and so every sandbox that is left, and wait for its end."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
            self.socket.close()
            os.close(self._stderr)


def check_machine() -> None:
    """Raise IsolationUnavailable where a trial cannot succeed."""
    if sys.platform != "linux":
        raise IsolationUnavailable(["Isolation needs Linux: run the local runtime in a Linux machine or container."])
    machine = os.uname().machine
    if not seccomp.is_supported(machine):
        raise IsolationUnavailable([f"There is no system call filter for {machine} yet."])


def start_zygote(module: str = _ZYGOTE_MODULE, options: Sequence[str] = ("-S",)) -> ZygoteProcess:
    """Start a zygote, which sends "ready" when it can serve.

    Args:
        module: The module whose `main` is called with the number of the socket's descriptor.
        options: Options of Python; without site packages it starts in a fifth of the time.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stderr = os.memfd_create("zygote-stderr", os.MFD_CLOEXEC)
    program = _BOOTSTRAP_CODE.format(root=_IMPORT_ROOT, module=module, argument=theirs.fileno())
    with theirs:
        process = subprocess.Popen(
            # Isolated mode (-I): neither the environment nor the working directory can add modules.
            [sys.executable, "-I", *options, "-X", "utf8", "-c", program],
            env=_ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # an interrupt from the terminal is for the service to handle
        )
    return ZygoteProcess(process, ours, stderr)


def module_command(module: str, argument: str) -> list[str]:
    """Return the command line that calls the `main` of a module with an argument."""
    program = _BOOTSTRAP_CODE.format(root=_IMPORT_ROOT, module=module, argument="sys.argv[1]")
    return [sys.executable, "-I", "-S", "-X", "utf8", "-c", program, argument]
