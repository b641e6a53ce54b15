from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from agentbay.local.sandbox.service import capability_probe
from agentbay.local.sandbox.service.errors import FileOperationFailed, IsolationUnavailable
from agentbay.local.sandbox.service.manager import SandboxGone, SandboxManager
from agentbay.local.sandbox.shared.setup_errors import SetupFailed
from tests.local.traces import PATIENCE, eventually, mounts_with, processes_with, unique_seconds
from tests.local.users import copied_for_everyone, python_for_everyone


def open_descriptors() -> int:
    gc.collect()  # what another test has left open is not to be closed between two counts
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


SOURCE = str(Path(capability_probe.__file__).resolve().parents[4])


async def test_close_leaves_nothing(factory, tmp_path):
    """After close, no process or mount is left, and the directory can go."""
    sandbox = await factory.make()
    seconds = unique_seconds()
    await sandbox.run(["bash", "-c", f"for i in 1 2 3; do setsid nohup sleep {seconds} >&/dev/null & done"])
    assert eventually(lambda: len(processes_with(seconds)) == 3)
    assert mounts_with(str(tmp_path))
    factory.manager._warm_pool.clear()  # it comes when it likes
    factory.manager._warm_pool.clear()
    descriptors = open_descriptors()
    await sandbox.close()
    assert processes_with(seconds) == []
    assert mounts_with(str(tmp_path)) == []
    assert not sandbox.alive
    # its socket, its /proc, its pidfd, and a netlink socket where no control group counts memory
    assert open_descriptors() == descriptors - (4 if sandbox.watchdog.counts_memory else 3)
    shutil.rmtree(tmp_path / "sandbox-1")
    await sandbox.close()


async def test_start_does_not_wait_for_the_end_of_its_trial(tmp_path, monkeypatch):
    """The sandbox that is made to try the machine ends later, and leaves nothing when the manager is closed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    manager = await SandboxManager.start()
    try:
        ending = manager._end_of_trial
        assert ending is not None
        assert not ending.done()
        (directory,) = tmp_path.iterdir()
    finally:
        await manager.close()
    assert ending.done()
    assert not directory.exists()


async def test_closing_the_host_closes_all(factory):
    """A closed manager has closed its sandboxes and makes no more."""
    seconds, sandboxes = unique_seconds(), [await factory.make() for _ in range(3)]
    calls = [asyncio.create_task(sandbox.run(["sleep", seconds])) for sandbox in sandboxes]
    while len(processes_with(seconds)) < 3:
        await asyncio.sleep(0.02)
    await factory.manager.close()
    assert processes_with(seconds) == []
    for result in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(result, SandboxGone)
    with pytest.raises(SandboxGone):
        await factory.make()


async def test_fifty_at_once(factory):
    """Fifty sandboxes created at once all work, and leave no descriptor behind."""
    factory.manager._warm_pool.clear()  # it comes when it likes
    before = open_descriptors()
    sandboxes = await asyncio.gather(*(factory.make() for _ in range(50)))
    done = await asyncio.gather(
        *(sandbox.run(["bash", "-c", f"echo {i} > f; cat f"]) for i, sandbox in enumerate(sandboxes))
    )
    assert [int(one.stdout) for one in done] == list(range(50))
    await asyncio.gather(*(sandbox.close() for sandbox in sandboxes))
    factory.manager._warm_pool.clear()
    assert open_descriptors() == before


async def test_cancelled_creation_leaves_nothing(factory, tmp_path):
    """A creation that is cancelled at any moment leaves no process."""
    for delay in 0, 0.001, 0.003, 0.006, 0.01:
        task = asyncio.create_task(factory.make())
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await asyncio.gather(*(sandbox.close() for sandbox in list(factory.manager._sandboxes)))
    assert eventually(lambda: mounts_with(str(tmp_path)) == [])


SCENARIO = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from agentbay.local.sandbox.service.manager import SandboxManager, SandboxSpec

async def main():
    manager = await SandboxManager.start()
    for name in "running", "frozen":
        root = Path(sys.argv[2]) / name
        root.mkdir()
        sandbox = await manager.create(SandboxSpec(root=root))
        asyncio.create_task(sandbox.run(["bash", "-c", f"setsid sleep {sys.argv[3]} & sleep {sys.argv[3]}"]))
        while (await sandbox.usage()).processes < 3:
            await asyncio.sleep(0.02)
    await sandbox.freeze()
    print("up", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_death_of_the_service(tmp_path, number):
    """After SIGKILL of the service no process is left, not even frozen ones."""
    seconds = unique_seconds()
    service = subprocess.Popen([sys.executable, "-c", SCENARIO, SOURCE, str(tmp_path), seconds], stdout=subprocess.PIPE)
    with service:
        assert service.stdout
        assert service.stdout.readline() == b"up\n"
        assert len(processes_with(seconds)) >= 5  # it has them in its own command line as well
        zygotes = children(service.pid)
        assert zygotes
        service.send_signal(number)
    assert eventually(lambda: processes_with(seconds) == [])
    assert eventually(lambda: mounts_with(str(tmp_path)) == [])
    assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in zygotes))


def children(pid: int) -> list[int]:
    """Pids of the processes that a process has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if f"\nPPid:\t{pid}\n" in (entry / "status").read_text():
                found.append(int(entry.name))
    return found


