"""The dashboard by HTTP: logins, and the data behind them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentbay import AgentBay, Config, PathNotFoundError
from agentbay._wire.tools import mark_internal
from agentbay.local.dashboard import login as dashboard_login
from agentbay.local.dashboard.login import LoginTickets
from agentbay.local.sessions.history import CommandHistory
from tests.local.raw import KEY, Wire, embedded
from tests.local.traces import PATIENCE, eventually

HOME = "/home/wuying"


class Visitor:
    """A browser without a window: keeps cookies, follows nothing."""

    def __init__(self, wire: Wire) -> None:
        self.http = httpx.Client(base_url=wire.url, timeout=30, trust_env=False)
        self.csrf_token = "none"

    def log_in(self, key: str = KEY) -> httpx.Response:
        return self.http.post("/view", data={"key": key})

    def open(self, path: str = "/view", **headers: str) -> httpx.Response:
        answer = self.http.get(path, headers={"sec-fetch-dest": "document", **headers})
        if found := re.search(r'name="agentbay-csrf-token" content="([^"]+)"', answer.text):
            self.csrf_token = found[1]
        return answer

    def ask(self, where: str = "", /, csrf_token: str | None = None, **body: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.csrf_token if csrf_token is None else csrf_token}"}
        return self.http.post(f"/view/data{where}", headers=headers, content=json.dumps(body))

    def follow(self, path: str = "") -> Iterator[dict[str, Any]]:
        """Yield events of the dashboard, and fail if none comes in time."""
        deadline = time.monotonic() + PATIENCE
        headers = {"authorization": f"Bearer {self.csrf_token}"}
        with self.http.stream("POST", f"/view/data{path}", headers=headers) as answer:
            assert answer.status_code == 200
            for line in answer.iter_lines():
                assert time.monotonic() < deadline, "it did not come"
                yield json.loads(line)

    def entries(self, session: str) -> Iterator[dict[str, Any]]:
        """What is told of the log, as it comes."""
        for line in self.follow(f"/{session}"):
            yield from line.get("log", [])

    def log(self, session: str) -> list[dict[str, Any]]:
        """Whatever was run, the oldest first."""
        lines = self.follow(f"/{session}")
        entries: list[dict[str, Any]] = next(lines).get("log", [])
        lines.close()  # type: ignore[attr-defined]
        return entries


@pytest.fixture
def visitor(wire: Wire) -> Iterator[Visitor]:
    made = Visitor(wire)
    with made.http:
        yield made


@pytest.fixture
def logged_in(visitor: Visitor) -> Visitor:
    """A visitor who has logged in with the key."""
    assert visitor.log_in().status_code == 303
    assert visitor.open().status_code == 200
    return visitor


def resource_url(wire: Wire, session: str) -> str:
    return str(wire.data("GetSession", SessionId=session)["ResourceUrl"])


def test_without_a_login(visitor: Visitor, session: str):
    """Without a login there is a form, static files and nothing else."""
    assert visitor.open("/").headers["location"] == "/view"
    for path in ("/view", f"/view/sessions/{session}", "/view/sessions/none"):
        answer = visitor.open(path)
        assert (answer.status_code, visitor.csrf_token) == (401, "none")
        assert session not in answer.text
    for path in ("", f"/{session}", f"/{session}/list", f"/{session}/delete"):
        assert visitor.ask(path).status_code == 401
        assert visitor.ask(path, csrf_token=KEY).status_code == 401
    for name in ("page.css", "page.js", "icon.svg"):
        assert visitor.open(f"/view/{name}").status_code == 200
    for path in ("/view/none.js", "/view/page.html", "/view/%2e%2e/app.py", "/view/x/y", "/view/data"):
        assert visitor.open(path).status_code == 404


def test_headers(logged_in: Visitor):
    """Every answer, refusals too, has the security headers and cannot be cached."""
    for answer in (
        logged_in.open(),
        logged_in.open("/view/page.js"),
        logged_in.log_in("wrong"),
        logged_in.ask("", csrf_token="x"),
    ):
        if answer.status_code == 401:  # answered by the boundary of all requests
            continue
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    for document in (logged_in.open().text, logged_in.log_in("wrong").text):
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|https?:", document)


def test_log_in(wire: Wire, visitor: Visitor):
    """The key is exchanged for an HttpOnly cookie, which alone gets no data."""
    for key in ("", "wrong", KEY + "x", f"Bearer {KEY}"):
        refused = visitor.log_in(key)
        assert (refused.status_code, "not the key" in refused.text) == (403, True)
        assert "set-cookie" not in refused.headers
    entered = visitor.log_in()
    cookie = entered.headers["set-cookie"]
    assert (entered.status_code, entered.headers["location"]) == (303, "/view")
    assert KEY not in cookie
    port = wire.url.rpartition(":")[2]
    assert re.fullmatch(rf"agentbay-{port}=[\w-]{{43}}; Path=/view; HttpOnly; SameSite=Strict", cookie)
    document = visitor.open()
    assert (document.status_code, KEY in document.text) == (200, False)
    assert visitor.csrf_token not in cookie
    assert visitor.ask("", csrf_token="x").status_code == 401
    assert visitor.ask("", csrf_token=visitor.http.cookies[f"agentbay-{port}"]).status_code == 401
    assert "sessions" in next(visitor.follow())
    assert visitor.http.post("/view/logout").status_code == 303
    assert visitor.open().status_code == 401
    assert visitor.ask().status_code == 401


def test_cross_site_requests(logged_in: Visitor):
    """Cross-site requests, scripts and frames get no document."""
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {"host": "evil.example"}):
        assert logged_in.open(**headers).status_code == 403
        assert logged_in.http.post("/view", data={"key": KEY}, headers=headers).status_code == 403
    for destination in ("", "empty", "iframe", "script", "object"):
        answer = logged_in.open(**{"sec-fetch-dest": destination})
        assert (answer.status_code, "agentbay-csrf-token" in answer.text) == (403, False)
    assert logged_in.open(**{"sec-fetch-dest": "document"}).status_code == 200


def test_resource_url(wire: Wire, visitor: Visitor, session: str):
    """A session's URL is exchanged for a cookie to that session."""
    url = resource_url(wire, session)
    assert KEY not in url
    clean = f"/view/sessions/{session}"
    entered = visitor.open(url)
    assert f'content="0;url={clean}"' in entered.text
    assert f"Path={clean}; HttpOnly; SameSite=Strict" in entered.headers["set-cookie"]
    assert visitor.open(clean).status_code == 200
    assert next(visitor.follow(f"/{session}"))["session"]["id"] == session
    with wire.session() as other:
        assert visitor.open("/view").status_code == 401
        assert visitor.open(f"/view/sessions/{other}").status_code == 401
        for path in ("", f"/{other}", f"/{other}/list", f"/{other}/delete"):
            assert visitor.ask(path, path=HOME).status_code == 403
        for change in ("pause", "resume", "delete"):
            assert visitor.ask(f"/{session}/{change}").status_code == 403
        assert wire.status(session) == "RUNNING"
        code, strange = (found.partition("authcode=")[2] for found in (url, resource_url(wire, other)))
        expires, _, seal = code.partition("-")
        for wrong in (
            "",
            "x",
            strange,
            seal,
            f"1-{seal}",
            f"{int(expires) + 1}-{seal}",
            f"{expires}-{'0' * 32}",
            "9" * 30,
        ):
            assert visitor.open(url.replace(code, wrong)).status_code == 403
    wire.data("DeleteSessionAsync", SessionId=session)
    assert visitor.open(url).status_code == 404
    assert visitor.ask(f"/{session}").json()["Code"] == "InvalidMcpSession.NotFound"


