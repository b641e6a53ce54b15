"""Actions on sessions."""

from __future__ import annotations

from typing import Any

from .schema import JSON, JSON_COMPACT, Action, action, pascal_payload, wire_field
from .tools import ToolEntry


@pascal_payload
class SessionConnection:
    """The addresses and tokens by which a session is reached.

    Attributes:
        create_time: When it was created, as ISO 8601 with a time zone; from the local runtime only, as `image_id`.
        expire_time: When it ends if nothing happens before; "" if never or not known.
    """

    session_id: str = ""
    image_id: str = ""
    create_time: str = ""
    expire_time: str = ""
    app_instance_id: str = ""
    resource_id: str = ""
    resource_url: str = wire_field(default="", repr=False)
    token: str = wire_field(default="", repr=False)
    link_url: str = wire_field(default="", repr=False)
    ws_url: str = wire_field(aliases=("wsUrl",), default="", repr=False)
    tool_list: list[ToolEntry] = wire_field(codec=JSON, factory=list, is_shared=True)
    http_port: str = ""
    network_interface_ip: str = ""
    vpc_resource: bool = False
    vpc_ip: str = ""
    vpc_id: str = ""


@pascal_payload
class SessionOptions:
    """Options of a new session that only some services support.

    `given_options` in the answer names those that were applied.
    """

    envs: dict[str, str] | None = wire_field(default=None, repr=False)
    cwd: str | None = None
    network: list[str] | None = None
    writable: list[str] | None = None
    user: str | None = None
    entrypoint: list[str] | None = None


@pascal_payload
class CreatedSessionData(SessionConnection):
    """Data of CreateMcpSession.

    Attributes:
        given_options: Fields of `SessionOptions` that the session has, from the local runtime only.
    """

    success: bool | None = None
    err_msg: str = ""
    given_options: list[str] | None = None


@action("CreateMcpSession")
class CreateMcpSession(Action[CreatedSessionData]):
    """Create a session.

    `timeout` is seconds, or minutes if `max_runtime` (always minutes) is given too.
    """

    login_region_id: str | None = None
    sdk_stats: dict[str, Any] | None = wire_field(codec=JSON_COMPACT, default=None)
    image_id: str | None = None
    labels: dict[str, str] | None = wire_field(codec=JSON, default=None)
    timeout: int | None = wire_field(default=None, caller="idle_release_timeout")
    max_runtime: int | None = None
    manual_release: bool | None = None
    persistence_data_list: list[dict[str, Any]] | None = wire_field(
        codec=JSON_COMPACT, default=None, caller="context_syncs"
    )
    policy_id: str | None = wire_field("McpPolicyId", default=None)
    network_id: str | None = wire_field(default=None, caller="beta_network_id")
    enable_record: bool | None = wire_field(default=None, caller="enable_browser_replay")
    load_skill: bool | None = wire_field(default=None, caller="load_skills")
    skills: list[str] | None = wire_field(codec=JSON_COMPACT, default=None, caller="skill_names")
    extra_configs: dict[str, Any] | None = None
    session_options: SessionOptions | None = wire_field(codec=JSON_COMPACT, default=None)


@pascal_payload
class BoundContext:
    """A context that a session uses, as GetSession names it."""

    id: str = wire_field("id", default="")
    name: str = wire_field("name", default="")


@pascal_payload
class SessionData(SessionConnection):
    """Data of GetSession."""

    status: str = ""
    contexts: list[BoundContext] = wire_field("contexts", factory=list)


@action("GetSession", idempotent=True)
class GetSession(Action[SessionData]):
    """Return a session with its addresses and tokens."""

    session_id: str


@pascal_payload
class SessionPause:
    """A time for which a session was paused.

    Attributes:
        began_ago: Seconds since it began.
        ended_ago: Seconds since it ended, 0 if the session is still paused.
    """

    began_ago: float = 0.0
    ended_ago: float = 0.0


