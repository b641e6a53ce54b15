"""The entry point of a session: the program that starts with it.

A session has no main process whose end would be its own, so this is one of its background processes.
"""

from __future__ import annotations

import shlex

from agentbay.local.api_errors import invalid_request
from agentbay.local.sandbox.service.manager import ResourceCreationFailed
from agentbay.local.sessions.session import Session

ENTRYPOINT_ID = "entrypoint"  # of the background process


def entrypoint_of(session: Session) -> list[str]:
    """Return what starts with a session, or nothing.

    As in a container, it is the ENTRYPOINT of the image with its CMD as arguments. An image with only a CMD starts
    nothing: a command of `docker run` replaces it, and a session exists for such commands.
    """
    if session.options.entrypoint is not None:
        return list(session.options.entrypoint)
    config = session.image.config if session.image else None
    return [*config.entrypoint, *config.command] if config and config.entrypoint else []


async def start_entrypoint(session: Session) -> None:
    """Start the entry point of a new session.

    Raises:
        InvalidRequestError: There is no such program, or it cannot be started.
    """
    argv = entrypoint_of(session)
    if not argv:
        return
    try:
        with session.using() as sandbox:
            await session.background.start(
                sandbox,
                ENTRYPOINT_ID,
                argv,
                label=shlex.join(argv),
                cwd=None,
                env=session.environment,
                stdin=b"",
            )
    except ResourceCreationFailed as error:
        raise invalid_request(
            f"entrypoint: {shlex.join(argv):.200} cannot be started: {error}; entrypoint=[] creates a session "
            "without it.",
            "InvalidParameter.Entrypoint",
        ) from error