def test_files(wire: Wire, logged_in: Visitor, session: str):
    """Directories, previews and downloads work within the visible roots."""
    wire.stdout(session, "mkdir sub; printf '\\303\\244b' > sub/a; head -c 700000 /dev/zero | tr '\\0' x > long")
    wire.stdout(session, "head -c 9000000 /dev/urandom > blob; ln -s / root; touch \"$(printf 'bad\\377name')\"")
    listed = logged_in.ask(f"/{session}/list", path=HOME).json()
    names = [(entry["name"], entry["is_directory"]) for entry in listed["entries"]]
    assert names == [("root", True), ("sub", True), ("bad\udcffname", False), ("blob", False), ("long", False)]
    assert logged_in.ask(f"/{session}/text", path=f"{HOME}/sub/../sub/a").json() == {"size": 3, "text": "äb", "more": 0}
    assert logged_in.ask(f"/{session}/text", path=f"{HOME}/bad\udcffname").json()["text"] == ""
    long = logged_in.ask(f"/{session}/text", path=f"{HOME}/long").json()
    assert (len(long["text"]), long["more"]) == (256 << 10, 700_000 - (256 << 10))
    assert logged_in.ask(f"/{session}/text", path=f"{HOME}/blob").json()["text"] is None
    given = logged_in.ask(f"/{session}/file", path=f"{HOME}/blob")
    assert given.headers["content-disposition"] == "attachment"
    assert len(given.content) == 9_000_000
    wire.data("PauseSessionAsync", SessionId=session)
    assert "PAUSED" in logged_in.ask(f"/{session}/list", path=HOME).json()["Message"]
    wire.data("ResumeSessionAsync", SessionId=session)
    for path in ("", "/", "/etc", f"{HOME}/../..", f"{HOME}x", "tmp", f"{HOME}/\0", f"{HOME}/none", f"{HOME}/sub"):
        refused = logged_in.ask(f"/{session}/text", path=path)
        assert (refused.status_code, refused.json()["Code"][:7]) in ((400, "Invalid"), (400, "FileNot"))
    for body in (b"[", b"[]", b'{"path": 1}', b"\xff", b"[" * 60_000):
        headers = {"authorization": f"Bearer {logged_in.csrf_token}"}
        assert logged_in.http.post(f"/view/data/{session}/list", content=body, headers=headers).status_code == 400
    assert logged_in.ask(f"/{session}/nothing").status_code == 404


