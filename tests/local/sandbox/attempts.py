"""Attempts to escape from a sandbox, each with a control.

The control shows that the attempt works where the layer that stops it is missing.

`trials.py` makes them. An attempt is a piece of Python that raises OSError, or returns something false, where it is
stopped. None does harm where it succeeds.
"""

from __future__ import annotations

from typing import NamedTuple


class Attempt(NamedTuple):
    """One way out.

    `control` is where it must succeed: "user" a plain process of this user, "nobody" one of an ordinary user, "root"
    one of root, "seccomp", "dumpable", "owner" or "network" a sandbox with that one layer left out, "proxy" one whose
    proxy checks nothing.
    """

    name: str
    control: str
    program: str


PRELUDE = """
import ctypes, errno, fcntl, json, mmap, os, pty, resource, signal, socket, stat, struct, subprocess, sys, time
c = json.loads(sys.argv[1])
nr = c["numbers"]
libc = ctypes.CDLL(None, use_errno=True)
def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result
def call(number, *arguments):
    return checked(libc.syscall(ctypes.c_long(number), *(
        ctypes.c_long(one) if isinstance(one, int) else one for one in arguments)))
def secret(path):
    with open(path) as file:
        return "host-secret" in file.read()
def in_new_user(flags=0):
    checked(libc.unshare(0x10000000 | flags))
def reached(number, *arguments):
    "Whether a call came as far as looking at its arguments, which are wrong."
    try:
        call(number, *arguments)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOSYS):
            raise
    return True
def in_child(action):
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if action() else 255)
        except OSError as error:
            os._exit(error.errno)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if 0 < code < 255:
        raise OSError(code, "")
    return code == 0
def tunnel(host, port=None):
    "Whether the proxy connects to a port, that of the service if no other is said."
    with socket.create_connection(("127.0.0.1", 3128), 5) as proxy:
        proxy.sendall(f"CONNECT {host}:{port or c['port']} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode())
        return proxy.recv(4096).split()[1:2] == [b"200"]
def attempt():
"""

EPILOGUE = """
try:
    print("OPEN" if attempt() else "closed")
except OSError as error:
    print("closed", errno.errorcode.get(error.errno, error.errno))
"""

_FILES = [
    Attempt("host file by its path", "user", "return secret(c['secret'])"),
    Attempt("directory of the host", "user", "return os.listdir(c['directory'])"),
    Attempt("host file through /proc/N/root", "user", "return secret(f'/proc/{c[\"pid\"]}/root{c[\"secret\"]}')"),
    Attempt("host file through /proc/N/cwd", "user", "return secret(f'/proc/{c[\"pid\"]}/cwd/secret')"),
    Attempt("host file through /proc/N/fd", "user", "return secret(f'/proc/{c[\"pid\"]}/fd/{c[\"fd\"]}')"),
    Attempt("hard link to a host file", "user", "os.link(c['secret'], 'hard'); return secret('hard')"),
    Attempt("symbolic link to a host file", "user", "os.symlink(c['secret'], 'soft'); return secret('soft')"),
    Attempt("a chain of ..", "user", "return secret('../' * 40 + c['secret'])"),
    Attempt("file of another session", "user", "return secret(c['other_file'])"),
    Attempt("shared memory file of the host", "user", "return secret(c['shm'])"),
    Attempt("write through a read-only bind", "user", "return open(c['bind'], 'a')"),
    Attempt("write to the runtime's Python", "root", "return open(os.__file__, 'a')"),
    Attempt("write to /usr", "root", "open('/usr/.agentbay', 'w'); os.unlink('/usr/.agentbay'); return True"),
    Attempt("file handle", "root", """
    handle = ctypes.create_string_buffer(struct.pack("Ii128x", 128, 0))
    call(nr["name_to_handle_at"], -100, b"/", handle, ctypes.byref(ctypes.c_int()), 0)
    return call(nr["open_by_handle_at"], os.open("/", os.O_RDONLY), handle, 0) >= 0"""),
]  # fmt: skip

