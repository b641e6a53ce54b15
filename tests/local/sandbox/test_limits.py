"""Limits of a whole sandbox, by control groups or by the watchdog."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentbay.local.sandbox.service import cgroups, config_builder, disk_quota
from agentbay.local.sandbox.service.cgroups import CgroupManager, Hierarchy
from agentbay.local.sandbox.service.manager import FileOperationFailed, Limits
from agentbay.local.sandbox.service.spec import MIB
from agentbay.local.sandbox.shared import proc_fs
from agentbay.local.sandbox.shared.file_protocol import WriteFile
from tests.local.sandbox.conftest import SandboxFactory, becomes, grows, sandbox_factory
from tests.local.sandbox.test_lifecycle import SOURCE
from tests.local.traces import eventually

# each takes its memory and then waits to be let go, so that a guard that looks now and then has its time
HOLD = (
    "\nfor i in range(0, len(b), 4096): b[i] = 1\nimport os, time\nwhile not os.path.exists('over'): time.sleep(0.05)"
)
ALLOCATE = "b = bytearray({size} << 20)" + HOLD
SHARED = "import mmap\nb = mmap.mmap(-1, {size} << 20)" + HOLD


@pytest.fixture(params=["groups", "no groups"])
async def either(request, factory) -> SandboxFactory:
    """The factory, with and without control groups."""
    if request.param == "no groups":
        factory.manager.disable_cgroups()
    elif factory.manager.cgroups is None:
        pytest.skip("no control groups can be made here")
    return factory


@pytest.mark.parametrize("program", [ALLOCATE, SHARED])
async def test_memory_of_the_whole(either, program):
    """Beyond the memory limit a process is killed and the command says why."""
    sandbox = await either.make(limits=Limits(total_memory_bytes=256 * MIB))
    bystander = asyncio.create_task(sandbox.run(["bash", "-c", "until [ -e over ]; do sleep 0.05; done"]))
    done = await sandbox.run(["python3", "-c", program.format(size=800)])
    assert done.exit_code == 137
    assert b"agentbay: killed: the session may use 256 MiB of memory" in done.stderr
    await sandbox.run(["touch", "over"])
    again = await sandbox.run(["python3", "-c", program.format(size=50)])
    assert (again.exit_code, again.stderr) == (0, b"")
    assert (await bystander).exit_code == 0


async def test_memory_of_many(either):
    """Small processes that are too much together are killed too, the largest first."""
    sandbox = await either.make(limits=Limits(total_memory_bytes=200 * MIB))
    calls = [asyncio.create_task(sandbox.run(["python3", "-c", ALLOCATE.format(size=60)])) for _ in range(5)]
    killed, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    assert {call.result().exit_code for call in killed} == {137}
    await sandbox.run(["touch", "over"])
    assert 0 in {(await call).exit_code for call in calls}


async def test_disk_of_the_whole(either):
    """Beyond the disk limit processes are killed, until files are removed."""
    sandbox = await either.make(limits=Limits(disk_bytes=40 * MIB))
    fill = "i=0; while :; do head -c 4000000 /dev/zero > f$i; i=$((i+1)); sleep 0.02; done"
    done = await sandbox.run(["bash", "-c", fill], timeout=60)
    assert (done.exit_code, done.timed_out) == (137, False)
    assert b"agentbay: killed: the session may use 40 MiB of disk" in done.stderr
    with pytest.raises(FileOperationFailed, match="No space left on device") as refused:
        await sandbox.run_file_operation(WriteFile("more"), input=b"x" * 1000)
    assert refused.value.errno == 28

    async def removed() -> bool:  # what was written until the end may be found to be too much once more
        return (await sandbox.run(["bash", "-c", "rm -f f*"])).exit_code == 0

    await becomes(removed)
    await sandbox.run_file_operation(WriteFile("more"), input=b"x" * 1000)
    with pytest.raises(FileOperationFailed, match="No space left"):
        await sandbox.run_file_operation(WriteFile("more"), input=bytes(41 * MIB))


async def test_deleted_files_count(factory):
    """A file that is deleted but open takes space, and counts."""
    sandbox = await factory.make(limits=Limits(disk_bytes=20 * MIB))
    program = (
        "import os, time\nf = open('x', 'wb')\nos.unlink('x')\nwhile True: f.write(bytes(1 << 20)); time.sleep(0.02)"
    )
    done = await sandbox.run(["python3", "-c", program], timeout=60)
    assert b"of disk" in done.stderr


async def test_min_free_disk_of_the_machine(factory, monkeypatch):
    """At the machine's reserve only sandboxes that go on writing are killed, slow writers too."""
    filler, quiet = await factory.make(), await factory.make()
    waiting = asyncio.create_task(quiet.run(["bash", "-c", "until [ -e over ]; do sleep 0.05; done; echo fine"]))
    monkeypatch.setattr(disk_quota, "MIN_FREE_BYTES", 1 << 60)
    monkeypatch.setattr(disk_quota, "MIN_FREE_FRACTION", 1.0)
    fill = "while :; do head -c 100000 /dev/zero >> f; sleep 0.02; done"
    done = await filler.run(["bash", "-c", fill], timeout=60)
    assert b"the machine's disk has only" in done.stderr
    with pytest.raises(FileOperationFailed, match="No space left"):
        await quiet.run_file_operation(WriteFile("more"), input=b"x")
    monkeypatch.undo()
    await quiet.run_file_operation(WriteFile("over"))
    assert (await waiting).stdout == b"fine\n"