def test_history(wire: Wire, logged_in: Visitor, session: str):
    """The history has commands and code, but no environments, file contents or passwords."""
    wire.sh(session, "echo out; echo err >&2; exit 3", envs={"TOKEN": "hidden-1"})
    wire.tool(session, "write_file", path="secret", content="hidden-2")
    wire.tool(session, "set_env", envs=[{"key": "OTHER", "value": "hidden-3"}])
    wire.tool(session, "get_env")
    wire.sh(session, "echo https://me:hidden-4@example.invalid/x # https://hidden-5@host/")
    wire.sh(session, mark_internal("cat secret"))
    wire.sh(session, mark_internal("sleep 300 >/dev/null 2>&1 &", starts="sleep 300"))
    wire.sh(session, "sleep 30", timeout_ms=100)
    wire.tool(session, "run_code", code="print('a'); 6 * 7", language="python", timeout_s=60)
    wire.tool(session, "run_code", code="1/0", language="python", timeout_s=60)
    wire.sh(session, "printf 'x%.0s' $(seq 5000); printf tail")
    entries = logged_in.log(session)
    assert "hidden" not in json.dumps(entries)
    kinds = ["shell", "shell", "background", "shell", "python", "python", "shell"]
    assert [entry["kind"] for entry in entries] == kinds
    first, _, background, late, code, failing, long = entries
    assert [first[name] for name in ("exit_code", "failed", "stdout", "stderr")] == [3, True, "out\n", "err\n"]
    assert background["text"] == "sleep 300"
    assert "timed out" in late["note"]
    assert (code["stdout"], code["failed"]) == ("a\n42", False)
    assert (failing["failed"], failing["note"]) == (True, "ZeroDivisionError: division by zero")
    assert (len(long["stdout"]), long["stdout"][0], long["stdout"][-4:]) == (4000, "…", "tail")
    assert all(entry["seconds"] is not None for entry in entries)


def test_internal_commands_are_hidden(wire: Wire, logged_in: Visitor, tmp_path: Path):
    """The history has the user's commands, not those that the client makes for itself."""
    (tmp_path / "file").write_bytes(b"\xff")
    with AgentBay(KEY, cfg=Config(endpoint=wire.url)) as bay, bay.session() as session:
        process = session.command.start("read line; echo got $line")
        process.send_stdin("hidden\n")
        assert process.wait() == 0
        assert process.stdout.read() == "got hidden\n"
        assert session.command.attach(process.id).pid == process.pid
        session.file_system.write_file("raw", b"\xff\xfe")
        session.file_system.push(tmp_path, "tree")
        session.command.run("echo last")
        told = [(entry["kind"], entry["text"]) for entry in logged_in.log(session.session_id)]
    assert told == [("background", "read line; echo got $line"), ("shell", "echo last")]


def test_history_is_bounded():
    """The history is bounded in entries and characters, and keeps running commands longest."""
    history = CommandHistory()
    with history.record_shell("runs") as running:
        for number in range(105):
            with history.record_shell(f"{number} {'x' * 5000}") as entry:
                entry.set_output_source(lambda _: ("é".encode() * 5000, f"https://user:password@host/{'y' * 3985}"))
        entries = history.changed_since(0)
    assert [entry.number for entry in entries] == [running.number, *range(8, 107)]
    assert {len(entry.text) for entry in entries[1:]} == {4000}
    assert {entry.stdout for entry in entries[1:]} == {"…" + "é" * 3999}
    assert {entry.stderr for entry in entries[1:]} == {f"https://…@host/{'y' * 3985}"}


