"""What each method promises of success, refusal and waiting."""

from __future__ import annotations

import time
from typing import Any

import pytest

from agentbay import (
    AgentBayError,
    APIError,
    ClientClosedError,
    CommandTimeoutError,
    ConfigurationError,
    ConflictError,
    ContextSync,
    CreateSessionParams,
    DeadlineExceeded,
    FileError,
    InvalidArgumentError,
    LifecyclePolicy,
    NotFoundError,
    ReplyError,
    SessionError,
    SessionNotFoundError,
    ToolError,
    TransportError,
)
from tests.scripted import (
    NOT_FOUND,
    Behaviour,
    Service,
    actions,
    hang_up,
    http,
    ok,
    refused,
    silence,
    tool_says,
    zipped,
)

from .calls import CALLS, Call, client, handle, outcome

CREATED = ok({"SessionId": "session-1", "Success": True})
GONE = {"DeleteSessionAsync": ok(), "GetSessionDetail": NOT_FOUND}


def status(name: str) -> Behaviour:
    """The answer of a session in that state."""
    return ok({"SessionId": "session-x", "Status": name})


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
async def test_closed_client(call: Call) -> None:
    """Every method of a closed client raises ClientClosedError and sends nothing."""
    with Service(ok()) as service:
        bay = client(service.url)
        await bay.aclose()
        await bay.aclose()
        with pytest.raises(ClientClosedError):
            await call.make(bay, handle(bay, service.url if call.direct else ""))
        assert service.count() == 0


async def test_block_closes_the_client() -> None:
    """A client and its connections close at the end of its block."""
    with Service(CREATED) as service:
        async with client(service.url) as bay:
            assert (await bay.create()).success
        with pytest.raises(ClientClosedError):
            await bay.create()


async def test_success_of_everything() -> None:
    """Every method understands a service that succeeds."""
    text = '{"stdout": "out", "stderr": "", "exit_code": 0}'
    script: dict[str, Any] = {
        "CreateMcpSession": CREATED,
        **GONE,
        "PauseSessionAsync": ok(),
        "ResumeSessionAsync": ok(),
        "GetSession": [status("PAUSED"), status("PAUSED"), status("RUNNING")],
        "SetLabel": ok(),
        "GetLabel": ok({"Labels": '{"a": "é"}'}),
        "GetMcpResource": ok({"ResourceUrl": "https://example.test/x"}),
        "GetLink": ok({"Url": "https://example.test/link"}),
        "ListMcpTools": ok('[{"name": "shell", "server": "s"}]'),
        "RefreshSessionIdleTime": ok(),
        "SetSessionLifecycle": ok({"ExpireTime": "2026-01-02T03:04:05+00:00"}),
        "shell": tool_says(text),
        "get_file_info": tool_says("size: 4\nisDirectory: false"),
        "read_file": tool_says("text"),
        "write_file": tool_says("True"),
        "list_directory": tool_says("[DIR] d\n[FILE] f"),
        "get_metrics": tool_says('{"cpu_count": 2}'),
        "my_tool": tool_says("done"),
    }
    with Service(script) as service:
        async with client(service.url) as bay:
            session = (await bay.create()).unwrap().session
            assert (await session.pause(timeout=60)).status == "PAUSED"
            assert (await session.resume(timeout=60)).status == "RUNNING"
            assert (await session.keep_alive()).success
            assert (await session.set_lifecycle(LifecyclePolicy(max_runtime=9))).data.year == 2026
            assert (await session.set_labels({"a": "é"})).success
            assert (await session.get_labels()).data == {"a": "é"}
            assert (await session.info()).data.resource_url == "https://example.test/x"
            assert (await session.get_link()).data == "https://example.test/link"
            assert [tool.name for tool in (await session.list_mcp_tools()).tools] == ["shell"]
            for each in (session, handle(bay, service.url)):
                assert (await each.call_mcp_tool("my_tool", {})).data == "done"
                assert (await each.command.execute_command("true")).stdout == "out"
                assert (await each.file_system.read_file("f")).content == "text"
                assert (await each.file_system.read_file("f", format="bytes")).content == b"\xb5\xec\x6d"
                assert (await each.file_system.write_file("f", "x")).success
                assert [entry.name for entry in (await each.file_system.list_directory(".")).entries] == ["d", "f"]
                assert (await each.get_metrics()).metrics.cpu_count == 2
            assert await session.delete()


