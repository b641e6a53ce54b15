"""The service of contexts, which runs the blocking store in threads."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from agentbay.errors import AgentBayError, NotFoundError
from agentbay.local.contexts.binding_spec import BindingSpec
from agentbay.local.contexts.context_database import ContextDatabase
from agentbay.local.contexts.disk_backend import DiskBackend
from agentbay.local.contexts.entry import Owner
from agentbay.local.contexts.errors import path_already_bound
from agentbay.local.contexts.store import ContextStore
from agentbay.local.state_dir import StateDirectory

_logger = logging.getLogger(__name__)

_THREADS = 64  # a transfer with a paused session occupies one until the session is resumed
_CLEANUP_INTERVAL_SECONDS = 600.0  # expired files are never served, so deleting them can wait

_T = TypeVar("_T")


class ContextService:
    """The contexts of a runtime."""

    def __init__(self, state_dir: StateDirectory, owner: Owner, store_url: str | None = None) -> None:
        """Open the store.

        Args:
            store_url: The bucket for the contents, or None for the state directory.

        Raises:
            ConfigurationError: The bucket cannot be used.
        """
        self.owner = owner
        self.store = _open_store(state_dir, owner, store_url)
        self.url_signing_key = state_dir.secret("objects")
        self.session_by_internal_context: dict[str, str] = {}  # session id by context id
        self._threads = ThreadPoolExecutor(_THREADS, "contexts")
        self._cleanup_task = asyncio.create_task(self._cleanup_periodically())
        self._clearing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Close the store. Sessions must have ended before."""
        self._cleanup_task.cancel()
        await asyncio.gather(self._cleanup_task, *self._clearing, return_exceptions=True)
        await self.run_in_thread(self.store.close)
        self._threads.shutdown()

    async def run_in_thread(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Run a blocking function in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def check_bindings(self, specs: Sequence[BindingSpec], bound_paths: Container[str]) -> None:
        """Check new bindings of a session. This blocks.

        A missing context is an error for a mount only. For a copy, the download fails.

        Raises:
            ConflictError: A path is bound already.
            NotFoundError: A context to be mounted does not exist.
        """
        seen: set[str] = set()
        for spec in specs:
            if spec.path in bound_paths or spec.path in seen:
                raise path_already_bound(spec.path_as_given)
            seen.add(spec.path)
            if spec.mount:
                self.store.check_mount(spec.context_id)

    def exists(self, context_id: str) -> bool:
        try:
            self.store.find(context_id)
        except NotFoundError:
            return False
        return True

    def clear_in_background(self, context_id: str) -> None:
        """Clear a context in the background, after `mark_clearing`."""
        task = asyncio.create_task(self._run_logging_errors(self.store.clear, context_id))
        self._clearing.add(task)
        task.add_done_callback(self._clearing.discard)

    async def _cleanup_periodically(self) -> None:
        while True:
            await self._run_logging_errors(self.store.clean_up)
            await asyncio.sleep(_CLEANUP_INTERVAL_SECONDS)

    async def _run_logging_errors(self, work: Callable[..., None], *arguments: object) -> None:
        # The next cleanup tries again.
        try:
            await self.run_in_thread(work, *arguments)
        except (AgentBayError, OSError) as error:
            _logger.warning("contexts: %s", error)


def _open_store(state_dir: StateDirectory, owner: Owner, url: str | None) -> ContextStore:
    # A temporary directory does not survive a power failure, so its files need no fsync.
    durable = not state_dir.temporary
    if url is None:
        directory = _ensure_directory(state_dir.path / "contexts")
        db = ContextDatabase(directory / "contexts.db", durable=durable)
        return ContextStore(db, DiskBackend(directory, owner, db, durable=durable))
    from agentbay.local.contexts.bucket_backend import BucketBackend
    from agentbay.local.contexts.object_store import connect

    object_store = connect(url, os.environ)
    directory = _ensure_directory(state_dir.path / f"contexts-{hashlib.sha256(url.encode()).hexdigest()[:16]}")
    return ContextStore(
        ContextDatabase(directory / "contexts.db", durable=durable), BucketBackend(object_store, directory, owner)
    )


def _ensure_directory(directory: Path) -> Path:
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory
