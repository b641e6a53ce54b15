from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from agentbay.local.sandbox.service.manager import BindMount, SandboxError
from agentbay.local.sandbox.shared import landlock, seccomp, syscalls
from agentbay.local.sandbox.zygote import idmap
from tests.local.sandbox.conftest import sandbox_factory
from tests.local.traces import names_in_home
from tests.local.users import ROOT

PROBE = """
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def code(result):
    return "open" if result >= 0 else errno.errorcode[ctypes.get_errno()]
def attempt(name, action):
    try:
        print(name, action())
    except OSError as error:
        print(name, errno.errorcode[error.errno])
attempt("user namespace", lambda: code(libc.unshare(0x10000000)))
attempt("mount", lambda: code(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)))
attempt("clone3", lambda: code(libc.syscall(435, None, 0)))
attempt("clone", lambda: code(libc.syscall(CLONE, 0x10000011, 0, 0, 0, 0)))
attempt("ptrace", lambda: code(libc.ptrace(16, 1, 0, 0)))
attempt("io_uring", lambda: code(libc.syscall(425, 4, ctypes.create_string_buffer(256))))
attempt("keyctl", lambda: code(libc.syscall(KEYCTL, 0, -3, 1)))
attempt("chroot", lambda: os.chroot("/tmp"))
attempt("vsock", lambda: socket.socket(40, socket.SOCK_STREAM))
attempt("core_pattern", lambda: os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))
attempt("environ of 1", lambda: open("/proc/1/environ").read())
attempt("descriptors of 1", lambda: os.listdir("/proc/1/fd"))
attempt("root of 1", lambda: os.listdir("/proc/1/root"))
attempt("kill 1", lambda: os.kill(1, 9))
attempt("setuid", lambda: os.setuid(0))
attempt("write /usr", lambda: open("/usr/x", "w"))
attempt("write /etc", lambda: open("/etc/passwd", "a"))
attempt("write /", lambda: os.mkdir("/x"))
attempt("device", lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0)) or open("/tmp/disk"))
"""


async def test_doors_are_closed(factory):
    """The usual ways out and into the kernel's attics are refused."""
    numbers = seccomp._X86_64 if syscalls.ARCHITECTURE == "x86_64" else seccomp._AARCH64
    clone = seccomp._ARCHITECTURES[syscalls.ARCHITECTURE][2]
    sandbox = await factory.make()
    program = PROBE.replace("CLONE", str(clone)).replace("KEYCTL", str(numbers["keyctl"]))
    done = await sandbox.run(["python3", "-c", program])
    found = dict(line.rsplit(" ", 1) for line in done.stdout.decode().splitlines())
    assert found.pop("write /etc") in ("EACCES", "EROFS")  # the file is root's; where there is no root, read-only
    assert found == {
        "user namespace": "EPERM", "mount": "EPERM", "clone3": "ENOSYS", "clone": "EPERM", "ptrace": "EPERM",
        "io_uring": "EPERM", "keyctl": "EPERM", "chroot": "EPERM", "vsock": "EAFNOSUPPORT",
        "core_pattern": "EACCES", "environ of 1": "EACCES", "descriptors of 1": "EACCES", "root of 1": "EACCES",
        "kill 1": "None", "setuid": "EPERM" if ROOT else "EINVAL", "write /usr": "EROFS", "write /": "EROFS",
        "device": "EPERM",
    }  # fmt: skip
    assert sandbox.alive


