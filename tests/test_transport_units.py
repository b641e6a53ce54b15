"""The decisions of the transport layer, without clock, socket or event loop."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st

from agentbay import (
    AgentBayError,
    APIError,
    AuthenticationError,
    BoolResult,
    CommandError,
    CommandResult,
    CommandTimeoutError,
    ConflictError,
    ConnectionFailed,
    ConnectionLost,
    ContextStatusData,
    DeadlineExceeded,
    DeleteResult,
    DirectoryEntry,
    FileError,
    InvalidRequestError,
    NotFoundError,
    OperationResult,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    ReplyError,
    ServerError,
    ServiceUnavailableError,
    SessionError,
    SessionNotFoundError,
    SessionResult,
    ToolError,
)
from agentbay._transport.command import read_command_result
from agentbay._transport.deadline import Deadline, Timeouts
from agentbay._transport.failed_result import make_failed_result
from agentbay._transport.files import decode_base64, read_directory_listing, read_info, split_text
from agentbay._transport.poll import poll_delays
from agentbay._transport.reply import HttpAnswer, Reply, read_direct_reply, read_reply
from agentbay._transport.retry import retry_backoff
from agentbay._transport.sessions import check_awaited_contexts
from agentbay._transport.tools import read_metrics
from agentbay._wire.registry import ACTIONS
from agentbay._wire.schema import Action, wire_fields
from agentbay._wire.sessions import DeleteSessionAsync, GetLabel, GetLink, GetSession, SetLabel
from agentbay._wire.tools import CallMcpTool, ToolReply

GET = GetSession(session_id="s")

NEVER_SENT = [ConnectionFailed("refused")]
UNPROCESSED = [RateLimitError("slow down", 429), ServiceUnavailableError("busy", 503, retry_after=0.0)]
PERHAPS_PROCESSED = [
    ConnectionLost("reset"),
    DeadlineExceeded("read timeout"),
    ServerError("oops", 500),
    ServerError("bad gateway", 502),
    ServiceUnavailableError("busy", 503),
]
FINAL = [
    AgentBayError("any"),
    ReplyError("garbled"),
    APIError("no", 400),
    NotFoundError("gone", 404),
    AuthenticationError("who", 401),
    ConflictError("busy", 409),
    ToolError("failed"),
]
EVERY_ERROR = [*NEVER_SENT, *UNPROCESSED, *PERHAPS_PROCESSED, *FINAL]


def backoff(error: AgentBayError, attempt: int = 1, **options: Any) -> float | None:
    known: dict[str, Any] = {"idempotent": False, "max_retries": 2, "remaining": 60.0}
    return retry_backoff(error, attempt, **{**known, **options})


def test_pause_after_thousands_of_attempts() -> None:
    """The bound of the backoff stays finite, however many retries were asked for."""
    pause = backoff(NEVER_SENT[0], 5000, max_retries=10_000)
    assert pause is not None
    assert 0 <= pause <= 8


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize(
    ("errors", "always", "if_idempotent"),
    [
        pytest.param(NEVER_SENT, True, True, id="never sent"),
        pytest.param(UNPROCESSED, True, True, id="refused unprocessed"),
        pytest.param(PERHAPS_PROCESSED, False, True, id="perhaps processed"),
        pytest.param(FINAL, False, False, id="final"),
    ],
)
def test_table_of_retries(errors: list[AgentBayError], always: bool, if_idempotent: bool, idempotent: bool) -> None:
    """Unsent requests are retried, perhaps processed ones only if idempotent, others never."""
    expected = if_idempotent if idempotent else always
    assert [backoff(error, idempotent=idempotent) is not None for error in errors] == [expected] * len(errors)


@pytest.mark.parametrize(("max_retries", "attempts"), [(0, 1), (1, 2), (2, 3), (5, 6)])
def test_number_of_attempts(max_retries: int, attempts: int) -> None:
    """`max_retries` counts repetitions, and 0 never retries."""
    tries = 1
    while backoff(NEVER_SENT[0], tries, max_retries=max_retries) is not None:
        tries += 1
    assert tries == attempts


@pytest.mark.parametrize("advised", [0.0, 0.5, 7.0])
def test_retry_after_is_honoured(advised: float) -> None:
    """The backoff equals the service's Retry-After."""
    assert backoff(RateLimitError("slow", 429, retry_after=advised)) == advised


