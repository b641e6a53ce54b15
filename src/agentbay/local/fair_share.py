"""Taking turns on the event loop, which serves all sessions.

A session can send what takes long to parse, such as a body in chunks of one byte, and asyncio goes on with a connection
for as long as it has data. So whoever parses what a session sends measures that, and gives way to others when it has
taken a turn. However many connections a session has, they share one turn at a time, and all sessions together a
quarter of the loop.
"""

from __future__ import annotations

import asyncio
import time
from weakref import WeakKeyDictionary

_TURN_SECONDS = 0.002  # of processor time
_PAUSE_FACTOR = 3  # a pause lasts this many times as long as the work before it

_queues: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


class SessionTurns:
    """Makes the connections of one session pause one after the other."""

    def __init__(self) -> None:
        self._queue = asyncio.Lock()

    async def wait(self, spent: float) -> None:
        """Pause for `_PAUSE_FACTOR` times the seconds that were spent."""
        queue = _queues.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        async with self._queue, queue:
            await asyncio.sleep(spent * _PAUSE_FACTOR)


class FairShare:
    """Measures the processor time spent on one connection, and pauses after its share.

    Put work that does not await into a `with` block: only that is measured.
    """

    def __init__(self, turns: SessionTurns) -> None:
        self._turns = turns
        self._spent = self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.thread_time()  # unlike the clock, it stands still while other programs run

    def __exit__(self, *_: object) -> None:
        self._spent += time.thread_time() - self._began

    def add(self, seconds: float) -> None:
        """Count work that cannot be measured."""
        self._spent += seconds

    async def give_way(self) -> None:
        """Let others work if a turn was taken."""
        if self._spent >= _TURN_SECONDS:
            spent, self._spent = self._spent, 0.0
            await self._turns.wait(spent)