async def test_death_of_the_zygote(factory):
    """When the zygote dies its sandboxes die, and their manager reports it."""
    sandbox = await factory.make()
    os.kill(factory.manager._zygote._process.pid, signal.SIGKILL)
    await sandbox.wait_closed()
    with pytest.raises(SandboxGone):
        await factory.make()


def test_examine():
    """The probe says that isolation works, or what is missing and the way out."""
    results = {result.name: result for result in capability_probe.probe_all()}
    assert list(results) == ["namespaces", "landlock", "none", "layer landlock", "layer cgroups"]
    assert results["namespaces"].works
    assert results["none"].works
    assert [name for name, result in results.items() if result.explicit_only] == [
        name for name in ("landlock", "none") if results[name].works
    ]
    assert "the runtime with its key" in results["none"].detail


@pytest.mark.parametrize(
    ("step", "code", "words"),
    [
        ("unshare", 1, "seccomp=unconfined"),
        ("unshare", 28, "user.max_user_namespaces"),
        ("uid_map", 1, "apparmor_restrict_unprivileged_userns"),
        ("mount", 13, "apparmor_restrict_unprivileged_userns"),
        ("mount", 38, "too old"),
        ("proc", 1, "systempaths=unconfined"),
        ("pivot_root", 22, "pivot_root"),
    ],
)
def test_obstacles_are_explained(step, code, words):
    """Each known obstacle is named together with the way out."""
    assert words in capability_probe.explain_failure(SetupFailed(step, code, "detail"))


TRY = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from agentbay.local.sandbox.service import capability_probe
from agentbay.local.sandbox.service.manager import IsolationUnavailable, SandboxManager
try:
    asyncio.run(SandboxManager.start())
except IsolationUnavailable as obstacle:
    print(obstacle.missing[0])
print(capability_probe.probe_all()[0].works)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="takes rights away, which only root has")
def test_refusal_in_a_container_without_rights():
    """Without namespaces the runtime refuses, and says what to change."""
    command = ["setpriv", "--bounding-set=-sys_admin", sys.executable, "-c", TRY, SOURCE]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "--cap-add SYS_ADMIN" in said
    assert said.endswith("False\n")


FORKS = """
import os, signal, time
made = []
try:
    while len(made) < 100:
        made.append(os.fork() or time.sleep(600))
finally:  # the error comes out
    for child in made:
        os.kill(child, signal.SIGKILL)
"""
UNPRIVILEGED = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from agentbay.local.sandbox.service.manager import BindMount, FileOperationFailed, Limits, SandboxManager, SandboxSpec
from agentbay.local.sandbox.shared.file_protocol import ReadFile, WriteFile