async def test_no_privilege(factory):
    """The user has no capabilities, and is neither root nor in its groups."""
    sandbox = await factory.make()
    status = (await sandbox.run(["cat", "/proc/self/status"])).stdout.decode()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    assert {fields[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (fields["NoNewPrivs"].strip(), fields["Seccomp"].strip()) == ("1", "2")
    owner = (factory.directory / "sandbox-1" / "home").stat().st_uid
    assert factory.manager.owner[0] == owner != 0
    uid, gid = sandbox.host_ids or factory.manager.owner
    inside = (await sandbox.run(["cat", "/proc/self/uid_map", "/proc/self/gid_map"])).stdout.split()
    user, group = [b"1000", b"%d" % uid, b"1"], [b"1000", b"%d" % gid, b"1"]
    if sandbox.host_ids:  # file operations have the second uid, and nobody has that of root
        root = [b"0", b"%d" % (owner - 1), b"1"]
        assert inside == [*user, b"1001", b"%d" % (uid + 1), b"1", *root, *group, *root]
    else:
        assert inside == [*user, *group]
    if sandbox.host_ids:  # of root's sandboxes, each has a user of its own
        assert sandbox.host_ids not in ((0, 0), factory.manager.owner, (await factory.make()).host_ids)


def can_map_ids(path: str) -> bool:
    """Return whether the file system of a path can show its files as another user's."""
    tree = syscalls.clone_tree(path, syscalls.MOUNT_ATTR_RDONLY)
    namespace = idmap.open_idmap_from((0, 0), (100, 100), "/proc")
    try:
        syscalls.idmap_tree(tree, namespace)
    except OSError:  # an overlay, the root of many containers
        return False
    finally:
        os.close(tree)
        os.close(namespace)
    return True


# what belongs to neither root nor the session's user, but for the file systems of the kernel
FOREIGN = (
    "find / -maxdepth 2 ( -path /proc -o -path /dev/* -o -path /tmp -o -path /home/wuying -o -path "
    "/opt/session-python ) -prune -o ( ! -user root -o ! -group root ) -print"
)


@pytest.mark.skipif(not ROOT, reason="an ordinary user cannot map the id of root")
async def test_files_outside_the_home_are_roots(factory):
    """Programs that ask whom a file belongs to find root, and the session's user can still change none of them."""
    sandbox = await factory.make(binds=[BindMount(str(factory.directory), "/data/deep/context")])
    places = ["/", "/etc", "/etc/passwd", "/home", "/dev", "/dev/shm", "/workspace", "/data", "/data/deep"]
    places.append("/tmp/.X11-unix")
    done = await sandbox.run(["stat", "-c", "%u:%g %n", *places])
    assert done.stdout.decode().split("\n")[:-1] == [f"0:0 {place}" for place in places]
    if can_map_ids("/usr") and can_map_ids("/etc"):
        foreign = (await sandbox.run(FOREIGN.split())).stdout.decode().split()
        assert [path for path in foreign if not path.startswith("/var")] == []
    tried = await sandbox.run(["sh", "-c", "for f in / /etc/passwd /usr/bin/env /dev /data; do chmod 777 $f; done"])
    assert tried.stderr.decode().count("\n") == 5
    assert (await sandbox.run(["sh", "-c", "touch ~/a /tmp/b; stat -c %U ~/a /tmp/b ~"])).stdout == b"wuying\n" * 3


BECOME = """
import os, sys
from agentbay.local.sandbox.shared import seccomp, syscalls
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
syscalls.install_seccomp_filter(seccomp.build_filter(syscalls.ARCHITECTURE, sys.argv[1] == "refuses"))
for call in (lambda: os.setuid(0), lambda: os.setreuid(0, -1), lambda: os.setreuid(-1, 0),
             lambda: os.setresuid(-1, -1, 0), lambda: syscalls._libc.setfsuid(0) and None, lambda: os.setuid(1)):
    try:
        call()
        print("did", syscalls._libc.setfsuid(-1))
    except OSError as error:
        print(error.errno)
"""


@pytest.mark.skipif(not ROOT, reason="takes the right to change one's uid")
def test_process_1_cannot_become_the_root_that_is_seen():
    """Process 1 may change its uid, so a filter keeps it from that of root, whose files it could read."""
    said = {
        answer: subprocess.run(
            [sys.executable, "-c", BECOME, answer], capture_output=True, text=True, check=True
        ).stdout.split("\n")
        for answer in ("refuses", "allows")
    }
    assert said["refuses"][:4] == ["1"] * 4
    assert said["refuses"][5] == said["allows"][5] == "did 1"
    assert said["allows"][:5] == ["did 0"] * 5


async def test_the_host_is_invisible(tmp_path, monkeypatch):
    """Neither files nor processes nor variables of the host can be seen."""
    monkeypatch.setenv("AGENTBAY_API_KEY", "host-secret-1")
    (tmp_path / "host-secret-2").write_text("x")
    async with sandbox_factory(tmp_path) as factory:
        sandbox = await factory.make()
        done = await sandbox.run(
            ["bash", "-c", f"ls {tmp_path}; ls -A /home /root /tmp /var /run /srv /opt /mnt; ls /proc"]
        )
        listing = done.stdout.decode()
        assert "host-secret" not in listing
        assert f"/home:\n{names_in_home()}\n" in listing
        assert "/tmp:\n.X11-unix\n" in listing
        assert "/var:\ncache\nrun\ntmp\n" in listing or "/var:\nrun\ntmp\n" in listing
        assert [int(name) for name in listing.split() if name.isdigit()][:1] == [1]
        assert len([name for name in listing.split() if name.isdigit()]) <= 3
        everything = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null; env; mount; cat /etc/passwd"
        assert b"host-secret" not in (await sandbox.run(["bash", "-c", everything])).stdout
        assert (
            await sandbox.run(["bash", "-c", "wc -l < /etc/passwd; id -un; hostname"])
        ).stdout == b"3\nwuying\nagentbay\n"


async def test_the_network_is_its_own(factory):
    """Network "none" has a loopback of its own, "host" that of the host.

    Of these, Landlock closes the abstract sockets where the kernel has it.
    """
    abstract_socket = b"1" if landlock.abi_version() >= landlock.REQUIRED_ABI else b"0"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        abstract = socket.socket(socket.AF_UNIX)
        abstract.bind(f"\0agentbay-test-{port}")
        abstract.listen()
        program = (
            "import socket\n"
            "for address in (('127.0.0.1', PORT), '\\0agentbay-test-PORT'):\n"
            "    s = socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX)\n"
            "    print(s.connect_ex(address))\n"
            "own = socket.create_server(('127.0.0.1', 0)); socket.create_connection(own.getsockname()); print('own')\n"
        ).replace("PORT", str(port))

        alone, shared = await factory.make(), await factory.make(network="host")
        assert (await alone.run(["python3", "-c", program])).stdout == b"111\n111\nown\n"
        assert (await shared.run(["python3", "-c", program])).stdout == b"0\n%b\nown\n" % abstract_socket
        assert len((await alone.run(["cat", "/proc/net/dev"])).stdout.splitlines()) == 3
        abstract.close()


async def test_two_sandboxes_are_strangers(factory):
    """Files, processes, shared memory, sockets and names of one are not there in another."""
    first, second = await factory.make(), await factory.make(hostname="other")
    await first.run(
        ["bash", "-c", "touch ~/mark /tmp/mark /dev/shm/mark; setsid sleep 4242 >&/dev/null & ipcmk -Q -p 666"]
    )
    look = "ls ~/mark /tmp/mark /dev/shm/mark; ps ax | grep '[4]242'; ipcs -q | grep -c 666; hostname"
    assert (await second.run(["bash", "-c", look])).stdout == b"0\nother\n"
    assert b"mark" in (await first.run(["bash", "-c", look])).stdout


async def test_binds(factory, tmp_path):
    """A bind is live, at any target, writable only if asked for."""
    shared, single = tmp_path / "shared", tmp_path / "single"
    shared.mkdir()
    single.write_text("one\n")
    os.chown(shared, *factory.manager.owner)
    binds = [
        BindMount(str(shared), "/home/wuying/deep/er/data"),
        BindMount(str(shared), "/mnt/view", read_only=True),
        BindMount(str(shared), "/tmp/data"),
        BindMount(str(single), "/opt/some/file", read_only=True),
    ]
    sandbox = await factory.make(binds=binds)
    await sandbox.run(["bash", "-c", "echo x > deep/er/data/f; touch deep/mine"])
    assert (shared / "f").read_text() == "x\n"
    (shared / "g").write_text("y\n")
    done = await sandbox.run(["bash", "-c", "cat /mnt/view/f /tmp/data/g /opt/some/file; touch /mnt/view/h"])
    assert done.stdout == b"x\ny\none\n"
    assert b"Read-only file system" in done.stderr
    with pytest.raises(SandboxError, match="No such file"):
        await factory.make(binds=[BindMount(str(tmp_path / "missing"), "/mnt/x")])


async def test_tools_work(factory):
    """Shell, Python with its library, git and temporary files work out of the box."""
    sandbox = await factory.make()
    script = (
        "set -e; python3 -c 'import ssl, sqlite3, tempfile, multiprocessing as m; tempfile.mkdtemp(); m.Lock();"
        "print(m.Pool(2).map(abs, [-1]))'; if command -v git >/dev/null; then git init -q r; cd r; fi; "
        "mktemp >/dev/null; echo x | tee /dev/null; echo <(echo y) >/dev/null; test -w /dev/shm; test -c /dev/null"
    )
    done = await sandbox.run(["bash", "-c", script])
    assert (done.exit_code, done.stdout, done.stderr) == (0, b"[1]\nx\n", b"")
    assert (await sandbox.run(["python3", "-c", "import pty; pty.spawn(['tty'])"])).stdout == b"/dev/pts/0\r\n"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filter_is_well_formed(machine):
    """Every jump of the filter stays inside it, and it ends with a verdict."""
    program = seccomp.build_filter(machine)
    steps = [program[i : i + 8] for i in range(0, len(program), 8)]
    assert len(program) % 8 == 0
    assert len(steps) < 4096
    for position, step in enumerate(steps):
        if step[0] in (0x15, 0x35, 0x45):
            assert position + 1 + max(step[2], step[3]) < len(steps)
    assert steps[-1][0] == 0x06


async def test_locks_of_system_files_end_with_the_session(factory):
    """Code can lock files of the system, which no filter can see; deleting the session ends its locks."""
    sandbox = await factory.make()
    path = Path("/usr/bin/env").resolve()
    await sandbox.run(
        ["sh", "-c", f"flock {path} sh -c 'echo locked > out; sleep 99' & until [ -s out ]; do sleep 0.05; done"]
    )
    with path.open() as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        await sandbox.close()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


MAPPINGS = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
# of other rights than the one before, or the kernel would join them
for number in range(LIMIT + 1):
    if libc.mmap(None, ctypes.c_size_t(4096), number % 2 + 1, 0x22, -1, ctypes.c_long(0)) == ctypes.c_void_p(-1).value:
        break
print(number, ctypes.get_errno())
"""


async def test_mappings_are_bounded(factory):
    """A process has as many mappings as the machine allows, and no more."""
    limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    sandbox = await factory.make()
    done = await sandbox.run(["python3", "-c", MAPPINGS.replace("LIMIT", str(limit))])
    count, code = map(int, done.stdout.split())
    assert (limit - 1000 < count < limit, code) == (True, errno.ENOMEM)


def verdict(program: bytes, audit: int, number: int) -> int:
    """Run a filter for a system call whose arguments are 0, as the kernel does."""
    data = struct.pack("=iIQ6Q", number, audit, 0, *[0] * 6)
    steps, position, loaded = list(struct.iter_unpack("=HBBI", program)), 0, 0
    while True:
        code, if_true, if_false, value = steps[position]
        position += 1
        if code == 0x20:
            (loaded,) = struct.unpack_from("=I", data, value)
        elif code == 0x06:
            return int(value)
        else:
            passes = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[code]
            position += if_true if passes else if_false


@pytest.mark.parametrize(
    ("machine", "audit", "read", "mount"), [("x86_64", 0xC000003E, 0, 165), ("aarch64", 0xC00000B7, 63, 40)]
)
def test_system_calls_of_later_kernels(machine, audit, read, mount):
    """Calls that are newer than the filter do not exist for sessions, so programs do without them."""
    program = seccomp.build_filter(machine)
    allow, no_permission, missing = 0x7FFF0000, 0x00050001, 0x00050026
    assert [verdict(program, audit, number) for number in (read, mount, 469, 470, 600, 0x40000000 + mount)] == [
        allow, no_permission, allow, missing, missing, missing
    ]  # fmt: skip
    assert verdict(program, audit ^ 1, read) == 0x80000000
