"""Links to ports inside sessions: what is forwarded, and what is refused."""

from __future__ import annotations

import hashlib
import sys
import textwrap
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from agentbay import AsyncAgentBay, AsyncSession, CreateSessionParams, SessionError
from agentbay._concurrency import async_sleep
from agentbay._websocket import AsyncWebSocket, WebSocketEndpoint
from agentbay.errors import AgentBayError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the local runtime needs Linux")

SERVER = textwrap.dedent(
    """
    import base64, hashlib, http.server, json, socketserver, sys, threading

    heard = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def answer(self, body, status=200, **headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        def do_GET(self):
            if self.headers.get("Upgrade") == "websocket":
                return self.websocket()
            path = self.path.partition("?")[0]
            if path == "/events":
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                for number in range(3):
                    self.wfile.write(b"data: %d\\n\\n" % number)
                    heard.wait()
                    heard.clear()
                self.close_connection = True
            elif path == "/heard":
                heard.set()
                self.answer(b"")
            elif path == "/moved":
                self.answer(b"", 302, Location="/else/where?a=b")
            elif path == "/broken":
                self.send_response(200)
                self.send_header("Content-Length", "100")
                self.end_headers()
                self.wfile.write(b"half")
                self.close_connection = True
            elif path == "/large":
                self.answer(b"x" * (8 << 20))
            elif path == "/hop":
                self.answer(b"", X_Hop="secret", Connection="X-Hop", Keep_Alive="timeout=9", X_Plain="yes")
            else:
                self.answer(json.dumps([self.path, dict(self.headers)]).encode())
        do_HEAD = do_DELETE = do_GET
        def do_POST(self):
            digest = hashlib.sha256()
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                while size := int(self.rfile.readline(), 16):
                    digest.update(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
            else:
                digest.update(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(digest.hexdigest().encode())
        do_PUT = do_POST
        def websocket(self):
            key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
            self.end_headers()
            text = self.path.encode()
            self.wfile.write(b"\\x81" + bytes([len(text)]) + text)
            while True:
                head = self.rfile.read(2)
                if len(head) < 2:
                    break
                length, mask = head[1] & 127, self.rfile.read(4)
                data = bytes(byte ^ mask[index % 4] for index, byte in enumerate(self.rfile.read(length)))
                if head[0] & 15 == 8 or data == b"bye":
                    self.wfile.write(b"\\x88\\x05\\x0f\\xa1end")
                    break
                self.wfile.write(head[:1] + bytes([length]) + data)
            self.close_connection = True
        def log_message(self, *_):
            pass

    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
        daemon_threads = True

    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
    """
)


@pytest.fixture(scope="module")
async def bay() -> AsyncIterator[AsyncAgentBay]:
    async with AsyncAgentBay.local(strict=True) as made:
        yield made


@pytest.fixture(scope="module")
async def session(bay: AsyncAgentBay) -> AsyncIterator[AsyncSession]:
    """A session with a server on port 30100."""
    async with bay.session() as made:
        await made.file_system.write_file("server.py", SERVER)
        await made.command.run("python3 server.py 30100 > log 2>&1 &")
        ready = "import socket, sys; socket.create_connection(('127.0.0.1', 30100))"
        for _ in range(200):
            if (await made.command.run(f'python3 -c "{ready}"')).success:
                break
            await async_sleep(0.05)
        yield made


@pytest.fixture(scope="module")
async def web() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=60, trust_env=False) as made:
        yield made


async def link(session: AsyncSession, port: int = 30100, protocol: str = "https") -> str:
    """Make a link to a port."""
    url: str = (await session.get_link(protocol, port)).data
    return url


async def test_request(session: AsyncSession, web: httpx.AsyncClient) -> None:
    """Path, query and headers arrive unchanged, except hop-by-hop headers."""
    url = await link(session)
    assert url.endswith("/path/")
    answer = await web.get(
        f"{url}a%2Fb/c%20d?x=%C3%A4&x=2", headers={"X-Mine": "1", "Connection": "keep-alive, X-Hop", "X-Hop": "9"}
    )
    path, headers = answer.json()
    assert path == "/a%2Fb/c%20d?x=%C3%A4&x=2"
    assert headers["X-Mine" if "X-Mine" in headers else "x-mine"] == "1"
    headers = {name.lower(): value for name, value in headers.items()}
    assert headers["host"] == "127.0.0.1:30100"
    assert "x-hop" not in headers
    assert "x-forwarded-prefix" not in headers  # it would tell the program the token of its link
    assert (await web.get(url.rstrip("/"))).json()[0] == "/"
    assert (await web.head(url)).content == b""
    assert (await web.delete(url + "thing")).json()[0] == "/thing"


async def test_bodies(session: AsyncSession, web: httpx.AsyncClient) -> None:
    """Bodies of any size pass both ways, also of unknown size."""
    url, body = await link(session), bytes(range(256)) * 40_000
    digest = hashlib.sha256(body).hexdigest()
    assert (await web.post(url, content=body)).text == digest

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    assert (await web.put(url, content=pieces())).text == digest
    assert (await web.post(url, content=b"")).text == hashlib.sha256(b"").hexdigest()
    assert (await web.get(url + "large")).content == b"x" * (8 << 20)


