"""The page as a person meets it, in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright import sync_api

from tests.local.raw import KEY, Wire
from tests.local.traces import eventually

PATIENCE = 30_000  # milliseconds
HOSTILE = "<img src=x onerror='window.hacked=1'>"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    program = shutil.which("chromium")
    if program is None:
        assert not os.environ.get("AGENTBAY_REQUIRE_ALL"), "there is no chromium"
        pytest.skip("there is no chromium: apt-get install chromium")
    sync_api.expect.set_options(timeout=PATIENCE)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@pytest.fixture
def console_errors() -> list[str]:
    """What the browser held against the page, such as something that its policy forbids."""
    return []


@pytest.fixture
def page(chromium: Any, console_errors: list[str]) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.on("pageerror", lambda error: console_errors.append(str(error)))
    page.on("console", lambda said: console_errors.append(said.text) if said.type in ("error", "warning") else None)
    yield page
    context.close()


def log_in(page: Any, wire: Wire) -> None:
    page.goto(wire.url)
    page.get_by_label("API key").fill(KEY)
    page.keyboard.press("Enter")
    sync_api.expect(page.get_by_role("heading", name="Sessions")).to_be_visible()
    sync_api.expect(page.locator("#connection")).to_have_text("live")


def link(page: Any, session: str) -> Any:
    return page.get_by_role("link", name=session)


def entry(page: Any, text: str) -> Any:
    return page.locator("#log li").filter(has_text=text)


def test_the_keyboard(wire: Wire, page: Any, console_errors: list[str]):
    """The keyboard alone leads from the login to a file and back."""
    expect = sync_api.expect
    with wire.session(Labels={"task": HOSTILE}, ImageId="code_latest") as session, wire.session() as other:
        page.goto(wire.url)
        expect(page.get_by_label("API key")).to_be_focused()
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("That is not the key of this runtime.")
        console_errors.clear()  # the browser counts 401 and 403
        log_in(page, wire)
        console_errors.clear()
        expect(page).to_have_url(f"{wire.url}/view")
        expect(link(page, session)).to_be_visible()
        page.evaluate("window.notLoadedAnew = true")

        page.keyboard.press("/")
        page.keyboard.type("onerror")
        expect(link(page, other)).to_be_hidden()
        page.keyboard.press("ArrowDown")
        expect(link(page, session)).to_be_focused()
        page.keyboard.press("Enter")
        expect(page).to_have_url(f"{wire.url}/view/sessions/{session}")
        expect(page.get_by_role("heading", name=session)).to_be_focused()
        expect(page.locator("#facts")).to_contain_text(HOSTILE)

        wire.sh(session, "sleep 1234 >/dev/null 2>&1 &")
        expect(page.locator("#processes")).to_contain_text("sleep 1234")
        wire.sh(session, f'echo "{HOSTILE}"; echo text > "{HOSTILE.replace("/", "")}.txt"; exit 3')
        expect(page.locator("#log li")).to_have_count(2)
        expect(entry(page, "exit 3").locator(".out")).to_have_text(HOSTILE)  # the newest is open
        expect(page.locator("#news")).to_contain_text("exit 3")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        expect(entry(page, "exit 0").locator("summary")).to_be_focused()
        expect(entry(page, "exit 0").locator(".text")).to_be_hidden()
        page.keyboard.press("Enter")
        expect(entry(page, "exit 0").locator(".text")).to_be_visible()

        file = page.locator("#files button", has_text=".txt")
        expect(file).to_contain_text(HOSTILE)
        file.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_contain_text("text")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        page.keyboard.press("Escape")
        expect(link(page, session)).to_be_visible()
        assert page.evaluate("[window.notLoadedAnew, window.hacked, document.images.length]") == [True, None, 2]
    assert console_errors == []


def test_live_list(wire: Wire, page: Any, console_errors: list[str]):
    """Sessions and their processes appear, change and disappear by themselves."""
    expect = sync_api.expect
    log_in(page, wire)
    console_errors.clear()
    with wire.session() as session:
        row = page.get_by_role("row").filter(has=link(page, session))
        expect(row).to_contain_text("running")
        wire.data("PauseSessionAsync", SessionId=session)
        expect(row).to_contain_text("paused")
        wire.data("ResumeSessionAsync", SessionId=session)
        row.click()
        expect(page.locator("#state")).to_have_text("running")
        wire.text(session, "write_file", path="waits.sh", content="until [ -e go ]; do sleep 0.05; done; echo gone")
        process = wire.sh(session, "sh waits.sh > out 2>&1 & echo $!")["stdout"].strip()
        expect(page.locator("#processes")).to_contain_text("sh waits.sh")
        expect(page.locator(f'#processes tr[data-key="{process}"]')).to_be_visible()
        page.get_by_role("button", name="Pause").click()
        expect(page.locator("#state")).to_have_text("paused")
        page.get_by_role("button", name="Resume").click()
        expect(page.locator("#state")).to_have_text("running")
        wire.sh(session, "touch go")
        expect(page.locator("#processes")).not_to_contain_text("waits.sh")
        page.locator("#files button", has_text="out").click()
        expect(page.get_by_role("dialog")).to_contain_text("gone")
        with page.expect_download() as download:
            page.get_by_role("button", name="Download").click()
        assert (download.value.suggested_filename, download.value.path().read_text()) == ("out", "gone\n")
        page.get_by_role("button", name="Close").click()
        page.go_back()
        expect(row).to_be_visible()
        row.click()
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("button", name="Keep it").click()
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_text("This session has ended.")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("heading", name="Sessions")).to_be_visible()
        expect(link(page, session)).to_have_count(0)
    with wire.session() as session:
        expect(link(page, session)).to_be_visible()
    expect(link(page, session)).to_have_count(0)
    assert console_errors == []


def test_live_output(wire: Wire, page: Any, session: str, console_errors: list[str]):
    """Output and running time are shown while a command runs, and then its end."""
    expect = sync_api.expect
    log_in(page, wire)
    console_errors.clear()
    link(page, session).click()
    command = (
        "printf '\\033[1;31mred\\033[m\\n10%%\\r2\\b20%%\\n'; until [ -e go ]; do sleep 0.1; done; echo ends; exit 3"
    )
    with ThreadPoolExecutor() as pool:
        pool.submit(wire.sh, session, command)
        try:
            shown = entry(page, "until")
            expect(shown.locator(".out")).to_have_text("red\n20%", use_inner_text=True)
            expect(shown.locator(".outcome")).to_have_text(re.compile(r"running · [1-9]"))
            expect(shown).to_have_attribute("data-state", "running")
            page.get_by_role("heading", name=session).focus()
            page.keyboard.press("ArrowDown")
            expect(shown.locator("summary")).to_be_focused()
        finally:
            wire.text(session, "write_file", path="go", content="")
    expect(shown.locator(".out")).to_have_text("red\n20%\nends", use_inner_text=True)
    expect(shown.locator(".outcome")).to_have_text(re.compile(r"exit 3 · \d"))
    expect(shown.locator("summary")).to_be_focused()
    expect(page.locator("#news")).to_contain_text("exit 3")
    assert console_errors == []


def test_log_in_by_a_link(wire: Wire, page: Any, console_errors: list[str]):
    """A login link works once, and leaves its ticket in no address or request."""
    expect = sync_api.expect
    answer = wire.http.post("/view/tickets", headers={"authorization": f"Bearer {KEY}"})
    ticket = answer.json()["ticket"]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{wire.url}/view/login#{ticket}")
    expect(page.locator("#connection")).to_have_text("live")
    expect(page).to_have_url(f"{wire.url}/view")
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/view")
    page.go_back()
    assert not any(ticket in url for url in [page.url, cookie["value"], *asked])
    assert console_errors == []
    page.context.clear_cookies()
    page.goto("about:blank")
    page.goto(f"{wire.url}/view/login#{ticket}")
    expect(page.get_by_role("alert")).to_contain_text("no longer good")
    expect(page.get_by_label("API key")).to_be_focused()
    assert page.context.cookies() == []


def test_resource_url(wire: Wire, page: Any):
    """A session's URL opens that session only, survives a reload, and shows its end."""
    expect = sync_api.expect
    with wire.session() as session:
        page.goto(wire.data("GetSession", SessionId=session)["ResourceUrl"])
        expect(page).to_have_url(f"{wire.url}/view/sessions/{session}")
        expect(page.locator("#state")).to_have_text("running")
        page.reload()
        expect(page.locator("#state")).to_have_text("running")
        expect(page.get_by_role("button", name="Delete")).to_be_hidden()
        expect(page.get_by_role("link", name="All sessions")).to_be_hidden()
        for width in (1280, 700, 360):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        wire.data("DeleteSessionAsync", SessionId=session)
        expect(page.get_by_role("alert")).to_have_text("This session has ended.")
        page.goto(f"{wire.url}/view")
        expect(page.get_by_label("API key")).to_be_visible()


