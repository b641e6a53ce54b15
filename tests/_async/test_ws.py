"""The WebSocket of a session against a misbehaving server, over real sockets."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import threading
from typing import Any

import pytest
import trustme

from agentbay import (
    AgentBayError,
    AsyncAgentBay,
    AsyncSession,
    AuthenticationError,
    ClientClosedError,
    Config,
    ConnectionFailed,
    ConnectionLost,
    DeadlineExceeded,
    InvalidArgumentError,
    NotFoundError,
    ReplyError,
    ServiceUnavailableError,
    SessionError,
    ToolError,
    WsCancelledError,
    _websocket as seam,
)
from agentbay._async.ws_client import AsyncReconnectingWebSocket, Listener
from agentbay._concurrency import async_sleep
from agentbay._transport.deadline import Deadline
from agentbay._websocket import AsyncEvent, AsyncQueue, AsyncWorker
from tests.scripted_ws import MuteServer, Peer, WsServer

TOKEN = "token-that-nobody-may-see"
ASK = {"method": "m", "params": {"a": 1}}


def client(max_retries: int = 0) -> AsyncAgentBay:
    """Make a client whose service does not matter."""
    return AsyncAgentBay("akm-test", Config(endpoint="http://127.0.0.1:9"), max_retries=max_retries)


def session(bay: AsyncAgentBay, url: str) -> AsyncSession:
    """Make a session with a WebSocket there."""
    made = AsyncSession(bay, "session-x")
    made.ws_url, made.token = url, TOKEN
    return made


def echo(peer: Peer) -> None:
    """Answer every call with its own request."""
    while True:
        asked = peer.receive()
        peer.reply(asked, result=asked["data"])


async def pending(made: AsyncSession) -> int:
    """Return how many exchanges the connection still remembers."""
    connection = (await made.ws.websocket())._connection
    return 0 if connection is None else len(connection)


async def test_call() -> None:
    """A call is one frame with four keys, and the connection is kept."""
    seen: list[Any] = []

    def script(peer: Peer) -> None:
        seen.append(peer.headers)
        while True:
            asked = peer.receive()
            seen.append(asked)
            peer.reply(asked, result={"n": len(seen)})

    with WsServer(script) as server:
        async with client() as bay:
            made = session(bay, server.url)
            assert server.opened == 0
            assert await made.ws.call("T", ASK) == {"result": {"n": 2}}
            assert await made.ws.call("T", {"ü": "漢\ud800"}) == {"result": {"n": 3}}
            assert await pending(made) == 0
    assert seen[0]["X-Access-Token"] == TOKEN
    assert "Origin" not in seen[0]
    first = seen[1]
    assert first == {"invocationId": first["invocationId"], "source": "SDK", "target": "T", "data": ASK}
    assert len(first["invocationId"]) == 32
    assert seen[2]["data"] == {"ü": "漢\ud800"}
    assert server.opened == 1


async def test_garbage_is_ignored() -> None:
    """Garbage and unrelated frames end nothing."""

    def script(peer: Peer) -> None:
        asked = peer.receive()
        for junk in ("", "nonsense", "[]", "7", "null", b"\xff\xfe", "{}", '{"invocationId": 7}', "[" * 100_000):
            peer.send(junk)
        peer.send({"invocationId": "nobody's", "target": "SDK", "data": {}})
        peer.send({"type": "pong"})
        peer.send({"requestId": asked["invocationId"], "target": "SDK", "data": json.dumps({"result": 1})})
        peer.receive()

    with WsServer(script) as server:
        async with client() as bay:
            assert await session(bay, server.url).ws.call("T", ASK) == {"result": 1}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"data": {"error": "it went wrong"}}, ToolError),
        ({"data": {"error": {"code": 7, "message": "it went wrong"}}}, ToolError),
        ({"source": "WEBSOCKET_SERVER", "data": {"error": "it went wrong"}}, ToolError),
        ({"source": "WEBSOCKET_SERVER", "error": "it went wrong"}, ToolError),
        ({"data": "it went wrong"}, ReplyError),
        ({"data": [1]}, ReplyError),
        ({}, ReplyError),
        ({"target": "", "data": {}}, ReplyError),
    ],
)
async def test_refusals(answer: dict[str, Any], error: type[AgentBayError]) -> None:
    """Refusals and unreadable answers end the call with the right error."""

    def script(peer: Peer) -> None:
        asked = peer.receive()
        peer.send({"invocationId": asked["invocationId"], "target": "SDK", **answer})
        echo(peer)

    with WsServer(script) as server:
        async with client() as bay:
            made = session(bay, server.url)
            with pytest.raises(error, match="it went wrong" if error is ToolError else "answer of T"):
                await made.ws.call("T", ASK)
            assert await pending(made) == 0
            assert await made.ws.call("T", ASK) == {"result": ASK}


async def test_refusal_shows_no_password() -> None:
    """An error shows no password of a quoted URL."""

    def script(peer: Peer) -> None:
        peer.reply(peer.receive(), error="cannot clone https://user:hunter2hunter2@host/x" + "y" * 5000)

    with WsServer(script) as server:
        async with client() as bay:
            with pytest.raises(ToolError) as caught:
                await session(bay, server.url).ws.call("T", ASK)
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value)) <= 2000


async def test_lost_while_waiting() -> None:
    """A lost connection fails pending calls, and the next call reconnects."""

    def script(peer: Peer) -> None:
        asked = peer.receive()
        if peer.number == 1:
            peer.drop()
            return
        peer.reply(asked, result=peer.number)
        peer.receive()

    with WsServer(script) as server:
        async with client() as bay:
            made = session(bay, server.url)
            with pytest.raises(ConnectionLost, match="may have been executed"):
                await made.ws.call("T", ASK)
            assert await pending(made) == 0
            assert await made.ws.call("T", ASK) == {"result": 2}


async def test_never_answers() -> None:
    """A call times out, and its late answer is ignored."""

    def script(peer: Peer) -> None:
        peer.reply(peer.receive())
        late, asked = peer.receive(), peer.receive()
        peer.reply(late, result="late")
        peer.reply(asked, result="in time")
        peer.receive()

    with WsServer(script) as server:
        async with client() as bay:
            made = session(bay, server.url)
            await made.ws.call("T", ASK)  # connects
            with pytest.raises(DeadlineExceeded):
                await made.ws.call("T", ASK, timeout=1)
            assert await pending(made) == 0
            assert await made.ws.call("T", ASK) == {"result": "in time"}


async def test_large_frames() -> None:
    """Frames up to 64 MiB pass, larger ones are refused."""
    text = "x" * (63 << 20)

    def script(peer: Peer) -> None:
        asked = peer.receive(60)
        peer.reply(asked, result=len(asked["data"]["text"]))
        peer.reply(peer.receive(), result=text)
        peer.reply(peer.receive(), result="x" * (65 << 20))
        peer.receive()

    with WsServer(script) as server:
        async with client() as bay:
            made = session(bay, server.url)
            assert await made.ws.call("T", {"text": text}, timeout=60) == {"result": len(text)}
            assert (await made.ws.call("T", ASK, timeout=60))["result"] == text
            with pytest.raises(InvalidArgumentError):
                await made.ws.call("T", {"text": "x" * (65 << 20)})
            with pytest.raises(ConnectionLost, match="1009"):
                await made.ws.call("T", ASK, timeout=60)


async def test_limit_of_the_service() -> None:
    """A frame that the local runtime would not take is refused by the limit's name, and the connection stays."""
    async with AsyncAgentBay.local() as bay, bay.session() as made:
        await made.ws.call("PTY_SERVER", {"method": "pty.list"})
        connection = await (await made.ws.websocket()).ensure_connected(Deadline(60))
        with pytest.raises(InvalidArgumentError, match="8 MiB"):
            await made.ws.call("PTY_SERVER", {"method": "pty.list", "params": {"text": "x" * (9 << 20)}})
        await made.ws.call("PTY_SERVER", {"method": "pty.list"})
        assert await (await made.ws.websocket()).ensure_connected(Deadline(60)) is connection


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, AuthenticationError), (404, NotFoundError), (302, AgentBayError), (503, ServiceUnavailableError)],
)
async def test_refused(status: int, error: type[AgentBayError]) -> None:
    """A refused handshake is an error by status, retried only if sensible."""
    with WsServer(echo, refuse=lambda _: status) as server:
        async with client(max_retries=1) as bay:
            with pytest.raises(error) as caught:
                await session(bay, server.url).ws.call("T", ASK)
    assert caught.value.status_code == status
    assert server.opened == (2 if status == 503 else 1)