async def test_zipped_answer() -> None:
    """A compressed answer is read like any other."""
    with Service(zipped({"Success": True, "Data": {"Labels": "{}"}})) as service:
        async with client(service.url) as bay:
            assert (await handle(bay).get_labels()).data == {}


@pytest.mark.parametrize("behaviour", [ok(), ok({}), ok({"Url": ""}), ok({"Url": None})])
async def test_link_without_a_link(behaviour: Behaviour) -> None:
    """An answer without a link is an error, not an empty link."""
    with Service(behaviour) as service:
        async with client(service.url) as bay:
            with pytest.raises(SessionError):
                await handle(bay).get_link()


async def test_error_tells_where() -> None:
    """A refusal carries action, code, request id and HTTP status."""
    with Service(refused("IncorrectStatus.Session", 409)) as service:
        async with client(service.url) as bay:
            result = await handle(bay).pause_async()
    error = result.exception
    assert isinstance(error, ConflictError)
    assert (error.action, error.code, error.request_id, error.status_code) == (
        "PauseSessionAsync",
        "IncorrectStatus.Session",
        "R-NO",
        409,
    )
    assert (result.code, result.request_id, result.http_status_code) == ("IncorrectStatus.Session", "R-NO", 409)
    assert result.error_message == "[IncorrectStatus.Session] it says no"


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda bay, _: bay.get("session-x"), SessionNotFoundError),
        (lambda bay, _: bay.get_session("session-x"), SessionNotFoundError),
        (lambda _, session: session.info(), SessionNotFoundError),
        (lambda _, session: session.get_status(), SessionNotFoundError),
        (lambda _, session: session.delete(), NotFoundError),
        (lambda _, session: session.keep_alive(), NotFoundError),
    ],
    ids=["get", "get_session", "info", "get_status", "delete", "keep_alive"],
)
async def test_session_is_gone(make: Any, kind: type[AgentBayError]) -> None:
    """A missing session is a failed result, or raised by a strict client."""
    with Service(NOT_FOUND) as service:
        async with client(service.url) as bay:
            result = await make(bay, handle(bay))
            assert not result.success
            assert isinstance(result.exception, kind)
        async with client(service.url, strict=True) as bay:
            with pytest.raises(kind):
                await make(bay, handle(bay))


@pytest.mark.parametrize("labels", [{}, [], None, {"": "x"}, {"a": " "}, {"a": None}])
async def test_unusable_labels(labels: Any) -> None:
    """Unusable labels are refused before anything is sent."""
    with Service(ok()) as service:
        async with client(service.url) as bay:
            result = await handle(bay).set_labels(labels)
            if labels and None not in labels.values():
                made = await bay.create(CreateSessionParams(labels=labels))
                assert made.error_message == result.error_message
        async with client(service.url, strict=True) as bay:
            with pytest.raises(InvalidArgumentError):
                await handle(bay).set_labels(labels)
        assert service.count() == 0
    assert isinstance(result.exception, InvalidArgumentError)


async def test_tool_failure() -> None:
    """A tool's failure is a failed result with its text, by either route."""
    with Service(tool_says("out of order", is_error=True)) as service:
        async with client(service.url) as bay:
            for session in (handle(bay), handle(bay, service.url)):
                called = await session.call_mcp_tool("my_tool", {})
                written = await session.file_system.write_file("f", "x")
                assert isinstance(called.exception, ToolError)
                assert isinstance(written.exception, FileError)
                assert called.error_message == written.error_message == "out of order"