def test_pages_behind_links(wire: Wire, page: Any, session: str):
    """A page behind a link cannot act in the name of its viewer."""
    log_in(page, wire)
    wire.text(session, "write_file", path="site/index.html", content="<title>hostile</title>")
    wire.sh(session, "python3 -m http.server -b 127.0.0.1 -d site 30102 >/dev/null 2>&1 &")
    url = wire.data("GetLink", SessionId=session, ProtocolType="https", Port=30102)["Url"]
    wire.sh(session, "until python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 30102))' 2>/dev/null; "
                     "do sleep 0.1; done", timeout_ms=30_000)  # fmt: skip
    page.goto(url)
    sync_api.expect(page).to_have_title("hostile")
    assert re.fullmatch(rf"http://[a-z0-9-]+\.localhost:{urlsplit(wire.url).port}/", page.url)
    for credentials in ("include", "same-origin"):
        answer = page.evaluate(f"fetch('{wire.url}/view', {{credentials: '{credentials}'}}).catch(() => 'refused')")
        assert answer == "refused"
    with page.context.expect_page() as opened:
        page.evaluate(f"void (window.victim = open('{wire.url}/view'))")
    opened.value.wait_for_load_state()
    page.wait_for_function("() => { try { return victim.closed || !victim.document } catch { return true } }")
    framed = f"""new Promise((resolve) => {{
      const frame = Object.assign(document.createElement('iframe'), {{src: '{wire.url}/view', onload: () => {{
        let text = '';
        try {{ text = frame.contentDocument.documentElement.outerHTML }} catch {{}}
        resolve(text);
      }}}});
      document.body.append(frame);
    }})"""
    assert not re.search("agentbay-csrf-token", page.evaluate(framed))


