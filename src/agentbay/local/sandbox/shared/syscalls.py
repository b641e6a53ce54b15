"""The system calls that Python does not offer, through ctypes.

Every failure is an OSError whose filename names the call and its object.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct

from agentbay.local.sandbox.shared.fd_io import closing_fd

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE, MS_SLAVE = 2, 4, 8, 1 << 14, 1 << 18, 1 << 19
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
_MOUNT_ATTR_IDMAP = 1 << 20

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
_PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_SECUREBITS, _PR_CAP_AMBIENT = 22, 24, 28, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
# capabilities(7): NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE, each with its lock
_SECUREBITS_WITHOUT_ROOT = 0b11001111
_SECCOMP_MODE_FILTER = 2
_MNT_DETACH = 2
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 0x4, 0x40
_SIOCSIFFLAGS, _IFF_UP, _IFF_RUNNING = 0x8914, 0x1, 0x40
_CAPABILITY_VERSION_3 = 0x20080522
CAP_KILL, CAP_SETUID = 5, 7
_EPERM, _EINVAL = 1, 22

ARCHITECTURE = os.uname().machine
# numbers above 423 are the same on every architecture
_NUMBERS = {
    "x86_64": {"clone": 56, "pivot_root": 155, "capget": 125, "capset": 126},
    "aarch64": {"clone": 220, "pivot_root": 41, "capget": 90, "capset": 91},
}.get(ARCHITECTURE, {})
_OPEN_TREE, _MOVE_MOUNT, _CLONE3, _MOUNT_SETATTR = 428, 429, 435, 442
_CLONE_INTO_CGROUP = 1 << 33

_libc = ctypes.CDLL(None, use_errno=True)
_python = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock during a call
_ZEROS = (ctypes.c_ulong(0),) * 3  # prctl wants unused arguments to be 0


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` for new ones."""
    _checked(_libc.unshare(flags), "unshare")


def fork_paused(flags: int) -> int:
    """Fork a sleeping child in new namespaces, and return its pid."""
    pid = _checked(_libc.syscall(_NUMBERS["clone"], ctypes.c_ulong(flags | signal.SIGCHLD), 0, 0, 0, 0), "clone")
    # pause returns after any signal handler, and the child must never run on as a copy of its parent.
    while pid == 0:
        _libc.pause()
    return pid


def fork_into_cgroup(directory: int) -> int:
    """Fork a child that begins in a control group of version 2.

    Return 0 in the child. This process must have one thread: the C library does not hear of the fork.
    """
    # struct clone_args, whose fifth field is the signal at the child's end, and whose last one is the group
    request = struct.pack("11Q", _CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, directory)
    _python.PyOS_BeforeFork()
    pid = _python.syscall(_CLONE3, request, ctypes.c_size_t(len(request)))
    code = ctypes.get_errno()
    if pid == 0:
        _python.PyOS_AfterFork_Child()
        return 0
    _python.PyOS_AfterFork_Parent()
    ctypes.set_errno(code)
    return _checked(pid, "clone3")


def setns(fd: int, kind: int) -> None:
    """Join the namespace that `fd` stands for, if it is of that kind (CLONE_NEW*)."""
    _checked(_libc.setns(fd, kind), "setns")


def mount(kind: str, target: str, flags: int = 0, options: str = "") -> None:
    """Mount a new file system of `kind` on `target`."""
    name = os.fsencode(kind)
    result = _libc.mount(name, os.fsencode(target), name, ctypes.c_ulong(flags), os.fsencode(options))
    _checked(result, f"mount {kind} on {target}")


def set_mount_propagation(propagation: int) -> None:
    """Set the propagation of all mounts of this namespace: MS_PRIVATE or MS_SLAVE."""
    _checked(_libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC | propagation), None), "change propagation of /")


def clone_tree(source: str, attributes: int) -> int:
    """Return a detached copy of the mounts at `source`, as a descriptor."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_RECURSIVE
    tree = _libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), ctypes.c_uint(flags))
    _checked(tree, f"open_tree {source}")
    _set_attributes(tree, b"", attributes, _AT_EMPTY_PATH | _AT_RECURSIVE, source)
    return int(tree)


def clone_mount(source: str) -> int:
    """Return a detached copy of the one mount at `source`, as a descriptor."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    tree = _libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), ctypes.c_uint(flags))
    return _checked(tree, f"open_tree {source}")


def unmount(target: str) -> None:
    """Unmount what is at `target`, once nothing uses it."""
    _checked(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"umount {target}")


def idmap_tree(tree: int, user_namespace: int) -> None:
    """Show the owners in what `clone_tree` returned as the user namespace maps them."""
    flags = _AT_EMPTY_PATH | _AT_RECURSIVE
    _set_attributes(tree, b"", _MOUNT_ATTR_IDMAP, flags, "to map ids", user_namespace=user_namespace)


def attach_tree(tree: int, target: str) -> None:
    """Mount what `clone_tree` returned on `target` and close the descriptor."""
    with closing_fd(tree):
        result = _libc.syscall(
            _MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH)
        )
        _checked(result, f"move_mount to {target}")


