"""Abuse of one sandbox, which another must not notice, and limited machines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentbay.local.sandbox.service import config_builder
from agentbay.local.sandbox.service.manager import IsolationUnavailable, Limits, Sandbox
from agentbay.local.sandbox.service.spec import MIB
from agentbay.local.sandbox.shared import landlock
from tests.local.sandbox.conftest import SandboxFactory
from tests.local.sandbox.test_lifecycle import SOURCE
from tests.local.traces import PATIENCE

ANSWERS = 10  # that another sandbox must give meanwhile, however long that takes on this machine

BOMB = "bomb() { bomb | bomb & }; while :; do bomb; done 2>/dev/null"
ALLOCATION = "b = bytearray(10 << 30)\nfor i in range(0, len(b), 4096): b[i] = 1"
PIECES = "import os\nwhile os.fork(): pass\nb = bytearray(10 << 30)\nfor i in range(0, len(b), 4096): b[i] = 1"
FLOOD = "cat /dev/zero & cat /dev/zero >&2 & cat /dev/zero | tee /dev/stderr"
DISK = "i=0; while :; do head -c 20000000 /dev/zero > f$i; i=$((i+1)); done"
FILES = """
import os
opened = []
try:
    while len(opened) < 10_000:
        opened.append(os.open(f"/tmp/{len(opened)}", os.O_CREAT | os.O_RDWR))
except OSError as error:
    print(len(opened), error.strerror, flush=True)
for i in range(10_000):
    open(f"/tmp/many-{i}", "w").close()
"""
SPIN = "for i in $(seq 50); do while :; do :; done & done; wait"

ABUSES = {
    "fork bomb": ["bash", "-c", BOMB],
    "10 GiB at once": ["python3", "-c", ALLOCATION],
    "10 GiB in each of many": ["python3", "-c", PIECES],
    "flood of output": ["bash", "-c", FLOOD],
    "full disk": ["bash", "-c", DISK],
    "10,000 open files": ["python3", "-c", FILES],
    "all processors": ["bash", "-c", SPIN],
}


async def abuse(sandbox: Sandbox, argv: list[str]) -> None:
    """Repeat a command: that a limit ends it soon must not relieve the others."""
    while True:
        done = await sandbox.run(argv, output_limit=MIB)
        assert len(done.stdout) + len(done.stderr) < 3 * MIB


@pytest.mark.parametrize("groups", [True, False], ids=["groups", "no groups"])
@pytest.mark.parametrize("argv", ABUSES.values(), ids=ABUSES)
async def test_others_keep_answering(factory: SandboxFactory, argv, groups):
    """Another sandbox stays responsive, and the abused one works again afterwards."""
    if not groups:
        factory.manager.disable_cgroups()
    elif factory.manager.cgroups is None:
        pytest.skip("no control groups can be made here")
    limits = Limits(processes=200, total_memory_bytes=512 * MIB, disk_bytes=200 * MIB)
    abused, other = await factory.make(limits=limits), await factory.make()
    abusing, began, answers = asyncio.create_task(abuse(abused, argv)), time.monotonic(), 0
    while answers < ANSWERS or time.monotonic() < began + 1.5:  # to do its worst takes it a while
        assert not abusing.done(), abusing
        assert (await other.run(["true"])).exit_code == 0
        answers += 1
        await asyncio.sleep(0.02)
    abusing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await abusing
    assert sum(path.stat().st_size for path in (factory.directory / "sandbox-1/home").iterdir()) < 2000 * MIB
    assert abused.alive
    until = time.monotonic() + PATIENCE  # what it has done may be found out, and stopped, a moment later
    while (await abused.run(["echo", "fine"])).stdout != b"fine\n":
        assert time.monotonic() < until


async def test_open_files_are_limited(factory):
    """The limit of open files is each process's own."""
    done = await (await factory.make()).run(["python3", "-c", FILES])
    assert done.stdout == b"4093 Too many open files\n"


TRY = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from agentbay.local.sandbox.service import capability_probe
from agentbay.local.sandbox.service.manager import IsolationUnavailable, SandboxManager
async def main():
    try:
        manager = await SandboxManager.start()
    except IsolationUnavailable as obstacle:
        print("refused:", obstacle.missing[0])
    else:
        print("works, control groups:", manager.cgroups is not None)
        await manager.close()
asyncio.run(main())
for result in capability_probe.probe_all()[:3]:
    print(result.name, result.works, result.detail)
"""
MACHINES = {
    # as Docker does by default: no capability for it, and namespaces forbidden by a filter
    "container": """
import struct, sys
sys.path.insert(0, sys.argv[1])
from agentbay.local.sandbox.shared import syscalls
numbers = {"x86_64": (165, 272, 308, 166, 155), "aarch64": (40, 97, 268, 39, 41)}[syscalls.ARCHITECTURE]
program = struct.pack("HBBI", 0x20, 0, 0, 0)
for number in numbers:
    program += struct.pack("HBBI", 0x15, 0, 1, number) + struct.pack("HBBI", 6, 0, 0, 0x50001)
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
syscalls.install_seccomp_filter(program + struct.pack("HBBI", 6, 0, 0, 0x7fff0000))
""",
    # the sysctl, which is counted for each user namespace, so that the machine's own need not be touched
    "no user namespaces": """
