"""Snapshots and forks of sessions: copies of their files.

The session is paused meanwhile, so that the files are those of one moment. Memory of processes is not copied.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs

from agentbay.local.api_errors import invalid_request
from agentbay.local.contexts.service import ContextService
from agentbay.local.contexts.session_contexts import SessionContexts
from agentbay.local.images.errors import ImageError, unusable_image
from agentbay.local.images.image_config import ImageConfig, ImagePrograms, ImageUser
from agentbay.local.images.store import Image, ImageStore, Layer
from agentbay.local.images.tree_copy import TreeCopy
from agentbay.local.sandbox.shared.sandbox_config import (
    IMAGE_DIRECTORY,
    PYTHON_DIRECTORY,
    UPPER_DIRECTORY,
    WRITABLE_DIRECTORY,
)
from agentbay.local.sessions.lifecycle import SessionState
from agentbay.local.sessions.session import Session
from agentbay.local.sessions.table import SessionTable

_COPIED = ("home", "tmp", PYTHON_DIRECTORY, WRITABLE_DIRECTORY)  # of a session without an image


async def take_snapshot(sessions: SessionTable, store: ImageStore, session: Session, name: str) -> Image:
    """Save the files of a session as an image.

    Raises:
        InvalidRequestError: They cannot be saved.
        ConflictError: The session is in no state for that.
    """
    async with _copied(sessions, store, session, f"snapshot of {session.session_id}") as image:
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
    async with _copied(sessions, store, session, "fork") as image:
        made = await asyncio.gather(
            *(_create_fork(sessions, contexts, session, image) for _ in range(count)), return_exceptions=True
        )
    forks = [result for result in made if isinstance(result, Session)]
    for result in made:
        if isinstance(result, BaseException):
            await asyncio.gather(*(sessions.delete(done) for done in forks))
            raise result
    return forks


async def _create_fork(sessions: SessionTable, contexts: ContextService, session: Session, image: Image) -> Session:
    made = await sessions.create(
        image_id=session.image_id,
        image=image,
        labels=session.labels,
        lifetime=session.lifecycle.lifetime,
        contexts=SessionContexts(contexts, ()),
        options=session.options,
        policy_id=session.policy_id,
        region_id=session.region_id,
    )
    made.environment.update(session.environment)
    return made


@asynccontextmanager
async def _copied(sessions: SessionTable, store: ImageStore, session: Session, source: str) -> AsyncIterator[Image]:
    """Copy the files of a session into a layer, and yield its image."""
    from agentbay.local.images.importing import MAX_LAYERS  # here, since it imports what reads archives

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
    chain = f"sha256:{secrets.token_hex(32)}"
    was_running = session.lifecycle.state is SessionState.RUNNING
    if was_running:
        await sessions.pause(session)
    store.acquire([chain])
    try:
        try:
            await asyncio.to_thread(_copy, store, session, chain)
        finally:
            if was_running and session.lifecycle.state is SessionState.PAUSED:
                await sessions.resume(session)
        yield _make_image(session, chain, source)
    except ImageError as error:
        raise unusable_image(error) from error
    finally:
        await asyncio.to_thread(store.release, [chain])


def _copy(store: ImageStore, session: Session, chain: str) -> None:
    copying = TreeCopy(store.owner)
    with store.new_directory() as directory:
        if session.is_machine_based:
            for name in _COPIED:
                source = session.directory / name
                if source.is_dir():
                    (directory / name).mkdir()
                    copying.copy(os.fspath(source), os.fspath(directory / name))
        else:
            copying.copy(os.fspath(session.directory / IMAGE_DIRECTORY / UPPER_DIRECTORY), os.fspath(directory))
        store.add_layer(Layer(chain=chain, size=copying.facts.size, entries=copying.facts.entries), directory)


def _make_image(session: Session, chain: str, source: str) -> Image:
    identity = f"sha256:{secrets.token_hex(32)}"
    if session.image is not None and not session.is_machine_based:
        return attrs.evolve(
            session.image,
            id=identity,
            layers=[*session.layers, chain],
            source=source,
            directory=session.options.directory or session.image.directory,
            names=[],
            digest="",
        )
    return Image(
        id=identity,
        config=ImageConfig(),
        user=ImageUser(),
        programs=ImagePrograms(shell="/bin/sh"),
        layers=[chain],
        size=0,
        source=source,
        base=session.image.base if session.image else session.image_id,
        writable=list(session.options.writable),
        directory=session.options.directory,
    )