async def test_a_body_that_nobody_reads(session: AsyncSession, web: httpx.AsyncClient) -> None:
    """A program that does not read what is sent to it is given up."""
    idle = "import socket, time\ns = socket.create_server(('127.0.0.1', 30102))\nopen('idle', 'w')\ntime.sleep(600)"
    await session.file_system.write_file("idle.py", idle)
    await session.command.run("python3 idle.py > /dev/null 2>&1 &")
    while not (await session.command.run("test -e idle")).success:
        await async_sleep(0.05)
    answer = await web.post(await link(session, 30102), content=bytes(32 << 20))
    assert answer.status_code == 502
    assert "it read nothing of the request for 10 s" in answer.text


async def test_answers(session: AsyncSession, web: httpx.AsyncClient) -> None:
    """Redirects stay within the link, and a broken answer is seen as one."""
    url = await link(session)
    moved = await web.get(url + "moved")
    assert moved.headers["location"] == httpx.URL(url + "else/where?a=b").raw_path.decode()
    hop = await web.get(url + "hop")
    assert hop.headers["x-plain"] == "yes"
    assert not {"x-hop", "keep-alive"} & set(hop.headers)
    with pytest.raises(httpx.RemoteProtocolError):
        await web.get(url + "broken")


async def test_events_come_as_they_happen(session: AsyncSession, web: httpx.AsyncClient) -> None:
    """A streamed answer is not held back."""
    url, seen = await link(session), []
    async with web.stream("GET", url + "events") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        async for line in answer.aiter_lines():
            if line:
                seen.append(line)
                await web.get(url + "heard")  # and not before is there another one
    assert seen == ["data: 0", "data: 1", "data: 2"]


async def test_any_port(session: AsyncSession, web: httpx.AsyncClient) -> None:
    """A link leads to a server on any port, by path and by the host name that browsers get."""
    await session.command.run("python3 server.py 8000 > log2 2>&1 &")
    await session.command.run("until grep -q :1F40 /proc/net/tcp; do sleep 0.05; done")
    url = await link(session, 8000)
    assert (await web.get(url)).status_code == 200
    browser = {"User-Agent": "Mozilla/5.0 (X11) Gecko/20100101 Firefox/130.0", "Sec-Fetch-Mode": "navigate"}
    sent_on = await web.get(url, headers={**browser, "Sec-Fetch-Dest": "document"})
    assert sent_on.status_code in (302, 303, 307, 308)
    assert "-8000-" in sent_on.headers["Location"]


async def test_ports_of_the_machine_stay_closed(bay: AsyncAgentBay) -> None:
    """In the machine's own network, links keep to the ports of the cloud."""
    async with bay.session(CreateSessionParams(policy_id="host")) as session:
        with pytest.raises(SessionError, match=r"\[30100, 30199\]"):
            await session.get_link("https", 22)
        assert (await session.get_link("https", 30100)).success


async def test_nothing_else_is_reachable(bay: AsyncAgentBay, session: AsyncSession, web: httpx.AsyncClient) -> None:
    """A token opens one port of one session, and cannot be guessed."""
    url = await link(session)
    for port in (0, -1, 65536, 3128):
        with pytest.raises(SessionError, match="Invalid port"):
            await link(session, port)
    with pytest.raises(SessionError, match="not supported"):
        await link(session, 30100, "http")
    assert (await web.get(await link(session, 30111))).status_code == 502
    for forged in (
        url.replace(".30100.", ".30101."),
        url.replace(".30100.", ".22."),
        url.replace("/path/", "x/path/"),
        url.replace("/request_ai/", "/request_ai/a"),
    ):
        assert (await web.get(forged)).status_code in (400, 404)
    assert (await web.get(url, headers={"Host": "evil.example"})).status_code == 403
    assert (await web.get(url, headers={"Origin": "http://evil.example"})).status_code == 403
    other = (await bay.create()).session
    assert other is not None
    theirs = await link(other)
    assert (await web.get(theirs)).status_code == 502
    await other.pause()
    assert (await web.get(theirs)).status_code in (400, 409)
    await other.resume()
    await other.delete()
    assert (await web.get(theirs)).status_code in (400, 404)


async def peer(url: str, *said: str) -> list[Any]:
    """Send a text over a WebSocket, and return what came and how it ended."""
    socket = await AsyncWebSocket.open(WebSocketEndpoint(url, "", None, None), 60)
    heard: list[Any] = []
    try:
        heard.append(await socket.receive())
        for text in said:
            await socket.send(text, 60)
            heard.append(await socket.receive())
    except AgentBayError as error:
        heard.append(error)
    finally:
        await socket.aclose()
    return heard


async def test_websocket(session: AsyncSession, web: httpx.AsyncClient) -> None:
    """A WebSocket link forwards frames, path, query and close codes."""
    url = await link(session, protocol="wss")
    assert await peer(url, "hällo", "again") == ["/", "hällo", "again"]
    assert await peer(f"{url}/sub/path?q=1", "x") == ["/sub/path?q=1", "x"]
    plain = (await link(session)).replace("http://", "ws://")
    assert await peer(plain + "dev") == ["/dev"]
    ended = (await peer(url, "bye"))[-1]
    assert isinstance(ended.__cause__, ConnectionClosed)
    assert ended.__cause__.rcvd is not None
    assert (ended.__cause__.rcvd.code, ended.__cause__.rcvd.reason) == (4001, "end")
    for wrong in (await link(session, 30111, "wss"), url + "x"):
        with pytest.raises(AgentBayError) as caught:
            await peer(wrong)
        assert caught.value.status_code in (400, 404, 502)