def test_retry_after_beyond_the_deadline_means_no_retry() -> None:
    """A Retry-After beyond the deadline means no retry."""
    assert backoff(RateLimitError("slow", 429, retry_after=60.0), remaining=60.0) is None


errors = st.sampled_from(EVERY_ERROR) | st.builds(
    lambda seconds: RateLimitError("slow", 429, retry_after=seconds), st.floats(min_value=0)
)


@given(errors, st.integers(1, 200), st.booleans(), st.integers(0, 200), st.floats(allow_nan=False))
def test_backoff_is_capped_and_within_the_deadline(
    error: AgentBayError, attempt: int, idempotent: bool, max_retries: int, remaining: float
) -> None:
    """Without Retry-After a backoff is within 0 and 8 s, and within the deadline."""
    found = backoff(error, attempt, idempotent=idempotent, max_retries=max_retries, remaining=remaining)
    if found is not None:
        assert 0 <= found < remaining
        assert attempt <= max_retries
        assert found <= 8.0 or found == getattr(error, "retry_after", None)


@given(st.sampled_from(PERHAPS_PROCESSED), st.integers(1, 9), st.integers(0, 99), st.floats(0, 1e6))
def test_effects_are_never_repeated(error: AgentBayError, attempt: int, max_retries: int, remaining: float) -> None:
    """A call with effects is never repeated if it may have been executed."""
    assert backoff(error, attempt, idempotent=False, max_retries=max_retries, remaining=remaining) is None


def test_deadline_is_passed_down() -> None:
    """A step's deadline never exceeds the operation's, and its error names its own length."""
    whole = Deadline(100)
    assert 99 < whole.remaining() <= 100
    assert whole.capped(5).remaining() <= 5
    assert whole.capped(500).at <= whole.at + 0.001
    assert 99 < whole.remaining_or_raise("It") <= 100
    over = Deadline(0)
    assert over.capped(5).remaining() <= 0
    with pytest.raises(DeadlineExceeded, match="The call did not finish within 0 s") as caught:
        over.remaining_or_raise("The call")
    assert isinstance(caught.value, TimeoutError)


@pytest.mark.parametrize(
    ("patience", "total"), [(Timeouts(), 60.0), (Timeouts(3, 5), 8.0), (Timeouts(None, 5), 5.0), (Timeouts(3), 60.0)]
)
def test_limits_of_one_call(patience: Timeouts, total: float) -> None:
    """A call's own limits add up, and the default serves without them."""
    assert patience.total_seconds(60.0) == total


@given(st.floats(0.01, 5), st.floats(1, 3), st.floats(0.01, 10))
def test_delays_grow_to_the_cap(first: float, factor: float, cap: float) -> None:
    """Delays start as given, grow by the factor, and stay at the cap."""
    found = list(islice(poll_delays(Deadline(1e6), first=first, factor=factor, cap=cap), 12))
    assert found[0] == first
    assert all(after == pytest.approx(min(before * factor, cap)) for before, after in pairwise(found))


@pytest.mark.parametrize("seconds", [0, -1])
def test_delays_end_at_the_deadline(seconds: float) -> None:
    """No delay ends after the deadline, and none follows it."""
    assert list(poll_delays(Deadline(seconds), first=1)) == []
    assert 0 < next(poll_delays(Deadline(0.5), first=1)) <= 0.5