WAITS = "echo begins; echo wrong >&2; until [ -e go ]; do sleep 0.05; done; echo ends; exit 3"
CODE = "import os, time\nprint('begins', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.05)\nprint('ends')"


@pytest.mark.parametrize("kind", ["shell", "background", "terminal", "python"])
def test_live_output(wire: Wire, logged_in: Visitor, kind: str):
    """Output is shown while something still runs, and afterwards how it ended."""
    with AgentBay(KEY, cfg=Config(endpoint=wire.url)) as bay, bay.session() as session, ThreadPoolExecutor() as pool:
        if kind == "background":
            session.command.start(WAITS)
        elif kind == "terminal":
            session.pty.create(shell=f"sh -c '{WAITS}'")
        elif kind == "shell":
            pool.submit(session.command.run, WAITS, timeout_ms=int(PATIENCE * 1000))
        else:
            pool.submit(session.code.run, CODE, "python", timeout_s=int(PATIENCE))
        try:
            lines = logged_in.entries(session.session_id)
            running = next(entry for entry in lines if "begins" in entry["stdout"])
            assert (running["kind"], running["seconds"], running["exit_code"]) == (kind, None, None)
            assert "ends" not in running["stdout"]
        finally:
            session.file_system.write_file("go", "")
        ended = next(entry for entry in lines if entry["seconds"] is not None)
        assert ended["stdout"].split() == (["begins", "wrong", "ends"] if kind == "terminal" else ["begins", "ends"])
        assert ended["stderr"] == ("wrong\n" if kind in ("shell", "background") else "")
        assert (ended["exit_code"], ended["failed"]) == ((None, False) if kind == "python" else (3, True))


def test_background_commands_of_scripts_end(wire: Wire, logged_in: Visitor):
    """Background commands that scripts keep are shown as ended, however their files were spoilt."""
    with AgentBay(KEY, cfg=Config(endpoint=wire.url)) as bay, bay.session() as session:
        session.mcpTools = []
        killed = session.command.start("sleep 1000")
        session.command.run(f"read child keeper < .agentbay/processes/{killed.id}/pid; kill -9 $keeper $child").check()
        odd = session.command.start("sleep 1000")
        session.command.run(f"echo nonsense > .agentbay/processes/{odd.id}/exit").check()
        removed = session.command.start("true")
        assert removed.wait(PATIENCE) == 0
        removed.remove()
        with pytest.raises(PathNotFoundError):
            session.command.start("true", cwd="none")
        ends: dict[str, tuple[Any, ...]] = {}
        for entry in logged_in.entries(session.session_id):
            if entry["kind"] == "background" and entry["seconds"] is not None:
                ends[entry["number"]] = (entry["exit_code"], entry["note"] or entry["stderr"].rpartition(": ")[2])
            if len(ends) == 4:
                break
        assert list(dict(sorted(ends.items())).values()) == [
            (None, "it was killed from outside, and left no exit code"),
            (None, "it left no exit code"),
            (None, "its output was removed"),
            (126, "No such file or directory\n"),
        ]


def test_ticket(wire: Wire, visitor: Visitor, monkeypatch: pytest.MonkeyPatch):
    """A ticket, given for the key, logs in once and within its lifetime."""
    for key in ("", "Bearer wrong", KEY):
        assert visitor.http.post("/view/tickets", headers={"authorization": key}).status_code == 401
    given = visitor.http.post("/view/tickets", headers={"authorization": f"Bearer {KEY}"}).json()
    ticket = given["ticket"]
    assert (given, KEY in ticket) == ({"ticket": ticket, "seconds": 300}, False)
    for wrong in ("", "x", ticket[:-1], ticket + "x", "é", "\0"):
        refused = visitor.http.post("/view/login", data={"ticket": wrong})
        assert (refused.status_code, "no longer good" in refused.text) == (403, True)
        assert "set-cookie" not in refused.headers
    assert visitor.http.post("/view/login", data={"ticket": ticket}, headers={"origin": "null"}).status_code == 403
    entered = visitor.http.post("/view/login", data={"ticket": ticket})
    assert (entered.status_code, entered.headers["location"]) == (303, "/view")
    assert ticket not in entered.headers["set-cookie"]
    assert "; HttpOnly; SameSite=Strict" in entered.headers["set-cookie"]
    assert visitor.open().status_code == 200
    assert visitor.http.post("/view/login", data={"ticket": ticket}).status_code == 403
    tickets = LoginTickets()
    oldest, *_ = [tickets.make() for _ in range(17)]
    assert [tickets.redeem(oldest), tickets.redeem(tickets.make())] == [False, True]
    monkeypatch.setattr(dashboard_login, "TICKET_LIFETIME_SECONDS", 0)
    assert not tickets.redeem(tickets.make())


