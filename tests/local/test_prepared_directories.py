"""Directories of sessions that are made ahead."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from agentbay.local.sandbox.service.manager import SandboxManager, SandboxSpec
from agentbay.local.sessions.prepared_directories import PreparedDirectories
from agentbay.local.state_dir import StateDirectory

EVERYTHING = ["python3", "-c", "import os; print(sum(len(names) for _, *both in os.walk('/opt') for names in both))"]


def describe(root: Path) -> dict[str, object]:
    """Return all that is below a directory: kind, mode, owner and content.

    Without what is below `tmp`, where only mount points are, of a Python that is installed there.
    """
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        if root / "tmp" in path.parents:
            continue
        status = path.lstat()
        content: object = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = (stat.filemode(status.st_mode), status.st_uid, status.st_gid, content)
    return found


async def made_by(manager: SandboxManager, root: Path) -> dict[str, object]:
    """Return what is in the root of a sandbox when it has run a command."""
    sandbox = await manager.create(SandboxSpec(root=root))
    assert (await sandbox.run(EVERYTHING)).exit_code == 0
    await sandbox.close()
    return describe(root)


@pytest.mark.parametrize("umask", [0o022, 0o077])
async def test_the_same_as_made_by_the_sandbox(tmp_path: Path, umask: int) -> None:
    """A prepared directory holds what a sandbox makes in an empty one, and the sandbox makes nothing more."""
    ahead, empty = tmp_path / "ahead", tmp_path / "empty"
    for directory in (ahead, empty):
        directory.mkdir()
    manager = await SandboxManager.start()
    try:
        former = os.umask(umask)
        manager.prepare_root(ahead)
        os.umask(former)
        prepared = describe(ahead)
        inodes = {name: (ahead / name).lstat().st_ino for name in prepared}
        assert await made_by(manager, ahead) == prepared == await made_by(manager, empty)
        assert {name: (ahead / name).lstat().st_ino for name in prepared} == inodes
    finally:
        await manager.close()


async def test_how_many() -> None:
    """Some are made ahead when the second was taken, more where more are taken, and none after the end."""
    state_dir, filled, tasks = StateDirectory.open(None), list[Path](), set[asyncio.Task[None]]()

    def start_task(work: Coroutine[Any, Any, None]) -> None:
        tasks.add(asyncio.create_task(work))

    async def settled() -> None:
        while directories._refill_timer is not None or directories._is_refilling:
            await asyncio.sleep(0.01)

    directories = PreparedDirectories(state_dir, filled.append, start_task)
    try:
        assert directories.take("first").name == "first"
        assert directories._refill_timer is None
        assert directories.take("second").name == "second"
        assert not filled  # nobody waits for it
        await settled()
        assert len(filled) == 4
        taken = [directories.take(f"one of {number}") for number in range(6)]
        assert [path.name for path in taken] == [f"one of {number}" for number in range(6)]
        assert all(path.is_dir() for path in taken)
        await settled()
        assert len(directories._prepared) == 8
        directories.take("last")
        directories.close()
        await asyncio.gather(*tasks)
        assert len(directories._prepared) == 7
    finally:
        state_dir.close()
    assert not state_dir.path.exists()
