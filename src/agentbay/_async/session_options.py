"""Options of a new session that its service does not know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._wire.params import missing_options
from ..errors import NotSupportedError
from ..models.params import CreateSessionParams
from .waiting import clean_up

if TYPE_CHECKING:
    from .session import AsyncSession

_INSTEAD = {
    "cwd": "pass cwd= to each command, and absolute paths to file operations",
    "network": "choose one of the policies of the service by policy_id=",
    "writable": "use an image that has the directory",
    "user": "make the image with that USER",
    "entrypoint": "start it by session.command.start",
}


async def give_missing_options(session: AsyncSession, params: CreateSessionParams, given: Sequence[str] | None) -> None:
    """Give a new session what its service has not, or delete it.

    Args:
        given: The options that the service says it has given.

    Raises:
        NotSupportedError: The service cannot give one of them.
        AgentBayError: The variables could not be set.
    """
    missing = missing_options(params, given)
    try:
        for name in missing:
            if name in _INSTEAD:
                raise NotSupportedError(
                    f"{name}= needs the local runtime: this service cannot give it to a session. The new session was "
                    "deleted.",
                    hint=f"Instead, {_INSTEAD[name]}.",
                )
        if "envs" in missing:
            (await session.env.set(params.envs)).unwrap()
    except BaseException:
        await clean_up(lambda: session.delete())
        raise
