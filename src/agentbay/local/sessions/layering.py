"""The files of a session as layers that others can share.

What the session has written becomes a layer without being copied: the session goes on with an empty directory above
it. Where that cannot be, it is copied: if processes of the session use files in a way that they would notice, or the
machine cannot mount layers over each other.
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
_MERGED_AT = 16  # layers that were written in sessions: more of them slow down every look-up of a path
_NEW_DIRECTORY = "image-new"  # becomes IMAGE_DIRECTORY


class Taken(NamedTuple):
    """The layers that hold all files of a session.

    Attributes:
        chains: Their chain ids, the lowest first.
        shared: Those that count to the disk limits of sessions.
    """

    chains: Sequence[str]
    shared: Sequence[SharedLayer]


class SessionLayers:
    """Makes layers of what a session has written, while it is paused."""

    def __init__(self, sessions: SessionTable, store: ImageStore, session: Session) -> None:
        self._sessions, self._store, self._session = sessions, store, session
        self._new: SharedLayer | None = None

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[Taken]:
        """Keep layers that hold all files of the session, and yield them.

        Raises:
            ImageError: They can be neither shared nor copied.
            ConflictError: The session is in no state for that.
        """
        try:
            async with self._session.copy_lock:
                taken = await self._take_once()
            try:
                yield taken
            finally:
                self._store.release(taken.chains)
        finally:
            if self._new:  # not before: it would take processors from those who wait
                self._sessions.start_task(self._finish(self._new))

    async def _take_once(self) -> Taken:
        chain = _new_chain()
        self._store.acquire([chain])
        try:
            taken = await _run_to_its_end(self._take(chain))
            self._store.acquire(taken.chains)
        except (OSError, SandboxError) as error:
            if not self._session.lifecycle.is_usable:  # it was deleted meanwhile
                raise session_not_found() from error
            raise internal_error(f"The session could not be copied: {error}") from error
        finally:
            self._store.release([chain])
        return taken

    async def _take(self, chain: str) -> Taken:
        session = self._session
        was_running = session.lifecycle.state is SessionState.RUNNING
        if not was_running:  # process 1 cannot tell its namespaces
            return await asyncio.to_thread(self._copy, chain)
        namespaces = await self._namespaces()
        try:
            session.lifecycle.transition_to(SessionState.PAUSING)
            await session.pause()
            try:
                if namespaces and (taken := await self._commit(chain, namespaces)):
                    return taken
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

    async def _commit(self, chain: str, namespaces: list[int]) -> Taken | None:
        """Make what the session has written a layer, or return None.

        Nothing is copied.
        """
        session = self._session
        own = session.directory / IMAGE_DIRECTORY
        if session.is_layered and not os.listdir(own / UPPER_DIRECTORY):
            return Taken(session.layers, session.shared)
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
            self._sessions.discard(new)
            _logger.info("%s is copied: %s", session.session_id, failure)
            return None
        if own.is_dir():  # what is left in it is the old work directory
            self._sessions.discard(own)
        new.rename(own)
        self._note(chain)
        return Taken(session.layers, session.shared)

    @contextmanager
    def _moved(self, layer: Path) -> Iterator[None]:
        """Move what the session has written to a layer.

        It is moved back if the block fails.
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

    def _note(self, chain: str) -> None:
        """Count the new layer to the session, which keeps it from now on."""
        session = self._session
        session.layers = (*session.layers, chain) if session.is_layered else (chain,)
        session.is_layered = True
        self._keep(chain)
        self._let_go()
        shared = SharedLayer(self._store.layer_path(chain))
        session.shared = (*session.shared, shared)
        session.sandbox.watchdog.charge(shared)
        self._new = shared
        for notice in tuple(session.on_new_mounts):
            notice()

    def _keep(self, chain: str) -> None:
        self._store.acquire([chain])
        self._session.kept_layers.append(chain)

    def _let_go(self) -> None:
        """Let merged layers go, which the new overlay of the session does not need."""
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
        if len(written) % _MERGED_AT or not session.lifecycle.is_usable:
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

    def _copy(self, chain: str) -> Taken:
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
            layer = Layer(chain=chain, size=copying.facts.size, entries=copying.facts.entries)
            self._store.add_layer(layer, directory)
        below = session.layers if session.is_layered else ()
        shared = SharedLayer(self._store.layer_path(chain), layer.size)
        return Taken((*below, chain), (*session.shared, shared))


async def _run_to_its_end(work: Coroutine[Any, Any, Taken]) -> Taken:
    """Run it whole, even if the client does not wait for it.

    Half of it would break the session.
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
