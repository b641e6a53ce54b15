"""The seam: what truly differs by flavour, in pairs. Nothing else in the package knows which flavour it is.

| asynchronous    | synchronous    | what it is                                                       |
|-----------------|----------------|------------------------------------------------------------------|
| `AsyncSlots`    | `SyncSlots`    | a bound on how many do something at once                         |
| `AsyncOwner`    | `SyncOwner`    | one thing for each event loop, or for the process                |
| `async_sleep`   | `sync_sleep`   | wait                                                             |
| `async_in_time` | `sync_in_time` | make a call that knows no deadline: only the first can end it     |
| `async_finish`  | `sync_finish`  | see a call through, whatever happens meanwhile                    |
| `async_blocking`| `sync_blocking`| run a function that blocks                                       |
| `async_background` | `sync_background` | begin something that nobody waits for                         |
| `async_applied` | `sync_applied` | call a function of the user's, which may be a coroutine function  |
| `async_mind`    | `sync_mind`    | warn before a running event loop is stalled                      |
| `AsyncMethod`   | `SyncMethod`   | the type of a method                                             |
| `AsyncCall`     | `SyncCall`     | the type of a call without arguments                             |

The sockets, a pair too, are in `_network.py`, so that what needs none does not load them.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from inspect import isawaitable
from types import FrameType
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar

from .errors import BlockingCallWarning

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")

AsyncMethod: TypeAlias = Callable[Concatenate[S, P], Coroutine[Any, Any, R]]
SyncMethod: TypeAlias = Callable[Concatenate[S, P], R]
AsyncCallable: TypeAlias = Callable[[], Coroutine[Any, Any, R]]
SyncCallable: TypeAlias = Callable[[], R]

async_sleep = asyncio.sleep
sync_sleep = time.sleep


async def async_run_blocking(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a function that blocks in a thread."""
    return await asyncio.to_thread(function, *args, **kwargs)