_PROCESSES = [
    Attempt("environment of the service", "user", "return 'host-secret' in open(f'/proc/{c[\"pid\"]}/environ').read()"),
    Attempt("memory of the service", "user", "return open(f'/proc/{c[\"pid\"]}/mem', 'rb')"),
    Attempt("environment of process 1", "dumpable", "return open('/proc/1/environ', 'rb')"),
    Attempt("memory of process 1", "dumpable", "return open('/proc/1/mem', 'r+b')"),
    Attempt("own memory of process 1 by /proc/1/maps", "dumpable", "return open('/proc/1/maps').read()"),
    Attempt("descriptors of process 1", "dumpable", "return os.listdir('/proc/1/fd')"),
    Attempt("root of process 1", "dumpable", "return os.listdir('/proc/1/root')"),
    Attempt("ptrace the service", "user", "return checked(libc.ptrace(0x4206, c['pid'], 0, 0)) == 0"),
    Attempt("ptrace a neighbour", "seccomp", """
    child = subprocess.Popen(["sleep", "9"])
    try:
        return checked(libc.ptrace(0x4206, child.pid, 0, 0)) == 0
    finally:
        child.kill()"""),
    Attempt("process_vm_readv", "user", """
    here, buffer = ctypes.create_string_buffer(b"x" * 8), ctypes.create_string_buffer(8)
    local = struct.pack("PN", ctypes.addressof(buffer), 8)
    remote = struct.pack("PN", c["address"], 8)
    return call(nr["process_vm_readv"], c["pid"], local, 1, remote, 1, 0) == 8"""),
    Attempt("pidfd_getfd", "user", """
    fd = call(438, os.pidfd_open(c["pid"]), c["fd"], 0)
    return b"host-secret" in os.pread(fd, 4096, 0)"""),
    Attempt("inherited descriptors", "user", """
    for fd in range(3, 200):
        try:
            if b"host-secret" in os.pread(fd, 4096, 0):
                return True
        except OSError:
            continue"""),
    Attempt("signal the service", "user", "os.kill(c['pid'], 0); return True"),
    Attempt("signal a process of another session", "user", "os.kill(c['other_pid'], 0); return True"),
    Attempt("signal everyone", "nobody", """
    os.kill(-1, signal.SIGWINCH)
    time.sleep(0.3)
    return True"""),
    Attempt("shared memory segment of the host", "user", "return checked(libc.shmget(c['segment'], 0, 0)) >= 0"),
]  # fmt: skip

_SOCKETS = [
    Attempt("control port", "network", "return socket.create_connection(('127.0.0.1', c['port']), 2)"),
    Attempt("datagram to the loopback", "network", """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        sock.connect(("127.0.0.1", c["datagrams"]))
        sock.send(b"x")
        return sock.recv(9) == b"x" """),
    Attempt("abstract socket", "network",
            "return socket.socket(socket.AF_UNIX).connect('\\0' + c['abstract']) is None"),
    Attempt("socket by its path", "user", "return socket.socket(socket.AF_UNIX).connect(c['socket']) is None"),
    Attempt("raw socket", "root", "return socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)"),
    Attempt("vsock", "seccomp", "return socket.socket(40, socket.SOCK_STREAM)"),
    Attempt("socket whose family loads a kernel module", "seccomp", "return socket.socket(29, socket.SOCK_RAW, 1)"),
    Attempt("kernel crypto socket", "seccomp", "return socket.socket(38, socket.SOCK_SEQPACKET)"),
]  # fmt: skip

_PROXY = [
    Attempt(f"control port through the proxy as {host}", "proxy", f"return tunnel({host!r})")
    for host in ("localhost", "127.0.0.1", "127.1", "0x7f000001", "2130706433", "017700000001", "127.0.0.1.",
                 "0.0.0.0", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]")
] + [
    Attempt("another port through the proxy", "proxy", "return tunnel('127.0.0.1', c['other_port'])"),
    Attempt("the control port by its name in upper case", "proxy", "return tunnel('LOCALHOST')"),
    Attempt("control port through the proxy by a plain request", "proxy", """
    with socket.create_connection(("127.0.0.1", 3128), 5) as proxy:
        proxy.sendall(f"GET http://127.0.0.1:{c['answering_port']}/ HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode())
        return proxy.recv(4096).split()[1:2] == [b"204"]"""),
    Attempt("control port through an upgraded request", "proxy", """
    with socket.create_connection(("127.0.0.1", 3128), 5) as proxy:
        head = f"GET http://localhost:{c['answering_port']}/ws HTTP/1.1\\r\\nHost: x\\r\\n"
        proxy.sendall((head + "Connection: upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n").encode())
        return proxy.recv(4096).split()[1:2] == [b"204"]"""),
]  # fmt: skip