def answer(body: object, status: int = 200, **headers: str) -> HttpAnswer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpAnswer(status, {name.replace("_", "-"): value for name, value in headers.items()}, data, "GetSession")


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("InvalidMcpSession.NotFound", 400, SessionNotFoundError),
        ("SessionNotFound", 400, SessionNotFoundError),
        ("NOT_LOGIN", 400, AuthenticationError),
        ("InvalidAction.NotFound", 404, InvalidRequestError),
        ("PARAM_ERROR", 400, InvalidRequestError),
        ("InvalidPort", 400, InvalidRequestError),
        ("PathAlreadyBound", 200, ConflictError),
        ("ServiceUnavailable", 400, ServiceUnavailableError),
        ("ServiceUnavailable", 200, ServiceUnavailableError),
        ("ContextNotFound", 400, NotFoundError),
        ("InvalidContext", 400, InvalidRequestError),
        ("InvalidSkill.NotFound", 400, NotFoundError),
        ("Throttling", 400, RateLimitError),
        ("QuotaExceeded.Session", 400, QuotaExceededError),
        ("Throttling.User", 503, RateLimitError),
        ("Forbidden.RAM", 400, PermissionDeniedError),
        ("IncorrectStatus.Session", 400, ConflictError),
        ("InvalidParameter.Size", 500, InvalidRequestError),
        ("InvalidAccessKeyId.Inactive", 400, AuthenticationError),
        ("Whatever", 400, InvalidRequestError),
        ("Whatever", 401, AuthenticationError),
        ("Whatever", 403, PermissionDeniedError),
        ("Whatever", 404, NotFoundError),
        ("Whatever", 409, ConflictError),
        ("Whatever", 418, APIError),
        ("Whatever", 429, RateLimitError),
        ("Whatever", 500, ServerError),
        ("Whatever", 502, ServerError),
        ("Whatever", 503, ServiceUnavailableError),
        ("", 404, NotFoundError),
        ("", 500, ServerError),
        ("SomeCode", 200, APIError),
    ],
)
def test_refusals_are_typed(code: str, status: int, kind: type[APIError]) -> None:
    """The exact code decides, then its suffix or prefix, then the HTTP status."""
    body = {"RequestId": "R-1", "Code": code, "Message": "No.", "HostId": "h", "Success": False}
    with pytest.raises(APIError) as caught:
        read_reply(GET, answer(body, status))
    error = caught.value
    assert type(error) is kind
    assert (error.code, error.status_code, error.request_id) == (code, status, "R-1")
    assert error.message == (f"[{code}] No." if code else "No.")
    assert error.action == "GetSession"


def test_a_session_that_is_gone_is_both() -> None:
    """SessionNotFoundError is caught as SessionError and as NotFoundError."""
    assert issubclass(SessionNotFoundError, NotFoundError)
    assert issubclass(SessionNotFoundError, SessionError)


def test_key_that_is_refused_has_a_hint() -> None:
    """The error for a refused key says what to check."""
    with pytest.raises(AuthenticationError, match="Check the API key"):
        read_reply(GET, answer({"Code": "NOT_LOGIN", "Message": "You are not logged in"}, 400))


@pytest.mark.parametrize("style", [str.lower, str.capitalize])
def test_refusal_in_either_case(style: Any) -> None:
    """Lower-case keys of a gateway are read too."""
    body = {style("code"): "X", style("message"): "No.", "requestId" if style is str.lower else "RequestId": "R-1"}
    with pytest.raises(APIError, match=r"\[X\] No\.") as caught:
        read_reply(GET, answer(body, 400))
    assert caught.value.request_id == "R-1"


@pytest.mark.parametrize("body", [b"<html>502 Bad Gateway</html>", b"", b"[]", b"null", b'"text"', b"\xff\xfe"])
def test_error_pages_of_a_proxy(body: bytes) -> None:
    """An error page gives the error of its status, and is never a success."""
    with pytest.raises(ServerError) as caught:
        read_reply(GET, answer(body, 502))
    assert (caught.value.status_code, caught.value.code) == (502, "")
    assert "HTTP 502" in str(caught.value)
    with pytest.raises(ReplyError, match="not a JSON object"):
        read_reply(GET, answer(body))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    """A redirect is an error that says so."""
    with pytest.raises(ReplyError, match="redirect"):
        read_reply(GET, answer({"Success": True}, status))


@pytest.mark.parametrize("success", [False, "false", "False"])
def test_success_false_is_never_success(success: object) -> None:
    """HTTP 200 with Success false is a refusal, with or without a code."""
    for action in (
        GET,
        SetLabel(session_id="s", labels={}),
        GetLink(session_id="s"),
        DeleteSessionAsync(session_id="s"),
    ):
        for rest in ({}, {"Code": "ok"}, {"Code": "SomeCode", "Message": "m"}, {"Data": {}}):
            with pytest.raises(APIError):
                read_reply(action, answer({"Success": success, **rest}))


@pytest.mark.parametrize("success", [5, "perhaps", [], {}])
def test_unreadable_success(success: object) -> None:
    """A Success that is neither true nor false is an error."""
    with pytest.raises(AgentBayError):
        read_reply(GET, answer({"Success": success, "Data": {}}))


@pytest.mark.parametrize("success", [True, "true", "True"])
def test_success(success: object) -> None:
    """Success may be a truth value or its text."""
    assert (
        read_reply(GET, answer({"Success": success, "Data": {"Status": "PAUSED"}})).data_or_raise().status == "PAUSED"
    )


def test_answers_without_success() -> None:
    """Without Success, data or the action's own rule make a success."""
    assert read_reply(GET, answer({"Data": {"Status": "RUNNING"}})).data_or_raise().status == "RUNNING"
    assert read_reply(DeleteSessionAsync(session_id="s"), answer({"RequestId": "R"})).request_id == "R"
    assert read_reply(DeleteSessionAsync(session_id="s"), answer({"Success": None, "Code": "ok"})).code == "ok"
    with pytest.raises(ReplyError, match="whether the request succeeded"):
        read_reply(GET, answer({"RequestId": "R"}))
    for action in (GET, DeleteSessionAsync(session_id="s")):
        with pytest.raises(APIError):
            read_reply(action, answer({"Code": "SomeCode"}))


def test_null_is_absent() -> None:
    """null in the envelope means absent."""
    reply = read_reply(GET, answer({"Success": True, "Code": None, "Message": None, "RequestId": None, "Data": None}))
    assert (reply.code, reply.message, reply.request_id, reply.next_token) == ("", "", "", "")
    assert reply.data is None
    with pytest.raises(ReplyError, match="carries no data"):
        reply.data_or_raise()


def test_unknown_keys_and_counts() -> None:
    """Unknown keys are ignored, and the counts beside Data are read."""
    body = {"Success": True, "X": 1, "Data": {"Y": [1], "Labels": '{"a": "b"}'}, "NextToken": "t", "TotalCount": 7}
    reply = read_reply(GetLabel(session_id="s"), answer(body))
    assert reply.data_or_raise().labels == {"a": "b"}
    assert (reply.next_token, reply.total_count, reply.max_results, reply.count) == ("t", 7, 0, 0)


@pytest.mark.parametrize("data", ['{"Url": "https://x"}', {"Url": "https://x"}])
def test_data_may_be_text(data: object) -> None:
    """Data is read as an object or as its JSON text."""
    assert (
        read_reply(GetLink(session_id="s"), answer({"Success": True, "Data": data})).data_or_raise().url == "https://x"
    )


@pytest.mark.parametrize("data", ["https://host/secret-token", {"Url": ["secret-token"]}, ["secret-token"], 5])
def test_data_of_another_shape(data: object) -> None:
    """Malformed data is a ReplyError that names the place without the value."""
    with pytest.raises(ReplyError, match=r"GetLink|GetSession") as caught:
        read_reply(GetLink(session_id="s"), answer({"Success": True, "RequestId": "R-1", "Data": data}))
    assert "secret" not in str(caught.value)
    assert caught.value.request_id == "R-1"


bodies = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Success", "Code", "Message", "Data", "content", "isError", "ToolList", "Labels", "data"])
            | st.text(max_size=3),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


def sample(cls: type[Action[Any]]) -> Action[Any]:
    values = {str: "x", int: 1, bool: True}
    required = {f.name: values.get(f.type, [] if "list" in str(f.type) else {}) for f in wire_fields(cls) if f.required}
    return cls(**required)


@given(st.sampled_from(sorted(ACTIONS)), bodies, st.sampled_from([200, 204, 302, 400, 404, 429, 500, 503]))
def test_no_answer_breaks_the_reader(name: str, body: object, status: int) -> None:
    """Any answer to any action gives a reply or one of our errors."""
    try:
        assert isinstance(read_reply(sample(ACTIONS[name]), answer(body, status)), Reply)
    except AgentBayError as error:
        assert str(error)  # noqa: PT017 - either outcome is fine


