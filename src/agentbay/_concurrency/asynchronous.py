"""The asynchronous half of each pair."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar

from .._transport.deadline import unlimited_context, without_time_limit

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")

AsyncMethod: TypeAlias = Callable[Concatenate[S, P], Coroutine[Any, Any, R]]
AsyncCallable: TypeAlias = Callable[[], Coroutine[Any, Any, R]]

async_sleep = asyncio.sleep


async def async_run_blocking(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a blocking function in a thread."""
    return await asyncio.to_thread(function, *args, **kwargs)


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


async def async_with_timeout(
    seconds: float, make: Callable[[], Awaitable[R]], extend: AsyncCallable[float] | None = None
) -> R:
    """Make a call, and cancel it if it takes longer.

    `extend` is asked then for a later end, as a moment on the monotonic clock.

    Raises:
        TimeoutError: The time is over.
    """
    if extend is None:
        async with asyncio.timeout(seconds):
            return await make()
    async with asyncio.timeout(None) as scope:
        watcher = asyncio.create_task(_expire(scope, seconds, extend))
        try:
            return await make()
        finally:
            watcher.cancel()


async def _expire(scope: asyncio.Timeout, seconds: float, extend: AsyncCallable[float]) -> None:
    while seconds > 0:
        await asyncio.sleep(seconds)
        seconds = await extend() - time.monotonic()
    scope.reschedule(asyncio.get_running_loop().time())


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
    task = asyncio.get_running_loop().create_task(make(), context=unlimited_context())
    _background_tasks.add(task)
    task.add_done_callback(_background_tasks.discard)


class PagesCall(Coroutine[Any, Any, R], Generic[R, T]):
    """A call for a page, or an iteration over the items of all."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, R]]) -> None:
        self._make = make
        self._coroutine: Coroutine[Any, Any, R] | None = None

    def __await__(self) -> Generator[Any, Any, R]:
        return self._make().__await__()

    async def __aiter__(self) -> AsyncIterator[T]:
        page: Any = await self
        async for item in page:
            yield item

    # What a task does with a coroutine.
    def send(self, value: Any) -> Any:
        if self._coroutine is None:
            self._coroutine = self._make()
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        if self._coroutine is None:
            self._coroutine = self._make()
        return self._coroutine.throw(*error)

    def close(self) -> None:
        if self._coroutine is not None:
            self._coroutine.close()


def async_paged(
    items: type[T],
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Callable[P, PagesCall[R, T]]]:
    """Decorate a method so that its call can be iterated over."""

    def decorate(method: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, PagesCall[R, T]]:
        @wraps(method)
        def paged(*args: P.args, **kwargs: P.kwargs) -> PagesCall[R, T]:
            return PagesCall(lambda: method(*args, **kwargs))

        if sys.version_info >= (3, 12):  # before, `inspect` knows no mark that tells to await it
            return inspect.markcoroutinefunction(paged)
        return paged

    return decorate


async def async_invoke(function: Callable[..., object], *args: object) -> None:
    """Call a user's function, and await its result if it is awaitable.

    The time limit of the call that it reports on is not that of the calls that it makes.
    """
    with without_time_limit():
        result = function(*args)
        if inspect.isawaitable(result):
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
