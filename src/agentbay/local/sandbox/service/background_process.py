"""A process that keeps running while nobody waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from agentbay.local.sandbox.service.errors import SandboxGone
from agentbay.local.sandbox.service.frozen_clock import FrozenClock
from agentbay.local.sandbox.service.input_pipe import InputPipe
from agentbay.local.sandbox.service.output_store import OutputStore

STREAMS = ("stdout", "stderr")


class ProcessControl(NamedTuple):
    """Functions that signal a process group, and kill all that belongs to it."""

    signal: Callable[[int], None]
    kill: Callable[[], None]


class BackgroundProcess:
    """A process in a sandbox, with its input and all of its output.

    Attributes:
        pid: Its pid in the sandbox, and that of its process group.
        started_at: Seconds since the epoch.
        stores: The stored standard output and standard error, by the stream's name.
        ended: Its exit code, as a shell reports it, once all that it has written is kept; or SandboxGone.
    """

    def __init__(
        self,
        pid: int,
        stdin: InputPipe,
        stdout: OutputStore,
        stderr: OutputStore,
        exited: asyncio.Future[int],
        clock: FrozenClock,
        control: ProcessControl,
    ) -> None:
        self.pid, self.started_at = pid, time.time()
        self.stdin = stdin
        self.stores = dict(zip(STREAMS, (stdout, stderr), strict=True))
        self._clock, self._control = clock, control
        self.ended = asyncio.ensure_future(self._drain_at_end(exited))
        self.ended.add_done_callback(lambda ended: ended.exception())  # which asyncio would log if nobody waits

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None while it runs."""
        return self.ended.result() if self.ended.done() and self.ended.exception() is None else None

    async def wait(self, timeout: float) -> int | None:
        """Return the exit code, or None if it still runs after `timeout` seconds.

        Time spent frozen does not count.
        """
        return self.ended.result() if await self._clock.ends_within(self.ended, timeout) else None

    async def wait_for_output(self, store: OutputStore, offset: int, timeout: float) -> None:
        """Wait until there is output beyond an offset, or the process has ended.

        It waits for `timeout` seconds at most. Time spent frozen does not count.
        """
        end = self._clock.time() + timeout
        while store.size <= offset and not store.loss and not self.ended.done() and end > self._clock.time():
            changes: set[asyncio.Future[Any]] = {store.next_change(), self.ended}
            first = asyncio.ensure_future(asyncio.wait(changes, return_when=asyncio.FIRST_COMPLETED))
            try:
                await self._clock.ends_within(first, end - self._clock.time())
            finally:
                first.cancel()

    def signal(self, number: int) -> None:
        """Send a signal to its process group, unless it has ended."""
        self._control.signal(number)

    def kill(self) -> None:
        """Kill it and everything that it has started."""
        self._control.kill()

    def tail(self, size: int) -> tuple[bytes, bytes]:
        """Return the last `size` bytes of both streams so far."""
        out, err = (store.read_now(max(0, store.size - size), size) for store in self.stores.values())
        return out, err

    def remove_output(self) -> None:
        """Remove what is kept of its output."""
        for store in self.stores.values():
            store.remove()

    async def _drain_at_end(self, exited: asyncio.Future[int]) -> int:
        try:
            code = await exited
            for store in self.stores.values():
                await store.drain()
            return code
        except SandboxGone:
            self.remove_output()
            raise
        finally:
            self.stdin.close()
