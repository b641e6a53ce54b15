"""The synchronous half of each pair, which does not load asyncio."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextvars import copy_context
from types import FrameType
from typing import Concatenate, Generic, ParamSpec, TypeAlias, TypeVar

from .._transport.deadline import unlimited_context, without_time_limit
from ..errors import BlockingCallWarning

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")

SyncMethod: TypeAlias = Callable[Concatenate[S, P], R]
SyncCallable: TypeAlias = Callable[[], R]

sync_sleep = time.sleep


def sync_run_blocking(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a blocking function in this thread."""
    return function(*args, **kwargs)


class SyncSemaphore:
    """A semaphore."""

    def __init__(self, limit: int) -> None:
        self._semaphore = threading.Semaphore(limit)

    def acquire(self, timeout: float | None) -> bool:
        """Acquire a slot, or return False after the timeout."""
        return self._semaphore.acquire(timeout=None if timeout is None else min(timeout, threading.TIMEOUT_MAX))

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


def sync_with_timeout(seconds: float, make: Callable[[], R], extend: SyncCallable[float] | None = None) -> R:
    """Make a call, whose waits must have limits of their own.

    A blocking call cannot be cancelled from outside. With `extend`, which is asked for a later end as a moment on the
    monotonic clock, the call is made in a thread of its own, which is left behind when the time is over.

    Raises:
        TimeoutError: The time is over.
    """
    if extend is None:
        return make()
    from concurrent.futures import Future

    future: Future[R] = Future()

    def work() -> None:
        try:
            future.set_result(make())
        except BaseException as error:  # noqa: BLE001 - raised where the call is waited for
            future.set_exception(error)

    threading.Thread(target=copy_context().run, args=(work,), name="agentbay-call", daemon=True).start()
    while seconds > 0:
        try:
            return future.result(min(seconds, threading.TIMEOUT_MAX))
        except TimeoutError:
            if future.done():  # the call's own error, or it ended just now
                return future.result()
        seconds = extend() - time.monotonic()
    raise TimeoutError("too late")


def sync_shield(make: Callable[[], R], undo: Callable[[R], object] | None = None) -> R:
    """Make a call, which no cancellation can interrupt.

    So there is never anything to undo.
    """
    return make()


def sync_start_background(make: Callable[[], object]) -> None:
    """Start a daemon thread that nobody joins.

    It ends with the process at the latest.
    """
    threading.Thread(target=unlimited_context().run, args=(make,), name="agentbay-background", daemon=True).start()


def sync_paged(items: type[T]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Leave a method as it is, since its page can be iterated over."""
    return lambda method: method


def sync_invoke(function: Callable[..., object], *args: object) -> None:
    """Call a user's function.

    The time limit of the call that it reports on is not that of the calls that it makes.
    """
    with without_time_limit():
        function(*args)


def sync_check_event_loop() -> None:
    """Warn if an event loop runs in this thread and would stall.

    A notebook's cell runs in an event loop too, but nothing else runs there unless the cell has made tasks; this warns
    in those tasks only. Nor does it warn beside Playwright's synchronous API, which runs a loop of its own.
    """
    running_loop = getattr(sys.modules.get("asyncio.events"), "_get_running_loop", None)
    if running_loop is None or running_loop() is None:
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