@given(bodies | st.builds(lambda x: {"data": {"result": x}}, bodies), st.sampled_from([200, 302, 401, 500]))
def test_no_direct_answer_breaks_the_reader(body: object, status: int) -> None:
    """Any answer of a session's link gives a reply or one of our errors."""
    try:
        assert isinstance(read_direct_reply(answer(body, status), "link-1").data_or_raise().text, str)
    except AgentBayError as error:
        assert str(error)  # noqa: PT017 - either outcome is fine


def retry_after(status: int = 429, **headers: str) -> float | None:
    with pytest.raises((RateLimitError, ServiceUnavailableError)) as caught:
        read_reply(GET, answer({}, status, **headers))
    return caught.value.retry_after  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry_after": "3"}, 3.0),
        ({"retry_after": "1.5"}, 1.5),
        ({"retry_after": "-3"}, 0.0),
        ({"retry_after": ""}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "Wed, 99 Foo 2015 07:28:00 GMT"}, None),
        ({"retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry_after": "Wed, 21 Oct 2015 07:28:00 -0000"}, 0.0),
        ({"retry_after": "Wed, 21 Oct 2015 07:28:00"}, 0.0),
        ({"x_acs_retry_after": "2"}, 2.0),
        ({"x_acs_retry_after": "2", "retry_after": "9"}, 2.0),
    ],
)
def test_retry_after_formats(headers: dict[str, str], expected: float | None) -> None:
    """Retry-After is seconds or a date, x-acs-retry-after only seconds."""
    assert retry_after(**headers) == retry_after(503, **headers) == expected


def test_retry_after_as_a_future_date() -> None:
    """A future date means the seconds until then."""
    ahead = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    found = retry_after(retry_after=ahead)
    assert found is not None
    assert 95 < found <= 100


def test_throttling_header_decides() -> None:
    """With x-acs-retry-after any failure is a RateLimitError."""
    with pytest.raises(RateLimitError):
        read_reply(GET, answer({"Code": "X"}, 400, x_acs_retry_after="1"))


@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_any_retry_after_is_read(text: str) -> None:
    """Any header gives a number that is not negative, or None."""
    found = retry_after(retry_after=text)
    assert found is None or found >= 0


@pytest.mark.parametrize(
    ("body", "text", "is_error"),
    [
        ({"data": {"result": {"content": [{"type": "text", "text": "a"}]}}}, "a", False),
        ({"data": {"result": {"isError": True, "content": [{"text": "bad"}]}}}, "bad", True),
        ({"data": {"result": {"content": ["plain"]}}}, "plain", False),
        ({"data": {"result": {"content": [{"type": "image", "data": "AAAA"}]}}}, "AAAA", False),
        ({"data": {"result": {"content": [{"text": "", "blob": "B", "data": "D"}]}}}, "B", False),
        ({"data": {"result": {"content": []}}}, "", False),
        ({"data": {"result": {}}}, "", False),
        ({"data": {}}, "", False),
        ({"data": json.dumps({"result": {"content": [{"text": "t"}]}}), "code": 5, "success": False}, "t", False),
    ],
)
def test_direct_answers(body: object, text: str, is_error: bool) -> None:
    """The first item counts, as bare text or by its text, blob or data."""
    reply = read_direct_reply(answer(body), "link-1")
    assert (reply.data_or_raise().text, reply.data_or_raise().is_error, reply.request_id) == (text, is_error, "link-1")


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({}, 200, ReplyError),
        ({"data": None}, 200, ReplyError),
        ({"data": [1]}, 200, ReplyError),
        ({"data": 5}, 200, ReplyError),
        ({"data": "no json"}, 200, ReplyError),
        ({"data": {"result": None}}, 200, ReplyError),
        ({"data": {"result": '{"content": []}'}}, 200, ReplyError),
        (b"<html>", 200, ReplyError),
        ({"data": {}}, 302, ReplyError),
        ({}, 401, AuthenticationError),
        (b"", 403, PermissionDeniedError),
        (b"<html>", 500, ServerError),
        ({}, 503, ServiceUnavailableError),
    ],
)
def test_direct_failures(body: object, status: int, kind: type[AgentBayError]) -> None:
    """An unreadable answer of a tool is an error, never an empty success."""
    with pytest.raises(kind) as caught:
        read_direct_reply(answer(body, status), "link-1")
    assert type(caught.value) is kind


