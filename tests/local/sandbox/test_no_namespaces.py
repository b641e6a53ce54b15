"""Sandboxes without namespaces: what works, what ends with them, and what Landlock closes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from agentbay.local.sandbox.service.capability_probe import describe_exposure
from agentbay.local.sandbox.service.manager import (
    BindMount,
    FileOperationFailed,
    SandboxError,
)
from agentbay.local.sandbox.shared import landlock
from agentbay.local.sandbox.shared.file_protocol import ReadFile, WriteFile
from tests.local.sandbox.conftest import SandboxFactory, grows, sandbox_factory
from tests.local.sandbox.test_lifecycle import SOURCE
from tests.local.traces import eventually, processes_with, unique_seconds

ISOLATIONS = ["none", *(["landlock"] if landlock.abi_version() >= landlock.REQUIRED_ABI else [])]


@pytest.fixture(params=ISOLATIONS)
async def factory(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SandboxFactory]:
    """A factory of sandboxes without namespaces."""
    async with sandbox_factory(tmp_path, isolation=request.param) as factory:
        assert factory.manager.isolation == request.param
        yield factory


# the ports are the machine's own: which one is free, the kernel knows
SERVER = """
import os, socket, time
server = socket.create_server(("127.0.0.1", 0))
open("new", "w").write(str(server.getsockname()[1]))
os.rename("new", "port")
time.sleep(600)
"""


async def test_tools_work(factory, tmp_path):
    """Commands, files by the paths that clients know, terminals and ports work as ever."""
    sandbox = await factory.make()
    done = await sandbox.run(["bash", "-c", "pwd; echo x > f; mktemp; cat <(echo y); id -u"])
    home, temporary, *rest = done.stdout.decode().splitlines()
    assert (home, rest) == (str(tmp_path / "sandbox-1/home"), ["y", str(os.geteuid())])
    assert temporary.startswith(str(tmp_path / "sandbox-1/tmp/"))
    assert factory.manager.owner == (os.geteuid(), os.getegid())
    await sandbox.run_file_operation(WriteFile("/home/wuying/a/b"), input=b"payload")
    assert (await sandbox.run_file_operation(ReadFile("a/b")))[1] == b"payload"
    assert (await sandbox.run(["cat", "b"], cwd="/home/wuying/a")).stdout == b"payload"
    terminal = await sandbox.open_terminal(["sh", "-c", "tty; exit 3"], cols=80, rows=24)
    assert await terminal.exited == 3
    terminal.close()
    server = asyncio.create_task(sandbox.run(["python3", "-c", SERVER]))
    port = tmp_path / "sandbox-1/home/port"
    await grows(port)
    (await sandbox.connect(int(port.read_text()))).close()
    server.cancel()


async def test_all_of_it_ends(factory, tmp_path):
    """A timeout kills daemons of the command, and close kills everything."""
    sandbox = await factory.make()
    late, left = unique_seconds(), unique_seconds()
    daemon = f"setsid nohup sleep {late} >&/dev/null & (setsid sh -c 'setsid sleep {late} >&/dev/null &') ; wait"
    done = await sandbox.run(["bash", "-c", daemon], timeout=0.5)
    assert done.timed_out
    assert eventually(lambda: processes_with(late) == [])
    stopped = f"(setsid sleep {left} >&/dev/null &) ; (sleep {left} & kill -STOP $!) ; true"
    await sandbox.run(["bash", "-c", stopped])
    assert eventually(lambda: len(processes_with(left)) == 2)
    assert (await sandbox.usage()).processes == 2
    await sandbox.close()
    assert eventually(lambda: processes_with(left) == [])
    assert not sandbox.alive


async def test_pause(factory, tmp_path):
    """Freezing stops all of it, the first process aside, and it goes on after."""
    sandbox = await factory.make()
    task = asyncio.create_task(sandbox.run(["bash", "-c", "while :; do echo -n x >> n; done"]))
    file = tmp_path / "sandbox-1/home/n"
    await grows(file)
    await sandbox.freeze()
    size = file.stat().st_size
    await asyncio.sleep(0.2)
    assert file.stat().st_size == size
    await sandbox.thaw()
    await grows(file, size)
    task.cancel()


async def test_binds(factory, tmp_path):
    """Binds below home become links, and others are refused with the reason."""
    shared = tmp_path / "shared"
    shared.mkdir()
    sandbox = await factory.make(binds=[BindMount(str(shared), "/home/wuying/deep/data")])
    await sandbox.run(["bash", "-c", "echo x > deep/data/f"])
    assert (shared / "f").read_text() == "x\n"
    with pytest.raises(SandboxError, match="without namespaces, only what is below /home/wuying"):
        await factory.make(binds=[BindMount(str(shared), "/mnt/data")])
    with pytest.raises(SandboxError, match="no namespaces"):
        await sandbox.get_join_info()


HOST = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from agentbay.local.sandbox.service.manager import SandboxManager, SandboxSpec
async def main():
    manager = await SandboxManager.start(isolation=sys.argv[3])
    sandbox = await manager.create(SandboxSpec(root=Path(sys.argv[2])))
    await sandbox.run(["bash", "-c", f"(setsid sleep {sys.argv[4]} >&/dev/null &)"])
    asyncio.create_task(sandbox.run(["sleep", sys.argv[4]]))
    while len(sandbox.list_processes()) < 2:
        await asyncio.sleep(0.02)
    await sandbox.freeze()
    print("frozen", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_killed_host(tmp_path, isolation):
    """When the service is killed, all that its sandboxes run ends, frozen or not."""
    seconds = unique_seconds()
    command = [sys.executable, "-c", HOST, SOURCE, str(tmp_path), isolation, seconds]
    host = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert host.stdout is not None
    with host.stdout:
        assert host.stdout.readline() == b"frozen\n"
        assert eventually(lambda: len(processes_with(seconds)) >= 3)  # it has them in its own command line as well
        host.send_signal(signal.SIGKILL)
        host.wait()
    assert eventually(lambda: processes_with(seconds) == [])


@pytest.mark.skipif("landlock" not in ISOLATIONS, reason="takes Landlock of ABI 6; what is said without it is tested")
async def test_what_landlock_closes(tmp_path):
    """Landlock closes files, processes and abstract sockets of the host.

    Without it, the same program reaches them.
    """
    (tmp_path / "secret").write_text("host-secret")
    with socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0agentbay-test-{os.getpid()}")
        abstract.listen()
        program = f"""
