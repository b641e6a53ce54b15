"""Use many sessions at once, each to factorise one number.

    python examples/parallel_sessions.py

On the cloud, `AsyncAgentBay()` instead of `AsyncAgentBay.local()`; nothing else changes.
"""

from __future__ import annotations

import asyncio
import time

from agentbay import AsyncAgentBay, CreateSessionParams

NUMBERS = [2**61 - 1, 600851475143, 9007199254740993, 1234567890, 1000000016000000063, 97, 360360, 2**40 + 1]
AT_ONCE = 4  # sessions; an account has a limit, and so has a machine


async def factorise(bay: AsyncAgentBay, number: int, free: asyncio.Semaphore) -> str:
    """Factorise one number in a session of its own."""
    async with free, bay.session(CreateSessionParams(labels={"example": "parallel"})) as session:
        (await session.file_system.write_file("number.txt", str(number))).unwrap()
        return (await session.command.run("factor < number.txt")).check().stdout.strip()


async def main() -> None:
    """Factorise all numbers, a few at a time."""
    free = asyncio.Semaphore(AT_ONCE)
    async with AsyncAgentBay.local() as bay:
        began = time.perf_counter()
        # If one fails, the group cancels the others, and their sessions are deleted too.
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(factorise(bay, number, free)) for number in NUMBERS]
        for task in tasks:
            print(task.result())
        print(f"{len(NUMBERS)} sessions in {time.perf_counter() - began:.2f} s")
        print(f"{(await bay.list(labels={'example': 'parallel'})).total_count} sessions left")


if __name__ == "__main__":
    asyncio.run(main())
