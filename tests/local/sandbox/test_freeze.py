from __future__ import annotations

import asyncio
import time

import pytest

from agentbay.local.sandbox.host import Limits, SandboxError


def count(lab) -> int:
    return (lab.directory / "sandbox-1" / "home" / "count").stat().st_size


def test_a_counting_process(experiment):
    """A frozen process does nothing at all, and goes on where it was."""

    async def body(lab):
        sandbox = await lab.sandbox()
        task = asyncio.create_task(sandbox.run(["bash", "-c", "while :; do echo -n x >> count; done"]))
        await asyncio.sleep(0.2)
        await sandbox.freeze()
        first = count(lab)
        await asyncio.sleep(0.2)
        assert count(lab) == first > 0
        await sandbox.thaw()
        await asyncio.sleep(0.2)
        assert count(lab) > first
        task.cancel()

    experiment(body)


def test_a_loop_of_forks(experiment):
    """Processes that are being forked are caught too, again and again."""

    async def body(lab):
        sandbox = await lab.sandbox(limits=Limits(processes=100))
        script = "f() { while :; do (sleep 0.01 & wait; echo x >> log); done; }; f & f & f & f"
        task = asyncio.create_task(sandbox.run(["bash", "-c", script]))
        log = lab.directory / "sandbox-1" / "home" / "log"
        await asyncio.sleep(0.3)
        for _ in range(5):
            await sandbox.freeze()
            size, used = log.stat().st_size, (await sandbox.usage()).cpu_seconds
            await asyncio.sleep(0.1)
            assert (log.stat().st_size, (await sandbox.usage()).cpu_seconds) == (size, used)
            await sandbox.thaw()
            await asyncio.sleep(0.1)
            assert log.stat().st_size > size
        assert not task.done()
        task.cancel()

    experiment(body)


def test_an_interactive_shell_notices_nothing(experiment):
    """A shell with job control does not take its foreground job for stopped."""

    async def body(lab):
        sandbox = await lab.sandbox()
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

    experiment(body)


def test_who_was_stopped_stays_so(experiment):
    """Thawing continues only what freezing has stopped."""

    async def body(lab):
        sandbox = await lab.sandbox()
        await sandbox.run(
            [
                "bash",
                "-c",
                "setsid sleep 60 >&/dev/null & setsid sleep 61 >&/dev/null & sleep 0.1; pkill -STOP -x -f 'sleep 60'",
            ]
        )
        await sandbox.freeze()
        await sandbox.thaw()
        states = (await sandbox.run(["ps", "-C", "sleep", "-o", "args=,stat="])).stdout.split()
        assert [states[2][:1], states[5][:1]] == [b"T", b"S"]

    experiment(body)


def test_time_stands_still_for_timeouts(experiment):
    """A command's time does not run while it is frozen."""

    async def body(lab):
        sandbox = await lab.sandbox()
        task = asyncio.create_task(sandbox.run(["sleep", "0.3"], timeout=0.6))
        await asyncio.sleep(0.1)
        await sandbox.freeze()
        await asyncio.sleep(0.8)
        await sandbox.thaw()
        done = await task
        assert (done.exit_code, done.timed_out) == (0, False)

    experiment(body)


def test_use_while_frozen(experiment):
    """A frozen sandbox refuses commands, freezes and thaws twice without harm, and can be closed."""

    async def body(lab):
        sandbox = await lab.sandbox()
        await asyncio.gather(sandbox.freeze(), sandbox.freeze())
        with pytest.raises(SandboxError, match="frozen"):
            await sandbox.run(["true"])
        await sandbox.thaw()
        await sandbox.thaw()
        assert (await sandbox.run(["true"])).exit_code == 0
        await sandbox.freeze()
        started = time.monotonic()
        await sandbox.close()
        assert time.monotonic() - started < 1

    experiment(body)


def test_close_with_frozen_command(experiment):
    """Closing a frozen sandbox ends the call that waits in it."""

    async def body(lab):
        sandbox = await lab.sandbox()
        task = asyncio.create_task(sandbox.run(["sleep", "60"], timeout=30))
        await asyncio.sleep(0.1)
        await sandbox.freeze()
        await sandbox.close()
        with pytest.raises(SandboxError):
            await task

    experiment(body)
