"""Snapshots and forks of sessions: their files, at one moment.

The session is paused meanwhile. Memory of processes is not copied.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs

from agentbay.local.api_errors import invalid_request
from agentbay.local.contexts.service import ContextService
from agentbay.local.contexts.session_contexts import SessionContexts
from agentbay.local.images.errors import ImageError, unusable_image
from agentbay.local.images.image_config import ImageConfig, ImagePrograms, ImageUser
from agentbay.local.images.store import MAX_LAYERS, Image, ImageStore
from agentbay.local.sandbox.service.manager import SharedLayer, measure_files
from agentbay.local.sessions.creation import SessionRequest
from agentbay.local.sessions.entrypoint import start_entrypoint
from agentbay.local.sessions.layering import CapturedLayers, SessionLayers
from agentbay.local.sessions.session import Session
from agentbay.local.sessions.table import SessionTable


async def take_snapshot(sessions: SessionTable, store: ImageStore, session: Session, name: str) -> Image:
    """Save the files of a session as an image.

    Raises:
        InvalidRequestError: They cannot be saved.
        ConflictError: The session is in no state for that.
    """
    async with _capture_files(sessions, store, session) as captured:
        image = _make_image(session, captured.chains, f"snapshot of {session.session_id}")
        await asyncio.to_thread(store.keep_adopted, image.layers, measure_files)
        return await asyncio.to_thread(store.add, image, name)


async def fork(
    sessions: SessionTable, contexts: ContextService, store: ImageStore, session: Session, count: int
) -> list[Session]:
    """Create sessions with the files and the settings of another one.

    On failure none of them is left.

    Raises:
        InvalidRequestError: Its files cannot be copied.
        QuotaExceededError: There may not be so many sessions.
    """
    forks: list[Session] = []

    async def create() -> None:
        forks.append(await _create_fork(sessions, contexts, session, image, captured.shared))

    try:
        async with _capture_files(sessions, store, session) as captured:
            image = _make_image(session, captured.chains, "fork")
            results = await asyncio.gather(*(create() for _ in range(count)), return_exceptions=True)
        for failure in filter(None, results):
            raise failure
    except BaseException:  # also a cancellation: a client that has disconnected would never learn their ids
        await asyncio.shield(asyncio.gather(*(sessions.delete(made) for made in forks), return_exceptions=True))
        raise
    return forks


async def _create_fork(
    sessions: SessionTable, contexts: ContextService, session: Session, image: Image, shared: Sequence[SharedLayer]
) -> Session:
    request = SessionRequest(
        image_id=session.image_id,
        image=image,
        shared=shared,
        labels=session.labels,
        time_limits=session.lifecycle.time_limits,
        contexts=SessionContexts(contexts, ()),
        options=session.options,
        policy_id=session.policy_id,
        region_id=session.region_id,
    )
    made = await sessions.create(request)
    made.environment.update(session.environment)
    async with sessions.deleted_on_failure(made):
        await start_entrypoint(made)
    return made


@asynccontextmanager
async def _capture_files(sessions: SessionTable, store: ImageStore, session: Session) -> AsyncIterator[CapturedLayers]:
    """Yield layers with the files of a session, kept during the block."""
    if any(is_overlay for _, is_overlay in session.options.writable) and session.is_machine_based:
        raise invalid_request(
            "A session in which directories of this machine's system are writable cannot be copied: "
            "start it on an image.",
            "SnapshotNotSupported.Local",
        )
    if len(session.layers) >= MAX_LAYERS:
        raise invalid_request(
            f"The image of the session has {MAX_LAYERS} layers, as many as there may be.", "ImageTooLarge.Local"
        )
    try:
        async with SessionLayers(sessions, store, session).capture() as captured:
            yield captured
    except ImageError as error:
        raise unusable_image(error) from error


def _make_image(session: Session, layers: Sequence[str], source: str) -> Image:
    identity = f"sha256:{secrets.token_hex(32)}"
    config = session.image.config if session.image else ImageConfig()
    if session.options.entrypoint is not None:
        config = attrs.evolve(config, entrypoint=list(session.options.entrypoint), command=[])
    if session.image is not None and not session.is_machine_based:
        return attrs.evolve(
            session.image,
            id=identity,
            config=config,
            layers=list(layers),
            source=source,
            directory=session.options.directory or session.image.directory,
            created=0.0,
            names=[],
            digest="",
        )
    return Image(
        id=identity,
        config=config,
        user=ImageUser(),
        programs=ImagePrograms(shell="/bin/sh"),
        layers=list(layers),
        size=0,
        source=source,
        base=session.image.base if session.image else session.image_id,
        writable=list(session.options.writable),
        directory=session.options.directory,
    )
