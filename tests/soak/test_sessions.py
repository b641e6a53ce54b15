"""The long measurements of the runtime, run by `scripts/soak`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agentbay import AsyncAgentBay, AsyncSession, CreateSessionParams

pytestmark = pytest.mark.soak
CYCLES = int(os.environ.get("AGENTBAY_SOAK_CYCLES", "10000"))
SESSIONS = int(os.environ.get("AGENTBAY_SOAK_SESSIONS", "1000"))


@pytest.fixture
async def bay() -> AsyncIterator[AsyncAgentBay]:
    async with AsyncAgentBay.local() as bay:
        await bay.list()
        yield bay


def descendants() -> list[int]:
    """Return all processes below this one."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found = {os.getpid()}
    while new := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= new
    return sorted(found - {os.getpid()})


def measures() -> dict[str, int]:
    """Count descendant processes, their memory in KiB, their descriptors, and mounts."""
    memory = descriptors = 0
    pids = descendants()
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            memory += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            descriptors += len(list(Path(f"/proc/{pid}/fd").iterdir()))
        except OSError:
            continue
    mounts = len(Path("/proc/self/mounts").read_text().splitlines())
    return {"processes": len(pids), "memory": memory, "descriptors": descriptors, "mounts": mounts}


async def cycle(bay: AsyncAgentBay) -> None:
    """Create a session, use it, delete it."""
    async with bay.session() as session:
        assert await session.file_system.write_file("x.txt", "x")
        assert (await session.command.run("cat x.txt")).output == "x"


async def test_cycles_leave_nothing(bay: AsyncAgentBay, capsys: pytest.CaptureFixture[str]) -> None:
    """Thousands of sessions leave no memory, descriptors, processes or mounts."""

    async def work(left: Iterator[int]) -> None:
        for _ in left:
            await cycle(bay)

    async def cycles(number: int) -> None:
        left = iter(range(number))
        await asyncio.gather(*(work(left) for _ in range(8)))

    await cycles(100)  # by as many tasks, so that as many connections are kept before as after
    await asyncio.sleep(1)
    before, began = measures(), time.monotonic()
    await cycles(CYCLES)
    took = time.monotonic() - began
    await asyncio.sleep(2)
    after = measures()
    with capsys.disabled():
        print(f"\n{CYCLES} cycles in {took:.0f} s ({CYCLES / took:.0f}/s); before {before}, after {after}")
    assert {**after, "memory": 0} == {**before, "memory": 0}
    assert after["memory"] < before["memory"] * 1.2 + 4096


async def test_many_idle_sessions(bay: AsyncAgentBay, capsys: pytest.CaptureFixture[str]) -> None:
    """A thousand concurrent sessions all answer."""
    empty = measures()
    made: list[AsyncSession] = []
    began = time.monotonic()
    for _ in range(SESSIONS // 50):
        batch = await asyncio.gather(*(bay.create() for _ in range(50)))
        made += [session for result in batch if (session := result.unwrap().session)]
    took = time.monotonic() - began
    full = measures()
    outputs = await asyncio.gather(*(session.command.run("echo up") for session in made[:: SESSIONS // 50]))
    assert {result.output for result in outputs} == {"up\n"}
    each = (full["memory"] - empty["memory"]) / len(made)
    with capsys.disabled():
        print(f"\n{len(made)} sessions created in {took:.0f} s; {each:.0f} KiB (PSS) and ", end="")
        print(f"{(full['descriptors'] - empty['descriptors']) / len(made):.1f} descriptors a session")
    await asyncio.gather(*(session.delete() for session in made))


async def test_python_kernels_at_once(bay: AsyncAgentBay, capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty concurrent Python kernels keep separate state, within 25 MiB each."""
    async with bay.session(CreateSessionParams(image_id="code_latest")) as session:
        await session.code.run_code("1", "python")
    await asyncio.sleep(10)  # for the zygote
    before = measures()["memory"]

    async def one(number: int) -> AsyncSession:
        session = (await bay.create()).unwrap().session
        assert session is not None
        (await session.code.run_code(f"import numpy, pandas; mine = {number}", "python")).check()
        return session

    sessions = await asyncio.gather(*(one(number) for number in range(20)))
    for number, session in enumerate(sessions):
        assert (await session.code.run_code("mine", "python")).result == str(number)
    each = (measures()["memory"] - before) / 1024 / 20
    with capsys.disabled():
        print(f"\n20 sessions with a Python kernel each: {each:.1f} MiB a session")
    assert each < 25
    await asyncio.gather(*(session.delete() for session in sessions))
