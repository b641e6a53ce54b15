"""States of sessions, and results of operations on them."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from .._lazy_attrs import define, field
from .base import BaseResult, IterableResult, dict_or_empty, list_or_empty

SessionT = TypeVar("SessionT")


class SessionStatus(str, Enum):
    """States by which `AgentBay.list(status=...)` can filter."""

    RUNNING = "RUNNING"
    PAUSING = "PAUSING"
    PAUSED = "PAUSED"
    RESUMING = "RESUMING"
    DELETING = "DELETING"
    DELETED = "DELETED"


@define(slots=False)
class SessionInfo:
    """How to reach a session from outside.

    Attributes:
        session_id: Id of the session.
        resource_url: URL of a web page that shows the session. It carries a token, so `repr` leaves it out.
        app_id, auth_code, connection_properties, resource_id, resource_type, ticket: Data that a desktop
            client needs to connect, as the service sends it.
        policy_id: Policy that it runs under, "" if unknown; on the local runtime its network: "none", "proxy" or
            "host".
        entrypoint: What started with it, as typed at a prompt, "" if nothing did; from the local runtime only. It is
            the background process `command.attach("entrypoint")`.
    """

    session_id: str = ""
    resource_url: str = field(default="", repr=False)
    app_id: str = ""
    auth_code: str = field(default="", repr=False)
    connection_properties: str = field(default="", repr=False)
    resource_id: str = ""
    resource_type: str = ""
    ticket: str = field(default="", repr=False)
    policy_id: str = field(default="", init=False)
    entrypoint: str = field(default="", init=False)

    def _repr_html_(self) -> str:
        """Return HTML without secrets."""
        from .. import _html

        known = {"id": self.session_id, "application": self.app_id, "resource": self.resource_id}
        further = {"kind": self.resource_type, "policy": self.policy_id, "entry point": self.entrypoint}
        return _html.fact_table("Session", {**known, **further})


@define(slots=False)
class GetSessionData:
    """All data that the service has about one session."""

    app_instance_id: str = ""
    resource_id: str = ""
    session_id: str = ""
    success: bool = False
    http_port: str = ""
    network_interface_ip: str = ""
    token: str = field(default="", repr=False)
    link_url: str = field(default="", repr=False)
    ws_url: str = field(default="", repr=False)
    vpc_resource: bool = False
    vpc_ip: str = ""
    vpc_id: str = ""
    resource_url: str = field(default="", repr=False)
    status: str = ""
    tool_list: str = field(default="", repr=False)
    contexts: list[dict[str, str]] = field(default=None, converter=list_or_empty)

    def _repr_html_(self) -> str:
        """Return HTML without secrets."""
        from .. import _html

        known = {"id": self.session_id, "state": self.status, "resource": self.resource_id}
        return _html.fact_table("Session", {**known, "address": self.vpc_ip or self.network_interface_ip})


@define(slots=False)
class GetSessionResult(BaseResult):
    """Outcome of `get_session`.

    `data` is None on failure.
    """

    http_status_code: int = 0
    code: str = ""
    success: bool = False
    data: GetSessionData | None = None
    error_message: str = ""

    def _success_html(self) -> str | None:
        return self.data._repr_html_() if self.data is not None else None

    def unwrap(self) -> FoundSessionResult:
        """Return the result, whose `data` is then set.

        Raises:
            AgentBayError: `exception`, if the operation failed.
        """
        return super().unwrap()  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


@define(slots=False)
class SessionResult(BaseResult, Generic[SessionT]):
    """Outcome of creating or finding a session.

    `session` is the handle, or None on failure.

    When a session was made but could not be made ready, `success` is False and `session` is set, so that nothing
    is left behind that cannot be deleted.
    """

    session: SessionT | None = None
    code: str = ""
    http_status_code: int = field(default=0, kw_only=True)

    if not TYPE_CHECKING:  # which would take any attribute for granted

        def __getattr__(self, name: str) -> NoReturn:
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            if not name.startswith("_"):
                message += f". The session is in `.session`: write create().unwrap().session.{name}"
            raise AttributeError(message, name=name, obj=self)

    def _success_html(self) -> str | None:
        show = getattr(self.session, "_repr_html_", None)
        return str(show()) if show is not None else None

    def unwrap(self) -> ReadySessionResult[SessionT]:
        """Return the result, whose `session` is then set.

        Raises:
            AgentBayError: `exception`, if the operation failed.
        """
        return super().unwrap()  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


@define(slots=False)
class SessionListResult(BaseResult, IterableResult[dict[str, str]]):
    """One page of sessions.

    Attributes:
        session_ids: One dict per session: `sessionId`, `sessionStatus` ("UNKNOWN" if unknown), `appInstanceId`,
            `imageId`.
        next_token: Cursor of the next page, or "" on the last.
        max_results: Page size that was used.
        total_count: Number of matching sessions on all pages.
    """

    _LIST_FIELD = "session_ids"

    session_ids: list[dict[str, str]] = field(default=None, converter=list_or_empty)
    next_token: str = ""
    max_results: int = 0
    total_count: int = 0

    def _success_html(self) -> str | None:
        from .. import _html

        names = ("sessionId", "sessionStatus", "imageId")
        rows = [[item.get(name, "") for name in names] for item in self.session_ids]
        return _html.table(("session", "state", "image"), rows, _html.page_count(len(rows), self.total_count))


@define(slots=False)
class SessionStatusResult(BaseResult):
    """The current state of a session.

    Attributes:
        status: A state such as "RUNNING"; "FINISH" if the session has ended.
    """

    http_status_code: int = 0
    code: str = ""
    success: bool = False
    status: str = ""
    error_message: str = ""


@define(slots=False)
class DeleteResult(BaseResult):
    """Outcome of deleting a session."""

    code: str = ""
    message: str = ""
    http_status_code: int = 0


@define(slots=False)
class SessionPauseResult(BaseResult):
    """Outcome of pausing a session.

    `status` is its last known state.
    """

    code: str = ""
    message: str = ""
    http_status_code: int = 0
    status: str | None = None


@define(slots=False)
class SessionResumeResult(BaseResult):
    """Outcome of resuming a session.

    `status` is its last known state.
    """

    code: str = ""
    message: str = ""
    http_status_code: int = 0
    status: str | None = None


class SessionMetrics:
    """Resource use of a session at one moment.

    Attributes:
        cpu_count: Number of processors that the session may use.
        cpu_used_pct: Their current use in percent, 0 to 100.
        disk_total, disk_used, mem_total, mem_used: Disk space and memory, in bytes.
        rx_rate_kbyte_per_s, tx_rate_kbyte_per_s: Current network traffic, received and sent, in kilobytes per second
            (`rx_rate_kbps`, `tx_rate_kbps` are aliases).
        rx_used_kbyte, tx_used_kbyte: Network traffic so far, in kilobytes (`rx_used_kb`, `tx_used_kb` are aliases).
        timestamp: Time of the measurement, ISO 8601.
    """

    def __init__(
        self,
        cpu_count: int = 0,
        cpu_used_pct: float = 0.0,
        disk_total: int = 0,
        disk_used: int = 0,
        mem_total: int = 0,
        mem_used: int = 0,
        rx_rate_kbyte_per_s: float = 0.0,
        tx_rate_kbyte_per_s: float = 0.0,
        rx_used_kbyte: float = 0.0,
        tx_used_kbyte: float = 0.0,
        timestamp: str = "",
        rx_rate_kbps: float | None = None,
        tx_rate_kbps: float | None = None,
        rx_used_kb: float | None = None,
        tx_used_kb: float | None = None,
    ) -> None:
        self.cpu_count = cpu_count
        self.cpu_used_pct = cpu_used_pct
        self.disk_total = disk_total
        self.disk_used = disk_used
        self.mem_total = mem_total
        self.mem_used = mem_used
        self.rx_rate_kbyte_per_s = rx_rate_kbyte_per_s if rx_rate_kbps is None else rx_rate_kbps
        self.tx_rate_kbyte_per_s = tx_rate_kbyte_per_s if tx_rate_kbps is None else tx_rate_kbps
        self.rx_used_kbyte = rx_used_kbyte if rx_used_kb is None else rx_used_kb
        self.tx_used_kbyte = tx_used_kbyte if tx_used_kb is None else tx_used_kb
        self.timestamp = timestamp

    def __repr__(self) -> str:
        return f"SessionMetrics({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SessionMetrics) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def _repr_html_(self) -> str:
        """Return HTML with a small plot."""
        from .. import _html

        def share(used: float, total: float) -> tuple[float, str]:
            return used / total if total else 0.0, f"{_html.format_size(used)} of {_html.format_size(total)}"

        bars = {
            "CPU": (self.cpu_used_pct / 100, f"{self.cpu_used_pct:.1f} % of {self.cpu_count}"),
            "memory": share(self.mem_used, self.mem_total),
            "disk": share(self.disk_used, self.disk_total),
        }
        received, sent = _html.format_size(self.rx_used_kbyte * 1000), _html.format_size(self.tx_used_kbyte * 1000)
        return _html.meters("Load", bars, f"received {received}, sent {sent}; measured {self.timestamp}")

    @property
    def rx_rate_kbps(self) -> float:
        """Alias of `rx_rate_kbyte_per_s`."""
        return self.rx_rate_kbyte_per_s

    @property
    def tx_rate_kbps(self) -> float:
        """Alias of `tx_rate_kbyte_per_s`."""
        return self.tx_rate_kbyte_per_s

    @property
    def rx_used_kb(self) -> float:
        """Alias of `rx_used_kbyte`."""
        return self.rx_used_kbyte

    @property
    def tx_used_kb(self) -> float:
        """Alias of `tx_used_kbyte`."""
        return self.tx_used_kbyte


@define(slots=False)
class SessionMetricsResult(BaseResult):
    """Resource use of a session.

    `raw` is the reply as the service sent it.
    """

    metrics: SessionMetrics | None = None
    error_message: str = ""
    raw: dict[str, Any] = field(default=None, converter=dict_or_empty)

    def _success_html(self) -> str | None:
        return self.metrics._repr_html_() if self.metrics is not None else None

    def unwrap(self) -> MeasuredSessionResult:
        """Return the result, whose `metrics` are then set.

        Raises:
            AgentBayError: `exception`, if the operation failed.
        """
        return super().unwrap()  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


# What `unwrap()` returns is the result itself. These types tell type checkers that its value is not None.
if TYPE_CHECKING:

    class FoundSessionResult(GetSessionResult):
        """A `GetSessionResult` whose `data` is set."""

        data: GetSessionData  # pyright: ignore[reportIncompatibleVariableOverride]

    class ReadySessionResult(SessionResult[SessionT]):
        """A `SessionResult` whose `session` is set."""

        session: SessionT  # pyright: ignore[reportIncompatibleVariableOverride]

    class MeasuredSessionResult(SessionMetricsResult):
        """A `SessionMetricsResult` whose `metrics` are set."""

        metrics: SessionMetrics  # pyright: ignore[reportIncompatibleVariableOverride]

else:
    FoundSessionResult, ReadySessionResult, MeasuredSessionResult = (
        GetSessionResult,
        SessionResult,
        SessionMetricsResult,
    )