async def test_exit_code_never_raises() -> None:
    """A non-zero exit code never raises, a timeout is an error that a strict client raises."""
    script = [
        tool_says('{"stdout": "", "stderr": "bad", "exit_code": 3}', is_error=True),
        *[tool_says('{"stdout": "", "stderr": "", "exit_code": -1, "errorMessage": "timed out"}', is_error=True)] * 2,
    ]
    with Service(script) as service:
        async with client(service.url, strict=True) as bay:
            command = handle(bay).command
            first = await command.execute_command("false")
            with pytest.raises(CommandTimeoutError):
                await command.execute_command("sleep 9", timeout_ms=1)
        async with client(service.url) as bay:
            second = await handle(bay).command.execute_command("sleep 9", timeout_ms=1)
    assert (first.success, first.exit_code, first.stderr, first.exception) == (False, 3, "bad", None)
    assert (second.exit_code, second.output) == (-1, "")
    assert isinstance(second.exception, CommandTimeoutError)


@pytest.mark.parametrize(
    "text",
    ["size: big", "size: -1", "size: nan", "isDirectory: true\nsize: 1", "", "nonsense"],
)
async def test_nonsensical_file_size(text: str) -> None:
    """A nonsensical file size is never an untyped error."""
    with Service({"get_file_info": tool_says(text), "read_file": tool_says("x")}) as service:
        async with client(service.url) as bay:
            result = await handle(bay).file_system.read_file("f")
    assert result.content == ""
    assert result.exception is None or isinstance(result.exception, FileError)


@pytest.mark.parametrize("text", ["§§", "a", "====", "é"])
async def test_undecodable_bytes(text: str) -> None:
    """Bytes that cannot be decoded are a FileError."""
    with Service({"get_file_info": tool_says("size: 4"), "read_file": tool_says(text)}) as service:
        async with client(service.url) as bay:
            result = await handle(bay).file_system.read_file("f", format="bytes")
    assert isinstance(result.exception, FileError)


@pytest.mark.parametrize("size", ["x", [], {}, 1e400, -5, None, True])
async def test_listing_with_odd_sizes(size: Any) -> None:
    """An entry with a nonsensical size is still listed."""
    entries = [{"name": "f", "size": size}, {"name": 5}, "g", {"isDirectory": True}]
    answer = ok({"content": [], "structuredContent": {"entries": entries}})
    with Service(answer) as service:
        async with client(service.url) as bay:
            result = await handle(bay).file_system.list_directory(".")
    assert [entry.name for entry in result.unwrap().entries] == ["f"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"cpu_count": 1e999}', '{"cpu_count": "x"}', '{"disk_used": {}}'])
async def test_metrics_that_make_no_sense(text: str) -> None:
    """Metrics that cannot be read are a ReplyError."""
    with Service(tool_says(text)) as service:
        async with client(service.url) as bay:
            assert isinstance((await handle(bay).get_metrics()).exception, ReplyError)


@pytest.mark.parametrize("depth", [90, 200, 400, 700, 800, 850, 900, 940, 960, 980, 1500, 8000, 100_000])
@pytest.mark.parametrize("key", ["Data", "Code", "Message", "Success", "RequestId", "Other", "NextToken"])
async def test_nesting(key: str, depth: int) -> None:
    """Deeply nested answers give a result or a typed error."""
    body = '{"Success": true, "Data": {"SessionId": "s", "Labels": "{}"}, "%s": %s1%s}'
    whole = (body % (key, "[" * depth, "]" * depth)).encode()
    with Service(http(200, whole)) as service:
        async with client(service.url) as bay:
            for call in CALLS:
                if call.name in ("get_session", "get_labels", "list", "call_mcp_tool", "info"):
                    await outcome(call, bay, handle(bay))


