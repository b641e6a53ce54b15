"""Joining control groups without the lock of the whole machine that moving a process takes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from agentbay.local.sandbox.service.cgroups import CgroupManager
from tests.local.sandbox.test_lifecycle import SOURCE

# In a process of its own, since the tests' own one may have threads. Tells where the child is before and after.
PROGRAM = """
import json, os, stat, sys, threading
sys.path.insert(0, sys.argv[1])
from agentbay.local.sandbox.service.cgroups import CgroupManager
from agentbay.local.sandbox.shared import syscalls
from agentbay.local.sandbox.shared.setup_errors import SetupFailed
from agentbay.local.sandbox.zygote import joining

def fork(function):
    reader, writer = os.pipe()
    pid = function()
    if pid == 0:
        try:
            found = tell()
        except SetupFailed as failure:
            found = {"step": failure.step}
        os.write(writer, json.dumps(found).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with open(reader) as file:
        return json.load(file)

def tell():
    before = [os.readlink(f"/proc/self/fd/{fd}") for fd in entrances]
    joining.join_cgroups(entrances)
    with open("/proc/self/cgroup") as file:
        return {"to_join": before, "joined": file.read().count(group_name), "threads": threading.active_count()}

manager = CgroupManager.discover()
group = manager.create()
group_name = f"{manager._name}/"
if sys.argv[2] == "no group":
    entrances = [os.open("/tmp", os.O_RDONLY)]
else:
    entrances = group.open_entrances()
if sys.argv[2] == "threads":
    threading.Thread(target=threading.Event().wait, daemon=True).start()
found = {"entrances": [os.readlink(f"/proc/self/fd/{fd}") for fd in entrances]}
directory = next((fd for fd in entrances if stat.S_ISDIR(os.fstat(fd).st_mode)), -1)
try:
    if (pid := syscalls.fork_into_cgroup(directory)) == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    found["allowed"] = True
except OSError:
    found["allowed"] = False
found["child"] = fork(lambda: joining.fork_into(entrances))
print(json.dumps(found))
sys.stdout.flush()
manager.dispose(group)
manager.close()
os._exit(0)
"""


def run(case: str) -> dict[str, Any]:
    if CgroupManager.discover() is None:
        pytest.skip("no control groups can be made here")
    done = subprocess.run([sys.executable, "-c", PROGRAM, SOURCE, case], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_without_the_lock():
    """A child moves one thread of its own in version 1, and is born in the group of version 2."""
    found = run("groups")
    moved = [entrance for entrance in found["entrances"] if entrance.endswith("/tasks")]
    directories = [entrance for entrance in found["entrances"] if entrance not in moved]
    assert len(directories) <= 1
    assert found["child"]["to_join"] == (moved if found["allowed"] else found["entrances"])
    assert found["child"]["joined"] == len(found["entrances"])


def test_from_several_threads():
    """Where the C library must hear of a fork, the child moves."""
    found = run("threads")
    assert found["child"] == {"to_join": found["entrances"], "joined": len(found["entrances"]), "threads": 1}


def test_what_cannot_be_forked_into():
    """A failure is reported by the child, in the step that names it."""
    assert run("no group")["child"] == {"step": "cgroup"}