async def test_refused_at_first() -> None:
    """A service that is not ready yet is tried again."""
    with WsServer(echo, refuse=lambda number: 503 if number == 1 else None) as server:
        async with client(max_retries=1) as bay:
            assert await session(bay, server.url).ws.call("T", ASK) == {"result": ASK}


async def test_no_redirect() -> None:
    """The token does not follow a redirect."""
    with WsServer(echo) as other, WsServer(echo, lambda _: 302, {"Location": other.url}) as server:
        async with client() as bay:
            with pytest.raises(AgentBayError):
                await session(bay, server.url).ws.call("T", ASK)
    assert other.opened == 0


async def test_nobody_listens() -> None:
    """An unreachable server is `ConnectionFailed`, in time."""
    with WsServer(echo) as server:
        url = server.url
    async with client() as bay:
        with pytest.raises(ConnectionFailed, match="Nothing was sent"):
            await session(bay, url).ws.call("T", ASK)
    with MuteServer(handshake=False) as mute:
        async with client() as bay:
            with pytest.raises(ConnectionFailed, match="in time"):
                await session(bay, mute.url).ws.call("T", ASK, timeout=0.3)


async def test_tls() -> None:
    """Certificates are checked with the usual or given authorities."""
    authority, server_side = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client_side = ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    authority.configure_trust(client_side)
    endpoint = Config(endpoint="http://127.0.0.1:9")
    with WsServer(echo, tls=server_side) as server:
        async with AsyncAgentBay("akm-test", endpoint, verify=client_side) as bay:
            assert await session(bay, server.url).ws.call("T", ASK) == {"result": ASK}
        async with client() as bay:
            with pytest.raises(ConnectionFailed, match="certificate"):
                await session(bay, server.url).ws.call("T", ASK)


