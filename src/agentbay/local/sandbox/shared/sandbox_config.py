"""What the host tells the zygote about a sandbox. Plain data: it travels as JSON to a process that must stay small."""

from __future__ import annotations

from typing import TypedDict


class BindMountConfig(TypedDict):
    """One directory or file of the host shown in the sandbox."""

    source: str
    target: str
    read_only: bool
    nofollow_root: str  # below it no link is followed; "": the source is trusted


class RlimitsConfig(TypedDict):
    """Limits of the sandbox (processes) and of each of its processes (the rest); None is the host's own limit."""

    processes: int | None
    memory_bytes: int | None
    open_files: int | None
    file_size: int | None
    nice: int


class JoinInfo(TypedDict):
    """What a process that joins a sandbox must take on, beside the namespaces."""

    environment: dict[str, str]
    home: str
    network: str
    limits: RlimitsConfig


class SandboxTemplate(TypedDict):
    """What many sandboxes have in common: most of the work is done by this alone, before one is asked for."""

    isolation: str
    host_network: bool
    owner: tuple[int, int] | None  # host uid and gid behind the sandbox's user; None: those of an unprivileged zygote


class SandboxConfig(SandboxTemplate):
    """A sandbox to be made."""

    root: str
    home: str
    user: str
    hostname: str
    network: str
    env: dict[str, str]
    binds: list[BindMountConfig]
    limits: RlimitsConfig


# what a process from outside joins, in root's order: the user namespace last, for the rights over the others
NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user")

CLIENT_HOME = "/home/wuying"  # the home that clients know; below it paths mean the sandbox's own, wherever that is
SANDBOX_UID = 1000
SANDBOX_GID = 1000
