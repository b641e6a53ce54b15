from __future__ import annotations

import json
import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest

from tests.local.raw import KEY, Refused, Wire
from tests.local.traces import PATIENCE, eventually, processes_with, unique_seconds

FORM = {"Authorization": f"Bearer {KEY}"}


def post(wire: Wire, **options: object) -> tuple[int, dict[str, str]]:
    answer = wire.http.post("/", **{"params": {"Action": "ListSession"}, "data": FORM, **options})  # type: ignore[arg-type]
    return answer.status_code, answer.json()


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer wrong", KEY, f"Bearer {KEY} ", "Bearer \x00é"])
def test_wrong_keys(wire: Wire, authorization: str | None):
    """Without the exact key the answer is always the same, and tells nothing."""
    form = {} if authorization is None else {"Authorization": authorization}
    status, body = post(wire, data=form)
    assert (status, body["Code"]) == (400, "NOT_LOGIN")
    assert body["Message"] == "You are not logged in or your login token has expired"


def test_where_fields_may_be(wire: Wire):
    """Query and form count alike, and a header may name the action."""
    for arguments in (
        {"params": {"Action": "ListSession", **FORM}, "data": None},
        {"params": {}, "data": {"Action": "ListSession", **FORM}},
        {"params": {}, "headers": {"x-acs-action": "ListSession"}},
    ):
        assert post(wire, **arguments)[0] == 200
    assert wire.http.post("/prefix/", params={"Action": "ListSession"}, data=FORM).status_code == 200


@pytest.mark.parametrize(
    ("action", "fields", "status", "code", "text"),
    [
        ("NoSuchAction", {}, 404, "InvalidAction.NotFound", "NoSuchAction"),
        ("", {}, 404, "InvalidAction.NotFound", ""),
        ("GetSession", {"SessionId": "x"}, 400, "InvalidMcpSession.NotFound", "Resource [McpSession] is not found."),
        ("GetSessionDetail", {"SessionId": "x"}, 400, "InvalidMcpSession.NotFound", "is not found"),
        ("GetSession", {}, 400, "InvalidParameter", "SessionId"),
        ("CreateMcpSession", {"Labels": "{"}, 400, "InvalidParameter", "Labels"),
        ("CreateMcpSession", {"Labels": "[1]"}, 400, "InvalidParameter", "Labels"),
        ("SetLabel", {"SessionId": "x", "Labels": "null"}, 400, "InvalidParameter", "Labels"),
        ("CreateMcpSession", {"Labels": '{"a": {"b": 1}}'}, 400, "InvalidParameter", "Labels"),
        ("CreateMcpSession", {"Labels": "[" * 100_000}, 400, "InvalidParameter", "Labels"),
        ("CreateMcpSession", {"Timeout": "9" * 5000}, 400, "InvalidParameter", "Timeout"),
        ("CreateMcpSession", {"ManualRelease": "maybe"}, 400, "InvalidParameter", "ManualRelease"),
        ("CallMcpTool", {"SessionId": "x", "Name": "shell", "Args": "[]"}, 400, "InvalidParameter", "Args"),
        ("CallMcpTool", {"SessionId": "x", "Name": "shell", "Args": "{}"}, 400, "InvalidMcpSession.NotFound", ""),
    ],
)  # fmt: skip
def test_refusals(wire: Wire, action: str, fields: dict[str, str], status: int, code: str, text: str):
    """Unknown and malformed fields are refused with the documented code and the field's name."""
    with pytest.raises(Refused) as refused:
        wire.data(action, **fields)
    assert (refused.value.status, refused.value.code) == (status, code)
    assert text in refused.value.message


@pytest.mark.parametrize("body", [b"\xff", b"a=%ff", b"a=b&" * 2000])
def test_malformed_forms(wire: Wire, body: bytes):
    """A form that is none is refused."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    status, answer = post(wire, data=None, content=body, headers=headers)
    assert (status, answer["Code"]) == (400, "InvalidParameter")


def test_other_bodies(wire: Wire):
    """Bodies that are not forms are refused, and so are other methods."""
    assert post(wire, data=None, json={"a": 1})[1]["Code"] == "InvalidContentType"
    assert wire.http.put("/").status_code == 405


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200), ("LOCALHOST:1234", 200), ("[::1]:80", 200), ("http://127.0.0.1:8080", 200),
        ("https://localhost/prefix", 200), ("", 403), ("evil.example", 403), ("127.0.0.1.evil.example", 403),
        ("evil.example:80@127.0.0.1", 403), ("localhost.evil.example", 403), ("http://evil.example", 403),
    ],
)  # fmt: skip
def test_host(wire: Wire, host: str, status: int):
    """Host names other than the loopback's are refused, against DNS rebinding."""
    assert post(wire, headers={"host": host})[0] == status


def test_two_hosts(wire: Wire):
    """A request with two Host headers is refused, since programs read different ones."""
    address = urlsplit(wire.url)
    with socket.create_connection(("127.0.0.1", address.port or 0), PATIENCE) as connection:
        head = f"GET /healthz HTTP/1.1\r\nHost: evil.example\r\nHost: {address.netloc}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(12) == b"HTTP/1.1 400"


def test_origin(wire: Wire):
    """Only the service's own origin, or none, is accepted."""
    for origin, status in (
        (wire.url, 200),
        (wire.url.replace("127.0.0.1", "localhost"), 200),
        ("http://127.0.0.1:1", 403),
        ("https://evil.example", 403),
        ("null", 403),
    ):
        assert post(wire, headers={"origin": origin})[0] == status


def test_health(wire: Wire):
    """Whether it lives can be asked without a key."""
    assert wire.http.get("/healthz").json() == {"status": "ok", "isolation": "namespaces", "network": "proxy"}


