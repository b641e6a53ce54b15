"""Connections: pooled, bounded, encrypted, through proxies or a user's client."""

from __future__ import annotations

import math
import socket
import ssl
import threading
import time
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest
import trustme

from agentbay import (
    AsyncAgentBay,
    ClientClosedError,
    Config,
    ConfigurationError,
    ConnectionFailed,
    ConnectionLost,
    ConnectionPoolFull,
    DeadlineExceeded,
    InvalidArgumentError,
    ReplyError,
)
from agentbay._async import command
from agentbay._concurrency import async_run_blocking
from agentbay._transport.deadline import Deadline
from agentbay._transport.request import HttpRequest
from tests.scripted import (
    Behaviour,
    Peer,
    Request,
    Service,
    endless,
    eventually,
    hang_up,
    http,
    message,
    nobody,
    ok,
    raw,
    silence,
    then_close,
    zipped,
)

from .calls import client, handle

FOUND = ok({"SessionId": "session-x", "Status": "RUNNING"})
DRIP = endless(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{", b" ", 0.01)


class Tls:
    """A server's TLS context, and the file of the authority that signed it."""

    def __init__(self, folder: Path, *names: str) -> None:
        authority = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names).configure_cert(self.server)
        self.trusted = folder / "authority.pem"
        authority.cert_pem.write_to_path(str(self.trusted))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls(tmp_path_factory.mktemp("tls"), "127.0.0.1", "service.test")


async def _get(bay: AsyncAgentBay) -> object:
    return (await bay.get("session-x")).unwrap()


async def test_one_connection_after_another() -> None:
    """Consecutive calls share one connection, which closes with the client."""
    with Service(FOUND) as service:
        async with client(service.url) as bay:
            for _ in range(20):
                await _get(bay)
            assert service.connections == 1
        await async_run_blocking(eventually, lambda: service.open_now == 0)


@pytest.mark.parametrize(
    "behaviour",
    [
        http(200, {"Success": True, "Data": {}}, {"Connection": "close"}),
        raw(b'HTTP/1.0 200 OK\r\nContent-Length: 29\r\n\r\n{"Success": true, "Data": {}}'),
        then_close(raw(b'HTTP/1.1 200 OK\r\n\r\n{"Success": true, "Data": {}}')),
    ],
    ids=["says so", "HTTP/1.0", "no length"],
)
async def test_connection_that_is_not_kept(behaviour: Behaviour) -> None:
    """A connection that the service closes after each answer is no error."""
    with Service(behaviour) as service:
        async with client(service.url, max_retries=0) as bay:
            for _ in range(10):
                await _get(bay)
        assert service.connections == service.count() == 10


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"],
    ids=["100", "103"],
)
async def test_informational_response(head: bytes) -> None:
    """An informational response (1xx) before the answer is skipped."""
    with Service(raw(head + message(200, b'{"Success": true, "Data": {}}'))) as service:
        async with client(service.url) as bay:
            await _get(bay)


async def test_chunks() -> None:
    """A chunked answer is read."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Service(raw(head + b'10\r\n{"Success": true\r\nd\r\n, "Data": {}}\r\n0\r\n\r\n')) as service:
        async with client(service.url) as bay:
            await _get(bay)
            await _get(bay)
        assert service.connections == 1


async def test_unexpected_bytes_on_an_idle_connection() -> None:
    """An idle connection that received unexpected bytes is not reused."""
    event, said = threading.Event(), threading.Event()

    def behave(peer: Peer, request: Request) -> None:
        FOUND(peer, request)
        event.wait(60)
        peer.send(message(408, b""))
        said.set()

    with Service([behave, FOUND]) as service:
        async with client(service.url, max_retries=0) as bay:
            await _get(bay)
            event.set()
            await async_run_blocking(said.wait, 60)
            time.sleep(0.2)
            await _get(bay)
        assert service.connections == 2


async def test_idle_connections_without_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no `select.poll`, as on Windows, an idle connection is reused all the same."""
    monkeypatch.delattr("select.poll")
    with Service(FOUND) as service:
        async with client(service.url) as bay:
            await _get(bay)
            await _get(bay)
        assert service.connections == 1