import os, sys
sys.path.insert(0, sys.argv[1])
from agentbay.local.sandbox.shared import syscalls
user, group, count = os.geteuid(), os.getegid(), 1 if os.geteuid() else 1 << 31
entered, tell = os.pipe()
helper = os.fork()
if helper == 0:
    os.read(entered, 1)
    maps = ("gid_map", f"{group} {group} {count}"), ("uid_map", f"{user} {user} {count}")
    for name, text in (("setgroups", "deny"), *maps):
        with open(f"/proc/{os.getppid()}/{name}", "w") as file:
            file.write(text)
    os._exit(0)
syscalls.unshare(syscalls.CLONE_NEWUSER)
os.write(tell, b"x")
os.waitpid(helper, 0)
os.close(entered), os.close(tell)
open("/proc/sys/user/max_user_namespaces", "w").write("0")
if os.geteuid():
    syscalls.drop_capabilities()
""",
    # a kernel from before mount_setattr, 5.12
    "old kernel": """
import struct, sys
sys.path.insert(0, sys.argv[1])
from agentbay.local.sandbox.shared import syscalls
program = struct.pack("HBBI", 0x20, 0, 0, 0) + struct.pack("HBBI", 0x15, 0, 1, 442)
program += struct.pack("HBBI", 6, 0, 0, 0x50026) + struct.pack("HBBI", 6, 0, 0, 0x7fff0000)
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
syscalls.install_seccomp_filter(program)
""",
    # a kernel before Landlock's ABI 6: it does not know all that it is asked for
    "old landlock": """
import struct, sys
sys.path.insert(0, sys.argv[1])
from agentbay.local.sandbox.shared import landlock, syscalls
landlock.abi_version = lambda: 2
program = struct.pack("HBBI", 0x20, 0, 0, 0) + struct.pack("HBBI", 0x15, 0, 1, 444)
program += struct.pack("HBBI", 6, 0, 0, 0x50007) + struct.pack("HBBI", 6, 0, 0, 0x7fff0000)
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
syscalls.install_seccomp_filter(program)
""",
    # a kernel without it
    "no landlock": """
import struct, sys
sys.path.insert(0, sys.argv[1])
from agentbay.local.sandbox.shared import syscalls
program = struct.pack("HBBI", 0x20, 0, 0, 0) + struct.pack("HBBI", 0x15, 0, 1, 444)
program += struct.pack("HBBI", 6, 0, 0, 0x50026) + struct.pack("HBBI", 6, 0, 0, 0x7fff0000)
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
syscalls.install_seccomp_filter(program)
""",
    # no control group is mounted
    "no control groups": """
import sys
sys.path.insert(0, sys.argv[1])
from agentbay.local.sandbox.service import cgroups
cgroups._find_hierarchies = lambda mountinfo, membership: iter(())
""",
}


@pytest.mark.parametrize(
    ("machine", "said", "landlock_says"),
    [
        ("container", "refused: This container may not make namespaces", ""),
        (
            "no user namespaces",
            "refused: User namespaces are switched off: set the sysctl user.max_user",
            "",
        ),
        ("old kernel", "refused: The kernel is too old", ""),
        ("no control groups", "works, control groups: False", ""),
        ("no landlock", "works", "The kernel offers no Landlock"),
        ("old landlock", "works", "The kernel offers Landlock ABI 2: 6 is needed, which Linux 6.12 brought"),
    ],
)
def test_machines_that_lack_something(machine, said, landlock_says):
    """Each machine gets its isolation, or a refusal that names the way out.

    Nothing runs with less isolation unasked; asked, the results below work as far as the kernel goes.
    """
    done = subprocess.run(
        [sys.executable, "-c", MACHINES[machine] + TRY, SOURCE],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.startswith(said)
    results = {line.split()[0]: line.split(" ", 2)[1:] for line in done.stdout.splitlines()[1:]}
    assert results["namespaces"][0] == str(said.startswith("works"))
    if landlock.abi_version() >= landlock.REQUIRED_ABI or landlock_says:
        assert results["landlock"][0] == str(not landlock_says)
        assert results["landlock"][1].startswith(landlock_says)
    assert results["none"][0] == "True"


@pytest.mark.parametrize(
    ("id_map", "expected"),
    [
        ("0 0 4294967295", (1_000_000, 1_000_000)),
        ("0 100000 65536", (65533, 65533)),
        ("0 1000 1\n1 100000 65536", (65534, 65534)),
        ("0 1000 1", None),
        ("0 0 1", "no ids for sandboxes"),
    ],
)
def test_owners_where_ids_are_few(monkeypatch, id_map, expected):
    """Root in a container gives its sandboxes an existing id, never root's outside."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(Path, "read_text", lambda path: id_map)
    if isinstance(expected, str):
        with pytest.raises(IsolationUnavailable, match=expected):
            config_builder.sandbox_owner()
    else:
        assert config_builder.sandbox_owner() == expected


async def test_the_first_process_shows_no_path_of_the_host(factory):
    """The command line of process 1 hides the package's path on the host."""
    done = await (await factory.make()).run(["cat", "/proc/1/cmdline"])
    assert done.stdout.rstrip(b"\0") == b"agentbay-sandbox"
    zygote = Path(f"/proc/{factory.manager._zygote._process.pid}/cmdline").read_bytes()
    assert os.fsencode(SOURCE) not in zygote