def test_bodies_too_large(wire: Wire):
    """A body over the limit gets an answer, and the connection stays usable."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    status, body = post(wire, data=None, content=b"a=" + b"x" * (65 << 20), headers=headers)
    assert (status, body["Code"]) == (413, "RequestTooLarge")
    assert post(wire)[0] == 200
    key = str(httpx.QueryParams(FORM)).encode()
    assert post(wire, data=None, content=key + b"&a=" + b"x" * (63 << 20), headers=headers)[0] == 200
    with wire.session() as session:
        wire.text(session, "write_file", path="large", content="x" * (10 << 20))
        assert wire.stdout(session, "wc -c < large") == f"{10 << 20}\n"


def test_a_client_that_leaves(wire: Wire, session: str):
    """When the client of a command goes away, the command is killed."""
    marker = unique_seconds()
    args = json.dumps({"command": f"echo; sleep {marker}", "timeout_ms": 600_000})
    form = str(httpx.QueryParams({**FORM, "SessionId": session, "Name": "shell", "Args": args}))
    head = (
        "POST /?Action=CallMcpTool HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(form)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", int(wire.url.rpartition(":")[2]))) as connection:
        connection.sendall((head + form).encode())
        assert eventually(lambda: processes_with(marker) != [])
    assert eventually(lambda: processes_with(marker) == [])
    assert wire.stdout(session, "echo on") == "on\n"


def test_clients_that_leave_while_creating(wire: Wire):
    """A session whose client did not wait for it is not left behind."""
    label = {"left": f"{time.monotonic_ns()}"}
    form = str(httpx.QueryParams({**FORM, "Labels": json.dumps(label)}))
    head = (
        "POST /?Action=CreateMcpSession HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
        f"{len(form)}\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n"
    )
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", int(wire.url.rpartition(":")[2]))) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # what is sent goes out with the end
            connection.sendall((head + form).encode())
    time.sleep(1)
    assert eventually(lambda: wire.data("ListSession", Labels=label) == [])


def test_direct_calls(wire: Wire, session: str):
    """A session's link takes tool calls with that session's token, and no other."""
    found = wire.data("GetSession", SessionId=session)
    call = {"args": {"command": "echo hi", "timeout_ms": 60_000}, "server": "wuying_shell", "requestId": "link-1-2",
            "tool": "shell", "token": found["Token"]}  # fmt: skip

    def direct(token: str, link: str = found["LinkUrl"], **options: object) -> httpx.Response:
        headers = {"x-access-token": token}
        return wire.http.post(link + "/callTool", **{"json": call, "headers": headers, **options})  # type: ignore[arg-type]

    result = direct(found["Token"]).json()["data"]["result"]
    assert json.loads(result["content"][0]["text"]) == {"stdout": "hi\n", "stderr": "", "exit_code": 0}
    with wire.session() as other:
        stranger = wire.data("GetSession", SessionId=other)
        for token in ("", "wrong", wire.key, stranger["Token"]):
            assert direct(token).status_code == 401
        assert direct(found["Token"], stranger["LinkUrl"]).status_code == 401
    assert direct(found["Token"], stranger["LinkUrl"]).status_code == 400
    assert direct(found["Token"], json={"tool": 1}).status_code == 400
    text = {"x-access-token": found["Token"], "content-type": "text/plain"}
    assert direct(found["Token"], json=None, content=json.dumps(call), headers=text).status_code == 400
    broken = {**text, "content-type": "application/json"}
    assert direct(found["Token"], json=None, content="[" * 100_000, headers=broken).status_code == 400


def test_links(wire: Wire, session: str):
    """A link carries its own token, and impossible ports are refused."""
    for protocol, shape in (
        ("https", wire.url + "/request_ai/"),
        ("wss", wire.url.replace("http", "ws") + "/websocket_ai/"),
    ):
        url = wire.data("GetLink", SessionId=session, ProtocolType=protocol, Port=30150)["Url"]
        assert url.startswith(shape)
        assert wire.key not in url
    assert wire.data("GetLink", SessionId=session, Port=30150)["Url"] == url
    link = wire.data("GetLink", SessionId=session, ProtocolType="https", Port=30150)["Url"]
    assert link.endswith("/path/")
    assert wire.http.get(link + "x").status_code == 502  # nothing listens there
    assert wire.http.get(link.replace(".30150.", ".30151.")).status_code == 404
    for port in (0, 65536, "30150.5", "x", "", -1):
        with pytest.raises(Refused) as refused:
            wire.data("GetLink", SessionId=session, ProtocolType="https", Port=port)
        text = f"Invalid port value: {port}. Port must be an integer in the range [1, 65535]."
        assert (refused.value.code, refused.value.message) == ("InvalidPort", text)
    for fields, text in (
        ({"ProtocolType": "https"}, "port is not valid"),
        ({"ProtocolType": "http", "Port": 30150}, "http not supported"),
        ({}, "no port specified, cdp default, but only BrowserUse image support cdp"),
    ):
        # An image without a desktop, which links without a port would show.
        with wire.session(ImageId="code_latest") as other, pytest.raises(Refused, match=text):
            wire.data("GetLink", SessionId=other, **fields)


def test_session_without_contexts(wire: Wire, session: str):
    """A session without contexts lists none, and syncing one that it lacks fails."""
    wire.data("SyncContext", SessionId=session)
    assert wire.data("GetContextInfo", SessionId=session) == {"ContextStatus": "[]"}
    status = wire.data("GetContextInfo", SessionId=session, ContextId="c", Path="/p")["ContextStatus"]
    (item,) = json.loads(json.loads(status)[0]["data"])
    assert (item["contextId"], item["path"], item["status"]) == ("c", "/p", "Failed")
