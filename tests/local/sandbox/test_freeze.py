from __future__ import annotations

import asyncio

import pytest

from agentbay.local.sandbox.service.manager import Limits, SandboxError
from tests.local.sandbox.conftest import becomes, grows


async def test_a_counting_process(factory):
    """A frozen process does nothing at all, and goes on where it was."""
    sandbox = await factory.make()
    task = asyncio.create_task(sandbox.run(["bash", "-c", "while :; do echo -n x >> count; done"]))
    count = factory.directory / "sandbox-1" / "home" / "count"
    await grows(count)
    await sandbox.freeze()
    first = count.stat().st_size
    await asyncio.sleep(0.2)
    assert count.stat().st_size == first
    await sandbox.thaw()
    await grows(count, first)
    task.cancel()


async def test_a_loop_of_forks(factory):
    """Processes that are being forked are caught too, again and again."""
    sandbox = await factory.make(limits=Limits(processes=100))
    script = "f() { while :; do (sleep 0.01 & wait; echo x >> log); done; }; f & f & f & f"
    task = asyncio.create_task(sandbox.run(["bash", "-c", script]))
    log = factory.directory / "sandbox-1" / "home" / "log"
    await grows(log)
    for _ in range(5):
        await sandbox.freeze()
        size, used = log.stat().st_size, (await sandbox.usage()).cpu_seconds
        await asyncio.sleep(0.1)
        assert (log.stat().st_size, (await sandbox.usage()).cpu_seconds) == (size, used)
        await sandbox.thaw()
        await grows(log, size)
    assert not task.done()
    task.cancel()


async def test_an_interactive_shell_notices_nothing(factory):
    """A shell with job control does not take its foreground job for stopped."""
    sandbox = await factory.make()
    job = "python3 -c 'import time; [time.sleep(.02) for _ in range(30)]'; echo code $?"
    terminal = f"import pty; pty.spawn(['bash', '-ic', {job!r}])"
    task = asyncio.create_task(sandbox.run(["python3", "-c", terminal]))
    for _ in range(5):
        await asyncio.sleep(0.1)
        await sandbox.freeze()
        await asyncio.sleep(0.02)
        await sandbox.thaw()
    done = await task
    assert b"code 0" in done.stdout
    assert b"Stopped" not in done.stdout


async def test_who_was_stopped_stays_so(factory):
    """Thawing continues only what freezing has stopped."""
    sandbox = await factory.make()
    begun = "pkill -STOP -x -f 'sleep 600' && pgrep -x -f 'sleep 601'"
    script = f"setsid sleep 600 >&/dev/null & setsid sleep 601 >&/dev/null & until {begun}; do sleep 0.05; done"
    await sandbox.run(["bash", "-c", script])
    await sandbox.freeze()
    await sandbox.thaw()

    async def as_before() -> bool:  # who goes on is awake for a moment
        states = (await sandbox.run(["ps", "-C", "sleep", "-o", "stat="])).stdout.split()
        assert states[0][:1] == b"T"
        return states[1][:1] == b"S"

    await becomes(as_before)


async def test_time_stands_still_for_timeouts(factory):
    """A command's time does not run while it is frozen."""
    sandbox = await factory.make()
    script = "touch begun; until [ -e over ]; do sleep 0.05; done"
    task = asyncio.create_task(sandbox.run(["bash", "-c", script], timeout=5))
    home = factory.directory / "sandbox-1" / "home"
    while not (home / "begun").exists():
        await asyncio.sleep(0.02)
    await sandbox.freeze()
    await asyncio.sleep(5.5)
    (home / "over").touch()
    await sandbox.thaw()
    done = await task
    assert (done.exit_code, done.timed_out) == (0, False)


async def test_use_while_frozen(factory):
    """A frozen sandbox refuses commands, and freezing and thawing are idempotent."""
    sandbox = await factory.make()
    await asyncio.gather(sandbox.freeze(), sandbox.freeze())
    with pytest.raises(SandboxError, match="frozen"):
        await sandbox.run(["true"])
    await sandbox.thaw()
    await sandbox.thaw()
    assert (await sandbox.run(["true"])).exit_code == 0
    await sandbox.freeze()
    await sandbox.close()
    assert not sandbox.alive


async def test_close_with_frozen_command(factory):
    """Closing a frozen sandbox ends the call that waits in it."""
    sandbox = await factory.make()
    task = asyncio.create_task(sandbox.run(["sleep", "60"], timeout=30))
    await asyncio.sleep(0.1)
    await sandbox.freeze()
    await sandbox.close()
    with pytest.raises(SandboxError):
        await task