def test_opener_policy_of_a_link(wire: Wire, page: Any, session: str):
    """A program that sends the dashboard's own opener policy gets no hold of its window, by either form."""
    log_in(page, wire)
    program = (
        "from http.server import *\n"
        "class Handler(BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        body = b'<title>hostile</title>'\n"
        "        self.send_response(200)\n"
        "        self.send_header('Content-Type', 'text/html')\n"
        "        self.send_header('Cross-Origin-Opener-Policy', 'same-origin')\n"
        "        self.send_header('Content-Length', str(len(body)))\n"
        "        self.end_headers()\n"
        "        self.wfile.write(body)\n"
        "HTTPServer(('127.0.0.1', 30103), Handler).serve_forever()\n"
    )
    wire.text(session, "write_file", path="serve.py", content=program)
    wire.sh(session, "python3 serve.py >/dev/null 2>&1 &")
    url = wire.data("GetLink", SessionId=session, ProtocolType="https", Port=30103)["Url"]
    assert eventually(lambda: wire.http.get(url).status_code == 200)
    steal = f"""async () => {{
      const victim = open('{wire.url}/view');
      for (let turn = 0; turn < 50; turn += 1) {{
        await new Promise((resolve) => setTimeout(resolve, 100));
        try {{
          const token = victim.document.querySelector('meta[name="agentbay-csrf-token"]');
          if (token) return token.content;
        }} catch {{}}
      }}
      return '';
    }}"""
    page.goto(url)
    sync_api.expect(page).to_have_title("hostile")
    assert page.evaluate(steal) == ""
    page.set_extra_http_headers({"user-agent": "another"})  # which is not led to the link's own origin
    page.goto(url)
    assert page.url == url
    assert page.evaluate("origin") == "null"
    assert page.evaluate(steal) == ""


def test_the_record_of_a_browser(wire: Wire, page: Any, console_errors: list[str]):
    """The page of a session plays what its browser has shown, and what else is in the file does nothing."""
    with wire.session(ImageId="browser_latest") as session:
        option = {
            "enableRecord": True,
            "defaultNavigateUrl": "data:text/html,<body style='background: rgb(255, 0, 0)'>",
        }
        wire.data("InitBrowser", SessionId=session, PersistentPath="/tmp/x", BrowserOption=json.dumps(option))
        record = "/home/wuying/record/frames.js"
        assert eventually(lambda: "frame" in wire.stdout(session, f"head -c 5 {record} || true"))
        hostile = 'window.hacked = 1;\nframe([1, 2, "\\"><img src=x onerror=hacked=1>"]);\n'
        wire.tool(session, "write_file", path=record, content=hostile, mode="append")
        log_in(page, wire)
        console_errors.clear()
        link(page, session).click()
        page.get_by_role("button", name="Load").click()
        sync_api.expect(page.locator("#record-note")).to_contain_text("pictures")
        sync_api.expect(page.locator("#record-page option")).to_have_text(["1"])
        page.wait_for_function("document.getElementById('record-image').naturalWidth > 100")
        shown = """() => {
            const canvas = document.createElement("canvas"), image = document.getElementById("record-image");
            const context = canvas.getContext("2d");
            context.drawImage(image, 0, 0);
            return [...context.getImageData(50, 50, 1, 1).data];
        }"""
        red, green, *_ = page.evaluate(shown)
        assert red > 200 > 50 > green
        assert page.evaluate("window.hacked") is None
    assert console_errors == []