async def main():
    base = Path(sys.argv[2])
    manager = await SandboxManager.start()
    root, context = base / "s", base / "context"
    root.mkdir(), context.mkdir()
    binds = [BindMount(str(context), "/mnt/context"), BindMount(str(context), "/home/wuying/c", read_only=True)]
    sandbox = await manager.create(SandboxSpec(root=root, binds=binds, limits=Limits(processes=50)))
    done = await sandbox.run(["bash", "-c", "id -u; echo x > /mnt/context/f; cat c/f; touch c/g; ls /root; ls /home"])
    assert done.stdout == b"1000\\nx\\nguest\\nuser\\nwuying\\n", done
    assert b"Read-only" in done.stderr
    assert (context / "f").stat().st_uid == 12345
    # the kernel lets an ordinary user show no other one's files as root's
    owners = (await sandbox.run(["stat", "-c", "%U", "/", "/etc/passwd", "/usr"])).stdout
    assert owners == b"wuying\\nwuying\\nnobody\\n", owners
    bomb = await sandbox.run(["python3", "-c", sys.argv[3]])
    assert b"temporarily unavailable" in bomb.stderr, bomb
    await sandbox.run_file_operation(WriteFile("a/b"), input=b"payload")
    assert (await sandbox.run_file_operation(ReadFile("a/b")))[1] == b"payload"
    task = asyncio.create_task(sandbox.run(["bash", "-c", "while :; do echo -n x >> n; done"]))
    count = root / "home/n"
    while not count.exists():
        await asyncio.sleep(0.02)
    await sandbox.freeze()
    size = count.stat().st_size
    await asyncio.sleep(0.1)
    assert count.stat().st_size == size
    await sandbox.thaw()
    while count.stat().st_size == size:
        await asyncio.sleep(0.02)
    status = (await sandbox.run(["cat", "/proc/1/environ"])).stderr
    assert b"Permission denied" in status
    await sandbox.close()
    await asyncio.gather(task, return_exceptions=True)
    await manager.close()
    print("done")

asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root can")
def test_an_ordinary_user():
    """Everything works for an ordinary user, who owns the files of the sandbox."""
    python = python_for_everyone()
    if python is None:
        pytest.skip("no Python 3.11 that other users can start")
    directory = Path(f"/tmp/agentbay-test-{os.getpid()}-{time.monotonic_ns()}")
    directory.mkdir()
    copied = copied_for_everyone(Path(SOURCE))
    try:
        os.chown(directory, 12345, 12345)
        command = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", python, "-c", UNPRIVILEGED]
        source = str(copied / Path(SOURCE).name)
        command += [source, str(directory), FORKS]
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
        assert (done.stdout, done.stderr) == ("done\n", "")
    finally:
        shutil.rmtree(copied)
        shutil.rmtree(directory)


def test_errors_survive_pickling():
    """Errors can be sent to another process and say the same there."""
    import pickle

    failed = pickle.loads(pickle.dumps(FileOperationFailed(2, "No such file", "/x")))
    assert (failed.errno, failed.strerror, failed.path, str(failed)) == (
        2,
        "No such file",
        "/x",
        "[Errno 2] No such file: '/x'",
    )
    assert pickle.loads(pickle.dumps(IsolationUnavailable(["A.", "B."]))).missing == ["A.", "B."]


def test_a_bad_interpreter_is_reported(monkeypatch):
    """A zygote that does not start is an error with its message."""
    monkeypatch.setattr("agentbay.local.sandbox.service.zygote_process._IMPORT_ROOT", "/nowhere")
    with pytest.raises(Exception, match="No module named 'agentbay'"):
        asyncio.run(SandboxManager.start())
