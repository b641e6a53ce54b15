"""Landlock: a process gives up rights, for itself and all that it starts.

It needs no privilege.

Numbers are those of include/uapi/linux/landlock.h, calls the same on every architecture. What an ABI adds stands in
landlock(7): 2 renames between directories, 3 truncation, 6 signals and abstract sockets.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable

from agentbay.local.sandbox.shared import syscalls
from agentbay.local.sandbox.shared.fd_io import closing_fd

REQUIRED_ABI = 6  # the first that restricts signals, without which sandboxed code could kill processes outside
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_READING = _EXECUTE | _READ_FILE | _READ_DIR
_EVERYTHING = (1 << 15) - 1  # every right on files up to ABI 3
_ABSTRACT_SOCKETS, _SIGNALS = 1 << 0, 1 << 1


def abi_version() -> int:
    """Return the ABI that this kernel offers, 0 if none."""
    try:
        return syscalls.raw_syscall("landlock", _CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def confine(readable: Iterable[str], writable: Iterable[str]) -> None:
    """Restrict this process to these paths.

    Its signals and abstract sockets reach only its own Landlock domain.

    It cannot trace or inspect processes outside either. Missing paths are left out.

    Raises:
        OSError: The kernel offers less.
    """
    ruleset = _make_ruleset(_EVERYTHING, _ABSTRACT_SOCKETS | _SIGNALS)
    for paths, rights in ((readable, _READING), (writable, _EVERYTHING)):
        for path in paths:
            _allow(ruleset, path, rights)
    _restrict(ruleset)


def block_abstract_sockets() -> bool:
    """Block abstract sockets of processes outside, or return False.

    The kernel may be too old.
    """
    if abi_version() < REQUIRED_ABI:
        return False
    _restrict(_make_ruleset(0, _ABSTRACT_SOCKETS))
    return True


def _make_ruleset(files: int, scopes: int) -> int:
    attributes = struct.pack("QQQ", files, 0, scopes)
    return syscalls.raw_syscall("landlock", _CREATE_RULESET, attributes, len(attributes), 0)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        # A rule for a path that is not on this machine allows nothing.
        return
    with closing_fd(fd):
        # The kernel refuses rights on directories for anything else (EINVAL).
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _OF_FILES
        # The kernel's struct is packed, so `=` leaves out the padding.
        syscalls.raw_syscall(f"landlock {path}", _ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, fd), 0)


def _restrict(ruleset: int) -> None:
    # Without CAP_SYS_ADMIN, the kernel demands this first.
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    with closing_fd(ruleset):
        syscalls.raw_syscall("landlock", _RESTRICT_SELF, ruleset, 0)