def move_mount(mount: int, directory: int, path: str) -> None:
    """Move the mount of a descriptor to a path below a directory.

    The path "" means the directory itself.
    """
    flags = _MOVE_MOUNT_F_EMPTY_PATH | (0 if path else _MOVE_MOUNT_T_EMPTY_PATH)
    result = _libc.syscall(_MOVE_MOUNT, mount, b"", directory, os.fsencode(path), ctypes.c_uint(flags))
    _checked(result, f"move_mount to {path or 'a directory'}")


def bind_mount(source: str, target: str, attributes: int) -> None:
    """Show `source` at `target`, with `attributes`."""
    attach_tree(clone_tree(source, attributes), target)


def make_read_only(target: str) -> None:
    """Make the one mount at `target` read-only, not those below it."""
    _set_attributes(_AT_FDCWD, os.fsencode(target), MOUNT_ATTR_RDONLY, 0, target)


def make_writable(target: str) -> None:
    """Take back `make_read_only`."""
    _set_attributes(_AT_FDCWD, os.fsencode(target), 0, 0, target, cleared=MOUNT_ATTR_RDONLY)


def _set_attributes(
    directory: int, path: bytes, attributes: int, flags: int, what: str, *, cleared: int = 0, user_namespace: int = 0
) -> None:
    request = struct.pack("QQQQ", attributes, cleared, 0, user_namespace)
    result = _libc.syscall(
        _MOUNT_SETATTR, directory, path, ctypes.c_uint(flags), request, ctypes.c_size_t(len(request))
    )
    _checked(result, f"mount_setattr {what}")


def pivot_root(new_root: str) -> None:
    """Make the mount `new_root` the root directory, and unmount the old one."""
    os.chdir(new_root)
    pivot_root_here()


def pivot_root_here() -> None:
    """Make the mount at the working directory the root, and unmount the old one."""
    _checked(_libc.syscall(_NUMBERS["pivot_root"], b".", b"."), "pivot_root")
    # the old root now lies over the new one, at "."
    _checked(_libc.umount2(b".", _MNT_DETACH), "umount the old root")
    os.chdir("/")


def raw_syscall(what: str, number: int, *arguments: int | bytes | None) -> int:
    """Make a system call with numbers and buffers.

    `what` names it in an error.
    """
    return _checked(_libc.syscall(number, *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)), what)


def create_inotify() -> int:
    """Return a non-blocking inotify descriptor."""
    return _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")


def add_watch(inotify: int, path: str, mask: int) -> None:
    """Watch `path` for the events in `mask`, instead of earlier ones."""
    result = _libc.inotify_add_watch(inotify, os.fsencode(path), ctypes.c_uint32(mask))
    _checked(result, f"inotify_add_watch {path}")


def prctl(option: int, argument: int) -> None:
    """Call prctl(2) with one argument."""
    _checked(_libc.prctl(option, ctypes.c_ulong(argument), *_ZEROS), "prctl")


def drop_capabilities(*kept: int) -> None:
    """Drop every capability but those kept, which programs that are started do not get.

    To keep them from coming back needs PR_SET_NO_NEW_PRIVS too.
    """
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(64):
        try:
            prctl(_PR_CAPBSET_DROP, capability)
        except OSError as error:
            # beyond the last capability of this kernel; or an ordinary user, who has none to keep programs from
            if error.errno not in (_EINVAL, _EPERM):
                raise
            break
    set_capabilities(*kept)


def treat_root_as_any_user() -> None:
    """Give uid 0 no capabilities, now and when it starts programs, which needs CAP_SETPCAP."""
    try:
        prctl(_PR_SET_SECUREBITS, _SECUREBITS_WITHOUT_ROOT)
    except OSError as error:
        if error.errno != _EPERM:  # an ordinary user without namespaces, who has no capability to lose
            raise


def become_user_with_files_of(uid: int, files_uid: int) -> None:
    """Become a user who uses files as another one, which needs CAP_SETUID."""
    os.setresuid(uid, uid, uid)
    _libc.setfsuid(files_uid)
    if _libc.setfsuid(-1) != files_uid:  # it reports no error, only the uid before
        raise OSError(_EPERM, os.strerror(_EPERM), "setfsuid")


def set_capabilities(*kept: int) -> None:
    """Give up every capability but those kept."""
    mask = sum(1 << capability for capability in kept)
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _checked(_libc.syscall(_NUMBERS["capset"], header, struct.pack("6I", mask, mask, 0, 0, 0, 0)), "capset")


def raise_permitted_capabilities() -> None:
    """Make permitted capabilities effective again after a change of the effective uid."""
    header, data = struct.pack("Ii", _CAPABILITY_VERSION_3, 0), bytearray(24)
    buffer = (ctypes.c_char * len(data)).from_buffer(data)
    _checked(_libc.syscall(_NUMBERS["capget"], header, buffer), "capget")
    _, low, _, _, high, _ = struct.unpack("6I", data)  # effective, permitted, inheritable, of each half
    _checked(_libc.syscall(_NUMBERS["capset"], header, struct.pack("6I", low, low, 0, high, high, 0)), "capset")


def install_seccomp_filter(program: bytes) -> None:
    """Install a seccomp filter for this process and all that it starts."""
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a count, padding, a pointer
    fprog = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer)))
    _checked(_libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), fprog, *_ZEROS[:2]), "seccomp")


def bring_up_loopback() -> None:
    """Bring up the loopback of this network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP | _IFF_RUNNING))
