"""Work on large values in a thread, while the event loop serves others.

Only one Python thread runs at a time (the GIL), but the loop gets its turn within `SWITCH_INTERVAL_SECONDS`. A single
call into C, such as `json.loads` of 60 MiB, cannot be interrupted: what runs here works in pieces. One thread does all
such work, so however much of it sessions cause, the loop shares the interpreter with one other thread only.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

LARGE_BYTES = 1 << 18  # from which on a value is worked on here: below, a few milliseconds at most
SWITCH_INTERVAL_SECONDS = 0.0001  # for `sys.setswitchinterval`: a command may wait for the GIL a hundred times

_P = ParamSpec("_P")
_T = TypeVar("_T")

_thread = ThreadPoolExecutor(1, thread_name_prefix="large-values")


async def run_in_worker(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function in the thread for large values.

    After a cancellation it runs to its end all the same, with its result lost.
    """
    return await asyncio.get_running_loop().run_in_executor(_thread, lambda: _without_gc(function, *args, **kwargs))


async def run_by_size(size: int, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function, in the thread if `size` in bytes is large."""
    if size <= LARGE_BYTES:
        return function(*args, **kwargs)
    return await run_in_worker(function, *args, **kwargs)


def _without_gc(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    # A garbage collection looks at all that a large value consists of, and nobody else runs meanwhile.
    enabled = gc.isenabled()
    gc.disable()
    try:
        return function(*args, **kwargs)
    finally:
        if enabled:
            gc.enable()
