"""Starting the zygote, and saying what it is to make."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from agentbay.local.sandbox.service.errors import IsolationUnavailable
from agentbay.local.sandbox.service.spec import IsolationMode, NetworkMode, SandboxSpec
from agentbay.local.sandbox.shared import seccomp, syscalls
from agentbay.local.sandbox.shared.sandbox_config import BindMountConfig, SandboxConfig, SandboxTemplate
from agentbay.local.sandbox.shared.syscalls import setup_step

_IMPORT_ROOT = str(Path(__file__).resolve().parents[4])
_BOOTSTRAP_CODE = "import sys; sys.path.insert(0, {root!r}); from {module} import main; main({fd})"
_ZYGOTE_MODULE = "agentbay.local.sandbox.zygote.main"
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}  # nothing of the host's: it may hold keys
_FIRST_HOST_ID = 1_000_000  # host uid and gid behind the users of root's sandboxes; they own nothing else
_PREFIX_PARTS = ("bin", "include", "lib", "lib64", "pyvenv.cfg", "share")


class ZygoteProcess:
    """A zygote process and the socket to it."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket, stderr: int) -> None:
        self._process, self.socket, self._stderr = process, sock, stderr

    def stderr_text(self) -> str:
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
        seccomp.build_filter(syscalls.ARCHITECTURE)
    except KeyError:
        raise IsolationUnavailable([f"There is no system call filter for {syscalls.ARCHITECTURE} yet."]) from None


def start_zygote(
    module: str = _ZYGOTE_MODULE, options: Sequence[str] = ("-S",), env: Mapping[str, str] | None = None
) -> ZygoteProcess:
    """Start a zygote; it says "ready" when it is.

    Args:
        module: Where its `main` is.
        options: Of Python; without site packages it starts in a fifth of the time.
        env: Over an environment that holds nothing of the host's.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stderr = os.memfd_create("zygote-stderr", os.MFD_CLOEXEC)
    program = _BOOTSTRAP_CODE.format(root=_IMPORT_ROOT, module=module, fd=theirs.fileno())
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-I", *options, "-X", "utf8", "-c", program],
            env=_ENVIRONMENT | dict(env or {}),
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
    text = f"import sys; sys.path.insert(0, {_IMPORT_ROOT!r}); from {module} import main; main(sys.argv[1])"
    return [sys.executable, "-I", "-S", "-X", "utf8", "-c", text, argument]


def make_template(isolation: IsolationMode, network: NetworkMode, owner: tuple[int, int] | None) -> SandboxTemplate:
    """Return what sandboxes of this kind have in common."""
    return {"isolation": isolation, "host_network": network == "host", "owner": owner}


def make_config(spec: SandboxSpec, frame: SandboxTemplate, nice: int = 0) -> SandboxConfig:
    """Return what the zygote must know to make `spec`, whose processes are to have the niceness `nice`."""
    own: list[BindMountConfig] = [
        {"source": bind.source, "target": bind.target, "read_only": bind.read_only, "nofollow_root": bind.nofollow_root}
        for bind in spec.binds
    ]
    limits, root, isolated = spec.limits, str(spec.root.resolve()), frame["isolation"] == "namespaces"
    return {
        **frame,
        "root": root,
        "home": spec.home if isolated else os.path.join(root, "home"),
        "user": spec.user,
        "hostname": spec.hostname,
        "network": spec.network,
        "env": dict(spec.env),
        "binds": [*_interpreter_mounts(), *own],
        "limits": {
            "processes": limits.processes,
            "memory_bytes": limits.memory_bytes,
            "open_files": limits.open_files,
            "file_size": limits.file_size,
            "nice": nice,
        },
    }


def create_directories(plan: SandboxConfig) -> None:
    """Make the directories of a sandbox below its root.

    Raises:
        SetupFailed: The root is missing, or not ours to use.
    """
    with setup_step("prepare"):
        _make_directories(Path(plan["root"]), plan["owner"])


def _make_directories(root: Path, owner: tuple[int, int] | None) -> None:
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


@functools.cache
def _interpreter_mounts() -> list[BindMountConfig]:
    """Show this Python where it lies outside /usr; parts of a prefix only, which may be the user's project."""
    prefixes = [Path(prefix) for prefix in dict.fromkeys([sys.base_prefix, sys.prefix])]
    parts = [prefix / part for prefix in prefixes if not prefix.is_relative_to("/usr") for part in _PREFIX_PARTS]
    return [
        {"source": str(part), "target": str(part), "read_only": True, "nofollow_root": ""}
        for part in parts
        if part.exists()
    ]


def sandbox_owner() -> tuple[int, int] | None:
    """Return the host uid and gid for sandboxes made by root, or None for an unprivileged user's.

    Raises:
        IsolationUnavailable: There are no such ids, and root's own are not to stand behind a sandbox.
    """
    if os.geteuid() != 0:
        return None
    uids, gids = Path("/proc/self/uid_map").read_text(), Path("/proc/self/gid_map").read_text()
    uid, gid = _find_unused_id(uids), _find_unused_id(gids)
    if uid and gid:
        return uid, gid
    if "0" in (uids.split()[1], gids.split()[1]):
        lack = "This user namespace has no ids for sandboxes beside root's: give it 65536 of them"
        raise IsolationUnavailable([f"{lack}, or start the runtime as an ordinary user."])
    return None  # outside, this root is an ordinary user


def _find_unused_id(id_map: str) -> int | None:
    """Return an id that nobody has: in a container with a user namespace of its own, not every number exists."""
    ranges = [(int(line.split()[0]), int(line.split()[2])) for line in id_map.splitlines()]
    if any(first <= _FIRST_HOST_ID < first + count for first, count in ranges):
        return _FIRST_HOST_ID
    first, count = max(ranges)
    return first + count - 3 if count > 1000 else None  # leaves out 65534, nobody, of the usual 65536
