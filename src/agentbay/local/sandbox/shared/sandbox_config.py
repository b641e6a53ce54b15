"""What the service tells the zygote about a sandbox.

Plain data: it travels as JSON to a process that must stay small.
"""

from __future__ import annotations

import os
from typing import TypedDict


class BindMountConfig(TypedDict):
    """One directory or file of the host shown in the sandbox."""

    source: str
    target: str
    read_only: bool
    nofollow_root: str  # no link below it is followed; "" if the source is trusted
    is_program: bool  # it belongs to the host, not to the owner of the sandboxes' files


class WritableConfig(TypedDict):
    """A further directory that the sandbox may write."""

    source: str  # its directory on disk, below the root of the sandbox
    target: str
    is_overlay: bool  # it also shows what is at the target without it


class RlimitsConfig(TypedDict):
    """Limits of the sandbox (processes) and of each process (the rest).

    None means the host's own limit.
    """

    processes: int | None
    memory_bytes: int | None
    open_files: int | None
    file_size: int | None
    nice: int


class PythonLayout(TypedDict):
    """The Python environment of a new sandbox, by paths below its prefix."""

    directories: list[str]  # each after its parent
    links: dict[str, str]  # path: target
    files: dict[str, str]  # path: content
    programs: dict[str, str]  # likewise, executable


class JoinInfo(TypedDict):
    """What a process that joins a sandbox needs, beside the namespaces."""

    environment: dict[str, str]
    directory: str
    python_prefix: str
    network: str
    uid: int
    gid: int
    limits: RlimitsConfig


class SandboxTemplate(TypedDict):
    """What many sandboxes have in common.

    The warm pool preforks with it, before one is asked for.
    """

    isolation: str
    host_network: bool
    owner: tuple[int, int] | None  # host uid and gid of the sandbox's files; None means those of the zygote
    host_ids: tuple[int, int] | None  # host uid and gid of the sandbox's user, shown as owner of the files
    root_ids: tuple[int, int] | None  # host uid and gid behind root in the sandbox; None means it sees no root
    uid: int  # of the sandbox's user, as it sees it
    gid: int
    has_image: bool  # its root is that of an image, not the programs of the host


class SandboxConfig(SandboxTemplate):
    """The config of one sandbox."""

    root: str
    layers: list[str]  # of its image or of its own directories, directories of the host, the lowest first
    made_directories: list[str]  # in the root of its image, where they are missing
    home: str
    directory: str  # where commands and relative paths start
    python_prefix: str  # of its Python environment, as it sees it
    python: str  # the interpreter for code
    python_layout: PythonLayout
    user: str
    hostname: str
    network: str
    env: dict[str, str]
    binds: list[BindMountConfig]
    writable: list[WritableConfig]
    limits: RlimitsConfig


class CommitOrder(TypedDict):
    """The new overlay of a running sandbox, above what it has written."""

    owner: tuple[int, int] | None
    host_ids: tuple[int, int] | None
    layers: list[str]  # what it sees from now on, the lowest first
    own: str  # the directory with its new upper and work directories
    parts: dict[str, str]  # directories of the overlay: where the sandbox sees them


# what a process from outside joins; the user namespace is last, since root then has no capability over the others
NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user")

CLIENT_HOME = "/home/wuying"  # the home that clients know; without namespaces it is elsewhere
PYTHON_PREFIX = "/opt/session-python"  # of its Python environment; without namespaces it is elsewhere
PYTHON_DIRECTORY = "python"  # holds that environment, below the root of the sandbox on disk
WRITABLE_DIRECTORY = "writable"  # holds the further writable directories, likewise
PYTHON_PATH_FILE = "zzz_runtime.pth"  # last in the alphabet, the order in which Python reads path files
PROXY_PORT = 3128  # of the egress proxy in a sandbox; the usual port of HTTP proxies
SANDBOX_UID = 1000
OPERATIONS_UID = (
    1001  # of file operations, whom code of the sandbox cannot signal; only where there are host uids for it
)
SANDBOX_GID = 1000
IMAGE_DIRECTORY = "image"  # holds what a sandbox changes in its image, below the root of the sandbox on disk
UPPER_DIRECTORY, WORK_DIRECTORY = "upper", "work"  # in it, as overlayfs calls them


def overlay_parts(config: SandboxConfig) -> dict[str, str]:
    """Return the directories that a sandbox has from its overlay.

    Keys are their places there, values the paths that the sandbox sees.
    """
    if config["has_image"]:
        return {"": "/"}
    own = enumerate(config["writable"])
    return {
        "home": config["home"],
        "tmp": "/tmp",
        PYTHON_DIRECTORY: PYTHON_PREFIX,
        **{f"{WRITABLE_DIRECTORY}/{number}": one["target"] for number, one in own if not one["is_overlay"]},
    }


def mount_point_owner(path: str, config: SandboxConfig) -> tuple[int, int] | None:
    """Return the host ids of directories that are made for a mount point."""
    own = (config["home"], "/tmp", *(writable["target"] for writable in config["writable"]))
    is_own = config["has_image"] or any(path.startswith(f"{top.rstrip('/')}/") for top in own)
    return config["host_ids"] if is_own else config["root_ids"]


def operations_uid(uid: int) -> int:
    """Return the uid of file operations beside a user's own."""
    return OPERATIONS_UID if uid != OPERATIONS_UID else OPERATIONS_UID + 1


def resolve_path(path: str, home: str, directory: str) -> str:
    """Return an absolute path.

    Relative ones start at `directory`, `~` and the home that clients know at `home`.
    """
    if path == CLIENT_HOME or path.startswith(CLIENT_HOME + "/"):
        return home + path.removeprefix(CLIENT_HOME)
    if path == "~" or path.startswith("~/"):
        return os.path.join(home, path[2:])
    return os.path.join(directory, path)