@pytest.mark.parametrize("kind", [OperationResult, DeleteResult, BoolResult, SessionResult, CommandResult])
def test_an_error_becomes_the_result_of_the_contract(kind: Any) -> None:
    """A failed result has the error's facts, and unwrapping raises the error."""
    error = ConflictError("[Busy] It is paused.", 409, code="Busy", request_id="R-1", hint="Resume it.")
    result = make_failed_result(kind, error)
    assert not result
    assert (result.success, result.request_id, result.exception) == (False, "R-1", error)
    assert result.error_message == "[Busy] It is paused. Resume it."
    for name, value in (("code", "Busy"), ("message", "It is paused."), ("http_status_code", 409)):
        assert getattr(result, name, value) == value
    with pytest.raises(ConflictError) as caught:
        result.unwrap()
    assert caught.value is error


def test_state_of_awaited_contexts() -> None:
    """A context's last transfer counts, and other contexts do not matter."""
    transfers = [
        ContextStatusData("a", "/a", status="Running"),
        ContextStatusData("b", "/b", status="Success"),
        ContextStatusData("a", "/a", status="Success"),
        ContextStatusData("c", "/c", status="Failed", error_message="no room"),
        ContextStatusData("other", "/o", status="Failed"),
    ]
    assert check_awaited_contexts(frozenset("abcd"), transfers) == (frozenset("d"), ["c: no room"])


def shell(text: str, *, failed: bool = False, structured: dict[str, Any] | None = None) -> CommandResult:
    tool = ToolReply(content=[{"type": "text", "text": text}], is_error=failed, structured_content=structured)
    return read_command_result(Reply(action="CallMcpTool", data=tool, request_id="R-1"))


@pytest.mark.parametrize(
    ("wrapped", "code", "stdout", "stderr", "trace"),
    [
        ({"exit_code": 0, "stdout": "a", "stderr": "b"}, 0, "a", "b", ""),
        ({"exit_code": 0, "stdout": "a"}, 0, "a", "", ""),
        ({"exit_code": 3, "stderr": "b", "traceId": "t"}, 3, "", "b", "t"),
        ({"stdout": "a", "stderr": ""}, 0, "a", "", ""),
        ({"stdout": "a", "stderr": "", "errorCode": 2}, 2, "a", "", ""),
        ({"exit_code": True, "stdout": "a", "stderr": "b", "errorCode": False}, 0, "a", "b", ""),
        ({"exit_code": 137, "errorCode": 1, "stdout": "", "stderr": ""}, 137, "", "", ""),
        ({"exit_code": 0, "stdout": "a", "stderr": None, "traceId": 5}, 0, "a", "", ""),
    ],
)
def test_wrapped_output(wrapped: dict[str, Any], code: int, stdout: str, stderr: str, trace: str) -> None:
    """JSON with an exit code and output is a command's result."""
    result = shell(json.dumps(wrapped))
    assert (result.exit_code, result.stdout, result.stderr, result.trace_id) == (code, stdout, stderr, trace)
    assert (result.success, result.output, result.request_id) == (code == 0, stdout + stderr, "R-1")
    assert result.exception is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Linux\n",
        '{"stdout":"x"}',
        "[1,2]",
        "5",
        "null",
        '{"exit_code":0}',
        '{"exit_code":true,"stdout":"x"}',
        '{"exit_code":"0","stdout":"x"}',
        '{"a":{"exit_code":0,"stdout":"","stderr":""}}',
        "{",
        "[" * 100000,
    ],
)
def test_raw_output(text: str) -> None:
    """Any other text, JSON included, is the output itself."""
    result = shell(text)
    assert (result.success, result.stdout, result.output, result.stderr) == (True, text, text, "")