@pytest.mark.parametrize("depth", [90, 200, 300, 450, 700, 900, 960, 990])
async def test_nested_text(depth: int) -> None:
    """The same holds for JSON text inside the JSON."""
    nested = '{"a":' * depth + "1" + "}" * depth
    tools = f'[{{"name": "x", "inputSchema": {nested}}}]'
    with Service(ok({"SessionId": "s", "Labels": nested, "ToolList": tools})) as service:
        async with client(service.url) as bay:
            for call in CALLS:
                if call.name in ("get", "get_session", "get_labels"):
                    await outcome(call, bay, handle(bay))


@pytest.mark.parametrize("last", [NOT_FOUND, status("FINISH"), status("DELETED")], ids=["gone", "FINISH", "DELETED"])
async def test_delete_waits(last: Behaviour) -> None:
    """Deleting waits through all states and lost answers until the end."""
    looks = [status("RUNNING"), hang_up, status("DELETING"), status("SOMETHING NEW"), refused("", 500), last]
    with Service({"DeleteSessionAsync": ok(), "GetSessionDetail": looks}) as service:
        async with client(service.url) as bay:
            assert await handle(bay).delete()
    assert service.count("DeleteSessionAsync") == 1


async def test_delete_finds_out_nothing() -> None:
    """Deleting raises SessionError if the end cannot be confirmed."""
    with Service({"DeleteSessionAsync": ok(), "GetSessionDetail": http(200, b"<html>")}) as service:
        async with client(service.url) as bay:
            with pytest.raises(SessionError) as caught:
                await handle(bay).delete()
    assert isinstance(caught.value.__cause__, ReplyError)


async def test_delete_after_upload() -> None:
    """A failed context upload does not stop the deletion, and is reported."""
    script: Any = {**GONE, "SyncContext": refused("PARAM_ERROR")}
    with Service(script) as service:
        async with client(service.url) as bay:
            result = await handle(bay).delete(sync_context=True)
        assert actions(service.requests)[:2] == ["SyncContext", "DeleteSessionAsync"]
    assert not result
    assert "was deleted" in result.error_message


_CONTEXT = '[{"type": "data", "data": "[{\\"contextId\\": \\"c-1\\", \\"path\\": \\"/d\\", \\"status\\": \\"%s\\"}]"}]'
_WITH_CONTEXT = CreateSessionParams(context_syncs=[ContextSync("c-1", "/d")])


def context(state: str) -> Behaviour:
    """The answer of a context in that state."""
    return ok({"ContextStatus": _CONTEXT % state})


@pytest.mark.parametrize(
    "strange",
    [
        "no JSON",
        "[5]",
        '[{"type": "data", "data": "[5, null, {\\"status\\": []}]"}]',
        '[{"type": "data", "data": 7}]',
        "[" * 5000,
    ],
)
async def test_create_waits_for_contexts(strange: str) -> None:
    """Creating waits until contexts have arrived, through unreadable answers."""
    looks = [ok({"ContextStatus": strange}), hang_up, context("Running"), context("Success")]
    with Service({"CreateMcpSession": CREATED, "GetContextInfo": looks}) as service:
        async with client(service.url) as bay:
            result = await bay.create(_WITH_CONTEXT)
    assert result.unwrap().session.session_id == "session-1"


async def test_create_without_its_context() -> None:
    """A session without its context is a failed result that holds it."""
    with Service({"CreateMcpSession": CREATED, "GetContextInfo": context("Failed"), **GONE}) as service:
        async with client(service.url) as bay:
            result = await bay.create(_WITH_CONTEXT)
            assert not result
            assert await result.session.delete()
        async with client(service.url, strict=True) as bay:
            with pytest.raises(SessionError):
                await bay.create(_WITH_CONTEXT)


