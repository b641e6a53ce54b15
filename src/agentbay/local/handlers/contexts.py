"""Contexts of a session. There are none here yet, and the answers say so."""

from __future__ import annotations

import json

from agentbay._wire.contexts import ContextInfo, GetContextInfo, SyncContext
from agentbay.local.dispatch import answers
from agentbay.local.runtime import Runtime


@answers(SyncContext)
async def sync(runtime: Runtime, action: SyncContext) -> None:
    """Do nothing: a session without contexts has none to copy. How a named one fared, `GetContextInfo` tells."""
    runtime.sessions.find(action.session_id)


@answers(GetContextInfo)
async def info(runtime: Runtime, action: GetContextInfo) -> ContextInfo:
    """Tell of no transfers; a context that a client names all the same has failed, so that it stops asking."""
    runtime.sessions.find(action.session_id)
    if not action.context_id:
        return ContextInfo(context_status="[]")
    failure = {
        "contextId": action.context_id,
        "path": action.path or "",
        "errorMessage": f"The session has no context {action.context_id}.",
        "status": "Failed",
        "startTime": 0,
        "finishTime": 0,
        "taskType": action.task_type or "upload",
    }
    return ContextInfo(context_status=json.dumps([{"type": "data", "data": json.dumps([failure])}]))