def test_login_url_at_the_start():
    """`agentbay local` says how to log in to whoever starts it at a terminal."""
    screen, theirs = os.openpty()
    with subprocess.Popen(
        [Path(sys.executable).with_name("agentbay"), "local"],
        stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "AGENTBAY_API_KEY": KEY},
    ) as child:  # fmt: skip
        os.close(theirs)
        assert child.stdout is not None
        url = child.stdout.readline().decode().split()[-1]
        said = b""
        while b"agentbay local login" not in said:
            said += os.read(screen, 4096)
        ticket = said.decode().partition(f"{url}/view/login#")[2].split()[0]
        assert httpx.post(f"{url}/view/login", data={"ticket": ticket}, trust_env=False).status_code == 303
        child.terminate()
        assert child.wait(PATIENCE) == 0
    os.close(screen)


def test_processes(wire: Wire, logged_in: Visitor, session: str):
    """A session's processes are shown as they come and go."""
    lines = logged_in.follow(f"/{session}")
    assert next(lines)["processes"] == []
    wire.sh(session, "sleep 1234 >/dev/null 2>&1 &")
    running = next(line["processes"] for line in lines if line.get("processes"))
    assert [process["command"] for process in running] == ["sleep 1234"]
    assert 0 <= running[0]["seconds"] < 60
    assert logged_in.ask(f"/{session}/pause").status_code == 200
    assert next(line["session"]["state"] for line in lines if "session" in line) == "PAUSED"
    assert logged_in.ask(f"/{session}/pause").json()["Code"] == "IncorrectStatus.Session"
    assert logged_in.ask(f"/{session}/resume").status_code == 200
    assert logged_in.ask(f"/{session}/delete").status_code == 200
    assert list(lines)[-1] == {"ended": True}


def test_event_streams(wire: Wire, logged_in: Visitor, session: str):
    """Each event stream begins with all sessions and goes on with the changes."""
    lines = [logged_in.follow()]
    assert session in next(lines[0])["sessions"]
    lines.append(logged_in.follow())
    assert session in next(lines[1])["sessions"]
    wire.sh(session, "sleep 1000 >/dev/null 2>&1 &")
    for told in lines:
        changes = (line.get("sessions", {}).get(session) for line in told)
        facts = next(facts for facts in changes if facts and facts["processes"])
        assert (facts["state"], facts["memory"] > 0) == ("RUNNING", True)
    wire.data("DeleteSessionAsync", SessionId=session)
    for told in lines:
        assert any(session in line.get("gone", ()) for line in told)


def test_watching_is_no_activity(wire: Wire, logged_in: Visitor):
    """Watching a session does not count as activity."""
    with wire.session(Timeout=2) as session:
        lines = logged_in.follow(f"/{session}")
        next(lines)
        assert logged_in.ask(f"/{session}/list", path=HOME).status_code == 200
        assert list(lines)[-1] == {"ended": True}
        assert "time" in wire.data("GetSessionDetail", SessionId=session)["EndReason"]


def test_the_end_of_the_runtime(tmp_path: Path):
    """A runtime that stops does not wait for those who look."""
    with embedded(tmp_path) as (child, wire):
        visitor = Visitor(wire)
        with visitor.http:
            visitor.log_in()
            visitor.open()
            lines = visitor.follow()
            next(lines)
            assert child.close_stdin() == 0
            list(lines)
        assert "ERROR" not in child.standard_error()


def test_service_workers_of_links(wire: Wire, session: str):
    """What a session's program serves cannot install itself before the rest of this origin."""
    program = (
        "from http.server import *\n"
        "class Handler(BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200)\n"
        "        self.send_header('Service-Worker-Allowed', '/')\n"
        "        self.send_header('Content-Length', '0')\n"
        "        self.end_headers()\n"
        "HTTPServer(('127.0.0.1', 30101), Handler).serve_forever()\n"
    )
    wire.text(session, "write_file", path="serve.py", content=program)
    wire.sh(session, "python3 serve.py >/dev/null 2>&1 &")
    link = wire.data("GetLink", SessionId=session, ProtocolType="https", Port=30101)["Url"]
    assert eventually(lambda: wire.http.get(link).status_code == 200, 30)
    assert "service-worker-allowed" not in wire.http.get(link).headers