@pytest.mark.parametrize(
    "behaviour", [ok({}), ok({"SessionId": ""}), ok({"SessionId": "s", "Success": False, "ErrMsg": "full"})]
)
async def test_create_without_a_session(behaviour: Behaviour) -> None:
    """An answer without a session is a failure."""
    with Service(behaviour) as service:
        async with client(service.url) as bay:
            result = await bay.create()
    assert isinstance(result.exception, SessionError)
    assert result.session is None


async def test_block_deletes() -> None:
    """A block deletes its session, and its exception passes."""
    with Service({"CreateMcpSession": CREATED, **GONE}) as service:
        async with client(service.url) as bay:
            async with bay.session() as session:
                assert session.session_id == "session-1"
            with pytest.raises(KeyError):
                async with bay.session():
                    raise KeyError
    assert service.count("DeleteSessionAsync") == 2


async def test_block_of_a_session_deleted_inside() -> None:
    """A session deleted inside its block is no error at the end."""
    script: Any = {"CreateMcpSession": CREATED, "DeleteSessionAsync": [ok(), NOT_FOUND], "GetSessionDetail": NOT_FOUND}
    with Service(script) as service:
        async with client(service.url) as bay, bay.session() as session:
            assert await session.delete()


@pytest.mark.parametrize("behaviour", [refused(), hang_up], ids=["refused", "lost"])
async def test_block_that_cannot_delete(behaviour: Behaviour) -> None:
    """A failed deletion raises, unless the block raised already."""
    with Service({"CreateMcpSession": CREATED, "DeleteSessionAsync": behaviour}) as service:
        async with client(service.url, max_retries=0) as bay:
            with pytest.raises((APIError, SessionError)):
                async with bay.session():
                    pass
            with pytest.raises(KeyError) as caught:
                async with bay.session():
                    raise KeyError
    assert "not deleted" in caught.value.__notes__[0]


async def test_block_deletes_what_is_not_ready() -> None:
    """A session that was not made ready is deleted before the block raises."""
    with Service({"CreateMcpSession": CREATED, "GetContextInfo": context("Failed"), **GONE}) as service:
        async with client(service.url) as bay:
            with pytest.raises(SessionError):
                async with bay.session(_WITH_CONTEXT):
                    raise AssertionError("the block must not run")
    assert service.count("DeleteSessionAsync") == 1


@pytest.mark.parametrize(
    ("method", "before", "after"), [("pause", "RUNNING", "PAUSED"), ("resume", "PAUSED", "RUNNING")]
)
async def test_waits_for_the_state(method: str, before: str, after: str) -> None:
    """Pausing and resuming wait through other states and lost answers."""
    looks = [status(before), status("IN BETWEEN"), hang_up, refused("", 503), status(""), status(after)]
    script: Any = {"PauseSessionAsync": ok(), "ResumeSessionAsync": ok(), "GetSession": looks}
    with Service(script) as service:
        async with client(service.url) as bay:
            result = await getattr(handle(bay), method)(timeout=30, poll_interval=0.01)
    assert result.unwrap().status == after


@pytest.mark.parametrize("method", ["pause", "resume"])
@pytest.mark.parametrize("end", ["FINISH", "DELETED", "DELETING"])
async def test_ended_session_will_not_be_paused(method: str, end: str) -> None:
    """Pausing and resuming fail at once when the session has ended."""
    script: Any = {"PauseSessionAsync": ok(), "ResumeSessionAsync": ok(), "GetSession": status(end)}
    with Service(script) as service:
        async with client(service.url) as bay:
            result = await getattr(handle(bay), method)(timeout=60)
    assert isinstance(result.exception, ConflictError)
    assert service.count("GetSession") == 1


@pytest.mark.parametrize("method", ["pause", "resume"])
async def test_state_that_never_comes(method: str) -> None:
    """Pausing and resuming give up at their timeout."""
    script: Any = {"PauseSessionAsync": ok(), "ResumeSessionAsync": ok(), "GetSession": status("SOMETHING")}
    with Service(script) as service:
        async with client(service.url) as bay:
            began = time.monotonic()
            result = await getattr(handle(bay), method)(timeout=0.3, poll_interval=0.05)
    assert time.monotonic() - began < 60
    assert isinstance(result.exception, SessionError)
    assert isinstance(result.exception, TimeoutError)
    assert "SOMETHING" in result.error_message