@pytest.mark.parametrize("taken", [1, 1 << 20])
async def test_request_that_was_not_sent_whole(taken: int) -> None:
    """A connection lost while the request is being sent is one on which nothing was executed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def take_a_little_and_reset() -> None:
            peer, _ = listener.accept()
            with peer:
                left = taken
                while left > 0:
                    left -= len(peer.recv(1 << 16))
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

        server = threading.Thread(target=take_a_little_and_reset)
        server.start()
        async with client(f"http://127.0.0.1:{listener.getsockname()[1]}", max_retries=0) as bay:
            result = await handle(bay).call_mcp_tool("my_tool", {"data": "x" * (64 << 20)})
        server.join()
    assert isinstance(result.exception, ConnectionFailed), result.exception


async def test_no_cookies() -> None:
    """Cookies are not sent back."""
    body = {"Success": True, "Data": {}}
    with Service(http(200, body, {"Set-Cookie": "a=b; Path=/"})) as service:
        async with client(service.url) as bay:
            await _get(bay)
            await _get(bay)
        assert all("cookie" not in request.headers for request in service.requests)


async def test_faults_leave_no_connection() -> None:
    """A connection on which something failed is closed at once."""
    with Service([silence, hang_up, http(200, b"{", {"Content-Length": "99"}), FOUND]) as service:
        async with client(service.url, timeout=1.5, max_retries=0) as bay:
            for _ in range(3):
                assert not (await bay.get("session-x")).success
            await async_run_blocking(eventually, lambda: service.open_now == 0)
            await _get(bay)


@pytest.mark.parametrize("addresses", [1, 3])
async def test_connecting_keeps_to_the_time_limit(addresses: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting keeps to the deadline, however many addresses a host has."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    host, port = listener.getsockname()
    fillers = []
    for _ in range(4):  # fill its queue
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex((host, port))
        fillers.append(filler)
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{last}" if last > 1 else host, port))
        for last in [1] * addresses
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    async with client(f"http://service.test:{port}", timeout=0.5, max_retries=0) as bay:
        began = time.monotonic()
        error = (await bay.create()).exception
        assert time.monotonic() - began < 60
    assert isinstance(error, ConnectionFailed)
    for sock in (listener, *fillers):
        sock.close()


async def test_tls(tls: Tls) -> None:
    """TLS with an authority from a file works and keeps its connection."""
    with Service(FOUND, tls=tls.server) as service:
        async with client(service.url, verify=str(tls.trusted)) as bay:
            await _get(bay)
            await _get(bay)
        assert service.connections == 1


async def test_ssl_context_of_the_user(tls: Tls) -> None:
    """A user's SSLContext is used unchanged."""
    context = ssl.create_default_context(cafile=str(tls.trusted))
    with Service(FOUND, tls=tls.server) as service:
        async with client(service.url, verify=context) as bay:
            await _get(bay)


async def test_tls_not_checked(tls: Tls) -> None:
    """With verify=False any certificate is accepted."""
    with Service(FOUND, tls=tls.server) as service:
        async with client(service.url, verify=False) as bay:
            await _get(bay)


async def test_untrusted_certificate(tls: Tls) -> None:
    """An untrusted certificate is a failed connection, with nothing sent."""
    with Service(FOUND, tls=tls.server) as service:
        async with client(service.url, max_retries=0) as bay:
            assert isinstance((await bay.create()).exception, ConnectionFailed)
        assert service.count() == 0


async def test_tls_of_another_name(tls: Tls) -> None:
    """A certificate for another host is a failed connection."""
    with Service(FOUND, tls=tls.server, host="127.0.0.2") as service:
        async with client(service.url, max_retries=0, verify=str(tls.trusted)) as bay:
            assert isinstance((await bay.create()).exception, ConnectionFailed)


async def test_tls_where_there_is_none() -> None:
    """A service without TLS behind an https address fails in time."""
    with Service(FOUND) as service:
        async with client(service.url.replace("http:", "https:"), timeout=0.5, max_retries=0) as bay:
            assert isinstance((await bay.create()).exception, ConnectionFailed)


@pytest.mark.parametrize("behaviour", [silence, DRIP])
async def test_faults_over_tls(tls: Tls, behaviour: Behaviour) -> None:
    """The time limit holds over TLS too."""
    with Service(behaviour, tls=tls.server) as service:
        async with client(service.url, timeout=2, verify=str(tls.trusted)) as bay:
            began = time.monotonic()
            assert isinstance((await bay.create()).exception, DeadlineExceeded)
        assert time.monotonic() - began < 60


