"""Pages that crash, hang, flood the disk or open many tabs: they hurt only their own session."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright

from agentbay import AgentBay, BrowserOption, Config, CreateSessionParams, Session
from tests.local.raw import KEY, Child
from tests.local.traces import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium; scripts/test says how to get it"),
]
TABS = 30
FLOOD = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "application/octet-stream")
        self.send_header("content-length", str(1 << 30))
        self.end_headers()
        for _ in range(1 << 10):
            self.wfile.write(bytes(1 << 20))
server = HTTPServer(("127.0.0.1", 30152), Handler)
open("listening", "w").close()
server.serve_forever()
"""


def test_harm_stays_in_its_session() -> None:
    """Whatever a page does, another session works on, and so does this one with its next browser."""
    child = Child(["-m", "agentbay.local", "--session-disk", "300MiB"])
    params = CreateSessionParams(image_id="browser_latest")
    try:
        with (
            AgentBay(KEY, Config(endpoint=child.url)) as bay,
            bay.session(params) as session,
            bay.session() as other,
            sync_playwright() as playwright,
        ):
            assert session.browser.initialize(BrowserOption(cmd_args=["--disable-popup-blocking"]))
            browser = playwright.chromium.connect_over_cdp(session.browser.get_endpoint_url())
            for harm in (crash, hang, open_many_tabs, download_1_gib):
                harm(session, browser, browser.contexts[0].new_page())
                assert other.command.run("echo fine").output == "fine\n", harm.__name__
            session.command.run("pkill -9 chromium; rm -rf loaded; while pgrep chromium; do sleep 0.05; done", 60_000)
            browser = playwright.chromium.connect_over_cdp(session.browser.get_endpoint_url())
            assert browser.contexts[0].new_page().evaluate("6 * 7") == 42
            browser.close()
    finally:
        child.release()


def crash(session: Session, browser: Browser, page: Page) -> None:
    with page.expect_event("crash"), pytest.raises(Error):
        page.goto("chrome://crash")


def hang(session: Session, browser: Browser, page: Page) -> None:
    page.evaluate("setTimeout(() => { for (;;); }, 0)")


def open_many_tabs(session: Session, browser: Browser, page: Page) -> None:
    page.evaluate(f"for (let number = 0; number < {TABS}; number++) open('about:blank')")
    wait_until(page, lambda: len(browser.contexts[0].pages) >= TABS)


def download_1_gib(session: Session, browser: Browser, page: Page) -> None:
    """Let the browser load more than the session may keep."""
    assert session.file_system.write_file("flood.py", FLOOD).success
    session.command.start("python3 flood.py")
    session.command.run("until [ -e listening ]; do sleep 0.05; done", 60_000).check()
    states: set[str] = set()
    devtools = browser.new_browser_cdp_session()
    devtools.on("Browser.downloadProgress", lambda event: states.add(event["state"]))
    there = {"behavior": "allow", "downloadPath": "/home/wuying/loaded", "eventsEnabled": True}
    devtools.send("Browser.setDownloadBehavior", there)
    page.evaluate("location = 'http://127.0.0.1:30152/'")
    wait_until(page, lambda: "canceled" in states or not browser.is_connected())
    assert "completed" not in states


def wait_until(page: Page, condition: Callable[[], object]) -> None:
    def is_met() -> bool:
        try:
            page.wait_for_timeout(50)  # events arrive only while Playwright is called
        except Error:  # the page or the browser has ended
            pass
        return bool(condition())

    assert eventually(is_met, 300)
