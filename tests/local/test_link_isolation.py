"""What a program behind a link may learn, and what its answers may do to a browser."""

from __future__ import annotations

import json
import re
import socket
import textwrap
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from tests.local.raw import KEY, Wire, embedded
from tests.local.traces import PATIENCE, eventually, resident_bytes

NAVIGATION = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "user-agent": "Mozilla/5.0 Chrome/150"}
SERVER = textwrap.dedent(
    """
    import base64, hashlib, http.server, json, socketserver, sys

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def do_GET(self):
            if self.headers.get("Upgrade") == "websocket":
                return self.flood()
            body = json.dumps([self.path, self.headers.items()]).encode()
            self.send_response(204 if self.path == "/empty" else 302 if self.path == "/moved" else 200)
            if self.path == "/hostile":
                for name in HOSTILE:
                    self.send_header(name, HOSTILE[name])
            if self.path == "/login":
                self.send_header("Set-Cookie", "mine=1; Path=/view; Domain=127.0.0.1; HttpOnly")
            if self.path == "/moved":
                self.send_header("Location", "/login")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.path != "/empty":
                self.wfile.write(body)
        def flood(self):
            key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
            self.send_response(101)
            for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)):
                self.send_header(name, value)
            self.end_headers()
            while True:
                self.wfile.write(b"\\x82\\x7f" + (60 << 20).to_bytes(8, "big"))
                for _ in range(60):
                    self.wfile.write(bytes(1 << 20))
        def log_message(self, *_):
            pass

    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
        daemon_threads = True

    HOSTILE = json.loads(sys.argv[2])
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
    """
)
DROPPED_EVERYWHERE = {
    "Alt-Svc": 'h2=":1"',
    "Clear-Site-Data": '"*"',
    "NEL": '{"report_to":"x","max_age":1}',
    "Report-To": '{"group":"x","max_age":1,"endpoints":[{"url":"https://evil.example/"}]}',
    "Service-Worker-Allowed": "/",
    "Strict-Transport-Security": "max-age=1000",
}
DROPPED_FROM_PATH = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Refresh": "0;url=/view",
    "Access-Control-Allow-Origin": "*",
}


@pytest.fixture(scope="module")
def served(wire: Wire) -> Iterator[tuple[str, str]]:
    """A session with a server, and the link to it."""
    with wire.session() as session:
        wire.text(session, "write_file", path="server.py", content=SERVER)
        hostile = json.dumps(DROPPED_EVERYWHERE | DROPPED_FROM_PATH)
        wire.sh(session, f"python3 server.py 30100 '{hostile}' > log 2>&1 &")
        url = wire.data("GetLink", SessionId=session, ProtocolType="https", Port=30100)["Url"]
        assert eventually(lambda: wire.http.get(url).status_code == 200)
        yield session, url


def own_origin(wire: Wire, url: str) -> str:
    """Follow the redirect of a browser, and return the origin of the link."""
    answer = wire.http.get(url, headers=NAVIGATION)
    assert answer.status_code == 307
    return answer.headers["location"].rstrip("/")


def get(base: str, path: str, **headers: str) -> httpx.Response:
    """Ask as a browser does, for which any name below "localhost" is the loopback."""
    host = urlsplit(base).netloc
    with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
        return client.get(f"http://127.0.0.1:{urlsplit(base).port}{path}", headers={"host": host, **headers})


def test_headers_that_act_beyond_a_document(wire: Wire, served: tuple[str, str]):
    """Headers for the whole origin do not pass, and a document at the path is sandboxed."""
    _, url = served
    by_path, by_host = wire.http.get(url + "hostile"), get(own_origin(wire, url), "/hostile")
    assert not {name.lower() for name in DROPPED_EVERYWHERE} & (set(by_path.headers) | set(by_host.headers))
    assert not {name.lower() for name in DROPPED_FROM_PATH} & set(by_path.headers)
    policy = by_path.headers["content-security-policy"].split()
    assert policy[0] == "sandbox"
    assert "allow-scripts" in policy
    assert not {"allow-same-origin", "allow-popups-to-escape-sandbox", "allow-top-navigation"} & set(policy)
    assert "content-security-policy" not in by_host.headers
    assert "content-length" not in wire.http.get(url + "empty").headers


def test_credentials_do_not_pass(wire: Wire, served: tuple[str, str]):
    """A program sees neither cookies of other services, nor keys, nor the token of its link."""
    _, url = served
    secrets = {"authorization": f"Bearer {KEY}", "x-access-token": "session-token", "x-forwarded-prefix": url}
    origin = own_origin(wire, url)
    token, label = urlsplit(url).path.split("/")[2], origin.partition("://")[2].partition(".")[0]
    by_path = wire.http.get(url, headers={**secrets, "cookie": "theirs=1", "referer": url + "page"})
    by_host = get(origin, "/", **secrets, cookie="mine=1", referer=origin + "/page")
    for answer in (by_path, by_host):
        headers = {name.lower(): value for name, value in answer.json()[1]}
        assert not {"authorization", "x-access-token", "x-forwarded-prefix"} & set(headers)
        assert token not in answer.text
        assert label not in answer.text
        assert headers["referer"] == "http://127.0.0.1:30100/page"
        assert headers.get("cookie") == (None if answer is by_path else "mine=1")
    encoded = wire.http.get(url.replace("/request_ai/", "/request%5Fai/"))
    assert (encoded.status_code, encoded.json()["Code"]) == (404, "InvalidLink.NotFound")
    assert wire.http.get(url + "a%0Ab").json()[0] == "/a%0Ab"
    elsewhere = wire.http.get(url, headers={"referer": f"{wire.url}/view?authcode=secret"})
    assert "secret" not in elsewhere.text
    own_key = wire.http.get(url, headers={"authorization": "Bearer of-the-program"}).json()[1]
    assert ["authorization", "Bearer of-the-program"] in [[name.lower(), value] for name, value in own_key]


