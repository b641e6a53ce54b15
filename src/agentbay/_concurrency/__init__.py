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
| `async_paged`                | `sync_paged`                | let a call for a page be iterated over, too       |
| `async_check_event_loop`     | `sync_check_event_loop`     | tell of an event loop that does not fit           |
| `AsyncMethod`                | `SyncMethod`                | the type of a method                              |
| `AsyncCallable`              | `SyncCallable`              | the type of a callable without arguments          |

Sockets and WebSockets are pairs too, in `_socket_backend` and `_websocket.py`, so that code without them does not load
them. Each half is imported with its first name, so that a synchronous program does not load asyncio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .asynchronous import (
        AsyncCallable as AsyncCallable,
        AsyncMethod as AsyncMethod,
        AsyncPerLoop as AsyncPerLoop,
        AsyncSemaphore as AsyncSemaphore,
        async_check_event_loop as async_check_event_loop,
        async_invoke as async_invoke,
        async_paged as async_paged,
        async_run_blocking as async_run_blocking,
        async_shield as async_shield,
        async_sleep as async_sleep,
        async_start_background as async_start_background,
        async_with_timeout as async_with_timeout,
    )
    from .synchronous import (
        SyncCallable as SyncCallable,
        SyncMethod as SyncMethod,
        SyncPerProcess as SyncPerProcess,
        SyncSemaphore as SyncSemaphore,
        sync_check_event_loop as sync_check_event_loop,
        sync_invoke as sync_invoke,
        sync_paged as sync_paged,
        sync_run_blocking as sync_run_blocking,
        sync_shield as sync_shield,
        sync_sleep as sync_sleep,
        sync_start_background as sync_start_background,
        sync_with_timeout as sync_with_timeout,
    )


def __getattr__(name: str) -> object:
    half = "asynchronous" if name.lower().startswith("async") else "synchronous"
    value = globals()[name] = getattr(import_module(f".{half}", __name__), name)
    return value
