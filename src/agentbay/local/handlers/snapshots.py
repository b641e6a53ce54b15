"""Actions that copy sessions."""

from __future__ import annotations

from agentbay._wire.images import ForkSession, ImageJobData, SnapshotSession
from agentbay._wire.sessions import SessionConnection
from agentbay.local.api_errors import invalid_request
from agentbay.local.handlers.handler_tables import action_handler
from agentbay.local.handlers.images import job_data
from agentbay.local.handlers.sessions import connection_fields
from agentbay.local.runtime import Runtime
from agentbay.local.sessions import snapshots

_MAX_FORKS = 1000  # in one call


@action_handler(SnapshotSession)
async def snapshot(runtime: Runtime, action: SnapshotSession) -> ImageJobData:
    session = runtime.sessions.find(action.session_id)
    name = runtime.images.check_name(action.name)
    taking = snapshots.take_snapshot(runtime.sessions, runtime.images.store, session, name)
    return job_data(runtime, runtime.images.start_task(taking))


@action_handler(ForkSession)
async def fork(runtime: Runtime, action: ForkSession) -> list[SessionConnection]:
    if not 1 <= action.count <= _MAX_FORKS:
        raise invalid_request(f"Count: must be 1 to {_MAX_FORKS}, not {action.count}.", "InvalidParameter.Count")
    session = runtime.sessions.find(action.session_id)
    made = await snapshots.fork(runtime.sessions, runtime.context_service, runtime.images.store, session, action.count)
    return [SessionConnection(**connection_fields(runtime, forked)) for forked in made]
