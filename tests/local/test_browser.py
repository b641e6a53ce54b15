"""The browser of a session, driven by Playwright."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.async_api import async_playwright
from playwright.sync_api import Page, sync_playwright

from agentbay import (
    AgentBay,
    AsyncAgentBay,
    BrowserContext,
    BrowserOption,
    BrowserProxy,
    BrowserScreen,
    BrowserViewport,
    CreateSessionParams,
    Session,
)
from agentbay.testing import LocalRuntime

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium; scripts/test says how to get it"),
]
PORT = 30150
FORM = """<!doctype html><title>form</title><meta charset=utf-8>
<form action=/sent.html><input name=word><select name=kind><option>a<option>b</select><input type=checkbox name=yes>
<input type=file id=file><button>send</button></form>
<iframe srcdoc="<p id=inner>inside</p>"></iframe>
<a id=down href=/file.bin download>down</a><a target=_blank href=/other.html>new</a>
<script>localStorage.setItem('kept', 'stored'); document.cookie = 'name=value; max-age=1000';</script>"""


@pytest.fixture(scope="module")
def session(agentbay_local: LocalRuntime) -> Iterator[Session]:
    """A session with a web server and a browser in it."""
    with agentbay_local.agent_bay() as bay, bay.session(CreateSessionParams(image_id="browser_latest")) as made:
        files = {
            "index.html": FORM,
            "other.html": "<title>other</title>",
            "sent.html": "<title>sent</title>",
            "file.bin": "x" * 5000,
        }
        for name, text in files.items():
            assert made.file_system.write_file(f"site/{name}", text).success
        made.command.start(f"python3 -m http.server {PORT} --directory site")
        made.command.run(f"until curl -s 127.0.0.1:{PORT} >/dev/null; do sleep 0.05; done", 30_000).check()
        assert made.browser.initialize(BrowserOption(viewport=BrowserViewport(900, 700), user_agent="agent-of-test"))
        yield made


@pytest.fixture
def page(session: Session) -> Iterator[Page]:
    """A page of that browser, on the session's own web server."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.connect_over_cdp(session.browser.get_endpoint_url())
        made = browser.contexts[0].new_page()
        made.goto(f"http://127.0.0.1:{PORT}/index.html")
        yield made
        made.close()
        browser.close()


def test_forms(page: Page) -> None:
    """Text, choices and boxes are filled in, and the form is sent."""
    page.fill("[name=word]", "hällo 😀")
    page.select_option("[name=kind]", "b")
    page.check("[name=yes]")
    assert page.input_value("[name=word]") == "hällo 😀"
    page.click("button")
    page.wait_for_url("**/sent.html*")
    assert "kind=b" in page.url
    assert "yes=on" in page.url
    assert page.title() == "sent"


def test_frames_tabs_and_dialogs(page: Page) -> None:
    """Frames are seen, links open tabs, and dialogs are answered."""
    assert page.frame_locator("iframe").locator("#inner").text_content() == "inside"
    with page.expect_popup() as popup:
        page.click("a[target=_blank]")
    popup.value.wait_for_load_state()
    assert popup.value.title() == "other"
    popup.value.close()
    page.on("dialog", lambda dialog: dialog.accept("typed"))
    assert page.evaluate("prompt('?')") == "typed"
    assert page.evaluate("confirm('?')") is True


def test_files_go_both_ways(page: Page, tmp_path: Any) -> None:
    """A file is uploaded from this machine, and a download arrives here."""
    source = tmp_path / "up.txt"
    source.write_text("content")
    page.set_input_files("#file", str(source))
    assert page.evaluate("document.getElementById('file').files[0].name") == "up.txt"


def test_state_and_settings(page: Page, session: Session) -> None:
    """Cookies, storage, user agent and the size of the window are as they were set."""
    assert {cookie.get("name") for cookie in page.context.cookies()} >= {"name"}
    assert page.evaluate("localStorage.getItem('kept')") == "stored"
    assert page.evaluate("navigator.userAgent") == "agent-of-test"
    assert page.evaluate("[window.outerWidth, window.outerHeight]") == [900, 700]
    assert session.browser.endpoint_router_port


def test_requests_are_intercepted(page: Page) -> None:
    """A request can be answered by the program."""
    page.route("**/other.html", lambda route: route.fulfill(body="<title>mine</title>", content_type="text/html"))
    page.goto(f"http://127.0.0.1:{PORT}/other.html")
    assert page.title() == "mine"


def test_pictures(page: Page, session: Session) -> None:
    """Screenshots and PDF files are what they should be."""
    assert page.screenshot(full_page=True).startswith(b"\x89PNG")
    assert page.pdf().startswith(b"%PDF")
    assert session.browser.screenshot(page).startswith(b"\x89PNG")


