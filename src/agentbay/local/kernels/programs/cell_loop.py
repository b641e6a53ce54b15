"""The event loop that every cell of a Python kernel finds running.

It truly runs while a cell awaits and between two cells. While a cell without `await` runs, the loop only counts as
running: `asyncio.create_task` works, and the task begins at the end of the cell. So such code can also do what fails in
a loop that truly runs, such as `asyncio.run` and `loop.run_until_complete`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable, Iterator
from typing import Any

_CANCELLED_TASKS_WAIT_SECONDS = 1.0
_MAX_FAILURES_BETWEEN_CELLS = 100  # of tasks that end by SystemExit, or that stop the loop


class CellLoop:
    """The loop in which the tasks of all cells run.

    Args:
        report: Gets what tasks raise between two cells that asyncio does not take, such as SystemExit.
        exit_forked_child: Ends this process if a task has forked it.
    """

    def __init__(self, report: Callable[[BaseException], None], exit_forked_child: Callable[[], None]) -> None:
        self._report, self._exit_forked_child = report, exit_forked_child
        self._tasks_before: set[asyncio.Task[Any]] = set()
        asyncio.set_event_loop_policy(_Policy())  # type: ignore[deprecated]  # in versions after those supported
        self._loop = asyncio.new_event_loop()
        asyncio.run = _outside_running_loop(asyncio.run)
        asyncio.Runner.run = _outside_running_loop(asyncio.Runner.run)  # type: ignore[method-assign]

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Let code in the block find the loop running."""
        if self._loop.is_closed():  # by code of an earlier cell
            self._loop = asyncio.new_event_loop()
        self._tasks_before = asyncio.all_tasks(self._loop)
        asyncio.set_event_loop(self._loop)
        asyncio._set_running_loop(self._loop)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    def begin_new_tasks(self) -> None:
        """Run each task that the cell has made to its first `await`."""
        if self._usable and getattr(self._loop, "was_stopped", False):
            self._loop.run_forever()
        if self._usable and asyncio.all_tasks(self._loop) - self._tasks_before:
            self._loop.run_until_complete(asyncio.sleep(0))

    def cancel_new_tasks(self) -> None:
        """Cancel the tasks of an interrupted cell, and no task of an earlier one."""
        tasks = asyncio.all_tasks(self._loop) - self._tasks_before
        for task in tasks:
            task.cancel()
        if tasks and self._usable:
            with contextlib.suppress(BaseException):  # whatever a task raises at its end belongs to the cell
                self._loop.run_until_complete(asyncio.wait(tasks, timeout=_CANCELLED_TASKS_WAIT_SECONDS))

    def wait_readable(self, sock: socket.socket) -> None:
        """Run the tasks of earlier cells until the socket can be read.

        Return at once if the loop cannot run.
        """
        if not self._usable or not getattr(self._loop, "was_used", True):
            return
        readable = self._loop.create_future()
        self._loop.add_reader(sock, self._on_readable, readable)
        for _ in range(_MAX_FAILURES_BETWEEN_CELLS):
            try:
                self._loop.run_until_complete(readable)
                break
            except BaseException as error:  # noqa: BLE001 - a task must not end the kernel
                self._report(error)
        if not self._loop.is_closed():
            self._loop.remove_reader(sock)

    def _on_readable(self, readable: asyncio.Future[None]) -> None:
        self._exit_forked_child()  # before it changes the selector, which it shares with the kernel
        if not readable.done():
            readable.set_result(None)

    @property
    def _usable(self) -> bool:
        # Code may close the loop, or keep it running in a greenlet, as the synchronous Playwright does.
        return not self._loop.is_closed() and not self._loop.is_running()


class _Loop(asyncio.SelectorEventLoop):
    """A loop that can run where another one counts as running.

    Attributes:
        was_stopped: Whether it was stopped while it did not run, so that its next run will end at once.
        was_used: Whether anything was ever to be done in it. Most sessions never use it, and need not wait for it.
    """

    was_used = was_stopped = False

    def call_soon(self, *args: Any, **kwargs: Any) -> asyncio.Handle:  # type: ignore[override]
        self.was_used = True
        return super().call_soon(*args, **kwargs)

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> asyncio.Handle:  # type: ignore[override]
        self.was_used = True
        return super().call_soon_threadsafe(*args, **kwargs)

    def call_at(self, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:  # type: ignore[override]
        self.was_used = True
        return super().call_at(*args, **kwargs)

    def stop(self) -> None:
        self.was_stopped = not self.is_running()
        super().stop()

    def add_reader(self, *args: Any) -> None:  # type: ignore[override]
        self.was_used = True
        super().add_reader(*args)

    def add_writer(self, *args: Any) -> None:  # type: ignore[override]
        self.was_used = True
        super().add_writer(*args)

    def run_forever(self) -> None:
        self.was_stopped = False
        with _no_running_loop():
            super().run_forever()

    def run_until_complete(self, future: Any) -> Any:
        with _no_running_loop():
            return super().run_until_complete(future)


class _Policy(asyncio.DefaultEventLoopPolicy):
    """Makes loops that code can run in every cell."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return _Loop()


@contextlib.contextmanager
def _no_running_loop() -> Iterator[None]:
    former = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(former)


def _outside_running_loop(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with _no_running_loop():
            return function(*args, **kwargs)

    return run
