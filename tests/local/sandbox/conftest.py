from __future__ import annotations

import asyncio
import functools
import inspect
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


class SandboxFactory:
    """A manager and sandboxes in directories of their own, for one test."""

    def __init__(self, manager: SandboxManager, directory: Path) -> None:
        self.manager, self.directory = manager, directory
        self.made = 0

    async def make(self, **options: Any) -> Sandbox:
        self.made += 1
        root = self.directory / f"sandbox-{self.made}"
        root.mkdir(parents=True, exist_ok=True)
        return await self.manager.create(SandboxSpec(root=root, **options))


@asynccontextmanager
async def sandbox_factory(directory: Path, **options: Any) -> AsyncIterator[SandboxFactory]:
    manager = await SandboxManager.start(**options)
    try:
        if manager._end_of_trial is not None:
            await manager._end_of_trial  # its descriptors are not to be closed between two counts
        yield SandboxFactory(manager, directory)
    finally:
        await manager.close()


async def becomes(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait until something in a sandbox is true.

    The time limit is that of the whole test.
    """
    while not await condition():
        await asyncio.sleep(0.02)


async def grows(file: Path, size: int = 0) -> int:
    """Wait until a file has more than `size` bytes, and return its size."""
    while not file.exists() or (found := file.stat().st_size) <= size:
        await asyncio.sleep(0.02)
    return found


@pytest.fixture
async def factory(tmp_path: Path) -> AsyncIterator[SandboxFactory]:
    async with sandbox_factory(tmp_path) as factory:
        yield factory


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Limit the time of each asynchronous test."""
    test = pyfuncitem.obj
    if inspect.iscoroutinefunction(test):

        @functools.wraps(test)
        async def limited(**arguments: Any) -> None:
            async with asyncio.timeout(2 * PATIENCE):
                await test(**arguments)

        pyfuncitem.obj = limited
