"""The seccomp filter of a sandbox, a deny list of known system calls.

Ordinary programs must run, so it denies instead of allowing: calls that create or join namespaces and mounts, that
look into other processes, or that reach parts of the kernel with a history of vulnerabilities (keyrings, bpf, perf,
userfaultfd, io_uring). Numbers: the kernel's
arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_DENIED_EVERYWHERE = {  # the same on every architecture
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_getfd": 438, "process_madvise": 440,
    "mount_setattr": 442, "quotactl_fd": 443, "open_tree_attr": 467,
}  # fmt: skip

# programs do without these where they are missing: clone3 hides its flags in memory, where no filter can look, and libc
# falls back to clone; the memory of memfd_secret cannot be inspected
_MISSING_EVERYWHERE = {"clone3": 435, "memfd_secret": 447}

_X86_64 = {
    "ptrace": 101, "syslog": 103, "vhangup": 153, "modify_ldt": 154, "pivot_root": 155, "adjtimex": 159,
    "chroot": 161, "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168,
    "reboot": 169, "iopl": 172, "ioperm": 173, "init_module": 175, "delete_module": 176, "quotactl": 179,
    "lookup_dcookie": 212, "clock_settime": 227, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250,
    "unshare": 272, "perf_event_open": 298, "fanotify_init": 300, "name_to_handle_at": 303, "open_by_handle_at": 304,
    "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
    "finit_module": 313, "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323,
}  # fmt: skip

_AARCH64 = {
    "lookup_dcookie": 18, "umount2": 39, "mount": 40, "pivot_root": 41, "chroot": 51, "vhangup": 58, "quotactl": 60,
    "acct": 89, "unshare": 97, "kexec_load": 104, "init_module": 105, "delete_module": 106, "clock_settime": 112,
    "syslog": 116, "ptrace": 117, "reboot": 142, "settimeofday": 170, "adjtimex": 171, "add_key": 217,
    "request_key": 218, "keyctl": 219, "swapon": 224, "swapoff": 225, "perf_event_open": 241, "fanotify_init": 262,
    "name_to_handle_at": 264, "open_by_handle_at": 265, "clock_adjtime": 266, "setns": 268, "process_vm_readv": 270,
    "process_vm_writev": 271, "kcmp": 272, "finit_module": 273, "bpf": 280, "userfaultfd": 282,
    "kexec_file_load": 294,
}  # fmt: skip


class _Architecture(NamedTuple):
    audit: int
    denied: dict[str, int]
    clone: int
    socket: int
    socketpair: int
    ioctl: int
    io_setup: int
    personality: int
    prctl: int
    shmget: int
    set_uids: dict[int, int]  # numbers of arguments that are uids, by call


_ARCHITECTURES = {
    "x86_64": _Architecture(0xC000003E, _X86_64, 56, 41, 53, 16, 206, 135, 157, 29, {105: 1, 113: 2, 117: 3, 122: 1}),
    "aarch64": _Architecture(
        0xC00000B7, _AARCH64, 220, 198, 199, 29, 0, 92, 167, 194, {145: 2, 146: 1, 147: 3, 151: 1}
    ),
}
_FIRST_UNKNOWN = 470  # Linux 6.18 ends with file_setattr, 469, on every architecture
_NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag that clone takes
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # they inject input into a terminal
# A network namespace does not confine vsock and the like, and asking for a family loads its module into the kernel.
# Packet sockets need a capability, and programs expect that error.
_SOCKET_FAMILIES = {"unix": 1, "inet": 2, "inet6": 10, "netlink": 16, "packet": 17}

_HARMLESS_PERSONALITIES = [0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF]  # Linux, uname26, 32-bit names, and asking for it
_PR_SET_DUMPABLE = 4
_MAX_SHM_SEGMENT_BYTES = 64 << 10  # the kernel allows 4,096 System V segments to each ipc namespace

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
_PRETEND = _ERRNO  # return 0 and do nothing
_EPERM, _ENOSPC, _ENOSYS, _EAFNOSUPPORT = _ERRNO | 1, _ERRNO | 28, _ERRNO | 38, _ERRNO | 97
_NR, _ARCH, _ARG0, _ARG1, _ARG1_HIGH = 0, 4, 16, 24, 28  # offsets in struct seccomp_data; arguments have two halves
_ARGUMENT_BYTES = 8


def _bpf_statement(code: int, value: int) -> bytes:
    return struct.pack("HBBI", code, 0, 0, value)


def _bpf_jump_if(test: int, value: int, then: list[bytes]) -> list[bytes]:
    """Return instructions that run `then` if the accumulator passes the test."""
    return [struct.pack("HBBI", test, 0, len(then), value), *then]


def _check_argument(
    number: int, offset: int, test: int, values: list[int], verdict: int, *, otherwise: int = _ALLOW
) -> list[bytes]:
    """Return `verdict` for system call `number` with one of these argument values."""
    checks = [
        instruction for value in values for instruction in _bpf_jump_if(test, value, [_bpf_statement(_RETURN, verdict)])
    ]
    return _bpf_jump_if(_EQUAL, number, [_bpf_statement(_LOAD, offset), *checks, _bpf_statement(_RETURN, otherwise)])


def _keep_dumpable() -> list[bytes]:
    """Return instructions that only pretend to make a process undumpable.

    An ordinary user's service could not see the files and the memory that such a process holds.
    """
    pretend = [
        _bpf_statement(_LOAD, _ARG1),
        *_bpf_jump_if(_EQUAL, 0, [_bpf_statement(_RETURN, _PRETEND)]),
        _bpf_statement(_RETURN, _ALLOW),
    ]
    return [
        _bpf_statement(_LOAD, _ARG0),
        *_bpf_jump_if(_EQUAL, _PR_SET_DUMPABLE, pretend),
        _bpf_statement(_RETURN, _ALLOW),
    ]


def _limit_shm_segment() -> list[bytes]:
    """Return instructions that refuse large System V segments, which can stay uncounted."""
    refuse = _bpf_statement(_RETURN, _ENOSPC)
    return [
        _bpf_statement(_LOAD, _ARG1_HIGH),
        *_bpf_jump_if(_AT_LEAST, 1, [refuse]),
        _bpf_statement(_LOAD, _ARG1),
        *_bpf_jump_if(_AT_LEAST, _MAX_SHM_SEGMENT_BYTES + 1, [refuse]),
        _bpf_statement(_RETURN, _ALLOW),
    ]


def _refuse_root(number: int, uids: int) -> list[bytes]:
    """Return instructions that refuse a call which sets a uid to 0."""
    checks = [
        instruction
        for argument in range(uids)
        for instruction in (
            _bpf_statement(_LOAD, _ARG0 + argument * _ARGUMENT_BYTES),
            *_bpf_jump_if(_EQUAL, 0, [_bpf_statement(_RETURN, _EPERM)]),
        )
    ]
    return _bpf_jump_if(_EQUAL, number, [*checks, _bpf_statement(_RETURN, _ALLOW)])


def is_supported(machine: str) -> bool:
    """Return whether there is a filter for `machine` (as uname has it)."""
    return machine in _ARCHITECTURES


def build_filter(machine: str, refuses_root: bool = False) -> bytes:
    """Return the filter for `machine` (as uname has it), 8 bytes an instruction.

    Args:
        refuses_root: Let no process become uid 0, not even process 1, which may set its uid.

    Raises:
        KeyError: There is no table for this architecture.
    """
    arch = _ARCHITECTURES[machine]
    program = [
        # A call by another ABI, such as int 0x80 on x86_64, has other numbers and would slip through the list.
        _bpf_statement(_LOAD, _ARCH),
        struct.pack("HBBI", _EQUAL, 1, 0, arch.audit),
        _bpf_statement(_RETURN, _KILL),
        _bpf_statement(_LOAD, _NR),
    ]
    # System calls that a newer kernel adds were not reviewed here, so they are missing, as on an older kernel. This
    # covers x32 too, another ABI of x86_64, whose numbers are higher.
    program += _bpf_jump_if(_AT_LEAST, _FIRST_UNKNOWN, [_bpf_statement(_RETURN, _ENOSYS)])
    for number in (*arch.denied.values(), *_DENIED_EVERYWHERE.values()):
        program += _bpf_jump_if(_EQUAL, number, [_bpf_statement(_RETURN, _EPERM)])
    # io_setup: its events are limited for the whole machine, not for each user
    for number in (*_MISSING_EVERYWHERE.values(), arch.io_setup):
        program += _bpf_jump_if(_EQUAL, number, [_bpf_statement(_RETURN, _ENOSYS)])
    program += _check_argument(arch.clone, _ARG0, _ANY_BIT, [_NEW_NAMESPACES], _EPERM)
    for number in (arch.socket, arch.socketpair):
        families = list(_SOCKET_FAMILIES.values())
        program += _check_argument(number, _ARG0, _EQUAL, families, _ALLOW, otherwise=_EAFNOSUPPORT)
    program += _check_argument(arch.ioctl, _ARG1, _EQUAL, [_TIOCSTI, _TIOCLINUX], _EPERM)
    program += _check_argument(arch.personality, _ARG0, _EQUAL, _HARMLESS_PERSONALITIES, _ALLOW, otherwise=_EPERM)
    program += _bpf_jump_if(_EQUAL, arch.prctl, _keep_dumpable())
    program += _bpf_jump_if(_EQUAL, arch.shmget, _limit_shm_segment())
    if refuses_root:
        for number, uids in arch.set_uids.items():
            program += _refuse_root(number, uids)
    return b"".join([*program, _bpf_statement(_RETURN, _ALLOW)])
