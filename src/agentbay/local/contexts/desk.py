"""Where handlers and sessions turn for contexts: the store, off the event loop, and what belongs to live sessions."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from agentbay.errors import AgentBayError, NotFoundError
from agentbay.local.contexts.bindings import SessionContexts
from agentbay.local.contexts.contents import Owner
from agentbay.local.contexts.disk import Disk
from agentbay.local.contexts.policy import Item, read_items
from agentbay.local.contexts.refusals import already_bound
from agentbay.local.contexts.schema import Database
from agentbay.local.contexts.store import Store
from agentbay.local.state_dir import StateDirectory

_logger = logging.getLogger(__name__)

_THREADS = 64  # a transfer with a paused session holds one until that goes on
_SWEEP = 600.0  # seconds between two looks for files whose time is up

_T = TypeVar("_T")


class Desk:
    """The contexts of a runtime."""

    def __init__(self, state_dir: StateDirectory, owner: Owner, store_url: str | None = None) -> None:
        """Open the store.

        Args:
            store_url: The bucket that keeps what contexts hold; None: the state directory does.

        Raises:
            ConfigurationError: It cannot be used.
        """
        self.owner = owner
        self.store = _open_store(state_dir, owner, store_url)
        self.secret = state_dir.secret("objects")
        self.internals: dict[str, str] = {}  # session by the id of its own context
        self._threads = ThreadPoolExecutor(_THREADS, "contexts")
        self._sweeping = asyncio.create_task(self._sweep())
        self._clearing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Close, after all sessions."""
        self._sweeping.cancel()
        await asyncio.gather(self._sweeping, *self._clearing, return_exceptions=True)
        await self.run(self.store.close)
        self._threads.shutdown()

    async def run(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Do what blocks, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def admit(self, listed: Sequence[dict[str, Any]]) -> SessionContexts:
        """Read what a new session is to have.

        Raises:
            InvalidRequestError: It is malformed.
            NotFoundError: A context to be mounted does not exist. One to be copied may: the copy will have failed.
        """
        items = read_items(listed)
        if items:
            await self.run(self.check, items, ())
        return SessionContexts(self, items)

    def check(self, items: Sequence[Item], taken: Container[str]) -> None:
        """Raise what is wrong with items, given the paths that are taken."""
        seen: set[str] = set()
        for item in items:
            if item.path in taken or item.path in seen:
                raise already_bound(item.given)
            seen.add(item.path)
            if item.mount:
                self.store.check_mount(item.context_id)

    def knows(self, context_id: str) -> bool:
        """Whether there is such a context."""
        try:
            self.store.find(context_id)
        except NotFoundError:
            return False
        return True

    def clear(self, context_id: str) -> None:
        """Delete the files of a context in the background; it has been said that this will happen."""
        task = asyncio.create_task(self._try(self.store.clear, context_id))
        self._clearing.add(task)
        task.add_done_callback(self._clearing.discard)

    async def _sweep(self) -> None:
        while True:
            await self._try(self.store.tidy)
            await asyncio.sleep(_SWEEP)

    async def _try(self, work: Callable[..., None], *arguments: object) -> None:
        """Do what is tried again with the next sweep."""
        try:
            await self.run(work, *arguments)
        except (AgentBayError, OSError) as error:
            _logger.warning("contexts: %s", error)


def _open_store(state_dir: StateDirectory, owner: Owner, url: str | None) -> Store:
    # Files of a temporary directory need not survive the power failure that it does not survive itself.
    durable = not state_dir.temporary
    if url is None:
        directory = _made(state_dir.path / "contexts")
        db = Database(directory / "contexts.db", durable=durable)
        return Store(db, Disk(directory, owner, db, durable=durable))
    from agentbay.local.contexts.bucket import Bucket  # with a library that only this needs
    from agentbay.local.contexts.remote import connect

    remote = connect(url, os.environ)
    directory = _made(state_dir.path / f"contexts-{hashlib.sha256(url.encode()).hexdigest()[:16]}")
    return Store(Database(directory / "contexts.db", durable=durable), Bucket(remote, directory, owner))


def _made(directory: Path) -> Path:
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory
