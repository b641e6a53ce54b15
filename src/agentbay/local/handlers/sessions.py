"""Actions on sessions."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from agentbay._wire.sessions import (
    BoundContext,
    CreateMcpSession,
    DeleteSessionAsync,
    DesktopInfo,
    GetLabel,
    GetMcpResource,
    GetSession,
    GetSessionDetail,
    LabelData,
    ListedSession,
    ListSession,
    PauseSessionAsync,
    RefreshSessionIdleTime,
    ReleaseMcpSession,
    ResourceData,
    ResumeSessionAsync,
    SessionCreated,
    SessionDetail,
    SessionFound,
    SetLabel,
)
from agentbay.local import images
from agentbay.local.dispatch import answers
from agentbay.local.envelope import Page
from agentbay.local.handlers.contexts import names_of
from agentbay.local.lifetime import Lifetime
from agentbay.local.page.entry import make_code
from agentbay.local.refusals import invalid
from agentbay.local.runtime import Runtime
from agentbay.local.session import Session
from agentbay.local.tooling import catalogue

_PAGE, _LARGEST_PAGE = 10, 100


@answers(CreateMcpSession)
async def create(runtime: Runtime, action: CreateMcpSession) -> SessionCreated:
    _refuse_what_is_not_here(action)
    session = await runtime.sessions.create(
        image_id=images.choose(action.image_id),
        labels=action.labels or {},
        lifetime=Lifetime.read(action.timeout, action.max_runtime, action.manual_release),
        contexts=await runtime.contexts.admit(action.persistence_data_list or []),
        policy_id=runtime.networks.choose(action.policy_id),
        region_id=action.login_region_id or "",
    )
    return SessionCreated(success=True, **_address(runtime, session))


def _refuse_what_is_not_here(action: CreateMcpSession) -> None:
    # A session that lacks what was asked for is worse than none.
    for asked, what, code in (
        (action.network_id, "joining a network", "NetworkNotSupported.Local"),
        (action.load_skill, "skills", "SkillsNotSupported.Local"),
    ):
        if asked:
            raise invalid(f"The local runtime does not offer {what} yet.", code)


def _address(runtime: Runtime, session: Session) -> dict[str, Any]:
    """What a client needs to use a session; tokens open this one session only."""
    place = runtime.place
    return {
        "session_id": session.session_id,
        "app_instance_id": session.app_instance_id,
        "resource_id": session.resource_id,
        "resource_url": _view_url(runtime, session),
        "token": session.token,
        "link_url": f"{place.http}/link/{session.session_id}" if runtime.offers_links else "",
        "ws_url": f"{place.ws}/ws/{session.session_id}",
        "tool_list": catalogue(),
    }


def _view_url(runtime: Runtime, session: Session) -> str:
    return f"{runtime.place.http}/view?resourceId={session.resource_id}&authcode={make_code(session)}"


@answers(GetSession)
async def get(runtime: Runtime, action: GetSession) -> SessionFound:
    session = runtime.sessions.find(action.session_id)
    contexts = await names_of(runtime, session)
    return SessionFound(
        status=session.state.value,
        contexts=[BoundContext(id=context_id, name=name) for context_id, name in contexts.items()],
        **_address(runtime, session),
    )


@answers(GetSessionDetail)
async def describe(runtime: Runtime, action: GetSessionDetail) -> SessionDetail:
    return runtime.sessions.detail(action.session_id)


@answers(GetMcpResource)
async def resource(runtime: Runtime, action: GetMcpResource) -> ResourceData:
    session = runtime.sessions.find(action.session_id)
    return ResourceData(
        session_id=session.session_id,
        resource_url=_view_url(runtime, session),
        desktop_info=DesktopInfo(
            app_id=session.app_instance_id,
            auth_code=make_code(session),
            connection_properties="{}",
            resource_id=session.resource_id,
            resource_type="AIAgent",
        ),
        policy_id=session.policy_id,
    )


@answers(ListSession)
async def list_page(runtime: Runtime, action: ListSession) -> Page:
    """List by creation. The token names the last session shown, so deletions neither skip nor repeat any."""
    size = _PAGE if action.max_results is None else action.max_results
    if not 1 <= size <= _LARGEST_PAGE:
        raise invalid(f"MaxResults: must be 1 to {_LARGEST_PAGE}, not {size}.")
    after = _read_token(action.next_token)
    labels = (action.labels or {}).items()
    matches = runtime.sessions.matching(
        lambda session: (
            labels <= session.labels.items()
            and action.status in (None, "", session.state.value)
            and action.image_id in (None, "", session.image_id)
        )
    )
    following = [session for session in matches if session.number > after]
    shown = following[:size]
    token = _write_token(shown[-1].number) if len(following) > size else ""
    return Page([_listed(session) for session in shown], token, size, len(matches))


def _listed(session: Session) -> ListedSession:
    return ListedSession(
        session_id=session.session_id,
        session_status=session.state.value,
        app_instance_id=session.app_instance_id,
        image_id=session.image_id,
    )


def _write_token(number: int) -> str:
    return base64.urlsafe_b64encode(b"after:%d" % number).decode()


def _read_token(token: str | None) -> int:
    if not token:
        return 0
    try:
        return int(base64.urlsafe_b64decode(token).removeprefix(b"after:"))
    except (binascii.Error, ValueError) as error:
        raise invalid("NextToken: is not one that this runtime has given.") from error


@answers(DeleteSessionAsync)
async def delete(runtime: Runtime, action: DeleteSessionAsync) -> None:
    """Delete, a paused session too: the cloud refuses that, but here a refusal would leave it for ever."""
    await runtime.sessions.delete(runtime.sessions.find(action.session_id))


@answers(ReleaseMcpSession)
async def release(runtime: Runtime, action: ReleaseMcpSession) -> None:
    await runtime.sessions.delete(runtime.sessions.find(action.session_id))


@answers(PauseSessionAsync)
async def pause(runtime: Runtime, action: PauseSessionAsync) -> None:
    await runtime.sessions.pause(runtime.sessions.find(action.session_id))


@answers(ResumeSessionAsync)
async def resume(runtime: Runtime, action: ResumeSessionAsync) -> None:
    await runtime.sessions.resume(runtime.sessions.find(action.session_id))


@answers(RefreshSessionIdleTime)
async def keep_alive(runtime: Runtime, action: RefreshSessionIdleTime) -> None:
    runtime.sessions.find(action.session_id).touch()


@answers(SetLabel)
async def set_labels(runtime: Runtime, action: SetLabel) -> None:
    runtime.sessions.set_labels(runtime.sessions.find(action.session_id), action.labels)


@answers(GetLabel)
async def get_labels(runtime: Runtime, action: GetLabel) -> LabelData:
    return LabelData(labels=runtime.sessions.find(action.session_id).labels)