def test_location_and_keyboard(page: Page) -> None:
    """Geolocation is simulated, and keys are typed."""
    page.context.grant_permissions(["geolocation"], origin=f"http://127.0.0.1:{PORT}")
    page.context.set_geolocation({"latitude": 1.0, "longitude": 2.0})
    found = page.evaluate(
        "new Promise((done) => navigator.geolocation.getCurrentPosition((place) => done(place.coords.latitude)))"
    )
    assert found == 1.0
    page.focus("[name=word]")
    page.keyboard.type("keys")
    page.keyboard.press("Backspace")
    assert page.input_value("[name=word]") == "key"


def test_two_clients_at_once(session: Session) -> None:
    """Two programs drive the same browser at the same time."""
    with sync_playwright() as playwright:
        url = session.browser.get_endpoint_url()
        first, second = (playwright.chromium.connect_over_cdp(url) for _ in range(2))
        mine = first.contexts[0].new_page()
        mine.goto("data:text/html,<title>of the first</title>")
        titles = [page.title() for page in second.contexts[0].pages]
        mine.close()
    assert "of the first" in titles


def test_link_without_a_port(session: Session) -> None:
    """`get_link()` leads to the browser too."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.connect_over_cdp(session.get_link().data)
        assert browser.contexts
        browser.close()


async def _drive(bay: AsyncAgentBay) -> str:
    async with bay.session(CreateSessionParams(image_id="browser_latest")) as session:
        assert await session.browser.initialize()
        async with async_playwright() as playwright:
            browser = await playwright.chromium.connect_over_cdp(await session.browser.get_endpoint_url())
            page = await browser.contexts[0].new_page()
            await page.goto("data:text/html,<title>awaited</title>")
            taken = await session.browser.screenshot(page)
            assert taken.startswith(b"\x89PNG")
            title = await page.title()
            await browser.close()
        await session.browser.destroy()
        assert (await session.command.run("pgrep -c chromium")).output.strip() == "0"
        return title


@pytest.mark.anyio
async def test_asynchronous_flavour(agentbay_local: LocalRuntime) -> None:
    """The asynchronous client does the same, and `destroy` leaves no process."""
    async with agentbay_local.async_agent_bay() as bay:
        assert await _drive(bay) == "awaited"


def test_a_crash_is_mended(agent_bay: AgentBay) -> None:
    """After a crash the next question for the URL starts a new browser with the same options."""
    with agent_bay.session(CreateSessionParams(image_id="browser_latest")) as session:
        assert session.browser.initialize(BrowserOption(user_agent="the-same"))
        before = session.browser.get_endpoint_url()
        session.command.run(f"pkill -{signal.SIGKILL:d} chromium; while pgrep chromium; do sleep 0.05; done", 30_000)
        after = session.browser.get_endpoint_url()
        assert before != after
        with sync_playwright() as playwright:
            browser = playwright.chromium.connect_over_cdp(after)
            assert browser.contexts[0].new_page().evaluate("navigator.userAgent") == "the-same"
            browser.close()


def test_cookies_outlive_the_session(agent_bay: AgentBay) -> None:
    """A `BrowserContext` brings the cookies of one session into the next."""
    context = agent_bay.context.create("profile-of-a-browser").unwrap().context
    assert context is not None
    params = CreateSessionParams(image_id="browser_latest", browser_context=BrowserContext(context.id))
    found = []
    for _ in range(2):
        session = agent_bay.create(params).unwrap().session
        assert session is not None
        assert session.browser.initialize()
        with sync_playwright() as playwright:
            browser = playwright.chromium.connect_over_cdp(session.browser.get_endpoint_url())
            jar = browser.contexts[0]
            found.append({cookie.get("name") for cookie in jar.cookies()})
            jar.add_cookies([{"name": "login", "value": "1", "url": "http://kept.test", "expires": 4_000_000_000}])
            browser.new_browser_cdp_session().send("Browser.close")
        assert session.delete(sync_context=True).success
    assert found == [set(), {"login"}]


def test_what_is_refused(agent_bay: AgentBay) -> None:
    """What a browser here cannot do is refused by name, and nothing is started."""
    refused = {
        "CaptchaNotSupported.Local": BrowserOption(solve_captchas=True),
        "AutoLoginNotSupported.Local": BrowserOption(auto_login=True),
        "ProxyNotSupported.Local": BrowserOption(proxies=[BrowserProxy("wuying", strategy="restricted")]),
        "InvalidBrowserOption": BrowserOption(user_agent="é"),
        "BrowserNotInstalled.Local": BrowserOption(browser_type="chrome", screen=BrowserScreen(800, 600)),
    }
    with agent_bay.session() as session:
        for code, option in refused.items():
            assert not session.browser.initialize(option), code
        assert session.command.run("pgrep -c chromium").output.strip() == "0"