@pytest.mark.parametrize("method", ["pause", "resume"])
@pytest.mark.parametrize("silent", ["first", "look"])
async def test_own_time_limit_holds(method: str, silent: str) -> None:
    """The timeout of pausing bounds each of its requests too."""
    first = silence if silent == "first" else ok()
    script: Any = {"PauseSessionAsync": first, "ResumeSessionAsync": first, "GetSession": silence}
    with Service(script) as service:
        async with client(service.url, timeout=60) as bay:
            began = time.monotonic()
            result = await getattr(handle(bay), method)(timeout=0.3)
    assert time.monotonic() - began < 50
    assert isinstance(result.exception, TimeoutError)


def page(name: str, token: str = "") -> Behaviour:
    """The answer with one page of one session."""
    return ok([{"SessionId": name}], NextToken=token, TotalCount=2, MaxResults=1)


async def test_pages() -> None:
    """Pages are read one after the other, and iterated to the end."""
    with Service([page("a", "2"), page("b"), page("a", "2"), page("b")]) as service:
        async with client(service.url) as bay:
            second = await bay.list(page=2, limit=1)
            every = [found["sessionId"] async for found in bay.iter_sessions(limit=1)]
        assert [request.fields.get("NextToken") for request in service.requests] == [None, "2", None, "2"]
    assert [found["sessionId"] for found in second.session_ids] == ["b"]
    assert every == ["a", "b"]


@pytest.mark.parametrize("options", [{"page": 0}, {"page": 3}, {"limit": 0}, {"status": "NONE"}])
async def test_impossible_page(options: dict[str, Any]) -> None:
    """An impossible page or filter is a failed result, or raised if strict."""
    with Service(page("a")) as service:
        async with client(service.url) as bay:
            assert isinstance((await bay.list(**options)).exception, InvalidArgumentError)
        async with client(service.url, strict=True) as bay:
            with pytest.raises(InvalidArgumentError):
                await bay.list(**options)


async def test_all_pages_share_one_time_limit() -> None:
    """Endless pages do not keep one listing beyond its time limit."""
    with Service(page("a", "more")) as service:
        async with client(service.url, timeout=0.5) as bay:
            began = time.monotonic()
            result = await bay.list(page=10**9)
    assert time.monotonic() - began < 60
    assert isinstance(result.exception, DeadlineExceeded)


@pytest.mark.parametrize(
    "address",
    ["nonsense", "", "ftp://127.0.0.1/x", "http://", "http://[::1", "http://127.0.0.1:99999", "http://" + "a" * 70],
)
async def test_unusable_direct_link(address: str) -> None:
    """An unusable direct link is a failed connection."""
    async with client("http://127.0.0.1:1") as bay:
        session = handle(bay, "x")
        session.link_url = address
        result = await session.call_mcp_tool("my_tool", {})
    assert isinstance(result.exception, TransportError)


@pytest.mark.parametrize("endpoint", ["http://" + "a" * 70, "http://a..b", "http://\u2603\u2603"])
async def test_impossible_endpoint(endpoint: str) -> None:
    """An impossible endpoint is a failed connection."""
    async with client(endpoint, timeout=60, max_retries=0) as bay:
        assert isinstance((await bay.get("x")).exception, TransportError)


@pytest.mark.parametrize("proxy", ["http://", "gopher://127.0.0.1:1", "http://[::1", "http://127.0.0.1:99999"])
async def test_unusable_proxy(proxy: str) -> None:
    """An unusable proxy is refused by its parameter's name."""
    with pytest.raises(ConfigurationError, match=r"^proxy must be the URL of a proxy"):
        client("http://service.test", proxy=proxy, max_retries=0)
