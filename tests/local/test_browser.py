"""What a browser of the local runtime is beyond a browser: options, crashes, profiles, records."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from agentbay import (
    AgentBay,
    BrowserContext,
    BrowserFingerprintContext,
    BrowserOption,
    BrowserProxy,
    BrowserScreen,
    BrowserViewport,
    CreateSessionParams,
    Session,
)
from agentbay.testing import LocalRuntime
from tests.local.traces import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium; scripts/test says how to get it"),
]
RECORDED = """data:text/html,<body><script>
let number = 0;
setInterval(() => { document.body.style.background = (number += 1) % 2 ? 'red' : 'blue'; }, 50);
</script>"""


@pytest.fixture(scope="module")
def session(agentbay_local: LocalRuntime) -> Iterator[Session]:
    """A session with a browser in it."""
    with agentbay_local.agent_bay() as bay, bay.session(CreateSessionParams(image_id="browser_latest")) as made:
        assert made.browser.initialize(BrowserOption(viewport=BrowserViewport(900, 700), user_agent="agent-of-test"))
        yield made


def log_in(session: Session) -> set[str | None]:
    """Set a cookie in the browser of a session, and return the names of those it had."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.connect_over_cdp(session.browser.get_endpoint_url())
        jar = browser.contexts[0]
        names = {cookie.get("name") for cookie in jar.cookies()}
        jar.add_cookies([{"name": "login", "value": "1", "url": "http://kept.test", "expires": 4_000_000_000}])
        browser.close()
    return names


def test_options(session: Session) -> None:
    """User agent and the size of the window are as they were set."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.connect_over_cdp(session.browser.get_endpoint_url())
        page = browser.contexts[0].new_page()
        assert page.evaluate("navigator.userAgent") == "agent-of-test"
        assert page.evaluate("[window.outerWidth, window.outerHeight]") == [900, 700]
        page.close()
        browser.close()
    assert session.browser.endpoint_router_port


def test_destroy_leaves_no_process(agent_bay: AgentBay) -> None:
    """After `destroy` no process is left, and `initialize` starts another browser."""
    with agent_bay.session(CreateSessionParams(image_id="browser_latest")) as session:
        for _ in range(2):
            assert session.browser.initialize()
            session.browser.destroy()
            assert session.command.run("pgrep -c --runstates D,R,S,T chromium").output.strip() == "0"


def test_a_browser_of_an_npm_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the browsers that Puppeteer has downloaded the newest is used, and only that one is shown."""
    newest, older = (tmp_path / f"chrome/linux-{version}/chrome-linux64" for version in ("10.2", "9.0"))
    shutil.copytree("/usr/lib/chromium", newest)
    (newest / "chromium").rename(newest / "chrome")
    older.mkdir(parents=True)
    shutil.copy("/bin/true", older / "chrome")
    monkeypatch.setenv("PUPPETEER_CACHE_DIR", str(tmp_path))
    with AgentBay.local() as bay, bay.session(CreateSessionParams(image_id="browser_latest")) as session:
        for _ in range(2):
            assert session.browser.initialize(BrowserOption(browser_type="chrome"))
            running = session.command.run("pgrep -af type=zygote").stdout
            session.browser.destroy()
        assert "/opt/browser/chrome --type=zygote" in running
        assert not session.command.run("touch /opt/browser/x").success
        assert not session.command.run(f"ls {tmp_path}").success


def test_a_record_is_played(agent_bay: AgentBay) -> None:
    """What a page shows is recorded in the session, beside a player that plays it."""
    params = CreateSessionParams(image_id="browser_latest", enable_browser_replay=True)
    with agent_bay.session(params) as session, sync_playwright() as playwright:
        assert session.browser.initialize()
        browser = playwright.chromium.connect_over_cdp(session.browser.get_endpoint_url())
        page = browser.contexts[0].new_page()
        page.goto(RECORDED)
        count = "grep -c '^frame' ~/record/frames.js"
        assert eventually(lambda: int(session.command.run(count).stdout or 0) >= 3)
        page.goto("file:///home/wuying/record/player.html")
        page.select_option("#page", page.locator("#page option").all_inner_texts()[-1])
        first = page.evaluate("document.getElementById('shown').src")
        page.click("#play")
        page.wait_for_function("first => document.getElementById('shown').src !== first", arg=first)
        assert page.evaluate("document.getElementById('shown').naturalWidth") > 100
        browser.close()


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


def test_destroy_saves_cookies(agent_bay: AgentBay) -> None:
    """A browser that is started after `destroy` has the cookies of the one before."""
    found = []
    with agent_bay.session(CreateSessionParams(image_id="browser_latest")) as session:
        for _ in range(2):
            assert session.browser.initialize()
            found.append(log_in(session))
            session.browser.destroy()
    assert found == [set(), {"login"}]


@pytest.mark.parametrize("is_paused", [False, True])
def test_cookies_outlive_the_session(agent_bay: AgentBay, is_paused: bool) -> None:
    """A `BrowserContext` brings the cookies of one session into the next, whatever state it ended in."""
    context = agent_bay.context.create(f"profile-of-a-browser-{is_paused}").unwrap().context
    assert context is not None
    params = CreateSessionParams(image_id="browser_latest", browser_context=BrowserContext(context.id))
    found = []
    for _ in range(2):
        session = agent_bay.create(params).unwrap().session
        assert session is not None
        assert session.browser.initialize()
        found.append(log_in(session))
        if is_paused:
            session.pause().unwrap()
        assert session.delete().success
    assert found == [set(), {"login"}]


def test_fingerprints_outlive_the_session(agent_bay: AgentBay) -> None:
    """What a session keeps as fingerprints is there in the next session with that context."""
    ids = [agent_bay.context.create(name).unwrap().context.id for name in ("of-fingerprints", "of-their-profile")]
    context = BrowserContext(ids[1], fingerprint_context=BrowserFingerprintContext(ids[0]))
    params = CreateSessionParams(image_id="browser_latest", browser_context=context)
    with agent_bay.session(params) as session:
        assert session.file_system.write_file("/tmp/browser_fingerprint/fingerprint.json", "{}").success
        assert session.delete(sync_context=True).success
    with agent_bay.session(params) as session:
        assert session.file_system.read_file("/tmp/browser_fingerprint/fingerprint.json").unwrap().content == "{}"


def test_what_is_refused(agent_bay: AgentBay) -> None:
    """What a browser here cannot do is refused by name, and nothing is started."""
    refused = {
        "CaptchaNotSupported.Local": BrowserOption(solve_captchas=True),
        "AutoLoginNotSupported.Local": BrowserOption(auto_login=True),
        "ProxyNotSupported.Local": BrowserOption(proxies=[BrowserProxy("wuying", strategy="restricted")]),
        "InvalidBrowserOption": BrowserOption(user_agent="é"),
        "BrowserNotInstalled.Local": BrowserOption(browser_type="chrome", screen=BrowserScreen(800, 600)),
    }
    changed = BrowserViewport()
    changed.width = 10**9  # which the constructor would refuse
    with agent_bay.session() as session:
        for code, option in [*refused.items(), ("InvalidBrowserOption", BrowserOption(viewport=changed))]:
            assert not session.browser.initialize(option), code
        assert session.command.run("pgrep -c --runstates D,R,S,T chromium").output.strip() == "0"
