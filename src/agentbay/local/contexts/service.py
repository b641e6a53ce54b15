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
from agentbay.local.contexts.backend import Owner
from agentbay.local.contexts.binding_spec import BindingSpec, parse_binding_specs
from agentbay.local.contexts.context_database import ContextDatabase
from agentbay.local.contexts.disk_backend import DiskBackend
from agentbay.local.contexts.errors import path_already_bound
from agentbay.local.contexts.session_contexts import SessionContexts
from agentbay.local.contexts.store import ContextStore
from agentbay.local.state_dir import StateDirectory

_logger = logging.getLogger(__name__)

_THREADS = 64  # a transfer with a paused session holds one until that goes on
_CLEANUP_INTERVAL_SECONDS = 600.0  # seconds between two looks for files whose time is up

_T = TypeVar("_T")


class ContextService:
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
        self.url_signing_key = state_dir.secret("objects")
        self.session_by_internal_context: dict[str, str] = {}  # session by the id of its own context
        self._threads = ThreadPoolExecutor(_THREADS, "contexts")
        self._cleanup_task = asyncio.create_task(self._cleanup_periodically())
        self._clearing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Close, after all sessions."""
        self._cleanup_task.cancel()
        await asyncio.gather(self._cleanup_task, *self._clearing, return_exceptions=True)
        await self.run_in_thread(self.store.close)
        self._threads.shutdown()

    async def run_in_thread(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Do what blocks, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def create_session_contexts(self, listed: Sequence[dict[str, Any]]) -> SessionContexts:
        """Read what a new session is to have.

        Raises:
            InvalidRequestError: It is malformed.
            NotFoundError: A context to be mounted does not exist. One to be copied may: the copy will have failed.
        """
        items = parse_binding_specs(listed)
        if items:
            await self.run_in_thread(self.check_bindings, items, ())
        return SessionContexts(self, items)

    def check_bindings(self, items: Sequence[BindingSpec], taken: Container[str]) -> None:
        """Raise what is wrong with items, given the paths that are taken."""
        seen: set[str] = set()
        for item in items:
            if item.path in taken or item.path in seen:
                raise path_already_bound(item.path_as_given)
            seen.add(item.path)
            if item.mount:
                self.store.check_mount(item.context_id)

    def exists(self, context_id: str) -> bool:
        """Whether there is such a context."""
        try:
            self.store.find(context_id)
        except NotFoundError:
            return False
        return True

    def clear_in_background(self, context_id: str) -> None:
        """Delete the files of a context in the background; it has been said that this will happen."""
        task = asyncio.create_task(self._run_logging_errors(self.store.clear, context_id))
        self._clearing.add(task)
        task.add_done_callback(self._clearing.discard)

    async def _cleanup_periodically(self) -> None:
        while True:
            await self._run_logging_errors(self.store.clean_up)
            await asyncio.sleep(_CLEANUP_INTERVAL_SECONDS)

    async def _run_logging_errors(self, work: Callable[..., None], *arguments: object) -> None:
        """Do what is tried again with the next sweep."""
        try:
            await self.run_in_thread(work, *arguments)
        except (AgentBayError, OSError) as error:
            _logger.warning("contexts: %s", error)


def _open_store(state_dir: StateDirectory, owner: Owner, url: str | None) -> ContextStore:
    # Files of a temporary directory need not survive the power failure that it does not survive itself.
    durable = not state_dir.temporary
    if url is None:
        directory = _ensure_directory(state_dir.path / "contexts")
        db = ContextDatabase(directory / "contexts.db", durable=durable)
        return ContextStore(db, DiskBackend(directory, owner, db, durable=durable))
    from agentbay.local.contexts.bucket_backend import BucketBackend  # with a library that only this needs
    from agentbay.local.contexts.object_store import connect

    remote = connect(url, os.environ)
    directory = _ensure_directory(state_dir.path / f"contexts-{hashlib.sha256(url.encode()).hexdigest()[:16]}")
    return ContextStore(
        ContextDatabase(directory / "contexts.db", durable=durable), BucketBackend(remote, directory, owner)
    )


def _ensure_directory(directory: Path) -> Path:
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory
