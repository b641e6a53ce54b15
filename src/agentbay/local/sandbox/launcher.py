"""Starting the zygote, and saying what it is to make."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from agentbay.local.sandbox import seccomp, syscalls
from agentbay.local.sandbox.errors import IsolationUnavailable
from agentbay.local.sandbox.plan import BindPlan, Plan
from agentbay.local.sandbox.spec import SandboxSpec
from agentbay.local.sandbox.syscalls import step

_IMPORT_ROOT = str(Path(__file__).resolve().parents[3])
_PROGRAM = "import sys; sys.path.insert(0, {root!r}); from agentbay.local.sandbox.zygote import main; main({fd})"
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}  # nothing of the host's: it may hold keys
_FIRST_OWNER = 1_000_000  # host uid and gid behind the users of root's sandboxes; they own nothing else
_PREFIX_PARTS = ("bin", "include", "lib", "lib64", "pyvenv.cfg", "share")


class Zygote:
    """A zygote process and the socket to it."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket, stderr: int) -> None:
        self._process, self.socket, self._stderr = process, sock, stderr

    def complaint(self) -> str:
        """Return what it has written to its standard error."""
        return os.pread(self._stderr, 1 << 16, 0).decode(errors="replace").strip()

    def stop(self) -> None:
        """Kill it, and with it every sandbox that is left, and wait the moment that it takes."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
            self.socket.close()
            os.close(self._stderr)


def check_machine() -> None:
    """Raise IsolationUnavailable where not even a try makes sense."""
    if sys.platform != "linux":
        raise IsolationUnavailable(["Isolation needs Linux: run the local runtime in a Linux machine or container."])
    try:
        seccomp.build(syscalls.MACHINE)
    except KeyError:
        raise IsolationUnavailable([f"There is no system call filter for {syscalls.MACHINE} yet."]) from None


def launch() -> Zygote:
    """Start a zygote; it says "ready" when it is."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stderr = os.memfd_create("zygote-stderr", os.MFD_CLOEXEC)
    program = _PROGRAM.format(root=_IMPORT_ROOT, fd=theirs.fileno())
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", "utf8", "-c", program],
            env=_ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # an interrupt from the terminal is for the service to handle
        )
    return Zygote(process, ours, stderr)


def plan(spec: SandboxSpec) -> Plan:
    """Return what the zygote must know to make `spec`."""
    own: list[BindPlan] = [
        {"source": bind.source, "target": bind.target, "read_only": bind.read_only} for bind in spec.binds
    ]
    limits = spec.limits
    return {
        "root": str(spec.root.resolve()),
        "home": spec.home,
        "user": spec.user,
        "hostname": spec.hostname,
        "network": spec.network,
        "env": dict(spec.env),
        "binds": [*_interpreter(), *own],
        "limits": {
            "processes": limits.processes,
            "memory_bytes": limits.memory_bytes,
            "open_files": limits.open_files,
            "file_size": limits.file_size,
        },
        "owner": sandbox_owner(),
    }


def prepare(plan: Plan) -> None:
    """Make the directories of a sandbox below its root.

    Raises:
        SetupFailed: The root is missing, or not ours to use.
    """
    with step("prepare"):
        _make_directories(Path(plan["root"]), plan["owner"])


def _make_directories(root: Path, owner: tuple[int, int] | None) -> None:
    (root / "view").mkdir(exist_ok=True)
    for name, mode in (("home", 0o755), ("tmp", 0o1777)):
        directory = root / name
        directory.mkdir(exist_ok=True)
        directory.chmod(mode)
        if owner:
            os.chown(directory, *owner)
    # where X servers put their sockets; also, /tmp is then not empty
    sockets = root / "tmp" / ".X11-unix"
    if not os.path.lexists(sockets):  # what code in an earlier life of this sandbox has put there is not to be touched
        sockets.mkdir()
        sockets.chmod(0o1777)


def _interpreter() -> list[BindPlan]:
    """Show this Python where it lies outside /usr; parts of a prefix only, which may be the user's project."""
    prefixes = [Path(prefix) for prefix in dict.fromkeys([sys.base_prefix, sys.prefix])]
    parts = [prefix / part for prefix in prefixes if not prefix.is_relative_to("/usr") for part in _PREFIX_PARTS]
    return [{"source": str(part), "target": str(part), "read_only": True} for part in parts if part.exists()]


def sandbox_owner() -> tuple[int, int] | None:
    """Return the host uid and gid for sandboxes made by root, or None for an unprivileged user's."""
    if os.geteuid() != 0:
        return None
    return _usable_id("/proc/self/uid_map"), _usable_id("/proc/self/gid_map")


def _usable_id(map_file: str) -> int:
    """Return an id that nobody has: in a container with a user namespace of its own, not every number exists."""
    ranges = [(int(line.split()[0]), int(line.split()[2])) for line in Path(map_file).read_text().splitlines()]
    if any(first <= _FIRST_OWNER < first + count for first, count in ranges):
        return _FIRST_OWNER
    first, count = max(ranges)
    return first + count - 3  # leaves out 65534, nobody, of the usual 65536