async def test_kept_tls_connection_closed(tls: Tls) -> None:
    """An idle TLS connection that the service closed fails no call."""
    with Service(ok({"SessionId": "s"}), tls=tls.server) as service:
        async with client(service.url, verify=str(tls.trusted), max_retries=0) as bay:
            for _ in range(5):
                assert (await bay.create()).success
                service.close_all()
        assert service.connections == service.count() == 5


async def test_one_tls_context(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    """All clients share one TLS context, since loading it is slow."""
    made = []
    original = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda **options: made.append(1) or original(**options))
    again = tls.trusted.with_name("again.pem")
    again.write_bytes(tls.trusted.read_bytes())
    with Service(FOUND, tls=tls.server) as service:
        for _ in range(3):
            async with client(service.url, verify=str(again)) as bay:
                await _get(bay)
    assert len(made) == 1


async def test_missing_authorities() -> None:
    """A missing file of authorities is a ConfigurationError."""
    async with client("https://127.0.0.1:1", verify="/no/such/file.pem") as bay:
        assert isinstance((await bay.get("x")).exception, ConfigurationError)


async def test_proxy() -> None:
    """With proxy= every request goes through it, in absolute form."""
    with Service(FOUND) as proxy:
        async with client("http://service.test:81", proxy=proxy.url) as bay:
            await _get(bay)
            await _get(bay)
        assert all(request.target.startswith("http://service.test:81/?Action=") for request in proxy.requests)
        assert proxy.connections == 1
        assert proxy.requests[0].headers["host"] == "service.test:81"


async def test_proxy_for_tls(tls: Tls) -> None:
    """Through a proxy, TLS is spoken with the host behind it."""
    with Service(FOUND, tls=tls.server, proxy=True) as proxy:
        async with client("https://service.test", proxy=proxy.url, verify=str(tls.trusted)) as bay:
            await _get(bay)
        assert [request.method for request in proxy.requests] == ["CONNECT", "POST"]
        assert proxy.requests[0].target == "service.test:443"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("bare", [False, True], ids=["address", "host and port"])
