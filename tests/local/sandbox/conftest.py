from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("sandboxes need Linux", allow_module_level=True)

from agentbay.local.sandbox.service.manager import Sandbox, SandboxManager, SandboxSpec
from tests.local.traces import PATIENCE


class Lab:
    """A manager and sandboxes in directories of their own, for one test."""

    def __init__(self, manager: SandboxManager, directory: Path) -> None:
        self.manager, self.directory = manager, directory
        self.made = 0

    async def sandbox(self, **options: Any) -> Sandbox:
        self.made += 1
        root = self.directory / f"sandbox-{self.made}"
        root.mkdir(exist_ok=True)
        return await self.manager.create(SandboxSpec(root=root, **options))


@asynccontextmanager
async def laboratory(directory: Path) -> AsyncIterator[Lab]:
    manager = await SandboxManager.start()
    try:
        yield Lab(manager, directory)
    finally:
        await manager.close()


async def becomes(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait until something in a sandbox is true.

    The time limit is that of the whole experiment.
    """
    while not await condition():
        await asyncio.sleep(0.02)


async def grows(file: Path, size: int = 0) -> int:
    """Wait until a file has more than `size` bytes, and return its size."""
    while not file.exists() or (found := file.stat().st_size) <= size:
        await asyncio.sleep(0.02)
    return found


Experiment = Callable[[Lab], Awaitable[None]]


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[[Experiment], None]:
    """Run an async function with a fresh lab."""

    def conduct(body: Experiment) -> None:
        async def whole() -> None:
            async with laboratory(tmp_path) as lab:
                await asyncio.wait_for(body(lab), 2 * PATIENCE)

        asyncio.run(whole())

    return conduct
