"""Actions on sessions."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from agentbay._wire import sessions as wire
from agentbay._wire.schema import wire_names
from agentbay.errors import NotFoundError
from agentbay.local.api_errors import invalid_request, network_not_supported
from agentbay.local.contexts.session_contexts import SessionContexts
from agentbay.local.handlers.env import check_variables, set_variables
from agentbay.local.handlers.handler_tables import action_handler
from agentbay.local.handlers.paging import (
    DEFAULT_PAGE_SIZE,
    ListPage,
    check_page_size,
    read_numeric_page_token,
    write_page_token,
)
from agentbay.local.handlers.tool_calls import read_catalogue_file
from agentbay.local.lazy_imports import import_in_thread
from agentbay.local.runtime import Runtime
from agentbay.local.sessions import images
from agentbay.local.sessions.creation import SessionRequest
from agentbay.local.sessions.entrypoint import entrypoint_of, start_entrypoint
from agentbay.local.sessions.session import Session
from agentbay.local.sessions.session_options import SandboxOptions, read_options
from agentbay.local.sessions.time_limits import TimeLimits
from agentbay.local.sessions.view_codes import make_view_code
from agentbay.local.skills import Skill


@action_handler(wire.CreateMcpSession)
async def create(runtime: Runtime, action: wire.CreateMcpSession) -> wire.CreatedSessionData:
    if action.network_id:  # a caller that asked for a feature must not get a session without it
        raise network_not_supported()
    asked, options = await _read_options(runtime, action)
    chosen = images.published_image(action.image_id)
    if chosen is None:
        chosen = await runtime.images.run_in_thread(images.resolve_image, action.image_id, runtime.images.store)
    if asked.user:
        chosen = await runtime.images.run_in_thread(images.with_user, chosen, asked.user, runtime.images.store)
    if images.has_phone(chosen.name):
        await (await import_in_thread("handlers.phone")).require_phone()
    request = SessionRequest(
        image_id=chosen.name,
        image=chosen.image,
        labels=_check_labels(action.labels or {}),
        time_limits=TimeLimits.read(action.timeout, action.max_runtime, action.manual_release),
        contexts=await SessionContexts.create(runtime.context_service, action.persistence_data_list or []),
        policy_id=runtime.networks.network_for_policy(
            action.policy_id or (None if options.allowed is None else "proxy")
        ),
        region_id=action.login_region_id or "",
        skills=await _choose_skills(runtime, action),
        options=options,
    )
    session = await runtime.sessions.create(request)
    async with runtime.sessions.deleted_on_failure(session):
        if asked.envs:
            await set_variables(session, asked.envs)
        await start_entrypoint(session)
    given = [name for name in wire_names(wire.SessionOptions) if getattr(asked, name) is not None]
    return wire.CreatedSessionData(success=True, given_options=given or None, **connection_fields(runtime, session))


async def _read_options(runtime: Runtime, action: wire.CreateMcpSession) -> tuple[wire.SessionOptions, SandboxOptions]:
    asked = action.session_options or wire.SessionOptions()
    try:
        check_variables(asked.envs or {})
    except ValueError as error:
        raise invalid_request(f"envs: {error}.", "InvalidParameter.Envs") from error
    isolated = runtime.sessions.isolation == "namespaces"
    return asked, await read_options(asked, runtime.networks, isolated=isolated, policy_id=action.policy_id)


async def _choose_skills(runtime: Runtime, action: wire.CreateMcpSession) -> Sequence[Skill]:
    if not action.load_skill:
        return ()
    skills: Sequence[Skill] = await (await import_in_thread("handlers.skills")).choose_skills(
        runtime, action.skills or []
    )
    return skills


def _check_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    if any(not text.strip() for label in labels.items() for text in label):
        raise invalid_request("A label must have a name and a value; neither may be blank.", "InvalidParameter.Labels")
    return labels


def connection_fields(runtime: Runtime, session: Session) -> dict[str, Any]:
    """Return the addresses and tokens by which clients reach a session."""
    # The token opens this one session only.
    address = runtime.address
    return {
        "session_id": session.session_id,
        "image_id": session.image_id,
        **session.times(),
        "app_instance_id": session.app_instance_id,
        "resource_id": session.resource_id,
        "resource_url": _dashboard_url(runtime, session),
        "token": session.token,
        "link_url": f"{address.http_url}/link/{session.session_id}" if runtime.direct_calls_enabled else "",
        "ws_url": f"{address.ws_url}/ws/{session.session_id}",
        "tool_list": read_catalogue_file(session.image_id),
    }


def _dashboard_url(runtime: Runtime, session: Session) -> str:
    return f"{runtime.address.http_url}/view?resourceId={session.resource_id}&authcode={make_view_code(session)}"


@action_handler(wire.GetSession)
async def get(runtime: Runtime, action: wire.GetSession) -> wire.SessionData:
    session = runtime.sessions.find(action.session_id)
    contexts = await context_names(runtime, session)
    return wire.SessionData(
        status=session.lifecycle.state.value,
        contexts=[wire.BoundContext(id=context_id, name=name) for context_id, name in contexts.items()],
        **connection_fields(runtime, session),
    )


@action_handler(wire.GetSessionDetail)
async def get_session_detail(runtime: Runtime, action: wire.GetSessionDetail) -> wire.SessionDetail:
    return runtime.sessions.detail(action.session_id)


@action_handler(wire.GetMcpResource)
async def get_resource(runtime: Runtime, action: wire.GetMcpResource) -> wire.ResourceData:
    session = runtime.sessions.find(action.session_id)
    return wire.ResourceData(
        session_id=session.session_id,
        resource_url=_dashboard_url(runtime, session),
        desktop_info=wire.DesktopInfo(
            app_id=session.app_instance_id,
            auth_code=make_view_code(session),
            connection_properties="{}",
            resource_id=session.resource_id,
            resource_type="AIAgent",
        ),
        policy_id=session.policy_id,
        entrypoint=shlex.join(entrypoint_of(session)),
    )


@action_handler(wire.ListSession)
async def list_page(runtime: Runtime, action: wire.ListSession) -> ListPage:
    """List sessions by creation."""
    size = check_page_size(DEFAULT_PAGE_SIZE if action.max_results is None else action.max_results)
    after = read_numeric_page_token(action.next_token)
    labels = (action.labels or {}).items()
    matches = runtime.sessions.matching(
        lambda session: (
            labels <= session.labels.items()
            and action.status in (None, "", session.lifecycle.state.value)
            and action.image_id in (None, "", session.image_id)
        )
    )
    following = [session for session in matches if session.creation_number > after]
    shown = following[:size]
    token = write_page_token(str(shown[-1].creation_number)) if len(following) > size else ""
    return ListPage([_list_entry(session) for session in shown], token, size, len(matches))


def _list_entry(session: Session) -> wire.SessionItem:
    return wire.SessionItem(
        session_id=session.session_id,
        session_status=session.lifecycle.state.value,
        app_instance_id=session.app_instance_id,
        image_id=session.image_id,
    )


@action_handler(wire.DeleteSessionAsync)
async def delete(runtime: Runtime, action: wire.DeleteSessionAsync) -> None:
    """Delete a session, even a paused one, which the cloud service refuses."""
    await runtime.sessions.delete(runtime.sessions.find(action.session_id))


@action_handler(wire.ReleaseMcpSession)
async def release(runtime: Runtime, action: wire.ReleaseMcpSession) -> None:
    await runtime.sessions.delete(runtime.sessions.find(action.session_id))


@action_handler(wire.PauseSessionAsync)
async def pause(runtime: Runtime, action: wire.PauseSessionAsync) -> None:
    await runtime.sessions.pause(runtime.sessions.find(action.session_id))


@action_handler(wire.ResumeSessionAsync)
async def resume(runtime: Runtime, action: wire.ResumeSessionAsync) -> None:
    await runtime.sessions.resume(runtime.sessions.find(action.session_id))


@action_handler(wire.RefreshSessionIdleTime)
async def refresh_idle_time(runtime: Runtime, action: wire.RefreshSessionIdleTime) -> None:
    runtime.sessions.find(action.session_id).lifecycle.touch()


@action_handler(wire.SetSessionLifecycle)
async def set_lifecycle(runtime: Runtime, action: wire.SetSessionLifecycle) -> wire.SessionExpiry:
    session = runtime.sessions.find(action.session_id)
    minutes = {"IdleReleaseTimeout": action.idle_release_timeout, "MaxRuntime": action.max_runtime}
    if not action.manual_release and all(value is None for value in minutes.values()):
        raise invalid_request("IdleReleaseTimeout, MaxRuntime or ManualRelease: one of them is needed.")
    runtime.sessions.change_time_limits(session, TimeLimits.in_minutes(**minutes))
    return wire.SessionExpiry(expire_time=session.times()["expire_time"])


@action_handler(wire.SetLabel)
async def set_labels(runtime: Runtime, action: wire.SetLabel) -> None:
    runtime.sessions.set_labels(runtime.sessions.find(action.session_id), _check_labels(action.labels))


@action_handler(wire.GetLabel)
async def get_labels(runtime: Runtime, action: wire.GetLabel) -> wire.LabelData:
    return wire.LabelData(labels=runtime.sessions.find(action.session_id).labels)


async def context_names(runtime: Runtime, session: Session) -> dict[str, str]:
    """Return the names of a session's contexts by id, "" for deleted ones."""
    found: dict[str, str] = {}
    for binding in session.contexts.bindings if session.contexts else ():
        context_id = binding.spec.context_id
        try:
            found[context_id] = (
                await runtime.context_service.run_in_thread(runtime.context_service.store.find, context_id)
            ).name
        except NotFoundError:
            found[context_id] = ""
    return found
