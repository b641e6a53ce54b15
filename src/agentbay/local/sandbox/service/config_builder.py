"""Building the config of a sandbox from what the caller asks for."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

from agentbay.local.sandbox.service import python_environment
from agentbay.local.sandbox.service.errors import IsolationUnavailable
from agentbay.local.sandbox.service.spec import BindMount, IsolationMode, SandboxSpec
from agentbay.local.sandbox.shared import dirfd, python_files
from agentbay.local.sandbox.shared.sandbox_config import (
    IMAGE_DIRECTORY,
    PYTHON_DIRECTORY,
    PYTHON_PREFIX,
    UPPER_DIRECTORY,
    WORK_DIRECTORY,
    WRITABLE_DIRECTORY,
    BindMountConfig,
    SandboxConfig,
    SandboxTemplate,
    resolve_path,
)
from agentbay.local.sandbox.shared.setup_errors import setup_step

# host uid and gid behind the users of root's sandboxes; they own nothing else. Those below are behind their root.
_FIRST_HOST_ID = 1_000_000


def make_template(spec: SandboxSpec, isolation: IsolationMode, owner: tuple[int, int] | None) -> SandboxTemplate:
    """Return the config that all sandboxes of this kind share."""
    return {
        "isolation": isolation,
        "host_network": spec.network == "host",
        "owner": owner,
        "host_ids": owner,
        "root_ids": _root_ids(owner) if spec.uid != 0 else None,
        "uid": spec.uid,
        "gid": spec.gid,
        "has_image": spec.image is not None,
    }


def make_config(spec: SandboxSpec, template: SandboxTemplate, nice: int = 0) -> SandboxConfig:
    """Return the config for `spec`.

    `nice` is the niceness of its processes.
    """
    limits, root, isolated = spec.limits, str(spec.root.resolve()), template["isolation"] == "namespaces"
    python_prefix = PYTHON_PREFIX if isolated else os.path.join(root, PYTHON_DIRECTORY)
    home = spec.home if isolated else os.path.join(root, "home")
    image_python = spec.image.python if spec.image else ""
    interpreter = [] if image_python else python_environment.interpreter_mounts()
    return {
        **template,
        "root": root,
        "layers": list(spec.image.layers if spec.image else spec.layers),
        "made_directories": list(spec.image.directories) if spec.image else [],
        "home": home,
        "directory": resolve_path(spec.directory, home, home),
        "python_prefix": python_prefix,
        "python": image_python or f"{python_prefix}/bin/python",
        "python_layout": python_environment.EMPTY if image_python else python_environment.layout(python_prefix),
        "user": spec.user,
        "hostname": spec.hostname,
        "network": spec.network,
        "env": dict(spec.env),
        "binds": [*interpreter, *map(make_bind_config, spec.binds)],
        "writable": [
            {"source": os.path.join(root, WRITABLE_DIRECTORY, str(number)), "target": path, "is_overlay": is_overlay}
            for number, (path, is_overlay) in enumerate(spec.writable)
        ],
        "limits": {
            "processes": limits.processes,
            "memory_bytes": limits.memory_bytes,
            "open_files": limits.open_files,
            "file_size": limits.file_size,
            "nice": nice,
        },
    }


def make_bind_config(bind: BindMount) -> BindMountConfig:
    """Return what the zygote must know of a bind mount."""
    return {
        "source": bind.source,
        "target": bind.target,
        "read_only": bind.read_only,
        "nofollow_root": bind.nofollow_root,
        "is_program": False,
    }


def nice_for_cpu_share(share: int) -> int:
    """Return the niceness for a share of processor time, 0 for 100.

    Only root could go below 0.
    """
    # kernel/sched/core.c, sched_prio_to_weight: each step is a factor of 1.25
    return min(max(round(math.log(100 / share, 1.25)), 0), 19)


def create_directories(config: SandboxConfig) -> None:
    """Make the directories of a sandbox below its root.

    Raises:
        SetupFailed: The root is missing, or may not be used.
    """
    with setup_step("prepare"):
        root, owner = Path(config["root"]), config["owner"]
        if config["layers"]:
            make_own_directory(root / IMAGE_DIRECTORY, owner)
            for writable in config["writable"]:
                if writable["is_overlay"]:
                    _make_writable_directory(root, writable["source"], owner)
            return
        _make_plain_directories(root, owner)
        for writable in config["writable"]:
            _make_writable_directory(root, writable["source"], owner)


def prepare_root(root: Path, owner: tuple[int, int] | None, *, has_layers: bool = False) -> None:
    """Make all that a sandbox with namespaces, and with or without layers, begins with.

    Raises:
        OSError: It cannot be made.
    """
    if has_layers:
        make_own_directory(root / IMAGE_DIRECTORY, owner)
        return
    _make_plain_directories(root, owner)
    python_files.write(f"{root}/{PYTHON_DIRECTORY}", python_environment.layout(PYTHON_PREFIX), owner)


def _make_plain_directories(root: Path, owner: tuple[int, int] | None) -> None:
    for name, mode in (("home", 0o755), ("tmp", 0o1777), (PYTHON_DIRECTORY, 0o755)):
        _make_directory(root / name, mode, owner)
    _make_socket_directory(root, _root_ids(owner))


def make_own_directory(directory: Path, owner: tuple[int, int] | None) -> None:
    """Make the directory of an overlay's upper and work directories.

    One that was made ahead stays. A work directory of before is removed: the kernel takes that of a volatile overlay
    only once.
    """
    with suppress(FileNotFoundError):
        if not os.listdir(directory / WORK_DIRECTORY):
            return
        with dirfd.open_path(str(directory)) as fd:
            dirfd.remove(WORK_DIRECTORY, fd)
    for name in ("", UPPER_DIRECTORY, WORK_DIRECTORY):
        _make_directory(directory / name, 0o755, owner)


def _make_writable_directory(root: Path, source: str, owner: tuple[int, int] | None) -> None:
    (root / WRITABLE_DIRECTORY).mkdir(exist_ok=True)
    _make_directory(Path(source), 0o755, owner)


def _make_socket_directory(root: Path, owner: tuple[int, int] | None) -> None:
    # where X servers put their sockets; also, /tmp is then not empty
    sockets = root / "tmp" / ".X11-unix"
    if not os.path.lexists(sockets):  # code in an earlier life of this sandbox may have put something there
        sockets.mkdir()
        sockets.chmod(0o1777)
        if owner:
            os.chown(sockets, *owner)


def _make_directory(directory: Path, mode: int, owner: tuple[int, int] | None) -> None:
    directory.mkdir(exist_ok=True)
    # mkdir would reduce the mode by the umask.
    directory.chmod(mode)
    if owner:
        os.chown(directory, *owner)


def _root_ids(owner: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the host uid and gid behind root in a sandbox."""
    return (owner[0] - 1, owner[1] - 1) if owner else None