def test_cookies_of_a_path(wire: Wire, served: tuple[str, str]):
    """A cookie that a program sets comes back to its link only, and nowhere else."""
    _, url = served
    with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
        (cookie,) = client.get(url + "login").headers.get_list("set-cookie")
        assert f"Path={urlsplit(url).path.rstrip('/')}" in cookie
        assert "Domain" not in cookie
        assert "/view" not in cookie
        assert ["cookie", "mine=1"] in [[name.lower(), value] for name, value in client.get(url).json()[1]]
        assert client.get(f"{wire.url}/healthz").request.headers.get("cookie") is None
    moved = wire.http.get(url + "moved")
    assert moved.headers["location"] == urlsplit(url).path + "login"


def test_own_origin(wire: Wire, served: tuple[str, str]):
    """A browser is led to an origin per link, which serves nothing but the link."""
    session, url = served
    other = wire.data("GetLink", SessionId=session, ProtocolType="https", Port=30101)["Url"]
    origin = own_origin(wire, url)
    assert re.fullmatch(rf"http://[a-z0-9-]{{1,63}}\.localhost:{urlsplit(wire.url).port}", origin)
    assert own_origin(wire, other) != origin
    assert get(origin, "/view").json()[0] == "/view"
    assert get(origin, "/moved").headers["location"] == "/login"
    label = origin.partition("://")[2].partition(".")[0]
    wrong_end = "b" if label.endswith("a") else "a"
    for forged in (label[:-1] + wrong_end, label.replace("-30100-", "-30101-")):
        assert get(origin.replace(label, forged), "/").status_code == 404
    assert get(origin, "/", origin="https://evil.example").status_code == 403
    assert get(origin.replace(label, "evil"), "/").status_code == 403
    assert get(origin, "/", origin=origin).status_code == 200
    for headers in ({}, {**NAVIGATION, "user-agent": "Safari"}, {**NAVIGATION, "sec-fetch-mode": "cors"}):
        assert wire.http.get(url, headers=headers).status_code == 200


def test_scripts_of_sandboxed_documents(wire: Wire, served: tuple[str, str]):
    """A sandboxed document and the session's other links may read a link; the dashboard must not."""
    _, url = served
    for origin in ("null", own_origin(wire, url)):
        assert wire.http.get(url, headers={"origin": origin}).headers["access-control-allow-origin"] == origin
        asked = {"origin": origin, "access-control-request-method": "PUT", "access-control-request-headers": "x-mine"}
        preflight = wire.http.options(url, headers=asked)
        assert preflight.headers["access-control-allow-origin"] == origin
        assert preflight.headers["access-control-allow-methods"] == "PUT"
    assert wire.http.get(url, headers={"origin": "https://evil.example"}).status_code == 403
    part = {"sec-fetch-site": "same-origin", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}
    assert wire.http.get(url, headers=part).status_code == 403


def test_the_other_loopback_address(wire: Wire):
    """No other program can listen where a browser looks for a name below `localhost`."""
    with socket.socket(socket.AF_INET6) as probe, pytest.raises(OSError):  # noqa: PT011
        probe.bind(("::1", urlsplit(wire.url).port or 0))


def test_websockets_take_no_memory():
    """A program that sends huge messages to clients that read nothing is stopped by back pressure."""
    with embedded() as (child, wire), wire.session() as session:
        wire.text(session, "write_file", path="server.py", content=SERVER)
        wire.sh(session, "python3 server.py 30100 '{}' > log 2>&1 &")
        url = wire.data("GetLink", SessionId=session, Port=30100)["Url"]
        plain = wire.data("GetLink", SessionId=session, ProtocolType="https", Port=30100)["Url"]
        assert eventually(lambda: wire.http.get(plain).status_code == 200)
        before = resident_bytes(child.process.pid)
        parts = urlsplit(url)
        head = (
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        clients = [socket.create_connection(("127.0.0.1", parts.port or 0), PATIENCE) for _ in range(4)]
        try:
            for client in clients:
                client.sendall(head.encode())
                assert client.recv(12) == b"HTTP/1.1 101"
            for _ in range(20):  # time for what would be read ahead
                wire.sh(session, "sleep 0.1")
            assert resident_bytes(child.process.pid) - before < 64 << 20
        finally:
            for client in clients:
                client.close()
        assert wire.stdout(session, "echo still here") == "still here\n"
