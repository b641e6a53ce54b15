"""What differs by flavour, in pairs: nothing else in the package knows its flavour.

| asynchronous                 | synchronous                 | what it is                                        |
|------------------------------|-----------------------------|---------------------------------------------------|
| `AsyncSemaphore`             | `SyncSemaphore`             | a bound on how many do something at once          |
| `AsyncPerLoop`               | `SyncPerProcess`            | one value for each event loop, or for the process |
| `async_sleep`                | `sync_sleep`                | sleep                                             |
| `async_with_timeout`         | `sync_with_timeout`         | make a call that knows no deadline                |
| `async_shield`               | `sync_shield`               | finish a call even if the task is cancelled       |
| `async_run_blocking`         | `sync_run_blocking`         | run a function that blocks                        |
| `async_start_background`     | `sync_start_background`     | start what nobody waits for                       |
| `async_invoke`               | `sync_invoke`               | call a user's function, perhaps a coroutine one   |
| `async_check_event_loop`     | `sync_check_event_loop`     | tell of an event loop that does not fit           |
| `AsyncMethod`                | `SyncMethod`                | the type of a method                              |
| `AsyncCallable`              | `SyncCallable`              | the type of a callable without arguments          |

Sockets and WebSockets are pairs too, in `_socket_backend.py` and `_websocket.py`, so that code without them does not
load them.
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
    """Run a blocking function in a thread."""
    return await asyncio.to_thread(function, *args, **kwargs)


def sync_run_blocking(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a blocking function in this thread."""
    return function(*args, **kwargs)


# ── Asynchronous ─────────────────────────────────────────────────────────────────────────────────────────────────────


class AsyncSemaphore:
    """A semaphore that serves waiters in order."""

    def __init__(self, limit: int) -> None:
        self._semaphore = asyncio.Semaphore(limit)

    async def acquire(self, timeout: float | None) -> bool:
        """Acquire a slot, or return False after the timeout."""
        # A free slot is taken without suspending, so it needs no timer.
        if not self._semaphore.locked():
            return await self._semaphore.acquire()
        try:
            async with asyncio.timeout(timeout):
                return await self._semaphore.acquire()
        except TimeoutError:
            return False

    def release(self) -> None:
        """Release a slot."""
        self._semaphore.release()


class AsyncPerLoop(Generic[T]):
    """One value per event loop and process, closed when its loop shuts down.

    What asyncio makes belongs to one loop. So that one client serves repeated `asyncio.run`, threads, notebooks and
    forks, each gets its own.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._make, self._close = make, close
        self._values: dict[tuple[int, asyncio.AbstractEventLoop], tuple[T, AsyncGenerator[None, None]]] = {}

    async def get(self) -> T:
        """Return the running loop's value, and make it if there is none."""
        key = (os.getpid(), asyncio.get_running_loop())
        found = self._values.get(key)
        if found is None:
            # The values of a closed loop or of a parent process can never be closed here. Threads with loops of their
            # own change the dict meanwhile, so iterate over a copy, and let a key be gone already.
            for stale in [other for other in list(self._values) if other[0] != key[0] or other[1].is_closed()]:
                self._values.pop(stale, None)
            value = self._make()
            closer = self._close_at_shutdown(key, value)
            found = self._values.setdefault(key, (value, closer))
            if found[0] is value:
                await anext(closer)  # a loop closes only generators that have begun
        return found[0]

    def needs_close(self) -> bool:
        """Return whether a value leaks unless it is closed.

        None does: each loop closes its own, also when nobody holds this any more.
        """
        return False

    async def _close_at_shutdown(
        self, key: tuple[int, asyncio.AbstractEventLoop], value: T
    ) -> AsyncGenerator[None, None]:
        # A loop closes the generators begun in it when it shuts down: the one hook that it has for that.
        try:
            yield
        finally:
            self._values.pop(key, None)
            await self._close(value)

    async def aclose(self) -> None:
        """Close the running loop's value.

        Those of other loops close with their loops.
        """
        found = self._values.get((os.getpid(), asyncio.get_running_loop()))
        if found is not None:
            await found[1].aclose()


async def async_with_timeout(seconds: float, make: Callable[[], Awaitable[R]]) -> R:
    """Make a call, and cancel it if it takes longer."""
    async with asyncio.timeout(seconds):
        return await make()


async def _await_once(call: Awaitable[R]) -> R:
    return await call