def sandbox_owner() -> tuple[int, int] | None:
    """Return the host uid and gid for root's sandboxes, or None for other users.

    Raises:
        IsolationUnavailable: This user namespace has no spare ids, and root must not be behind a sandbox's user.
    """
    if os.geteuid() != 0:
        return None
    uids, gids = Path("/proc/self/uid_map").read_text(), Path("/proc/self/gid_map").read_text()
    uid, gid = _find_unused_id(uids), _find_unused_id(gids)
    if uid and gid:
        return uid, gid
    if "0" in (uids.split()[1], gids.split()[1]):
        obstacle = "This user namespace has no ids for sandboxes beside root's: give it 65536 of them"
        raise IsolationUnavailable([f"{obstacle}, or start the runtime as an ordinary user."])
    return None  # outside, this root is an ordinary user


def _find_unused_id(id_map: str) -> int | None:
    """Return an id that nobody has, like the one below it.

    In a container with a user namespace of its own, not every number exists.
    """
    ranges = [(int(line.split()[0]), int(line.split()[2])) for line in id_map.splitlines()]
    if any(first < _FIRST_HOST_ID < first + count for first, count in ranges):
        return _FIRST_HOST_ID
    first, count = max(ranges)
    return first + count - 3 if count > 1000 else None  # leaves out 65534, nobody, of the usual 65536