IN_FLIGHT = """
import array, os, socket, time
a, b = socket.socketpair()
with open("f", "wb") as file:
    os.unlink("f")
    a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()]))])
time.sleep(60)
"""
MANY_FILES = "i=0; while :; do : > $((i++)); sleep 0.01; done"


async def test_min_free_disk_and_files_in_flight(factory, monkeypatch):
    """At the machine's reserve a sandbox that may hide files is killed."""
    hiding, quiet = await factory.make(), await factory.make()
    waiting = asyncio.create_task(quiet.run(["sleep", "60"]))
    monkeypatch.setattr(disk_quota, "MIN_FREE_BYTES", 1 << 60)
    monkeypatch.setattr(disk_quota, "MIN_FREE_FRACTION", 1.0)
    done = await hiding.run(["python3", "-c", IN_FLIGHT], timeout=50)
    assert b"the machine's disk has only" in done.stderr
    assert not waiting.done()
    waiting.cancel()


async def test_min_free_inodes_of_the_machine(factory, monkeypatch):
    """When the machine lacks inodes, only sandboxes that go on creating files are killed."""
    filler, quiet = await factory.make(), await factory.make()
    waiting = asyncio.create_task(quiet.run(["sleep", "60"]))
    monkeypatch.setattr(disk_quota, "MIN_FREE_BYTES", 0)
    monkeypatch.setattr(disk_quota, "MIN_FREE_FRACTION", 1.0)
    done = await filler.run(["bash", "-c", MANY_FILES], timeout=50)
    assert b"hardly any inodes" in done.stderr
    with pytest.raises(FileOperationFailed, match="No space left"):
        await quiet.run_file_operation(WriteFile("more"))
    assert not waiting.done()
    waiting.cancel()


async def test_the_watchdog_sleeps(factory):
    """A sandbox in which nothing runs is not looked at."""
    sandbox = await factory.make(limits=Limits(disk_bytes=MIB))
    await sandbox.run(["true"])
    sandbox.watchdog._awake_until = 0
    while sandbox.watchdog._timer is not None:
        await asyncio.sleep(0.02)
    task = asyncio.create_task(sandbox.run(["sleep", "600"]))
    while sandbox.watchdog._timer is None:
        await asyncio.sleep(0.02)
    task.cancel()


def need_groups(factory: SandboxFactory) -> CgroupManager:
    if factory.manager.cgroups is None:
        pytest.skip("no control groups can be made here")
    return factory.manager.cgroups


def places(factory: SandboxFactory) -> list[Path]:
    found = need_groups(factory)
    return [Path(tree.base) / found._name for tree in found._hierarchies]


