"""What the host tells the zygote about a sandbox. Plain data: it travels as JSON to a process that must stay small."""

from __future__ import annotations

from typing import TypedDict


class BindPlan(TypedDict):
    """One directory or file of the host shown in the sandbox."""

    source: str
    target: str
    read_only: bool


class LimitsPlan(TypedDict):
    """Limits of the sandbox (processes) and of each of its processes (the rest); None is the host's own limit."""

    processes: int | None
    memory_bytes: int | None
    open_files: int | None
    file_size: int | None


class Plan(TypedDict):
    """A sandbox to be made."""

    root: str
    home: str
    user: str
    hostname: str
    network: str
    env: dict[str, str]
    binds: list[BindPlan]
    limits: LimitsPlan
    owner: tuple[int, int] | None  # host uid and gid behind the sandbox's user; None: those of an unprivileged zygote


SANDBOX_UID = 1000
SANDBOX_GID = 1000
