"""The files of a session as layers that others can share.

The directory that the session has written to becomes a read-only layer without being copied, and the session goes on
with an empty directory above it (copy-on-write). It is copied if processes of the session use files in a way that
would let them notice, or if this machine cannot mount layers over each other.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from agentbay.local.api_errors import internal_error, session_not_found
from agentbay.local.images.store import ImageStore, Layer
from agentbay.local.images.tree_copy import TreeCopy
from agentbay.local.sandbox.service.futures import retrieve_exception
from agentbay.local.sandbox.service.manager import SandboxError, SharedLayer, measure_files
from agentbay.local.sandbox.shared.sandbox_config import (
    IMAGE_DIRECTORY,
    PYTHON_DIRECTORY,
    UPPER_DIRECTORY,
    WRITABLE_DIRECTORY,
)
from agentbay.local.sandbox.shared.setup_errors import SetupFailed
from agentbay.local.sessions.lifecycle import SessionState
from agentbay.local.sessions.session import Session
from agentbay.local.sessions.table import SessionTable

_logger = logging.getLogger(__name__)
_OWN_DIRECTORIES = ("home", "tmp", PYTHON_DIRECTORY, WRITABLE_DIRECTORY)  # of a session without layers
_MERGED_AT = 16  # layers written by sessions; each further one slows down every look-up of a path
_NEW_DIRECTORY = "image-new"  # becomes IMAGE_DIRECTORY


class CapturedLayers(NamedTuple):
    """The read-only layers that hold all files of a session at one moment.

    Attributes:
        chains: Their chain ids, the lowest first.
        shared: Those among them that count to the disk limits of sessions.
    """

    chains: Sequence[str]
    shared: Sequence[SharedLayer]


class SessionLayers:
    """Makes layers of what a session has written, while it is paused."""

    def __init__(self, sessions: SessionTable, store: ImageStore, session: Session) -> None:
        self._sessions, self._store, self._session = sessions, store, session
        self._new: SharedLayer | None = None

    @asynccontextmanager
    async def capture(self) -> AsyncIterator[CapturedLayers]:
        """Make layers of all files, and keep them during the block.

        Raises:
            ImageError: They can be neither shared nor copied.
            ConflictError: The session is in no state for that.
        """
        try:
            async with self._session.copy_lock:
                captured = await self._make_and_acquire()
            try:
                yield captured
            finally:
                self._store.release(captured.chains)
        finally:
            if self._new:  # only now: measuring would take processor time from whoever waits for the layers
                self._sessions.start_task(self._finish(self._new))

    async def _make_and_acquire(self) -> CapturedLayers:
        chain = _new_chain()
        self._store.acquire([chain])
        try:
            captured = await _run_to_its_end(self._make_layers(chain))
            self._store.acquire(captured.chains)
        except (OSError, SandboxError) as error:
            if not self._session.lifecycle.is_live:  # it was deleted meanwhile
                raise session_not_found() from error
            raise internal_error(f"The session could not be copied: {error}") from error
        finally:
            self._store.release([chain])
        return captured

    async def _make_layers(self, chain: str) -> CapturedLayers:
        session = self._session
        was_running = session.lifecycle.state is SessionState.RUNNING
        if not was_running:  # process 1 is captured, and cannot send the namespaces that `_commit` needs
            return await asyncio.to_thread(self._copy, chain)
        namespaces = await self._namespaces()
        try:
            session.lifecycle.transition_to(SessionState.PAUSING)
            await session.pause()
            try:
                if namespaces and (captured := await self._commit(chain, namespaces)):
                    return captured
                return await asyncio.to_thread(self._copy, chain)
            finally:
                if was_running and session.lifecycle.state is SessionState.PAUSED:
                    session.lifecycle.transition_to(SessionState.RESUMING)
                    await session.resume()
        finally:
            for fd in namespaces:
                os.close(fd)

    async def _namespaces(self) -> list[int]:
        if not self._sessions.sandboxes.has_overlays:
            return []
        with self._session.using() as sandbox:
            return (await sandbox.get_join_info())[1]

    async def _commit(self, chain: str, namespaces: list[int]) -> CapturedLayers | None:
        """Turn what the session has written into a layer without copying it.

        Return None if that is impossible; then the session is as before.
        """
        session = self._session
        own = session.directory / IMAGE_DIRECTORY
        if session.is_layered and not os.listdir(own / UPPER_DIRECTORY):
            return CapturedLayers(session.layers, session.shared)
        if obstacle := await session.sandbox.find_obstacle():
            _logger.info("%s is copied: %s", session.session_id, obstacle)
            return None
        new = session.directory / _NEW_DIRECTORY
        layer = self._store.adopt(chain)
        layers = [*self._store.layer_paths(session.layers if session.is_layered else ()), str(layer)]
        try:
            with self._moved(layer):
                await self._sessions.sandboxes.commit(session.sandbox, layers, new, [os.dup(fd) for fd in namespaces])
        except SetupFailed as failure:
            if failure.step == "switch":
                await session.sandbox.close()
                raise internal_error(f"The session was lost while it was copied: {failure}.") from failure
            self._sessions.remove_directory_later(new)
            _logger.info("%s is copied: %s", session.session_id, failure)
            return None
        if own.is_dir():  # what is left in it is the old work directory
            self._sessions.remove_directory_later(own)
        new.rename(own)
        self._record(chain)
        return CapturedLayers(session.layers, session.shared)

    @contextmanager
    def _moved(self, layer: Path) -> Iterator[None]:
        """Move what the session has written into the directory of a layer.

        If the block fails, it is moved back.
        """
        session = self._session
        if session.is_layered:
            moves = {session.directory / IMAGE_DIRECTORY / UPPER_DIRECTORY: layer}
        else:
            moves = {session.directory / name: layer / name for name in _OWN_DIRECTORIES}
        with ExitStack() as undo:
            for source, target in moves.items():
                if source.is_dir():
                    source.rename(target)
                    undo.callback(target.rename, source)
            yield
            undo.pop_all()

    def _record(self, chain: str) -> None:
        """Add the new layer to the session and to its disk limit."""
        session = self._session
        session.layers = (*session.layers, chain) if session.is_layered else (chain,)
        session.is_layered = True
        self._keep(chain)
        self._release_merged()
        shared = SharedLayer(self._store.layer_path(chain))
        session.shared = (*session.shared, shared)
        session.sandbox.watchdog.charge(shared)
        self._new = shared
        for notice in tuple(session.on_new_mounts):
            notice()

    def _keep(self, chain: str) -> None:
        self._store.acquire([chain])
        self._session.kept_layers.append(chain)

    def _release_merged(self) -> None:
        """Release merged layers, which the new overlay does not need."""
        session = self._session
        stale = [chain for chain in session.kept_layers if chain not in session.layers]
        session.kept_layers = list(session.layers)
        self._store.release(stale)

    async def _finish(self, shared: SharedLayer) -> None:
        """Measure the new layer, and merge layers if there are many.

        Only those that were written in sessions are merged.
        """
        shared.size, _ = await asyncio.to_thread(measure_files, shared.path)
        session, written = self._session, self._session.shared
        if len(written) % _MERGED_AT or not session.lifecycle.is_live:
            return
        count = len(session.layers) - len(written)
        merged = session.layers[count:]
        if self._store.layer_paths(merged) != [layer.path for layer in written]:
            return
        from agentbay.local.images.merging import merge_layers  # here, since few sessions need it

        chain = _new_chain()
        self._keep(chain)
        try:
            place = self._store.adopt(chain)
            await asyncio.to_thread(merge_layers, [layer.path for layer in written], str(place))
        except OSError as error:
            _logger.info("%s keeps %d layers: %s", session.session_id, len(merged), error)
            return
        together = SharedLayer(str(place), sum(layer.size for layer in written))
        session.layers = (*session.layers[:count], chain, *session.layers[count + len(merged) :])
        session.shared = (together, *session.shared[len(written) :])

    def _copy(self, chain: str) -> CapturedLayers:
        session, copying = self._session, TreeCopy(self._store.owner)
        with self._store.new_directory() as directory:
            if session.is_layered:
                upper = session.directory / IMAGE_DIRECTORY / UPPER_DIRECTORY
                copying.copy(os.fspath(upper), os.fspath(directory))
            else:
                for name in _OWN_DIRECTORIES:
                    source = session.directory / name
                    if source.is_dir():
                        (directory / name).mkdir()
                        copying.copy(os.fspath(source), os.fspath(directory / name))
            layer = Layer(chain=chain, size=copying.stats.size, entries=copying.stats.entries)
            self._store.add_layer(layer, directory)
        below = session.layers if session.is_layered else ()
        shared = SharedLayer(self._store.layer_path(chain), layer.size)
        return CapturedLayers((*below, chain), (*session.shared, shared))


async def _run_to_its_end(work: Coroutine[Any, Any, CapturedLayers]) -> CapturedLayers:
    """Await a coroutine that a cancellation must not interrupt.

    The cancellation is raised when it has ended: half done, it would break the session.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(retrieve_exception)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _new_chain() -> str:
    return f"sha256:{secrets.token_hex(32)}"