@pascal_payload
class SessionDetail:
    """Data of GetSessionDetail.

    Attributes:
        pauses: The last pauses, from the local runtime only.
    """

    status: str = ""
    image_id: str = ""
    app_instance_id: str = ""
    policy_id: str = ""
    region_id: str = ""
    end_reason: str = ""
    end_time: str | None = None
    pauses: list[SessionPause] | None = None


@action("GetSessionDetail", idempotent=True, query=("SessionId",))
class GetSessionDetail(Action[SessionDetail]):
    """Return a session's state, also for a while after its end."""

    session_id: str


@pascal_payload
class SessionItem:
    """An item of ListSession."""

    session_id: str = ""
    session_status: str = ""
    app_instance_id: str = ""
    image_id: str = ""


@action("ListSession", idempotent=True)
class ListSession(Action[list[SessionItem]]):
    """List the sessions that have all the given labels, a page at a time."""

    labels: dict[str, str] | None = wire_field(codec=JSON, default=None)
    max_results: int | None = wire_field(default=None, caller="limit")
    next_token: str | None = None
    status: str | None = None
    image_id: str | None = None


@action("DeleteSessionAsync", idempotent=True, not_found_is_success=True, missing_success_is_success=True)
class DeleteSessionAsync(Action[None]):
    """Begin to delete a session."""

    session_id: str


@action("ReleaseMcpSession", idempotent=True, not_found_is_success=True, missing_success_is_success=True)
class ReleaseMcpSession(Action[None]):
    """Begin to delete a session, as older clients ask for it."""

    session_id: str


@action("PauseSessionAsync")
class PauseSessionAsync(Action[None]):
    """Begin to pause a session."""

    session_id: str


@action("ResumeSessionAsync")
class ResumeSessionAsync(Action[None]):
    """Begin to resume a session."""

    session_id: str


@action("RefreshSessionIdleTime", idempotent=True)
class RefreshSessionIdleTime(Action[None]):
    """Restart a session's idle timeout."""

    session_id: str


@pascal_payload
class SessionExpiry:
    """Data of SetSessionLifecycle."""

    expire_time: str = ""


@action("SetSessionLifecycle", idempotent=True)
class SetSessionLifecycle(Action[SessionExpiry]):
    """Change when a session ends by itself, on the local runtime only.

    The times are minutes. `max_runtime` counts from now.
    """

    session_id: str
    idle_release_timeout: int | None = None
    max_runtime: int | None = None
    manual_release: bool | None = None


@action("SetLabel", idempotent=True, missing_success_is_success=True)
class SetLabel(Action[None]):
    """Replace the labels of a session."""

    session_id: str
    labels: dict[str, str] = wire_field(codec=JSON)


@pascal_payload
class LabelData:
    """Data of GetLabel."""

    labels: dict[str, str] = wire_field(codec=JSON, factory=dict)


@action("GetLabel", idempotent=True)
class GetLabel(Action[LabelData]):
    """Return the labels of a session."""

    session_id: str
    max_results: int | None = None
    next_token: str | None = None


@pascal_payload
class DesktopInfo:
    """The data with which a desktop client connects to a session."""

    app_id: str = ""
    auth_code: str = wire_field(default="", repr=False)
    connection_properties: str = wire_field(default="", repr=False)
    resource_id: str = ""
    resource_type: str = ""
    ticket: str = wire_field(default="", repr=False)


@pascal_payload
class ResourceData:
    """Data of GetMcpResource.

    Attributes:
        entrypoint: From the local runtime only.
    """

    session_id: str = ""
    resource_url: str = wire_field(default="", repr=False)
    desktop_info: DesktopInfo = wire_field(factory=DesktopInfo)
    policy_id: str = ""
    entrypoint: str = ""


@action("GetMcpResource", idempotent=True)
class GetMcpResource(Action[ResourceData]):
    """Return how to view a session from outside."""

    session_id: str


@pascal_payload
class LinkData:
    """Data of GetLink."""

    url: str = wire_field(default="", repr=False)


@action("GetLink", idempotent=True)
class GetLink(Action[LinkData]):
    """Create a link to a port inside a session."""

    session_id: str
    protocol_type: str | None = None
    port: int | None = None
    option: str | None = wire_field(default=None, caller="options")