def test_failed_commands() -> None:
    """A failure keeps exit code and standard error, and has a message."""
    given_: list[tuple[str, int, str]] = [
        ('{"errorCode":2,"stdout":"","stderr":"no such file"}', 2, "no such file"),
        ('{"exit_code":0,"stdout":"x","stderr":""}', 1, "The command exited with 1."),
        ('{"exit_code":9,"stdout":"","stderr":"","errorMessage":"why"}', 9, "why"),
    ]
    for text, code, message in given_:
        result = shell(text, failed=True)
        assert (result.success, result.exit_code, result.error_message) == (False, code, message)
        assert result.exception is None
        with pytest.raises(CommandError):
            result.check()
        assert result.unwrap() is result


def test_commands_that_could_not_run() -> None:
    """A plain failure text is message and output, with an error to raise."""
    result = shell("Execution failed. Error code:127 Error message: sh: 1: xyz: not found", failed=True)
    assert (result.success, result.exit_code) == (False, 1)
    assert result.stdout == result.output == result.error_message
    assert isinstance(result.exception, CommandError)
    assert shell("", failed=True).error_message == "Failed to execute command"


@pytest.mark.parametrize(
    ("text", "structured"),
    [
        (
            '{"exit_code":-1,"stdout":"","stderr":"","errorMessage":"timed out after 100 ms"}',
            {"stdout": "so far", "stderr": "oh", "timedOut": True},
        ),
        ('{"exit_code":-1,"stdout":"","stderr":"","errorMessage":"timed out after 100 ms"}', None),
        ("Execution failed. Error code:-1 Error message: [timeout]", None),
    ],
)
def test_commands_that_ran_out_of_time(text: str, structured: dict[str, Any] | None) -> None:
    """A timeout is exit code -1 with the output so far."""
    result = shell(text, failed=True, structured=structured)
    assert (result.success, result.exit_code, result.output, result.stdout, result.stderr) == (False, -1, "", "", "")
    assert "time" in result.error_message
    assert isinstance(result.exception, CommandTimeoutError)
    assert isinstance(result.exception, TimeoutError)
    assert result.exception.stdout == ("so far" if structured else "")
    assert result.exception.stderr == ("oh" if structured else "")


@given(st.text() | bodies.map(json.dumps), st.booleans(), st.none() | st.dictionaries(st.text(), bodies, max_size=3))
def test_no_text_of_the_shell_breaks_the_reader(text: str, is_error: bool, structured: dict[str, Any] | None) -> None:
    """Any text of the shell tool gives a result."""
    result = shell(text, failed=is_error, structured=structured)
    assert result.output in (result.stdout + result.stderr, result.stdout)
    assert result.success or result.error_message
    assert not (is_error and result.success)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(4, 40))
def test_pieces_of_a_text(text: str, limit: int) -> None:
    """Pieces add up to the text, stay within the limit, and split no character."""
    pieces = list(split_text(text, limit))
    assert "".join(pieces) == text
    assert all(len(piece.encode()) <= limit for piece in pieces)
    assert pieces == [""] if not text else all(pieces)
    assert all(len((a + b[0]).encode()) > limit for a, b in pairwise(pieces))


@given(st.binary())
def test_base64(data: bytes) -> None:
    """Base64 is decoded to its bytes."""
    assert decode_base64(base64.b64encode(data).decode()) == data


@pytest.mark.parametrize("text", ["é", "a", "AA=A", "A A=", "\x00"])
def test_bad_base64(text: str) -> None:
    """Text that is not base64 is a FileError."""
    with pytest.raises(FileError, match="Failed to decode base64"):
        decode_base64(text)


def test_info_of_a_file() -> None:
    """Lines with a colon are read, with numbers and truth values converted."""
    text = "size: 12\nisFile: TRUE\n isDirectory :false\nmode:0.5\nname: a: b"
    text += "\nversion: 1.2.3\nnoise\nempty:\npermissions: 0644"
    assert read_info(text) == {
        "size": 12,
        "isFile": True,
        "isDirectory": False,
        "mode": 0.5,
        "name": "a: b",
        "version": "1.2.3",
        "empty": "",
        "permissions": 644,
    }
    assert read_info("") == {}


