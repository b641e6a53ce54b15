"""Actions on the contexts of a session."""

from __future__ import annotations

import json

from agentbay._wire import contexts as wire
from agentbay.local.api_errors import invalid_request, session_not_found
from agentbay.local.contexts.binding_spec import BindingSpec
from agentbay.local.contexts.session_contexts import INTERNAL_PATH, SessionContexts
from agentbay.local.contexts.transfers import DOWNLOAD, UPLOAD, to_wire_json
from agentbay.local.handlers.contexts import format_time
from agentbay.local.handlers.handler_tables import action_handler
from agentbay.local.handlers.sessions import context_names
from agentbay.local.runtime import Runtime

_FILE_TRANSFER = "file_transfer"


def _session_contexts(runtime: Runtime, session_id: str, *, requires_running: bool = True) -> SessionContexts:
    session = runtime.sessions.find(session_id)
    if requires_running:
        session.lifecycle.require_running()
        session.lifecycle.touch()
    if session.contexts is None:  # as long as it is being made, nobody knows its id
        raise session_not_found()
    return session.contexts


@action_handler(wire.SyncContext)
async def sync(runtime: Runtime, action: wire.SyncContext) -> None:
    """Begin to copy between a session and its contexts."""
    contexts = _session_contexts(runtime, action.session_id)
    mode = action.mode or UPLOAD
    if mode not in (UPLOAD, DOWNLOAD):
        raise invalid_request("Mode: must be upload or download.")
    await contexts.sync(action.context_id or "", action.path or "", mode)


@action_handler(wire.GetContextInfo)
async def get_context_info(runtime: Runtime, action: wire.GetContextInfo) -> wire.ContextInfo:
    contexts = _session_contexts(runtime, action.session_id, requires_running=False)
    return wire.ContextInfo(
        context_status=to_wire_json(contexts.find_transfers(action.context_id, action.path, action.task_type))
    )


@action_handler(wire.BindContexts)
async def bind(runtime: Runtime, action: wire.BindContexts) -> None:
    if not action.persistence_data_list:
        raise invalid_request("PersistenceDataList: is empty.")
    await _session_contexts(runtime, action.session_id).bind(action.persistence_data_list)


@action_handler(wire.DescribeSessionContexts)
async def list_bindings(runtime: Runtime, action: wire.DescribeSessionContexts) -> list[wire.BindingData]:
    contexts = _session_contexts(runtime, action.session_id, requires_running=False)
    names = await context_names(runtime, runtime.sessions.find(action.session_id))
    return [
        wire.BindingData(
            context_id=binding.spec.context_id,
            context_name=names[binding.spec.context_id],
            path=binding.spec.path_as_given,
            policy=_policy_text(binding.spec),
            bind_time=format_time(binding.bound_at),
        )
        for binding in contexts.bindings
    ]


def _policy_text(item: BindingSpec) -> str:
    if item.mount:
        return ""
    return item.policy_text or json.dumps(wire.write_policy(item.policy))


@action_handler(wire.GetAndLoadInternalContext)
async def load_internal_context(runtime: Runtime, action: wire.GetAndLoadInternalContext) -> list[wire.InternalContext]:
    contexts = _session_contexts(runtime, action.session_id)
    if _FILE_TRANSFER not in action.context_types:
        return []
    context_id = await contexts.get_internal_context_id()
    return [wire.InternalContext(context_id=context_id, context_path=INTERNAL_PATH, context_type=_FILE_TRANSFER)]