async def test_groups_hold_everything_from_the_start(factory):
    """All processes are in the sandbox's groups, which close removes."""
    need_groups(factory)
    sandbox = await factory.make(limits=Limits(processes=50, total_memory_bytes=64 * MIB, cpu_share=50, cpu_quota=0.5))
    group = sandbox.watchdog.cgroup
    task = asyncio.create_task(sandbox.run(["sleep", "600"]))
    for path, tree in group._hierarchies_by_directory.items():
        while len(pids := (Path(path) / "cgroup.procs").read_text().split()) != 2:
            await asyncio.sleep(0.02)
        assert str(sandbox.pid) in pids
        if not tree.unified:
            expected = {"pids": ("pids.max", "53"), "memory": ("memory.limit_in_bytes", str(64 * MIB)),
                        "cpu": ("cpu.cfs_quota_us", "50000")}  # fmt: skip
            for controller in tree.controllers:
                name, value = expected[controller]
                assert (Path(path) / name).read_text().strip() == value
    paths = list(group._hierarchies_by_directory)
    task.cancel()
    await sandbox.close()
    tops = places(factory)
    factory.manager._warm_pool.clear()
    while factory.manager.cgroups._awaiting_removal:  # who has just died may be in its group for a moment
        factory.manager.cgroups._awaiting_removal = [
            group for group in factory.manager.cgroups._awaiting_removal if not group.remove()
        ]
        await asyncio.sleep(0.02)
    assert not any(map(os.path.exists, paths))
    await factory.manager.close()
    assert not any(top.exists() for top in tops)


async def test_two_hosts_in_one_process(tmp_path):
    """Two managers of one process keep their groups apart."""
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    async with sandbox_factory(tmp_path / "a") as first:
        need_groups(first)
        async with sandbox_factory(tmp_path / "b") as second:
            sandboxes = [await factory.make() for factory in (first, second, first, second)]
            assert all(sandbox.watchdog.cgroup for sandbox in sandboxes)
            assert len(
                {path for sandbox in sandboxes for path in sandbox.watchdog.cgroup._hierarchies_by_directory}
            ) == 4 * len(first.manager.cgroups._hierarchies)
        assert (await (await first.make()).run(["true"])).exit_code == 0


async def test_cpu_quota(factory):
    """A quota is what a sandbox gets of the processors."""
    if "cpu" not in need_groups(factory).controllers:
        pytest.skip("no processor groups")
    sandbox = await factory.make(limits=Limits(cpu_quota=0.2))
    before, began = (await sandbox.usage()).cpu_seconds, time.monotonic()
    await sandbox.run(["timeout", "1", "bash", "-c", "while :; do :; done"])
    used, took = (await sandbox.usage()).cpu_seconds - before, time.monotonic() - began
    assert used < 0.2 * took + 0.15  # it may have saved up the quota of a period, on each processor


def test_leftovers_are_swept(tmp_path):
    """Groups of a runtime that was killed are removed by the next one."""
    program = (
        "import asyncio, os, signal, sys\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[1])\n"
        "from agentbay.local.sandbox.service.manager import SandboxManager, SandboxSpec\n"
        "async def main():\n"
        "    manager = await SandboxManager.start()\n"
        "    sandbox = await manager.create(SandboxSpec(root=Path(sys.argv[2])))\n"
        "    for tree in manager.cgroups._hierarchies if manager.cgroups else []:\n"
        "        assert Path(tree.base, manager.cgroups._name).exists()\n"
        "        print(tree.base, manager.cgroups._name)\n"
        "    sys.stdout.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, SOURCE, str(tmp_path)], capture_output=True, text=True, check=False
    )
    left = [Path(*line.split()) for line in done.stdout.splitlines()]
    if not left:
        pytest.skip("no control groups can be made here")
    assert eventually(lambda: bool(CgroupManager.discover()) and not any(path.exists() for path in left))


def test_lists_of_processes_at_once():
    """Threads that list the processes of a sandbox at once miss none."""
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)

    def count_complete(_):
        return sum(os.getpid() in proc_fs.list_pids(proc) for _ in range(700))

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(count_complete, range(4))) == [700] * 4
    os.close(proc)


def test_leftovers_in_use(caplog):
    """A group of a dead runtime that a process is still in stays, and is named once."""
    groups = CgroupManager.discover()
    if groups is None:
        pytest.skip("no control groups can be made here")
    left = Path(groups._hierarchies[0].base, f"agentbay-{os.getpid()}-1")  # this pid, but of another process
    left.mkdir()
    with subprocess.Popen(["sleep", "60"]) as process:
        (left / "cgroup.procs").write_text(str(process.pid))
        caplog.set_level("DEBUG", cgroups.__name__)
        assert CgroupManager.discover()
        assert [str(left) in message for message in caplog.messages] == [True]
        process.kill()
    assert eventually(lambda: bool(CgroupManager.discover()) and not left.exists())