_RIGHTS = [
    Attempt("setuid program", "nobody", """
    child = subprocess.Popen(["/usr/bin/su"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(0.1)
    status = open(f"/proc/{child.pid}/status").read()
    child.stdin.close()
    child.wait()
    return [line.split()[2] for line in status.splitlines() if line.startswith("Uid:")] == ["0"]"""),
    Attempt("become root", "root", "os.setuid(0); return True"),
    Attempt("raise a limit", "root", """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    except ValueError as error:
        raise PermissionError(errno.EPERM, str(error))
    return True"""),
    Attempt("spare oneself from the memory killer", "root",
            "return os.write(os.open('/proc/self/oom_score_adj', os.O_WRONLY), b'-999')"),
    Attempt("user namespace", "seccomp", "return in_child(lambda: in_new_user() is None)"),
    Attempt("user namespace by clone", "seccomp", """
    child = call(nr["clone"], 0x10000011, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return True"""),
    Attempt("user namespace by clone3", "seccomp", """
    arguments = ctypes.create_string_buffer(struct.pack("8Q", 0x10000000, 0, 0, 0, 17, 0, 0, 0))
    child = call(435, arguments, 64)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return True"""),
    Attempt("mount", "seccomp", """
    def action():
        in_new_user(0x20000)
        return checked(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)) == 0
    return in_child(action)"""),
    Attempt("mount by the newer calls", "seccomp", """
    def action():
        in_new_user(0x20000)
        return call(430, b"tmpfs", 0) >= 0
    return in_child(action)"""),
    Attempt("pivot_root", "seccomp", """
    def action():
        in_new_user(0x20000)
        checked(libc.mount(None, b"/", None, ctypes.c_ulong(1 << 14 | 1 << 18), None))
        checked(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None))
        os.chdir("/mnt")
        return call(nr["pivot_root"], b".", b".") == 0
    return in_child(action)"""),
    Attempt("chroot and out of it", "seccomp", """
    def action():
        in_new_user()
        os.makedirs("jail", exist_ok=True)
        above = os.open(".", os.O_RDONLY)
        os.chroot("jail")
        os.fchdir(above)
        return os.path.exists("jail")
    return in_child(action)"""),
    Attempt("enter another user namespace", "seccomp", """
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            in_new_user()
        finally:
            os.write(tell, b"x")
            time.sleep(5)
    try:
        os.read(ready, 1)
        return checked(libc.setns(os.open(f"/proc/{child}/ns/user", os.O_RDONLY), 0)) == 0
    finally:
        os.kill(child, 9)"""),
    Attempt("enter the service's namespaces", "root",
            "return checked(libc.setns(os.open(f'/proc/{c[\"pid\"]}/ns/net', os.O_RDONLY), 0)) == 0"),
    Attempt("control groups", "root", "return os.open(c['cgroup'], os.O_WRONLY)"),
    Attempt("change the host name", "root", "return socket.sethostname(socket.gethostname()) is None"),
]  # fmt: skip

_KERNEL = [
    Attempt("make a device", "root", """
    os.mknod("log", stat.S_IFCHR | 0o600, os.makedev(1, 11))
    return os.open("log", os.O_WRONLY)"""),
    Attempt("the machine's disk", "root", "return os.open(c['disk_path'], os.O_RDONLY)"),
    Attempt("kernel log device", "root", "return os.open('/dev/kmsg', os.O_WRONLY)"),
    Attempt("kernel log", "root", "return call(nr['syslog'], 3, ctypes.create_string_buffer(64), 64) >= 0"),
    Attempt("kernel memory", "root", "return os.open('/dev/mem', os.O_RDONLY)"),
    Attempt("core_pattern", "owner", "return os.open('/proc/sys/kernel/core_pattern', os.O_WRONLY)"),
    Attempt("another kernel setting", "owner", "return os.open('/proc/sys/vm/overcommit_memory', os.O_WRONLY)"),
    Attempt("sysrq", "owner", "return os.open('/proc/sysrq-trigger', os.O_WRONLY)"),
    Attempt("firmware and devices in /sys", "root", "return os.listdir('/sys/kernel')"),
    Attempt("load a module", "root", "return reached(nr['finit_module'], -1, b'', 0)"),
    Attempt("reboot", "root", "return reached(nr['reboot'], 0, 0, 0, 0)"),
    Attempt("swap", "root", "return reached(nr['swapon'], b'/nowhere', 0)"),
    Attempt("kexec", "root", "return reached(nr['kexec_load'], 0, 99, 0, 1)"),
    Attempt("keyring", "seccomp", "return call(nr['keyctl'], 0, -3, 1) > 0"),
    Attempt("new key", "seccomp", "return call(nr['add_key'], b'user', b'agentbay', b'x', 1, -2) > 0"),
    Attempt("bpf", "root", """
    request = ctypes.create_string_buffer(struct.pack("5I60x", 2, 4, 4, 1, 0))
    return call(nr["bpf"], 0, request, 72) >= 0"""),
    Attempt("perf events", "seccomp", """
    request = ctypes.create_string_buffer(struct.pack("IIQ24xQ64x", 1, 112, 0, 0x61))
    return call(nr["perf_event_open"], request, 0, -1, -1, 0) >= 0"""),
    Attempt("userfaultfd", "seccomp", "return call(nr['userfaultfd'], 1) >= 0"),
    Attempt("io_uring", "seccomp", "return call(425, 4, ctypes.create_string_buffer(256)) >= 0"),
    Attempt("characters into the terminal", "seccomp", """
    child, master = pty.fork()
    if child == 0:
        try:
            fcntl.ioctl(0, 0x5412, b"x")
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, "")
    return True"""),
    Attempt("x32 system call", "seccomp", "return call(0x40000000 + 39) == os.getpid()"),
    Attempt("32-bit system call", "seccomp", """
    def action():
        page = mmap.mmap(-1, 4096, prot=7)
        page.write(b"\\x53\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\x5b\\xc3")  # getpid by int 0x80
        function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        return function() == os.getpid()
    return in_child(action)"""),
]  # fmt: skip

ATTEMPTS = [*_FILES, *_PROCESSES, *_SOCKETS, *_PROXY, *_RIGHTS, *_KERNEL]


def source(attempt: Attempt) -> str:
    """Return the program of an attempt."""
    body = attempt.program if attempt.program.startswith("\n") else "\n    " + attempt.program
    return PRELUDE + body.lstrip("\n") + "\n" + EPILOGUE
