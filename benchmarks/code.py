"""Measure running code, beside a plain ipykernel, and many kernels at once.

    python benchmarks/code.py [rounds] [sessions]

The plain kernel is ipykernel over Unix sockets, by jupyter_client, without a sandbox. Medians and best, milliseconds.
Memory is proportional (PSS) MiB: what sessions share, such as the zygote's pages, is divided among them.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager
from measure import descendants, proportional_bytes, timed_async

from agentbay import AsyncAgentBay, AsyncSession, CreateSessionParams

PARAMS = CreateSessionParams(image_id="code_latest")
PLOT = "import matplotlib.pyplot as plt; plt.plot([1, 2, 3]);"
WARM_UP = 10.0  # seconds at most for the zygote to be ready


class Figures:
    """Durations by name, in the order of first measurement."""

    def __init__(self) -> None:
        self._taken: dict[str, list[float]] = {}

    async def take(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        """Time one piece of work."""
        self._taken.setdefault(name, []).extend(await timed_async(work))

    def tell(self) -> None:
        """Print the durations."""
        print(f"{'':<44}{'median ms':>10}{'best ms':>10}")
        for name, values in self._taken.items():
            print(f"{name:<44}{statistics.median(values):>10.1f}{min(values):>10.1f}")


async def plain(figures: Figures) -> None:
    """Start an ipykernel and run code in it."""
    with tempfile.TemporaryDirectory() as directory:
        manager = AsyncKernelManager(transport="ipc", connection_file=f"{directory}/connection.json")
        clients: list[AsyncKernelClient] = []

        async def first() -> None:
            await manager.start_kernel()
            client = manager.client()
            clients.append(client)
            client.start_channels()
            await client.wait_for_ready(timeout=60)
            await client.execute_interactive("1", output_hook=lambda _: None)

        try:
            await figures.take("plain ipykernel: start to first result", first)
            for name, code in (("second call", "1"), ("first plot", PLOT)):
                run = clients[0].execute_interactive
                await figures.take(f"plain ipykernel: {name}", lambda run=run, code=code: run(code, output_hook=_quiet))
        finally:
            for client in clients:
                client.stop_channels()
            await manager.shutdown_kernel(now=True)


def _quiet(_: object) -> None: ...


async def ours(bay: AsyncAgentBay, figures: Figures, language: str, code: str, params: CreateSessionParams) -> None:
    """Create a session and run code in it."""
    sessions: list[AsyncSession] = []

    async def first() -> None:
        created = (await bay.create(params)).unwrap()
        assert created.session is not None
        sessions.append(created.session)
        await run(sessions[0], code, language)

    await figures.take(f"ours, {language}: create to first result", first)
    await figures.take(f"ours, {language}: second call", lambda: run(sessions[0], code, language))
    if language == "python":
        await figures.take(f"ours, {language}: first plot", lambda: run(sessions[0], PLOT, language))
    await sessions[0].delete()


async def run(session: AsyncSession, code: str, language: str = "python") -> None:
    """Run code that must succeed."""
    (await session.code.run_code(code, language)).check()


async def many(bay: AsyncAgentBay, count: int) -> None:
    """Keep this many sessions open at once, each with a Python kernel."""
    before = proportional_bytes(descendants())

    async def one(number: int) -> AsyncSession:
        session = (await bay.create(PARAMS)).unwrap().session
        assert session is not None
        await run(session, f"mine = {number}")
        assert (await session.code.run_code("mine", "python")).result == str(number)
        return session

    began = time.perf_counter()
    sessions = await asyncio.gather(*(one(number) for number in range(count)))
    took = time.perf_counter() - began
    used = (proportional_bytes(descendants()) - before) / count / (1 << 20)
    print(f"\n{count} sessions with a Python kernel each, at once: {took:.2f} s, {used:.1f} MiB a session (idle)")
    await asyncio.gather(*(run(session, "import pandas as pd; frame = pd.DataFrame({'a': range(9)})\n" + PLOT)
                           for session in sessions))  # fmt: skip
    used = (proportional_bytes(descendants()) - before) / count / (1 << 20)
    print(f"after a plot in each: {used:.1f} MiB a session")
    await asyncio.gather(*(session.delete() for session in sessions))


async def main() -> None:
    """Measure and print."""
    rounds, sessions = [*map(int, sys.argv[1:]), *(10, 20)[len(sys.argv) - 1 :]]
    figures = Figures()
    async with AsyncAgentBay.local() as bay:
        async with bay.session(PARAMS) as session:
            await run(session, "1")
        await asyncio.sleep(WARM_UP)
        for _ in range(rounds):
            await ours(bay, figures, "python", "1", PARAMS)
            await ours(bay, figures, "javascript", "1", PARAMS)
            await plain(figures)
        figures.tell()
        await many(bay, sessions)


if __name__ == "__main__":
    asyncio.run(main())
