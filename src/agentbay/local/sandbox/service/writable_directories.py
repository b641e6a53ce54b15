"""Directories that a sandbox can write beside its home and /tmp."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import NamedTuple

from agentbay.local.sandbox.shared.sandbox_config import CLIENT_HOME, PYTHON_PREFIX

_MAX_DIRECTORIES = 32
_WRITABLE_ANYWAY = (CLIENT_HOME, "/tmp", "/var/tmp", PYTHON_PREFIX, "/workspace", "/home/user", "/home/guest")
_KERNEL = ("/dev", "/proc", "/sys", "/run", "/var/run")
_LINKS = ("/bin", "/sbin", "/lib", "/lib64", "/lib32", "/libx32")
# Directories with files of the machine or mount points of the sandbox, which a new directory would hide.
_SYSTEM_TREES = ("/usr", "/etc", "/nix", "/var/cache/fontconfig")
_SYSTEM_DIRECTORIES = ("/", "/home", "/opt", "/var", "/var/cache")


class WritableDirectory(NamedTuple):
    """A further directory that may be written.

    Attributes:
        is_overlay: It shows what the sandbox has there already, and keeps changes apart. Otherwise it starts empty.
    """

    path: str
    is_overlay: bool


def choose_writable(paths: Iterable[str]) -> list[WritableDirectory]:
    """Return the directories that make these paths writable, without those that are so anyway.

    Raises:
        ValueError: A path cannot be made writable; says why.
    """
    chosen = sorted({_normalize(path) for path in paths})
    if len(chosen) > _MAX_DIRECTORIES:
        raise ValueError(f"at most {_MAX_DIRECTORIES} directories can be made writable, not {len(chosen)}")
    for path in chosen:
        _check(path)
    needed = [path for path in chosen if not _is_below(path, _WRITABLE_ANYWAY)]
    tops = [path for path in needed if not any(path != top and _is_below(path, (top,)) for top in needed)]
    return [WritableDirectory(path, _is_below(path, _SYSTEM_TREES) or path in _SYSTEM_DIRECTORIES) for path in tops]


def _normalize(path: str) -> str:
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise ValueError(f"{path!r:.80} is no absolute path without '..'")
    return "/" + posixpath.normpath(path).strip("/")


def _check(path: str) -> None:
    if _is_below(path, _KERNEL):
        raise ValueError(f"{path:.80} belongs to the kernel or to the runtime and cannot be made writable")
    if _is_below(path, _LINKS):
        raise ValueError(f"{path:.80} is a part of /usr: name /usr{path:.80}")


def _is_below(path: str, tops: Iterable[str]) -> bool:
    return any(top == "/" or path == top or path.startswith(f"{top}/") for top in tops)
