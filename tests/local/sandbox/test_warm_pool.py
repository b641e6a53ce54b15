"""The warm pool: a preforked sandbox is as good as a new one."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from agentbay.local import server
from agentbay.local.sandbox.service import capability_probe, warm_pool
from agentbay.local.sandbox.service.manager import SandboxError
from tests.local.sandbox.conftest import SandboxFactory, becomes, sandbox_factory

SOURCE = str(Path(capability_probe.__file__).resolve().parents[4])
MOUNTED_SINCE = """
import asyncio, subprocess, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from agentbay.local.sandbox.service.manager import BindMount, SandboxManager, SandboxSpec

async def main():
    manager = await SandboxManager.start()
    directory = Path(sys.argv[2])
    while not manager._warm_pool._spares:
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)
    subprocess.run(["mount", "-t", "tmpfs", "none", directory / "late"], check=True)
    (directory / "late/file").write_text("mounted since")
    spec = SandboxSpec(root=directory / "root", binds=[BindMount(str(directory / "late"), "/mnt/late", read_only=True)])
    print((await (await manager.create(spec)).run(["cat", "/mnt/late/file"])).stdout.decode())
    await manager.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("propagation", ["private", "shared"])
def test_mounts_of_the_host(tmp_path: Path, propagation: str):
    """A preforked sandbox shows what the host mounted since."""
    for name in ("late", "root"):
        (tmp_path / name).mkdir()
    own = ["unshare", "--mount", "--propagation", propagation]
    if os.geteuid() != 0:
        own += ["--user", "--map-root-user"]
    command = [*own, sys.executable, "-c", MOUNTED_SINCE, SOURCE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "mounted since\n", done.stderr


async def test_one_that_has_died(factory: SandboxFactory):
    """What was killed in reserve is replaced."""

    async def are_ready() -> bool:
        return len(factory.manager._warm_pool._spares) == 2

    async def are_dead() -> bool:
        return not any(spare.is_live for spare in spares)

    await becomes(are_ready)
    spares = list(factory.manager._warm_pool._spares.values())
    kill_below(factory.manager._zygote._process.pid)
    await becomes(are_dead)
    assert (await (await factory.make()).run(["echo", "well"])).stdout == b"well\n"


async def test_many_at_once(factory: SandboxFactory, monkeypatch):
    """Where several sandboxes are asked for at a time, several wait; later two are enough again."""
    monkeypatch.setattr(warm_pool, "_QUIET_SECONDS", 0.5)
    counts: set[int] = set()

    async def has_calmed_down() -> bool:
        counts.add(len(factory.manager._warm_pool._spares))
        return max(counts) > 2 and len(factory.manager._warm_pool._spares) == 2

    watching = asyncio.create_task(becomes(has_calmed_down))
    first = await asyncio.gather(*(factory.make() for _ in range(6)))
    await watching
    assert max(counts) <= 8
    for sandbox in (*first, await factory.make()):
        assert (await sandbox.run(["echo", "well"])).stdout == b"well\n"


async def test_first_command_is_not_disturbed(factory: SandboxFactory, monkeypatch):
    """While a spare is left, none is made soon after one was taken."""

    async def wait() -> bool:
        return len(factory.manager._warm_pool._spares) == 2

    await becomes(wait)
    pool, loop = factory.manager._warm_pool, asyncio.get_running_loop()
    monkeypatch.setattr(warm_pool, "_REFILL_DELAY_SECONDS", 2000.0)
    monkeypatch.setattr(warm_pool, "_SHORT_REFILL_DELAY_SECONDS", 1000.0)
    for delay, left in (2000, 1), (1000, 0):
        before = loop.time()
        await factory.make()
        ((moment, _),) = pool._refills.values()
        assert len(pool._spares) == left
        assert before + delay <= moment <= loop.time() + delay


def test_a_refill_that_is_due(tmp_path, monkeypatch):
    """Sandboxes are taken while a refill is due, on the event loop of the service."""
    monkeypatch.setattr(warm_pool, "_SHORT_REFILL_DELAY_SECONDS", 0.0)

    async def body() -> None:
        async with sandbox_factory(tmp_path) as factory:
            for sandbox in await asyncio.gather(*(factory.make() for _ in range(6))):
                assert (await sandbox.run(["echo", "well"])).stdout == b"well\n"

    with asyncio.Runner(loop_factory=server._loop_factory()) as runner:
        runner.run(body())


async def test_one_for_another_network(factory: SandboxFactory):
    """A sandbox preforked for one network does not get another."""
    networks = [
        (await (await factory.make(network=network)).run(["readlink", "/proc/self/ns/net"])).stdout.decode().strip()
        for network in ("none", "host", "none", "host")
    ]
    own = str(Path("/proc/self/ns/net").readlink())
    assert [network == own for network in networks] == [False, True, False, True]


@pytest.mark.parametrize("spare", range(3))
async def test_no_descriptors(factory: SandboxFactory, spare):
    """Without free descriptors a sandbox is refused with the reason, and leaks none."""
    factory.manager._warm_pool.clear()
    before, limits = open_descriptors(), resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, limits[1]))
    try:
        with pytest.raises(SandboxError, match="Too many open files"):
            await factory.make()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert open_descriptors() == before
    assert (await (await factory.make()).run(["echo", "well"])).stdout == b"well\n"


def open_descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


def kill_below(pid: int) -> None:
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        kill_below(int(child))
        with suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)
