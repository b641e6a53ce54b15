"""Exhaust in one sandbox what the kernel counts for each host uid.

Print what another can still do.

Usage: quotas.py SOURCE DIRECTORY LACKING. Prints the results as JSON; LACKING names the layer that is left out, or "".
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from agentbay.local.sandbox.service import zygote_process
from agentbay.local.sandbox.service.manager import (
    ResourceCreationFailed,
    Sandbox,
    SandboxManager,
    SandboxSpec,
)
from agentbay.local.sandbox.shared.file_protocol import ReadFile, WriteFile

PATIENCE = 60.0
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
# what a zygote does without one of its layers
LEFT_OUT = {
    "terminals": "from agentbay.local.sandbox.zygote import rootfs as r; r._MAX_TERMINALS = 1000; ",
    "inotify": "from agentbay.local.sandbox.zygote import namespaces as n; n._MAX_INOTIFY_INSTANCES = 100; ",
    "rlimits": "from agentbay.local.sandbox.zygote import rlimits as r; r._MAX_PENDING_SIGNALS = 10000; "
    "r._MAX_MESSAGE_QUEUE_BYTES = 800_000; ",
    "seccomp": "from agentbay.local.sandbox.shared import seccomp; "
    "seccomp.build_filter = lambda *_: bytes.fromhex('060000000000ff7f'); ",  # allow all
}
FLOOD = """
import array, os, socket, time
fds, keep = array.array("i", [os.open("/dev/null", 0)] * 253), []
try:
    for _ in range(20):
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        keep.append((a, b))
        for _ in range(4):
            a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
except OSError as error:
    print(error.errno, flush=True)
open("flooded", "w").close()
time.sleep(600)
"""
COUNTS = """
import ctypes, json, os, resource, signal, socket
libc = ctypes.CDLL(None, use_errno=True)
def count(limit, attempt):
    done = 0
    while done < limit and attempt():
        done += 1
    return done
def terminal():
    try:
        return os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY) >= 0
    except OSError:
        return False
def queued():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
    return libc.sigqueue(os.getpid(), signal.SIGRTMIN, None) == 0
names = iter(range(100))
libc.mq_open.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
def queue():
    return libc.mq_open(b"/q%d" % next(names), os.O_CREAT | os.O_RDWR, 0o600, None) >= 0
print(json.dumps({
    "terminals": count(70, terminal),
    "inotify": count(40, lambda: libc.inotify_init1(0) >= 0),
    "signals": count(5000, queued),
    "queues": count(5, queue),
}))
"""
CALLS = """
import ctypes, errno, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    if libc.syscall(number, *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)) >= 0:
        return "OPEN"
    return errno.errorcode[ctypes.get_errno()]
x86 = os.uname().machine == "x86_64"
pair = (ctypes.c_int * 2)()
context = ctypes.c_ulong()
libc.prctl(4, 0, 0, 0, 0)
print(json.dumps({
    "io_setup": call(206 if x86 else 0, 1, ctypes.byref(context)),
    "memfd_secret": call(447, 0),
    "fanotify_init": call(300 if x86 else 262, 0x200, 0),
    "modify_ldt": call(154, 0, None, 0) if x86 else "EPERM",
    "personality": call(135 if x86 else 92, 0x0040000),
    "asking for the personality": call(135 if x86 else 92, 0xFFFFFFFF),
    "socketpair": call(53 if x86 else 199, 40, 1, 0, pair),
    "dumpable": libc.prctl(3, 0, 0, 0, 0),
}))
"""


async def works(sandbox: Sandbox, manager: SandboxManager, directory: Path) -> dict[str, object]:
    """Return what a sandbox can do while descriptors in flight flood the kernel."""
    done = await sandbox.run(["echo", "hello"])
    await sandbox.run_file_operation(WriteFile("f"), input=b"x" * 100_000)
    found: dict[str, object] = {"command": done.stdout.decode()}
    found["file"] = len((await sandbox.run_file_operation(ReadFile("f")))[1])
    try:
        terminal = await sandbox.open_terminal(["true"], cols=80, rows=24)
        await terminal.exited
        terminal.close()
        found["terminal"] = "works"
    except ResourceCreationFailed as refused:
        found["terminal"] = str(refused)
    directory.mkdir(exist_ok=True)
    third = await manager.create(SandboxSpec(root=directory))
    found["new sandbox"] = (await third.run(["echo", "new"])).stdout.decode()
    await third.close()
    return found


async def main() -> None:
    directory, lacking = Path(sys.argv[2]), sys.argv[3]
    start, _, rest = zygote_process._BOOTSTRAP_CODE.partition("from {module}")
    zygote_process._BOOTSTRAP_CODE = start + LEFT_OUT.get(lacking, "").replace("{", "{{") + "from {module}" + rest
    manager = await SandboxManager.start()
    if lacking == "host ids":
        manager._warm_pool.share_host_ids()
    first, second = (directory / name for name in ("first", "second"))
    first.mkdir(), second.mkdir()
    attacker, victim = [await manager.create(SandboxSpec(root=root)) for root in (first, second)]
    results: dict[str, object] = {"host ids differ": attacker.host_ids != victim.host_ids}
    counts = await attacker.run([PYTHON, "-c", COUNTS])
    calls = await attacker.run([PYTHON, "-c", CALLS])
    results["counts"], results["calls"] = json.loads(counts.stdout), json.loads(calls.stdout)
    flood = asyncio.create_task(attacker.run([PYTHON, "-c", FLOOD]))
    while not (first / "home" / "flooded").exists():
        await asyncio.sleep(0.02)
    results["flooded"] = await works(victim, manager, directory / "third")
    await attacker.close()
    flood.cancel()
    results["afterwards"] = await works(victim, manager, directory / "third")
    results["victim is alive"] = victim.alive
    await manager.close()
    print(json.dumps(results))


asyncio.run(asyncio.wait_for(main(), PATIENCE))
