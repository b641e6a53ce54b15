"""Hoard memory and disk space where it is hard to see.

The sandbox has no control groups.

Usage: hoards.py SOURCE DIRECTORY LACKING. Prints as JSON, for each way, whether it was stopped; LACKING names the layer
that is left out, or "".
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from agentbay.local.sandbox.service import disk_quota, zygote_process
from agentbay.local.sandbox.service.manager import Limits, SandboxManager, SandboxSpec
from agentbay.local.sandbox.service.spec import MIB
from agentbay.local.sandbox.service.unmapped_memory import UnmappedMemory

PATIENCE = 100.0
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
MEMORY, DISK = 150 * MIB, 20 * MIB
MEMORY_FILE = """
import os, time
fd = os.memfd_create("x")
for _ in range(400):
    os.write(fd, bytes(1 << 20))
"""
SOCKETS = """
import socket
keep = []
for _ in range(1800):  # each holds about 200 KiB
    a, b = socket.socketpair()
    a.setblocking(False)
    keep.append((a, b))
    try:
        while True:
            a.send(bytes(4096))
    except BlockingIOError:
        pass
"""
SEGMENTS = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
if libc.shmget(0, ctypes.c_size_t(300 << 20), 0o1600) < 0:
    sys.exit(ctypes.get_errno())
"""
MAPPED = """
import ctypes, os
fd = os.open("/home/wuying/f", os.O_RDWR | os.O_CREAT)
os.truncate(fd, 60 << 20)
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
address = libc.mmap(None, ctypes.c_size_t(60 << 20), 3, 1, fd, ctypes.c_long(0))
os.close(fd)
os.unlink("/home/wuying/f")
ctypes.memset(address, 1, 60 << 20)
libc.msync(ctypes.c_void_p(address), ctypes.c_size_t(60 << 20), 4)
"""
CLOSED = """
import os
os.mkdir("/home/wuying/d")
with open("/home/wuying/d/f", "wb") as file:
    os.chmod("/home/wuying/d", 0)
    for _ in range(60):
        file.write(bytes(1 << 20))
        file.flush()
"""
UNDUMPABLE = """
import ctypes, os
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
file = open("/home/wuying/f", "wb")
os.unlink("/home/wuying/f")
for _ in range(60):
    file.write(bytes(1 << 20))
    file.flush()
"""
PAGE_TABLES = """
import ctypes
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
size = 160 << 30
start = libc.mmap(None, ctypes.c_size_t(size), 1, 0x4022, -1, ctypes.c_long(0))
libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), 15)  # MADV_NOHUGEPAGE
for offset in range(0, size, 2 << 20):
    ctypes.c_char.from_address(start + offset).value
"""
WAIT = "print('whole', flush=True)\nimport time; time.sleep({seconds})\n"
WAYS = {
    "memory file": (MEMORY_FILE, Limits(total_memory_bytes=MEMORY)),
    "socket buffers": (SOCKETS, Limits(total_memory_bytes=MEMORY)),
    "page tables": (PAGE_TABLES, Limits(total_memory_bytes=MEMORY)),
    "System V segments": (SEGMENTS, Limits(total_memory_bytes=MEMORY)),
    "mapping of a deleted file": (MAPPED, Limits(disk_bytes=DISK)),
    "directory without permissions": (CLOSED, Limits(disk_bytes=DISK)),
    "deleted file of an undumpable process": (UNDUMPABLE, Limits(disk_bytes=DISK)),
}
ALLOW_ALL = (
    "from agentbay.local.sandbox.shared import seccomp; "
    "seccomp.build_filter = lambda *_: bytes.fromhex('060000000000ff7f'); "
)


async def hoard(manager: SandboxManager, root: Path, program: str, limits: Limits, seconds: float) -> str:
    root.mkdir()
    sandbox = await manager.create(SandboxSpec(root=root, limits=limits))
    done = await sandbox.run([PYTHON, "-c", program + WAIT.format(seconds=seconds)])
    await sandbox.close()
    if done.exit_code == 137 and done.stderr.startswith(b"agentbay: killed:"):
        return "killed"
    return "done" if done.exit_code == 0 else f"refused {done.exit_code}"


async def main() -> None:
    directory, lacking = Path(sys.argv[2]), sys.argv[3]
    if lacking:
        start, _, rest = zygote_process._BOOTSTRAP_CODE.partition("from {module}")
        zygote_process._BOOTSTRAP_CODE = start + ALLOW_ALL + "from {module}" + rest
        UnmappedMemory.measure = lambda *_: {}  # type: ignore[method-assign]
        disk_quota.deleted_mappings = lambda *_: {}  # type: ignore[attr-defined]
        disk_quota._SEE_ALL = []
    manager = await SandboxManager.start()
    manager.disable_cgroups()
    results = {}
    for number, (name, (program, limits)) in enumerate(WAYS.items()):
        results[name] = await hoard(manager, directory / str(number), program, limits, 3.0 if lacking else 15.0)
    await manager.close()
    print(json.dumps(results))


asyncio.run(asyncio.wait_for(main(), PATIENCE))