def sync_run_blocking(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a function that blocks."""
    return function(*args, **kwargs)


# ── Asynchronous ─────────────────────────────────────────────────────────────────────────────────────────────────────


class AsyncSemaphore:
    """At most `limit` holders at once.

    Who waits is served in order.
    """

    def __init__(self, limit: int) -> None:
        self._semaphore = asyncio.Semaphore(limit)

    async def acquire(self, timeout: float | None) -> bool:
        """Take a slot.

        False if none became free in time.
        """
        if not self._semaphore.locked():
            return await self._semaphore.acquire()
        try:
            async with asyncio.timeout(timeout):
                return await self._semaphore.acquire()
        except TimeoutError:
            return False

    def release(self) -> None:
        """Give a slot back."""
        self._semaphore.release()


class AsyncPerLoop(Generic[T]):
    """One `T` for each running event loop and process, closed when its loop shuts down.

    What asyncio makes belongs to one loop. So that one client serves repeated `asyncio.run`, threads, notebooks and
    forks, each gets its own.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._make, self._close = make, close
        self._values: dict[tuple[int, asyncio.AbstractEventLoop], tuple[T, AsyncGenerator[None, None]]] = {}

    async def get(self) -> T:
        """Return the running loop's own, made if need be."""
        key = (os.getpid(), asyncio.get_running_loop())
        found = self._values.get(key)
        if found is None:
            for stale in [other for other in list(self._values) if other[0] != key[0] or other[1].is_closed()]:
                self._values.pop(stale, None)
            thing = self._make()
            guard = self._close_at_shutdown(key, thing)
            found = self._values.setdefault(key, (thing, guard))
            if found[0] is thing:
                await anext(guard)
        return found[0]

    async def _close_at_shutdown(
        self, key: tuple[int, asyncio.AbstractEventLoop], thing: T
    ) -> AsyncGenerator[None, None]:
        # A loop closes the generators begun in it when it shuts down: the one hook that it has for that.
        try:
            yield
        finally:
            self._values.pop(key, None)
            await self._close(thing)

    async def aclose(self) -> None:
        """Close the running loop's own.

        Those of other loops close with theirs.
        """
        found = self._values.get((os.getpid(), asyncio.get_running_loop()))
        if found is not None:
            await found[1].aclose()


async def async_with_timeout(seconds: float, make: Callable[[], Awaitable[R]]) -> R:
    """Make a call, and end it if it takes longer."""
    async with asyncio.timeout(seconds):
        return await make()


async def _await_once(thing: Awaitable[R]) -> R:
    return await thing


async def async_shield(make: Callable[[], Awaitable[R]], undo: Callable[[R], Awaitable[object]] | None = None) -> R:
    """See a call through to its end even if the task is cancelled meanwhile.

    Then undo it, and let the cancel pass.
    """
    task = asyncio.ensure_future(_await_once(make()))
    cancelled = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if undo is not None and not task.cancelled() and task.exception() is None:
        await async_shield(lambda: undo(task.result()))
    raise cancelled


_background_tasks: set[asyncio.Task[object]] = set()  # a loop holds its tasks weakly


def async_start_background(make: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Begin something that nobody waits for, as a task of the running loop.

    It ends with the loop at the latest.
    """
    task = asyncio.get_running_loop().create_task(make())
    _background_tasks.add(task)
    task.add_done_callback(_background_tasks.discard)


async def async_invoke(function: Callable[..., object], *args: object) -> None:
    """Call a function.

    If it is asynchronous, wait for its end.
    """
    result = function(*args)
    if isawaitable(result):
        await result


def async_warn_if_loop_running() -> None:
    """Nothing is stalled."""


# ── Synchronous ──────────────────────────────────────────────────────────────────────────────────────────────────────


class SyncSemaphore:
    """At most `limit` holders at once."""

    def __init__(self, limit: int) -> None:
        self._semaphore = threading.Semaphore(limit)

    def acquire(self, timeout: float | None) -> bool:
        """Take a slot.

        False if none became free in time.
        """
        return self._semaphore.acquire(timeout=timeout)

    def release(self) -> None:
        """Give a slot back."""
        self._semaphore.release()


class SyncPerProcess(Generic[T]):
    """One `T` for each process: after a fork the child makes its own."""

    def __init__(self, make: Callable[[], T], close: Callable[[T], None]) -> None:
        self._make, self._close = make, close
        self._values: dict[int, T] = {}

    def get(self) -> T:
        """Return the process's own, made if need be."""
        pid = os.getpid()
        found = self._values.get(pid)
        return found if found is not None else self._values.setdefault(pid, self._make())

    def close(self) -> None:
        """Close the process's own."""
        found = self._values.pop(os.getpid(), None)
        if found is not None:
            self._close(found)


def sync_with_timeout(seconds: float, make: Callable[[], R]) -> R:
    """Make a call. It cannot be ended from outside: what it waits for must have limits of its own."""
    return make()


def sync_shield(make: Callable[[], R], undo: Callable[[R], object] | None = None) -> R:
    """See a call through to its end. Nothing else can run meanwhile, so there is nothing to undo."""
    return make()


def sync_start_background(make: Callable[[], object]) -> None:
    """Begin something that nobody waits for, in a thread.

    It ends with the process at the latest.
    """
    threading.Thread(target=make, name="agentbay-background", daemon=True).start()


def sync_invoke(function: Callable[..., object], *args: object) -> None:
    """Call a function."""
    function(*args)


def sync_warn_if_loop_running() -> None:
    """Warn if an event loop runs in this thread: whatever else it has to do waits for the call.

    The cell of a notebook is such a place too, but there it is meant: nothing else runs in its loop unless the cell has
    made tasks, and from those this warns.
    """
    if asyncio._get_running_loop() is None:
        return
    frame: FrameType | None = sys._getframe(1)
    depth, place = 1, 0
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module == "IPython.core.interactiveshell":
            return
        if module.startswith("asyncio."):
            break
        if not place and not module.startswith(("agentbay.", "contextlib")):
            place = depth
        frame, depth = frame.f_back, depth + 1
    message = "This blocks the running event loop. Use AsyncAgentBay here, or make the call in asyncio.to_thread()."
    warnings.warn(message, BlockingCallWarning, stacklevel=place + 1)
