"""Turn the service's data about sessions into models, and check arguments."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import attrs

from .._wire.converter import unstructure
from .._wire.sessions import ListSession, ResourceData, SessionData, SessionDetail, SessionItem
from ..errors import InvalidArgumentError, ReplyError
from ..models.context import ContextStatusData
from ..models.params import CreateSessionParams
from ..models.session import GetSessionData, SessionInfo, SessionStatus

_UNUSABLE_STATUSES = {
    "PAUSING": "being paused: wait until it is PAUSED, then call resume()",
    "PAUSED": "paused: call resume() first",
    "RESUMING": "being resumed: wait until it is RUNNING",
}


def make_list_session(
    labels: Mapping[str, str] | None,
    limit: int | None,
    status: str | SessionStatus | None,
    image_id: str | None,
    token: str,
) -> ListSession:
    """Return the request for one page of sessions.

    Raises:
        InvalidArgumentError: If the status is unknown, or the page size is not positive.
    """
    names = [member.value for member in SessionStatus]
    if status is not None and status not in names:
        raise InvalidArgumentError(f"Invalid status '{status}'. Must be one of: {', '.join(names)}")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise InvalidArgumentError(f"limit must be a whole number of at least 1, not {limit!r}")
    return ListSession(
        labels=dict(labels or {}),
        max_results=10 if limit is None else limit,
        next_token=token or None,
        status=None if status is None else SessionStatus(status).value,
        image_id=image_id or None,
    )


def to_session_dict(item: SessionItem) -> dict[str, str]:
    """Return an item of a page, as `SessionListResult` holds it."""
    return {
        "sessionId": item.session_id,
        "sessionStatus": item.session_status or "UNKNOWN",
        "appInstanceId": item.app_instance_id,
        "imageId": item.image_id,
    }


def to_session_data(found: SessionData) -> GetSessionData:
    """Return the `GetSessionData` for the service's data."""
    known: dict[str, Any] = {
        name: getattr(found, name) for name in attrs.fields_dict(GetSessionData) if hasattr(found, name)
    }
    known["success"] = True
    try:
        known["tool_list"] = json.dumps(unstructure(found.tool_list))
    except RecursionError as error:
        raise ReplyError("The answer to GetSession cannot be understood: its tools are nested too deeply.") from error
    known["contexts"] = [{"id": context.id, "name": context.name} for context in found.contexts]
    return GetSessionData(**known)


def to_session_info(found: ResourceData, session_id: str) -> SessionInfo:
    """Return the `SessionInfo` for the answer to `GetMcpResource`."""
    info = SessionInfo()
    for name in attrs.fields_dict(SessionInfo):
        setattr(info, name, getattr(found if hasattr(found, name) else found.desktop_info, name))
    info.session_id = found.session_id or session_id
    return info


class SessionHint(NamedTuple):
    """Why a session cannot be used.

    Attributes:
        text: A sentence for the user; "" if the session can be used.
        has_ended: Whether it will never be usable again.
    """

    text: str = ""
    has_ended: bool = False


def session_hint(session_id: str, detail: SessionDetail | None) -> SessionHint:
    """Return why a session cannot be used."""
    if detail is None:
        return SessionHint(f"There is no session {session_id}, or it ended long ago.", has_ended=True)
    if detail.status in _UNUSABLE_STATUSES:
        return SessionHint(f"Session {session_id} is {_UNUSABLE_STATUSES[detail.status]}.")
    if detail.status not in ("DELETING", "DELETED", "FINISH"):
        return SessionHint()
    when = f" at {detail.end_time}" if detail.end_time else ""
    reason = detail.end_reason or "It was deleted."
    return SessionHint(f"Session {session_id} ended{when}: {reason}", has_ended=True)


def check_awaited_contexts(
    awaited: frozenset[str], transfers: Iterable[ContextStatusData]
) -> tuple[frozenset[str], list[str]]:
    """Return the contexts that have not arrived, and the errors of failed ones."""
    last = {item.context_id: item for item in transfers if item.context_id in awaited}
    ended = {name for name, item in last.items() if item.status in ("Success", "Failed")}
    wrong = [f"{name}: {last[name].error_message or 'failed'}" for name in ended if last[name].status == "Failed"]
    return awaited - ended, sorted(wrong)


def check_session_id(session_id: object) -> str:
    """Return the id of a session.

    Raises:
        InvalidArgumentError: It is no text, or empty.
    """
    if not isinstance(session_id, str) or not session_id.strip():
        raise InvalidArgumentError("session_id is required")
    return session_id


def parse_time(text: str) -> datetime | None:
    """Read a time of the service, or return None if there is none."""
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        # A time in a form of another version of the service is as good as none.
        return None


def estimate_times(params: CreateSessionParams) -> tuple[datetime, datetime | None]:
    """Return when a new session was created, and when it ends if known."""
    now, policy = datetime.now(UTC), params.lifecycle_policy
    if policy is None:
        idle = params.idle_release_timeout
        return now, None if idle is None else now + timedelta(seconds=idle)
    if policy.manual_release:
        return now, None
    return now, now + timedelta(minutes=min(policy.idle_release_timeout, policy.max_runtime))


def label_error(labels: object) -> str:
    """Return why labels cannot be set, or ""."""
    if isinstance(labels, list):
        return "Labels cannot be an array. Please provide a valid labels object."
    if not isinstance(labels, dict):
        return "Labels cannot be null, undefined, or invalid type. Please provide a valid labels object."
    if not labels:
        return "Labels cannot be empty. Please provide at least one label."
    return blank_label_error(labels)


def blank_label_error(labels: Mapping[str, Any]) -> str:
    """Return why no session can have these labels, or ""."""
    if any(not isinstance(name, str) or not name.strip() for name in labels):
        return "Label keys cannot be empty Please provide valid keys."
    if any(value is None or not str(value).strip() for value in labels.values()):
        return "Label values cannot be empty Please provide valid values."
    return ""
