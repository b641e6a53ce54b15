"""Actions on the contexts of a session."""

from __future__ import annotations

import json

from agentbay._wire.contexts import (
    BindContexts,
    BindingFound,
    ContextInfo,
    DescribeSessionContexts,
    GetAndLoadInternalContext,
    GetContextInfo,
    InternalContext,
    SyncContext,
    write_policy,
)
from agentbay.local.contexts.bindings import INTERNAL_PATH, SessionContexts
from agentbay.local.contexts.policy import Item
from agentbay.local.contexts.transfers import DOWNLOAD, UPLOAD, as_text
from agentbay.local.dispatch import answers
from agentbay.local.handlers.contexts import names_of, when
from agentbay.local.refusals import invalid, session_not_found
from agentbay.local.runtime import Runtime

_FILE_TRANSFER = "file_transfer"


def _contexts(runtime: Runtime, session_id: str, *, working: bool = True) -> SessionContexts:
    session = runtime.sessions.find(session_id)
    if working:
        session.check_running()
    if session.contexts is None:  # as long as it is being made, nobody knows its id
        raise session_not_found()
    return session.contexts


@answers(SyncContext)
async def sync(runtime: Runtime, action: SyncContext) -> None:
    """Begin to copy. How it fares, GetContextInfo tells, also of what the session does not have."""
    contexts = _contexts(runtime, action.session_id)
    mode = action.mode or UPLOAD
    if mode not in (UPLOAD, DOWNLOAD):
        raise invalid("Mode: must be upload or download.")
    await contexts.sync(action.context_id or "", action.path or "", mode)


@answers(GetContextInfo)
async def info(runtime: Runtime, action: GetContextInfo) -> ContextInfo:
    contexts = _contexts(runtime, action.session_id, working=False)
    return ContextInfo(context_status=as_text(contexts.statuses(action.context_id, action.path, action.task_type)))


@answers(BindContexts)
async def bind(runtime: Runtime, action: BindContexts) -> None:
    if not action.persistence_data_list:
        raise invalid("PersistenceDataList: is empty.")
    await _contexts(runtime, action.session_id).bind(action.persistence_data_list)


@answers(DescribeSessionContexts)
async def list_bindings(runtime: Runtime, action: DescribeSessionContexts) -> list[BindingFound]:
    contexts = _contexts(runtime, action.session_id, working=False)
    names = await names_of(runtime, runtime.sessions.find(action.session_id))
    return [
        BindingFound(
            context_id=binding.item.context_id,
            context_name=names[binding.item.context_id],
            path=binding.item.given,
            policy=_policy(binding.item),
            bind_time=when(binding.bound),
        )
        for binding in contexts.bindings
    ]


def _policy(item: Item) -> str:
    if item.mount:
        return ""
    return item.policy_text or json.dumps(write_policy(item.policy))


@answers(GetAndLoadInternalContext)
async def internal(runtime: Runtime, action: GetAndLoadInternalContext) -> list[InternalContext]:
    contexts = _contexts(runtime, action.session_id)
    if _FILE_TRANSFER not in action.context_types:
        return []
    context_id = await contexts.internal()
    return [InternalContext(context_id=context_id, context_path=INTERNAL_PATH, context_type=_FILE_TRANSFER)]