async def async_shield(make: Callable[[], Awaitable[R]], undo: Callable[[R], Awaitable[object]] | None = None) -> R:
    """Finish a call even if the task is cancelled meanwhile.

    After a cancellation, `undo` is called with the result before CancelledError is raised.
    """
    async_check_event_loop()
    task = asyncio.ensure_future(_await_once(make()))
    cancelled = None
    # A second cancellation interrupts the shield again, so wait until the call itself is over.
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if undo is not None and not task.cancelled() and task.exception() is None:
        # A further cancellation must not interrupt the undoing either.
        await async_shield(lambda: undo(task.result()))
    raise cancelled


_background_tasks: set[asyncio.Task[object]] = set()  # a loop holds its tasks weakly


def async_start_background(make: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Start a task that nobody awaits.

    It ends with the running loop at the latest.
    """
    task = asyncio.get_running_loop().create_task(make())
    _background_tasks.add(task)
    task.add_done_callback(_background_tasks.discard)


async def async_invoke(function: Callable[..., object], *args: object) -> None:
    """Call a function, and await its result if it is awaitable."""
    result = function(*args)
    if isawaitable(result):
        await result


def async_check_event_loop() -> None:
    """Refuse to work without a running event loop of asyncio.

    Raises:
        RuntimeError: None runs, as under trio.
    """
    if asyncio._get_running_loop() is None:
        raise RuntimeError(
            "AsyncAgentBay needs a running event loop of asyncio, and there is none. "
            "Under trio, use AgentBay in trio.to_thread.run_sync()."
        )


# ── Synchronous ──────────────────────────────────────────────────────────────────────────────────────────────────────


class SyncSemaphore:
    """A semaphore."""

    def __init__(self, limit: int) -> None:
        self._semaphore = threading.Semaphore(limit)

    def acquire(self, timeout: float | None) -> bool:
        """Acquire a slot, or return False after the timeout."""
        return self._semaphore.acquire(timeout=timeout)

    def release(self) -> None:
        """Release a slot."""
        self._semaphore.release()


class SyncPerProcess(Generic[T]):
    """One value per process: a forked child makes its own."""

    def __init__(self, make: Callable[[], T], close: Callable[[T], None]) -> None:
        self._make, self._close = make, close
        self._values: dict[int, T] = {}

    def get(self) -> T:
        """Return the process's value, and make it if there is none."""
        pid = os.getpid()
        found = self._values.get(pid)
        # setdefault is atomic: of two threads that race here, both get the first value.
        return found if found is not None else self._values.setdefault(pid, self._make())

    def needs_close(self) -> bool:
        """Return whether a value leaks unless it is closed."""
        return os.getpid() in self._values

    def close(self) -> None:
        """Close the process's value."""
        found = self._values.pop(os.getpid(), None)
        if found is not None:
            self._close(found)


def sync_with_timeout(seconds: float, make: Callable[[], R]) -> R:
    """Make a call, whose waits must have limits of their own.

    A blocking call cannot be cancelled from outside.
    """
    return make()


def sync_shield(make: Callable[[], R], undo: Callable[[R], object] | None = None) -> R:
    """Make a call, which no cancellation can interrupt.

    So there is never anything to undo.
    """
    return make()


def sync_start_background(make: Callable[[], object]) -> None:
    """Start a daemon thread that nobody joins.

    It ends with the process at the latest.
    """
    threading.Thread(target=make, name="agentbay-background", daemon=True).start()


def sync_invoke(function: Callable[..., object], *args: object) -> None:
    """Call a function."""
    function(*args)


def sync_check_event_loop() -> None:
    """Warn if an event loop runs in this thread and would stall.

    A notebook's cell runs in an event loop too, but nothing else runs there unless the cell has made tasks; this warns
    in those tasks only. Nor does it warn beside Playwright's synchronous API, which runs a loop of its own.
    """
    if asyncio._get_running_loop() is None:
        return
    frame: FrameType | None = sys._getframe(1)
    depth, caller_depth = 1, 0
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module == "IPython.core.interactiveshell":
            return
        # A frame of asyncio below the caller means that a task or a callback of the loop makes this call.
        if module.startswith("asyncio."):
            break
        # The warning must name the user's line, so frames of this package, and of contextlib for its `with` blocks, do
        # not count.
        if not caller_depth and not module.startswith(("agentbay.", "contextlib")):
            caller_depth = depth
        frame, depth = frame.f_back, depth + 1
    if frame is None and "playwright.sync_api" in sys.modules:
        return  # its loop runs in another greenlet, and rests while the program's own code runs
    message = "This blocks the running event loop. Use AsyncAgentBay here, or make the call in asyncio.to_thread()."
    warnings.warn(message, BlockingCallWarning, stacklevel=caller_depth + 1)
