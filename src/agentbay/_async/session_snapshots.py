"""Snapshots and forks of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._arguments import checked_arguments
from .._transport.deadline import Deadline
from .._transport.images import explain_missing_action
from .._wire.images import ForkSession, SnapshotSession
from ..errors import InvalidArgumentError, NotSupportedError
from ..models.image import ImageInfo

if TYPE_CHECKING:
    from .client import AsyncAgentBay
    from .session import AsyncSession

_INSTEAD = (
    "On the cloud, keep files in a context (ContextSync), from which any number of sessions start, "
    "and programs in an image of its console."
)
_NO_MEMORY = (
    "Code contexts cannot be forked with their memory (contexts=True): a process cannot move to the namespaces of "
    "another session, where it would have to run. Keep what they hold in files, by pickle or numpy.save, and read it "
    "in the fork."
)


@checked_arguments()
class AsyncSessionSnapshots:
    """Save a session's files as an image, and fork it."""

    agent_bay: AsyncAgentBay
    session_id: str

    async def snapshot(self, name: str, *, timeout: float = 600.0) -> ImageInfo:
        """Save the files of this session as an image of the local runtime.

        `CreateSessionParams(image_id=name)` starts sessions from it. The session is paused meanwhile, so that all files
        are of the same moment, and its calls are refused. What the session has written is shared, not copied, unless
        its processes are using it. Processes, their memory, variables of `session.env` and files of mounted
        contexts are not saved.

        Args:
            name: Name of the image, such as `solved:1`.
            timeout: Seconds to wait. After a timeout the runtime still completes the snapshot.

        Raises:
            NotSupportedError: If the service has no snapshots.
            InvalidRequestError: If the files cannot be saved.
            WaitTimeoutError: If it takes longer.

        Wire: SnapshotSession, DescribeImageJob
        """
        deadline = Deadline(timeout)
        with explain_missing_action("snapshots of sessions", _INSTEAD):
            action = SnapshotSession(session_id=self.session_id, name=name)
            reply = await self.agent_bay.client.call(action, deadline.capped(self.agent_bay.timeout))
        return await self.agent_bay.images._wait(reply.data_or_raise(), f"The snapshot {name}", None, deadline)

    async def fork(self, count: int = 1, *, contexts: bool = False, timeout: float = 600.0) -> list[AsyncSession]:
        """Create sessions with the files and settings of this one.

        They have its image, labels, time limits, network, variables of `session.env`, and what it has written, which
        is shared until one of them changes it. This session is paused for some milliseconds meanwhile, and calls are
        refused. Processes and their memory, and bindings of contexts are not copied.

        Args:
            count: How many, at most 1,000.
            contexts: Also fork the code contexts with their memory. No service can do that: it raises.
            timeout: Seconds that it may take.

        Returns:
            The new sessions. Either all of them are created, or none, and this raises.

        Raises:
            NotSupportedError: If the service has no forks, or for `contexts`.
            InvalidRequestError: If the files cannot be copied.
            QuotaExceededError: If there may not be so many sessions.

        Wire: ForkSession
        """
        if count < 1:
            raise InvalidArgumentError(f"count must be at least 1, not {count}")
        if contexts:
            raise NotSupportedError(_NO_MEMORY)
        with explain_missing_action("forks of sessions", _INSTEAD):
            reply = await self.agent_bay.client.call(
                ForkSession(session_id=self.session_id, count=count), Deadline(timeout)
            )
        return [self.agent_bay._make_session(connection) for connection in reply.data_or_raise()]