async def test_proxy() -> None:
    """The client's proxy is used, and no other way is tried."""
    asked: list[bytes] = []

    def accept() -> None:
        accepted, _ = listener.accept()
        asked.append(accepted.recv(4096))
        accepted.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        accepted.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        proxy = f"http://user:secret-password@127.0.0.1:{listener.getsockname()[1]}"
        endpoint = Config(endpoint="http://127.0.0.1:9")
        async with AsyncAgentBay("akm-test", endpoint, proxy=proxy, max_retries=0) as bay:
            with pytest.raises(ConnectionFailed) as caught:
                await session(bay, "ws://service.example/ws").ws.call("T", ASK)
        thread.join()
    assert asked[0].startswith(b"CONNECT service.example:80 HTTP/1.1")
    assert "secret-password" not in f"{caught.value}{caught.value.__cause__!r}"


async def test_no_websocket() -> None:
    """A session without a WebSocket says so as documented."""
    async with client() as bay:
        with pytest.raises(SessionError, match="ws_url is not available for this session"):
            await AsyncSession(bay, "session-x").ws.call("T", ASK)
        made = session(bay, "ws://127.0.0.1:9")
        made.token = ""
        with pytest.raises(SessionError, match="token is not available for WS connection"):
            await made.ws.call("T", ASK)


