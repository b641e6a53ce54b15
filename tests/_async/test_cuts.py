"""Connections cut for good at any moment of a file's replacement.

The file is then the old one or the new one, never a mixture.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentbay import AgentBayError, AsyncAgentBay, AsyncFileSystem, AsyncSession, Config
from agentbay._async import tree_transfer as tree_module
from agentbay._concurrency import async_sleep
from tests import cutting

pytestmark = pytest.mark.slow

FOLDER = "/tmp/file-transfer"  # into which files can be sent
OLD, NEW = b"old " * 20_000, "new ü".encode() * 25_000  # through the service each goes in several pieces
PLACES = 5  # at which requests are cut, and answers


@pytest.fixture(scope="module", params=["on", "off"], ids=["by link", "by service"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    with cutting.runtime("--link-url", request.param) as port:
        yield port


@asynccontextmanager
async def session_by(port: int, session_id: str = "") -> AsyncIterator[AsyncSession]:
    """Return a session reached through a port, new or existing."""
    config = Config(endpoint=f"http://127.0.0.1:{port}")
    async with AsyncAgentBay(cutting.KEY, config, max_retries=0, strict=False) as bay:
        if not session_id:
            async with bay.session() as session:
                yield session
            return
        found = (await bay.get(session_id)).unwrap().session
        assert found is not None
        yield found


async def write(files: AsyncFileSystem, local: Path, timeout: float) -> bool:
    return bool(await files.write_file(f"{FOLDER}/file", local.read_bytes()))


async def upload(files: AsyncFileSystem, local: Path, timeout: float) -> bool:
    return bool(await files.upload_file(local, f"{FOLDER}/file", wait_timeout=timeout, poll_interval=0.05))


async def push(files: AsyncFileSystem, local: Path, timeout: float) -> bool:
    try:
        await files.push(local.parent, FOLDER)
    except AgentBayError:
        return False
    return True


@pytest.mark.parametrize("write_file", [write, push, upload], ids=lambda write_file: write_file.__name__)
async def test_old_or_new(
    port: int, write_file: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a cut the file is old or new, and success is true."""
    monkeypatch.setattr(tree_module, "_TREE_RETRY_SECONDS", 0.3)
    local = tmp_path / "file"
    async with session_by(port) as session:
        for of_requests in (True, False):
            done, whole = await replace(session, write_file, local, of_requests, sys.maxsize)
            assert done
            outcomes = set()
            for number in range(PLACES):
                done, _ = await replace(session, write_file, local, of_requests, 1 + whole * number // PLACES)
                assert await content(session) in ((NEW,) if done else (OLD, NEW))
                await wait_until_tidy(session)
                outcomes.add(done)
            assert False in outcomes


async def wait_until_tidy(session: AsyncSession) -> None:
    """Wait until only the file is left.

    The service learns of a cut by itself, and removes what it has begun then.
    """
    until = time.monotonic() + 60
    while [entry.name for entry in (await session.file_system.list_directory(FOLDER)).entries] != ["file"]:
        assert time.monotonic() < until
        await async_sleep(0.02)


async def content(session: AsyncSession) -> bytes:
    """Return the content of the file, when it no longer changes.

    A request that was cut off may still be replacing it, and the service reads it in pieces.
    """
    assert await session.command.run(f"cp {FOLDER}/file /tmp/copy")
    return (await session.file_system.read_file("/tmp/copy", format="bytes")).content


async def replace(
    session: AsyncSession, write_file: Callable[..., Any], local: Path, of_requests: bool, limit: int
) -> tuple[bool, int]:
    """Replace the file through a breaking proxy, and return the outcome."""
    files = session.file_system
    assert await files.write_file(f"{FOLDER}/file", OLD)
    local.write_bytes(NEW)
    port = int(session.agent_bay.client.settings.url.rpartition(":")[2])
    with cutting.CuttingProxy(port, [], of_requests=of_requests, for_good=True) as proxy:
        async with session_by(proxy.port, session.session_id) as broken:
            before = proxy.passed
            proxy.cut_in(limit)
            done = await write_file(broken.file_system, local, 30.0 if limit == sys.maxsize else 0.3)
            return done, proxy.passed - before
