"""Changes reported by inotify, without polling idle trees."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentbay import AsyncSession, AsyncWatch
from agentbay._concurrency import async_sleep
from tests.local.traces import unique_seconds

pytestmark = pytest.mark.slow
HOME = "/home/wuying"
NEVER = 3600.0  # seconds between two looks, for a watch that shall live of pushes alone
SET_LIMIT = """
import os, sys
from agentbay.local.sandbox.shared.syscalls import CLONE_NEWUSER, setns
setns(os.open(sys.argv[1], os.O_RDONLY), CLONE_NEWUSER)
open("/proc/sys/user/max_inotify_watches", "w").write(sys.argv[2])
"""


@pytest.fixture
async def session(session: AsyncSession) -> AsyncSession:
    await session.file_system.create_directory("w")
    return session


async def run(session: AsyncSession, script: str) -> str:
    return (await session.command.run(script, timeout_ms=300_000)).output.strip()


async def until(changes: AsyncWatch, wanted: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the changes below the directory until all wanted ones came."""
    seen: list[tuple[str, str]] = []
    end = time.monotonic() + 300
    while not wanted <= set(seen):
        found = await changes._next_batch(end - time.monotonic())
        assert found is not None, "it has ended"
        assert found or time.monotonic() < end, f"this never came: {wanted - set(seen)}"
        seen += [(change.event_type, change.path.removeprefix(f"{HOME}/w/")) for change in found]
    return seen


async def looked_at(session: AsyncSession) -> bool:
    """Return whether idle trees are polled: each poll uses up a process id."""
    first, second = [int(await run(session, "echo $$")) for _ in range(2)]
    await async_sleep(1)
    return int(await run(session, "echo $$")) - second > second - first


async def becomes(session: AsyncSession, busy: bool) -> None:
    end = time.monotonic() + 60
    while await looked_at(session) is not busy:
        assert time.monotonic() < end


async def test_idle_tree(session: AsyncSession) -> None:
    """An idle tree is not polled, nor one that was moved away."""
    await run(session, "mkdir -p w/a/b/c; (cd w/a/b/c; touch $(seq 100))")
    async with session.file_system.watch("w", interval=NEVER) as changes:
        await becomes(session, False)
        await run(session, "echo x > w/a/b/c/7")
        assert set(await until(changes, {("modify", "a/b/c/7")})) == {("modify", "a/b/c/7")}
        await becomes(session, False)
        await run(
            session, "mv w/a gone; rmdir w/none; (while sleep 0.1; do date > gone/b/c/8; done) > /dev/null 2>&1 &"
        )
        await until(changes, {("delete", "a")})
        await run(session, "touch w/new")
        seen = await until(changes, {("create", "new")})
        assert {path for _, path in seen if not path.startswith("a/")} == {"new"}


async def test_new_directories(session: AsyncSession) -> None:
    """New and renamed directories are watched like the first."""
    async with session.file_system.watch("w", interval=NEVER) as changes:
        await run(session, "for i in $(seq 20); do mkdir -p w/$i/x/y; touch w/$i/x/y/z; done")
        wanted = {("create", f"{i}{below}") for i in range(1, 21) for below in ("", "/x", "/x/y", "/x/y/z")}
        seen = await until(changes, wanted)
        # a look may fall into a touch
        assert sorted(change for change in seen if change[0] != "modify") == sorted(wanted)
        await run(session, "mv w/1 w/one")
        await until(changes, {("create", "one/x/y/z"), ("delete", "1/x/y/z"), ("delete", "1")})
        await becomes(session, False)
        await run(session, "echo x > w/one/x/y/z; touch w/2/x/y/new")
        await until(changes, {("modify", "one/x/y/z"), ("create", "2/x/y/new")})


async def test_directory_that_goes(session: AsyncSession) -> None:
    """A deleted or moved directory is watched again when it returns."""
    await run(session, "mkdir -p above/w; touch above/w/old")
    async with session.file_system.watch("above/w", interval=NEVER) as changes:
        for number, parting in enumerate(("rm -r above/w", "mv above elsewhere", "mv above/w above/v")):
            old = f"{HOME}/above/w/{number}"
            await run(session, f"touch {old}")
            await until(changes, {("create", old)})
            await becomes(session, False)
            await run(session, parting)
            await until(changes, {("delete", old)})
            await run(session, "mkdir -p above/w")


async def test_path_through_a_link(session: AsyncSession) -> None:
    """A link's target is polled, also when the link changes."""
    await run(session, "mkdir one two; touch two/second; ln -s one link")
    async with session.file_system.watch("link", interval=NEVER) as changes:
        await run(session, "touch one/first")
        await until(changes, {("create", f"{HOME}/link/first")})
        await run(session, "ln -sfn two link")
        await until(changes, {("create", f"{HOME}/link/second"), ("delete", f"{HOME}/link/first")})


async def test_limit_of_the_kernel(session: AsyncSession) -> None:
    """Beyond the kernel's limit of watches the tree is polled."""
    seconds = unique_seconds()
    await session.command.start(f"exec sleep {seconds}")
    limited = await namespace_of(f"sleep\0{seconds}\0".encode())
    set_limit(limited, 8)
    await run(session, "cd w; mkdir $(seq 9)")
    async with session.file_system.watch("w", interval=NEVER) as changes:
        await becomes(session, True)
        await run(session, "for i in $(seq 9); do touch w/$i/new; done")
        await until(changes, {("create", f"{number}/new") for number in range(1, 10)})
        set_limit(limited, 1000)
        await becomes(session, False)
        await run(session, "touch w/9/newer")
        await until(changes, {("create", "9/newer")})


async def namespace_of(command_line: bytes) -> Path:
    """Return the user namespace of a session's commands."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "cmdline").read_bytes() == command_line:
                    return process / "ns/user"
            except OSError:  # it has ended
                continue
        await async_sleep(0.05)
    raise AssertionError("it does not run")


def set_limit(namespace: Path, limit: int) -> None:
    subprocess.run([sys.executable, "-c", SET_LIMIT, str(namespace), str(limit)], check=True)


async def test_storm(session: AsyncSession) -> None:
    """More changes than inotify's queue holds still end in the right state."""
    kept = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    storm = (
        f"cd w; python3 -c \"for i in range({kept}): open(f'{{i % 4999}}', 'a').write('x')\"; rm -f [1-9]*; touch end"
    )
    async with session.file_system.watch("w", interval=NEVER) as changes:
        await run(session, storm)
        seen = await until(changes, {("create", "end")})
        held: set[str] = set()
        for kind, path in seen:
            held = held - {path} if kind == "delete" else held | {path}
        assert held == {"0", "end"}
        await becomes(session, False)