async def test_where_groups_cannot_be_entered(tmp_path, monkeypatch):
    """Groups that can be created but not joined are not used."""
    if CgroupManager.discover() is None:
        pytest.skip("no control groups can be made here")
    monkeypatch.setattr(cgroups.Cgroup, "open_entrances", lambda group: [os.open("/dev/null", os.O_RDONLY)])
    async with sandbox_factory(tmp_path) as factory:
        assert factory.manager.cgroups is None
        assert (await (await factory.make()).run(["echo", "fine"])).stdout == b"fine\n"


@pytest.mark.parametrize(
    ("mountinfo", "membership", "expected"),
    [
        ("", "0::/\n", None),
        ("31 23 0:28 / {top} rw - cgroup2 none rw\n", "0::/below\n", Hierarchy("{top}/below", frozenset(), True)),
        ("31 23 0:28 /box {top} rw - cgroup2 none rw\n", "0::/box/below\n",
         Hierarchy("{top}/below", frozenset(), True)),
        ("31 23 0:28 /box {top} rw - cgroup2 none rw\n", "0::/other\n", None),
        ("31 23 0:28 / {top} rw - cgroup2 none rw\n", "0::/../outside\n", None),
        ("31 23 0:28 / {top} rw - cgroup cgroup rw,cpu,cpuacct\n", "4:cpu,cpuacct:/below\n",
         Hierarchy("{top}/below", frozenset({"cpu"}), False)),
        ("31 23 0:28 / {top} rw - cgroup cgroup rw,pids\n", "4:cpu:/below\n", None),
    ],
)  # fmt: skip
def test_hierarchies_are_found(tmp_path, mountinfo, membership, expected):
    """The directory of this process's group is found in any container."""
    (tmp_path / "below").mkdir()
    for place in tmp_path, tmp_path / "below":
        (place / "cgroup.procs").touch()
    found = list(cgroups._find_hierarchies(mountinfo.format(top=tmp_path), membership))
    if expected is not None:
        expected = Hierarchy(expected.base.format(top=tmp_path), expected.controllers, expected.unified)
    assert found == [expected] * (expected is not None)


def test_version_2_controllers(tmp_path):
    """A parent group with controllers for its children is preferred."""
    own = tmp_path / "app" / "own"
    own.mkdir(parents=True)
    for place, offered in (own, ""), (own.parent, "memory pids\n"), (tmp_path, "cpu memory pids\n"):
        (place / "cgroup.procs").touch()
        (place / "cgroup.controllers").write_text("memory pids\n")
        (place / "cgroup.subtree_control").write_text(offered)
    (own / "cgroup.controllers").write_text("")
    assert cgroups._find_v2_base(str(tmp_path), str(own)) == Hierarchy(
        str(own.parent), frozenset({"memory", "pids"}), True
    )
    settings = dict(
        cgroups._limit_files(
            Limits(total_memory_bytes=9, cpu_quota=2), Hierarchy("", frozenset(cgroups._CONTROLLERS), True)
        )
    )
    assert settings == {
        "pids.max": "1027", "memory.max": "9", "memory.swap.max": "0", "cpu.weight": "100", "cpu.max": "200000 100000",
    }  # fmt: skip


def test_niceness():
    """Without groups a share becomes a niceness, never above an ordinary one."""
    assert [config_builder.nice_for_cpu_share(share) for share in (10_000, 100, 80, 50, 10, 1)] == [0, 0, 1, 3, 10, 19]
    with pytest.raises(ValueError, match="cpu_share"):
        Limits(cpu_share=0)


async def test_freeze_by_group_and_with_a_stranger(factory):
    """The group freezes, or signals do if a process is outside of it."""
    if "freezer" not in need_groups(factory).controllers:
        pytest.skip("no freezer")
    sandbox = await factory.make()
    group = sandbox.watchdog.cgroup
    task = asyncio.create_task(sandbox.run(["bash", "-c", "while :; do echo -n x >> count; done"]))
    count = factory.directory / "sandbox-1" / "home" / "count"
    await grows(count)
    for outside in False, True:
        if outside:
            (busy,) = {int(pid) for pid in Path(group.freezable_path, "cgroup.procs").read_text().split()} - {
                sandbox.pid
            }
            Path(group.freezable_path).parent.parent.joinpath("cgroup.procs").write_text(str(busy))
        await sandbox.freeze()
        size = count.stat().st_size
        await asyncio.sleep(0.1)
        assert count.stat().st_size == size
        assert ("frozen 1" in Path(group.freezable_path, "cgroup.events").read_text()) is not outside
        await sandbox.thaw()
        await grows(count, size)
    task.cancel()