async def test_proxy_from_the_environment(name: str, bare: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment variables name a proxy, except for NO_PROXY and this machine."""
    with Service(FOUND, host="127.0.0.2") as service, Service(FOUND) as proxy, Service(FOUND) as near:
        monkeypatch.setenv(name, proxy.url.removeprefix("http://") if bare else proxy.url)
        async with client(service.url) as bay:
            await _get(bay)
        assert (service.count(), proxy.count()) == (0, 1)
        async with client(near.url) as bay:
            await _get(bay)
        assert (near.count(), proxy.count()) == (1, 1)
        monkeypatch.setenv("NO_PROXY", "other.test,127.0.0.2")
        async with client(service.url) as bay:
            await _get(bay)
        assert (service.count(), proxy.count()) == (1, 1)


async def test_proxy_that_is_not_there() -> None:
    """An unreachable proxy is a failed connection."""
    with nobody() as url:
        async with client("http://service.test", proxy=url, max_retries=0) as bay:
            assert isinstance((await bay.create()).exception, ConnectionFailed)


@pytest.mark.parametrize("status", [403, 407, 502])
async def test_proxy_that_refuses(status: int) -> None:
    """A proxy that refuses is a failed connection, with nothing sent."""
    with Service(http(status, b"")) as proxy:
        async with client("https://service.test", proxy=proxy.url, max_retries=0) as bay:
            assert isinstance((await bay.create()).exception, ConnectionFailed)
        assert proxy.count() == 1


@pytest.mark.parametrize("behaviour", [silence, DRIP], ids=["silent", "drips"])
async def test_time_limit_through_a_proxy(behaviour: Behaviour) -> None:
    """The time limit holds through a proxy too."""
    with Service(behaviour) as proxy:
        async with client("http://service.test", proxy=proxy.url, timeout=1.5) as bay:
            began = time.monotonic()
            assert isinstance((await bay.create()).exception, DeadlineExceeded)
        assert time.monotonic() - began < 60
        assert proxy.count() == 1


async def test_http_client_of_the_user() -> None:
    """A given httpx client carries every call and is left open."""
    with Service(
        {"GetSession": FOUND, "CallMcpTool": ok({}), "callTool": http(200, {"data": {"result": {}}})}
    ) as service:
        async with httpx.AsyncClient(headers={"X-Mine": "yes"}) as mine:
            async with client(service.url, http_client=mine) as bay:
                await _get(bay)
                assert (await handle(bay, service.url + "/link").call_mcp_tool("my_tool", {})).success
            assert not mine.is_closed
            with pytest.raises(ClientClosedError):
                await bay.get("session-x")
        assert service.connections == 1
        assert service.requests[1].target == "/link/callTool"


async def test_closed_http_client_of_the_user() -> None:
    """A closed httpx client is reported as such."""
    mine = httpx.AsyncClient()
    await mine.aclose()
    async with client("http://127.0.0.1:1", http_client=mine) as bay:
        with pytest.raises(ClientClosedError):
            await bay.get("session-x")


async def test_http_client_follows_no_redirects() -> None:
    """Redirects are not followed, even if the given client would."""
    with Service(http(302, b"", {"Location": "/elsewhere", "Set-Cookie": "a=b"})) as service:
        async with httpx.AsyncClient(follow_redirects=True) as mine, client(service.url, http_client=mine) as bay:
            assert isinstance((await bay.get("session-x")).exception, ReplyError)
            assert isinstance((await bay.get("session-x")).exception, ReplyError)
        assert service.count() == 2
        assert "cookie" not in service.requests[1].headers


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (silence, DeadlineExceeded),
        (DRIP, DeadlineExceeded),
        (hang_up, ConnectionLost),
        (http(200, b"\xff", {"Content-Encoding": "gzip"}), ReplyError),
        (zipped([]), ReplyError),
    ],
    ids=["silent", "drips", "hangs up", "broken gzip", "gzip of a list"],
)
async def test_faults_with_an_http_client(
    behaviour: Behaviour, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time limits and errors are the same with a given client, also of a command, which a pause could extend."""
    monkeypatch.setattr(command, "_COMMAND_REPLY_MARGIN_SECONDS", 0.5)
    with Service({"CreateMcpSession": behaviour, "CallMcpTool": behaviour, "GetSessionDetail": FOUND}) as service:
        async with httpx.AsyncClient() as mine, client(service.url, timeout=2, http_client=mine) as bay:
            began = time.monotonic()
            assert isinstance((await bay.create()).exception, kind)
            assert isinstance((await handle(bay).command.run("true", timeout_ms=1000)).exception, kind)
        assert time.monotonic() - began < 60
        assert service.count("CreateMcpSession") == service.count("CallMcpTool") == 1


async def test_all_connections_in_use() -> None:
    """A call that finds no connection free until its time is over is not sent, and names the bound and the option."""
    with Service(FOUND) as service:
        config = Config(endpoint=service.url)
        async with AsyncAgentBay("akm-test", config, max_connections=1, max_retries=0, timeout=60) as bay:
            occupying = HttpRequest(service.url, b"/", [(b"Host", b"there")], b"", "occupying")
            pool = (await bay.client._routers.get()).pool
            async with aclosing(
                await pool.send(occupying, dict.fromkeys(("pool", "connect", "read", "write"), 60.0), math.inf)
            ):
                refused = (await bay.with_options(timeout=0.2).get("session-x")).exception
                assert isinstance(refused, ConnectionPoolFull)
                assert isinstance(refused, TimeoutError)
                assert "all 1 connections of this client were in use" in refused.message
                assert "max_connections" in refused.hint
            transfers = [bay.client.send_streamed(occupying, None, Deadline(60), 60) for _ in range(4)]
            async with transfers[0], transfers[1], transfers[2], transfers[3]:
                assert (await bay.get("session-x")).success
                with pytest.raises(ConnectionPoolFull, match="all 4 connections for commands and transfers"):
                    async with bay.client.send_streamed(occupying, None, Deadline(0.2), 60):
                        pass
            assert (await bay.get("session-x")).success
        assert service.count("GetSession") == 2
        for wrong in (0, -1, True, "many"):
            with pytest.raises(InvalidArgumentError, match="max_connections"):
                AsyncAgentBay("akm-test", config, max_connections=wrong)  # type: ignore[arg-type]
