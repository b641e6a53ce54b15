"""Measure how costs grow with use, against a local runtime.

    python benchmarks/growth.py [name ...]

Each name is one function below: of live sessions, the bytes of a file, labels, files of a directory, events, and calls
at once. Figures are medians of several rounds, and the result is `results/growth.json`; `docs/generate/plots.py` draws
it. All of it takes one to two minutes.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from measure import timed_async
from transfers import make_file

from agentbay import AsyncAgentBay, AsyncSession

RESULT = Path(__file__).parent / "results" / "growth.json"
SESSIONS = [1, 10, 100, 1000]
SIZES = [10**3, 10**4, 10**5, 10**6, 10**7, 10**8, 1 << 30]
COUNTS = [1, 10, 100, 1000, 10_000]
CALLS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]
Points = dict[str, list[tuple[int, float]]]


async def median(call: Callable[[], Awaitable[object]], rounds: int = 5) -> float:
    """Return how many milliseconds a call takes."""
    return statistics.median(await timed_async(call, rounds))


async def sessions(bay: AsyncAgentBay) -> Points:
    """Measure a session's creation, command and end, while others live."""
    points: Points = {"create": [], "command": [], "delete": []}
    others: list[AsyncSession] = []

    async def make() -> AsyncSession:
        session = (await bay.create()).unwrap().session
        assert session is not None
        return session

    for count in SESSIONS:
        while len(others) < count - 1:
            batch = min(25, count - 1 - len(others))
            others += await asyncio.gather(*(make() for _ in range(batch)))
        created: list[AsyncSession] = []

        async def create(created: list[AsyncSession] = created) -> None:
            created.append(await make())

        points["create"].append((count, await median(create, 20)))
        points["command"].append((count, await median(lambda: created[0].command.run("true"), 20)))  # noqa: B023
        points["delete"].append((count, await median(lambda: created.pop().delete(), 20)))  # noqa: B023
    await asyncio.gather(*(session.delete() for session in others))
    return points


async def size(bay: AsyncAgentBay) -> Points:
    """Measure the way of a file into a session and back."""
    points: Points = {"upload": [], "download": []}
    with tempfile.TemporaryDirectory() as folder:
        async with bay.session() as session:
            source, back, there = Path(folder, "source"), Path(folder, "back"), "/tmp/file"
            for count in SIZES:
                make_file(source, count)
                rounds, files = 3 if count > 10**8 else 5, session.file_system
                points["upload"].append((count, await median(lambda: files.upload_file(source, there), rounds)))  # noqa: B023
                points["download"].append((count, await median(lambda: files.download_file(there, back), rounds)))  # noqa: B023
    return points


async def labels(bay: AsyncAgentBay) -> Points:
    """Measure setting and reading labels."""
    points: Points = {"set": [], "get": []}
    async with bay.session() as session:
        for count in COUNTS:
            wanted = {f"name-{number}": f"value {number}" for number in range(count)}
            points["set"].append((count, await median(lambda: session.set_labels(wanted))))  # noqa: B023
            points["get"].append((count, await median(session.get_labels)))
            assert (await session.get_labels()).data == wanted
    return points


async def files(bay: AsyncAgentBay) -> Points:
    """Measure listing a directory, and searching it."""
    points: Points = {"list": [], "search": []}
    async with bay.session() as session:
        for count in COUNTS:
            place = f"/tmp/{count}"
            (await session.command.run(f"mkdir {place} && cd {place} && seq {count} | xargs touch")).check()
            points["list"].append((count, await median(lambda: session.file_system.list_directory(place))))  # noqa: B023
            points["search"].append((count, await median(lambda: session.file_system.search_files(place, "*"))))  # noqa: B023
            assert len((await session.file_system.list_directory(place)).entries) == count
    return points


async def events(bay: AsyncAgentBay) -> Points:
    """Measure the time from a command that makes files until all are reported."""
    points: Points = {"watch": []}
    async with bay.session() as session:
        for count in COUNTS:
            place = f"/tmp/{count}"
            (await session.command.run(f"mkdir {place}")).check()
            async with session.file_system.watch(place) as changes:

                async def change(place: str = place, count: int = count, changes: Any = changes) -> None:
                    make = session.command.run(f"cd {place} && seq {count} | xargs touch")
                    command, left = asyncio.create_task(make), set(range(1, count + 1))
                    while left:
                        left.discard(int((await anext(changes)).path.rpartition("/")[2]))
                    (await command).check()

                points["watch"].append((count, await median(change, 1)))
    return points


async def calls(bay: AsyncAgentBay) -> Points:
    """Measure the processor time of the client for a call, of many at once."""
    points: Points = {"client": [], "until the last answer": []}
    async with bay.session() as session:
        for count in CALLS:
            rounds = max(2, 500 // count)
            await asyncio.gather(*(session.get_labels() for _ in range(count)))
            cpu, began = time.process_time(), time.perf_counter()
            for _ in range(rounds):
                await asyncio.gather(*(session.get_labels() for _ in range(count)))
            taken = time.perf_counter() - began
            points["client"].append((count, (time.process_time() - cpu) * 1000 / rounds))
            points["until the last answer"].append((count, taken * 1000 / rounds))
    return points


MEASUREMENTS = [sessions, size, labels, files, events, calls]


async def measure(wanted: list[str]) -> dict[str, Any]:
    """Run the measurements with these names, or all."""
    found: dict[str, Any] = {}
    for measurement in MEASUREMENTS:
        name = measurement.__name__
        if not wanted or name in wanted:
            async with AsyncAgentBay.local(max_connections=max(CALLS)) as bay:
                load = os.getloadavg()[0]
                points = await measurement(bay)
            found[name] = {
                "load": round(load, 1),
                "ms": {line: {x: round(y, 3) for x, y in values} for line, values in points.items()},
            }
            print(name, json.dumps(found[name]["ms"]), file=sys.stderr)
    return found


def main() -> None:
    """Measure, and write the result, with earlier ones of other names."""
    figures = asyncio.run(measure(sys.argv[1:]))
    earlier = json.loads(RESULT.read_text(encoding="utf-8"))["figures"] if sys.argv[1:] and RESULT.exists() else {}
    machine = f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {platform.system()} {platform.machine()}"
    result = {"machine": machine, "date": time.strftime("%Y-%m-%d"), "figures": earlier | figures}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