import os, socket
def attempt(action):
    try:
        action()
        print("open", end=" ")
    except OSError as error:
        print(error.errno, end=" ")
attempt(lambda: open({str(tmp_path / "secret")!r}).read())
attempt(lambda: open({str(tmp_path / "new")!r}, "w"))
attempt(lambda: os.listdir({str(tmp_path)!r}))
attempt(lambda: os.truncate({str(tmp_path / "secret")!r}, 20))
attempt(lambda: os.rename({str(tmp_path / "secret")!r}, "mine"))
attempt(lambda: os.kill({os.getpid()}, 0))
attempt(lambda: open("/proc/{os.getpid()}/environ").read())
attempt(lambda: socket.socket(socket.AF_UNIX).connect("\\0agentbay-test-{os.getpid()}"))
"""

        async def attempts(isolation: str) -> list[str]:
            async with sandbox_factory(tmp_path / isolation, isolation=isolation) as factory:
                sandbox = await factory.make()
                with pytest.raises(FileOperationFailed) if isolation == "landlock" else nullcontext():
                    await sandbox.run_file_operation(ReadFile(str(tmp_path / "secret")))
                return (await sandbox.run(["python3", "-c", program])).stdout.decode().split()

        assert await attempts("landlock") == ["13", "13", "13", "13", "13", "1", "13", "1"]
        assert set(await attempts("none")) == {"open"}


def test_capabilities_of_an_ordinary_user():
    """A user who may not drop capabilities of later programs has none."""
    program = """
import os, sys
sys.path.insert(0, sys.argv[1])
from agentbay.local.sandbox.shared import syscalls
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
syscalls.drop_capabilities()
print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapInh", "CapPrm", "CapEff"))))
"""
    done = subprocess.run([sys.executable, "-c", program, SOURCE], capture_output=True, text=True, timeout=60)
    assert (done.stderr, done.stdout.split()) == ("", ["0" * 16] * 3)


def test_warning_names_what_is_open():
    """The warning of `landlock` names shared memory files and terminals, which stay open."""
    warning = describe_exposure("landlock", "")
    assert "/dev/shm" in warning
    assert "/dev/pts" in warning