def listing(text: str, structured: dict[str, Any] | None = None) -> list[DirectoryEntry]:
    return read_directory_listing(ToolReply(content=[{"type": "text", "text": text}], structured_content=structured))


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", []),
        ("[DIR] a\n[FILE] b", [("a", True), ("b", False)]),
        ("[FILE] [FILE] x [DIR]", [("[FILE] x [DIR]", False)]),
        ("[DIR][FILE] y", [("[FILE] y", True)]),
        ("[FILE] ends in blanks  ", [("ends in blanks  ", False)]),
        ("  [DIR] a\r\n\r\n[FILE] b\r", [("a", True), ("b", False)]),
        ("noise\n[OTHER] c\n[FILE] é漢", [("é漢", False)]),
    ],
)
def test_listing(text: str, entries: list[tuple[str, bool]]) -> None:
    """Only the tag at the start of a line is a tag."""
    assert [(entry.name, entry.is_directory) for entry in listing(text)] == entries
    assert all(entry.is_file is not entry.is_directory for entry in listing(text))


def test_structured_listing() -> None:
    """A structured listing goes before the text, with sizes and odd names."""
    items = [{"name": "a\n[DIR] b", "isDirectory": False, "size": 5}, {"name": "d", "isDirectory": True}, {"x": 1}, 5]
    assert listing("[FILE] a\n[DIR] b", {"entries": items}) == [
        DirectoryEntry("a\n[DIR] b", False, 5),
        DirectoryEntry("d", True, 0),
    ]


@given(st.text(), st.none() | st.builds(lambda x: {"entries": x}, bodies))
def test_no_listing_breaks_the_reader(text: str, structured: dict[str, Any] | None) -> None:
    """Any listing is read, and raises nothing."""
    assert isinstance(listing(text, structured), list)
    assert isinstance(read_info(text), dict)


@pytest.mark.parametrize("rate", ["rx_rate_kbyte_per_s", "rx_rate_kbps", "rx_rate_KBps"])
@pytest.mark.parametrize("used", ["tx_used_kbyte", "tx_used_kb", "tx_used_KB"])
def test_older_names_of_metrics(rate: str, used: str) -> None:
    """Older names of metrics are read, and stay as aliases."""
    raw, metrics = read_metrics(json.dumps({rate: 1.5, used: 2, "cpu_count": 4, "mem_used": None, "new": [1]}))
    assert (metrics.rx_rate_kbyte_per_s, metrics.rx_rate_kbps) == (1.5, 1.5)
    assert (metrics.tx_used_kbyte, metrics.tx_used_kb) == (2.0, 2.0)
    assert (metrics.cpu_count, metrics.mem_used, metrics.timestamp) == (4, 0, "")
    assert raw["new"] == [1]


@given(st.text() | bodies.map(json.dumps) | st.builds(lambda x: json.dumps({"cpu_count": x, "rx_used_kb": x}), bodies))
def test_no_metrics_break_the_reader(text: str) -> None:
    """Any text gives metrics or a ReplyError."""
    try:
        assert isinstance(read_metrics(text)[0], dict)
    except ReplyError as error:
        assert "Failed to parse get_metrics response" in str(error)  # noqa: PT017 - either outcome is fine


@pytest.mark.parametrize(
    ("data", "text", "is_error"),
    [
        ({"content": [{"type": "text", "text": "a"}], "isError": False}, "a", False),
        ('{"content":[{"type":"text","text":"a"}]}', "a", False),
        ({"content": [], "isError": False}, "", False),
        ({"content": None, "isError": None}, "", False),
        ({"isError": True, "content": [{"type": "text", "text": "bad"}]}, "bad", True),
        ({"isError": True}, "", True),
        ({"content": [{"type": "image", "data": "AAAA"}]}, "AAAA", False),
        ({"content": [5]}, "", False),
    ],
)
def test_tool_answers(data: object, text: str, is_error: bool) -> None:
    """A tool's answer is an object or its JSON text."""
    call = CallMcpTool(session_id="s", name="n", args={})
    found = read_reply(call, answer({"Success": True, "Data": data})).data_or_raise()
    assert (found.text, found.is_error) == (text, is_error)