async def test_no_pong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that answers no ping is lost, and pending calls fail."""
    monkeypatch.setattr(seam, "_PING_SECONDS", 0.2)
    with MuteServer() as mute:
        async with client() as bay:
            with pytest.raises(ConnectionLost):
                await session(bay, mute.url).ws.call("T", ASK)


async def test_stream() -> None:
    """A stream yields its events in order, then its end."""

    def script(peer: Peer) -> None:
        asked = peer.receive()
        for number in range(3):
            peer.reply(asked, phase="event", seq=number, eventType="stdout", chunk=str(number))
        more = peer.receive()
        assert more["invocationId"] == asked["invocationId"]
        peer.reply(asked, phase="end", status="finished", heard=more["data"])
        peer.receive()

    with WsServer(script) as server:
        async with client() as bay:
            made = session(bay, server.url)
            stream = await made.ws.stream("T", ASK, 60)
            async with stream:
                assert (await stream.next_event() or {})["chunk"] == "0"
                await stream.write({"more": 1})
                assert [event["chunk"] async for event in stream] == ["1", "2"]
                assert (await stream.wait_end())["heard"] == {"more": 1}
                with pytest.raises(WsCancelledError):
                    await stream.write({"more": 2})
            assert await pending(made) == 0


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"phase": "error", "error": {"code": "Kernel", "message": "it died"}}, ToolError),
        ({"phase": "event", "error": "it died"}, ToolError),
        ({"phase": "never heard of"}, ReplyError),
        ({}, ReplyError),
    ],
)
async def test_stream_fails(answer: dict[str, Any], error: type[AgentBayError]) -> None:
    """A failed stream raises the right error for every reader."""

    def script(peer: Peer) -> None:
        peer.reply(peer.receive(), **answer)
        peer.receive()

    with WsServer(script) as server:
        async with client() as bay:
            made = session(bay, server.url)
            stream = await made.ws.stream("T", ASK, 60)
            for _ in range(2):
                with pytest.raises(error):
                    await stream.wait_end()
            assert await pending(made) == 0


async def test_stream_cancelled() -> None:
    """Cancelling notifies the service and hurts no other stream."""

    def script(peer: Peer) -> None:
        first, second = peer.receive(), peer.receive()
        server.heard.put(peer.receive())
        peer.reply(first, phase="event", chunk="too late")
        peer.reply(second, phase="end")
        peer.receive()

    with WsServer(script) as server:
        async with client() as bay:
            made = session(bay, server.url)
            stream = await made.ws.stream("T", {"method": "m"}, 60)
            other = await made.ws.stream("T", ASK, 60)
            outcome: AsyncQueue[AgentBayError] = AsyncQueue()

            async def wait() -> None:
                try:
                    await stream.wait_end()
                except AgentBayError as error:
                    outcome.put(error)

            waiting = AsyncWorker(wait)
            await async_sleep(0.05)
            await stream.cancel()
            await stream.cancel()
            assert isinstance(await outcome.get(60), WsCancelledError)
            assert await other.wait_end() == {"phase": "end"}
            await waiting.stop()
            assert await pending(made) == 0
    heard = server.heard.get(timeout=60)
    assert heard["invocationId"] == stream.id
    assert heard["data"] == {"method": "m", "mode": "stream", "phase": "cancel"}


async def test_stream_takes_too_long() -> None:
    """A stream times out, notifies the service, and leaves nothing behind."""

    def script(peer: Peer) -> None:
        peer.reply(peer.receive())
        peer.reply(peer.receive(), phase="event", chunk="x")
        server.heard.put(peer.receive())

    with WsServer(script) as server:
        async with client() as bay:
            made = session(bay, server.url)
            await made.ws.call("T", ASK)  # connects
            stream = await made.ws.stream("T", ASK, 1)
            with pytest.raises(DeadlineExceeded):
                await stream.wait_end()
            assert await pending(made) == 0
            assert server.heard.get(timeout=60)["data"]["phase"] == "cancel"


async def listening(
    link: AsyncReconnectingWebSocket, pushes: AsyncQueue[Any], ups: AsyncQueue[Any] | None = None
) -> None:
    """Queue the pushes of target W, and each reconnection."""

    async def on_up() -> None:
        assert ups is not None
        ups.put(await link.call("W", {"method": "subscribe"}, Deadline(60)))

    link.add_listener(Listener("W", pushes.put, pushes.put, None if ups is None else on_up))


async def test_subscriptions_come_back() -> None:
    """After a loss listeners are reconnected and subscribe again."""

    def script(peer: Peer) -> None:
        if peer.number == 1:
            peer.reply(peer.receive(), result=1)
            peer.push("W", n=1)
            peer.push("another", n=0)
            peer.send({"requestId": "push-9", "target": "W", "data": {"n": 2}})
            peer.drop()
            return
        peer.reply(peer.receive(), result=peer.number)
        peer.push("W", n=3)
        peer.receive()

    with WsServer(script, refuse=lambda number: 503 if number == 2 else None) as server:
        async with client() as bay:
            link = await session(bay, server.url).ws.websocket()
            pushes: AsyncQueue[Any] = AsyncQueue()
            ups: AsyncQueue[Any] = AsyncQueue()
            await listening(link, pushes, ups)
            await link.call("W", {"method": "subscribe"}, Deadline(60))
            assert [await pushes.get(60), await pushes.get(60)] == [{"n": 1}, {"n": 2}]
            assert isinstance(await pushes.get(60), ConnectionLost)
            assert await ups.get(60) == {"result": 3}
            assert await pushes.get(60) == {"n": 3}


async def test_gives_up_when_the_session_is_gone() -> None:
    """Reconnecting ends when the session does not exist any more."""

    def script(peer: Peer) -> None:
        peer.reply(peer.receive(), result=1)
        peer.drop()

    with WsServer(script, refuse=lambda number: 404 if number > 1 else None) as server:
        async with client() as bay:
            link = await session(bay, server.url).ws.websocket()
            pushes: AsyncQueue[Any] = AsyncQueue()
            await listening(link, pushes, AsyncQueue())
            await link.call("W", ASK, Deadline(60))
            assert isinstance(await pushes.get(60), ConnectionLost)
            assert isinstance(await pushes.get(60), NotFoundError)
            await async_sleep(1.2)
    assert server.opened == 2


async def test_use_after_close() -> None:
    """Closing fails pending calls, and later use says so."""

    def script(peer: Peer) -> None:
        peer.receive()
        server.heard.put("asked")
        peer.receive()

    with WsServer(script) as server:
        bay = client()
        made = session(bay, server.url)
        outcome: AsyncQueue[AgentBayError] = AsyncQueue()
        begun = AsyncEvent()

        async def wait() -> None:
            begun.set()
            try:
                await made.ws.call("T", ASK)
            except AgentBayError as error:
                outcome.put(error)

        waiting = AsyncWorker(wait)
        assert await begun.wait(60)
        while server.heard.empty():
            await async_sleep(0.01)
        await bay.aclose()
        assert isinstance(await outcome.get(60), ClientClosedError)
        await waiting.stop()
        with pytest.raises(ClientClosedError):
            await made.ws.call("T", ASK)
        await bay.aclose()


async def test_nothing_secret_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Neither token nor URL appears in errors or logs."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "agentbay.websocket")
    errors: list[AgentBayError] = []
    with WsServer(lambda peer: peer.drop()) as server, WsServer(echo, refuse=lambda _: 401) as refusing:
        urls = [server.url, refusing.url, "ws://user:secret-path@127.0.0.1:9/secret-path", "ws://[/secret-path"]
        for url in [*urls, "http://127.0.0.1:9/secret-path"]:
            async with client() as bay:
                try:
                    await session(bay, url).ws.call("T", ASK)
                except AgentBayError as error:
                    errors.append(error)
    assert len(errors) == 5
    shown = "".join(str(error) + repr(error) + repr(error.__cause__) for error in errors)
    # the server of this test logs too, what it gets
    shown += "".join(record.getMessage() for record in caplog.records if record.name != "websockets.server")
    assert "secret-path" not in shown
    assert TOKEN not in shown
