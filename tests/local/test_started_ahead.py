"""Browsers and desktops that are started before a session asks for them."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from agentbay import (
    AgentBay,
    BrowserContext,
    BrowserError,
    BrowserOption,
    BrowserViewport,
    CreateSessionParams,
    Session,
)
from agentbay.local.network.provider import NetworkProvider
from agentbay.local.sandbox.service.manager import Limits, SandboxManager, SandboxSpec
from agentbay.local.sessions import started_ahead
from agentbay.local.sessions.started_ahead import PrestartedSandboxes
from agentbay.local.state_dir import StateDirectory
from tests.local.traces import PATIENCE, eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(shutil.which, ("chromium", "Xtigervnc", "blackbox"))),
        reason="no chromium or no desktop; scripts/test says how to get them",
    ),
]
BROWSER, DESKTOP = CreateSessionParams(image_id="browser_latest"), CreateSessionParams(image_id="linux_latest")
AHEAD = "/tmp/.agentbay_browser-ahead"
MAIN_PIDS = f"""pgrep -f -- --user-data-dir={AHEAD} |
while read pid; do grep -qz -- --type= /proc/$pid/cmdline || echo $pid; done"""
PAGE = "http://127.0.0.1:30171/"
SERVER = "python3 -m http.server 30171 -d /opt -b 127.0.0.1"


@pytest.fixture(scope="module")
def bay() -> Iterator[AgentBay]:
    with AgentBay.local() as bay:
        yield bay


@contextmanager
def taken_ahead(bay: AgentBay, params: CreateSessionParams = BROWSER, trace: str = AHEAD) -> Iterator[Session]:
    """Yield a session that finds its browser or desktop running."""
    session = _take(bay, params, trace)
    yield session
    session.delete()


def _take(bay: AgentBay, params: CreateSessionParams, trace: str) -> Session:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        session = bay.create(params).unwrap().session
        if session.command.run(f"test -e {trace}").success:
            return session
        # The first one of a runtime is not ahead, and using it makes the next one so.
        assert session.browser.initialize() if params is BROWSER else session.computer.get_screen_size().success
        session.delete()
        time.sleep(2)
    raise AssertionError("nothing was started ahead")


def show(session: Session) -> Iterator[Page]:
    """Yield a page of the browser of a session."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.connect_over_cdp(session.browser.get_endpoint_url())
        yield browser.contexts[0].new_page()
        browser.close()


def serve(session: Session) -> None:
    """Serve a page in a session."""
    session.command.start(SERVER)
    session.command.run(f"until curl -s {PAGE} >/dev/null; do sleep 0.05; done", 60_000).check()


def main_pid(session: Session) -> str:
    return session.command.run(MAIN_PIDS).stdout.strip()


def test_the_browser_is_there(bay: AgentBay) -> None:
    """It counts as not started until a client starts it, and then is the same process."""
    with taken_ahead(bay) as session:
        before = main_pid(session)
        with pytest.raises(BrowserError):
            session.browser.get_endpoint_url()
        assert session.browser.initialize()
        assert main_pid(session) == before
        assert before.isdecimal()
        for page in show(session):
            assert page.evaluate("[outerWidth, outerHeight, navigator.webdriver]") == [1920, 1080, True]
        assert session.command.run("test -d /tmp/agentbay_browser -a ! -L /tmp/agentbay_browser").success


def test_nothing_of_another_session_is_in_it(bay: AgentBay) -> None:
    """What a session leaves in its browser, its files and its memory is not in the next one."""
    with taken_ahead(bay) as first:
        assert first.browser.initialize()
        serve(first)
        first.command.run("echo secret > ~/left; echo secret > /tmp/left").check()
        for page in show(first):
            page.goto(PAGE)
            page.evaluate("document.cookie = 'left=secret; max-age=99999'; localStorage.left = 'secret'")
    with taken_ahead(bay) as second, bay.session(BROWSER) as third:
        assert (main_pid(second) != "", main_pid(third)) == (True, "")  # one is kept, which only one can have
        assert second.token != first.token
        assert not second.command.run("cat ~/left /tmp/left").stdout
        assert second.browser.initialize()
        assert third.browser.initialize()
        for page in show(second):
            assert page.context.cookies() == []
            serve(second)
            page.goto(PAGE)
            assert page.evaluate("[document.cookie, localStorage.left]") == ["", None]


@pytest.mark.parametrize("kind", ["arguments", "variables"])
def test_other_options_start_another_browser(bay: AgentBay, kind: str) -> None:
    """A browser that is not what was asked for is ended, and one with the options takes its place.

    All options become arguments, and these are compared as a whole.
    """
    option = BrowserOption(viewport=BrowserViewport(900, 700), cmd_args=["--force-device-scale-factor=3"])
    with taken_ahead(bay) as session:
        if kind == "variables":
            session.env.set({"TZ": "Asia/Tokyo"})
        assert session.browser.initialize(option if kind == "arguments" else BrowserOption())
        assert main_pid(session) == ""
        assert not session.command.run(f"test -e {AHEAD}").success
        for page in show(session):
            zone = "Intl.DateTimeFormat().resolvedOptions().timeZone"
            width, ratio, zone = page.evaluate(f"[outerWidth, devicePixelRatio, {zone}]")
            assert (width, ratio) == (900, 3) if kind == "arguments" else zone == "Asia/Tokyo"


def test_crash_and_restart(bay: AgentBay) -> None:
    """A browser that was started ahead crashes, ends and starts again like any other, and keeps its profile."""
    with taken_ahead(bay) as session:
        session.command.run("pkill -9 chromium; while pgrep chromium; do sleep 0.05; done", 30_000)
        assert session.browser.initialize()
    with taken_ahead(bay) as session:
        assert session.browser.initialize()
        session.pause().unwrap()
        session.resume().unwrap()
        for page in show(session):
            page.context.add_cookies([{"name": "kept", "value": "1", "url": PAGE, "expires": 4_000_000_000}])
        session.browser.destroy()
        assert session.command.run("pgrep -c chromium").output.strip() == "0"
        assert session.browser.initialize()
        for page in show(session):
            assert [cookie.get("name") for cookie in page.context.cookies()] == ["kept"]
        session.browser.destroy()
        session.command.run("rm -rf /tmp/agentbay_browser")
        assert session.browser.initialize()
        for page in show(session):
            assert page.context.cookies() == []


def test_contexts_are_used(bay: AgentBay) -> None:
    """A session with a profile does not take one, and a profile that comes later is not lost."""
    with taken_ahead(bay):
        time.sleep(4)  # for the next one
    context = bay.context.create("profile").unwrap().context
    params = CreateSessionParams(image_id="browser_latest", browser_context=BrowserContext(context.id))
    with bay.session(params) as session:
        assert not session.command.run(f"test -e {AHEAD}").success
    with taken_ahead(bay) as session:
        session.command.run("mkdir /tmp/agentbay_browser && touch /tmp/agentbay_browser/mine")
        assert session.browser.initialize()
        assert main_pid(session) == ""
        assert session.command.run("test -e /tmp/agentbay_browser/mine").success


def test_the_desktop_is_there(bay: AgentBay) -> None:
    """Its variables are set from the first call on, and programs show their windows on it."""
    with taken_ahead(bay, DESKTOP, "/tmp/.agentbay-desktop") as session:
        assert session.command.run("echo [$DISPLAY]").stdout.strip() == "[]"
        server = session.command.run("pgrep -x Xtigervnc").stdout
        assert session.computer.get_screen_size().data["width"] == 1280
        assert session.command.run("pgrep -x Xtigervnc").stdout == server
        assert session.command.run("echo [$DISPLAY]").stdout.strip() != "[]"
        assert session.computer.start_app("xterm -T mine").success
        assert [window.title for window in session.computer.list_root_windows().windows] == ["mine"]


@pytest.mark.parametrize("options", [{"start_ahead": "off"}, {"memory": "2GiB"}, {"processes": 1000}])
def test_it_can_be_left_out(options: dict[str, object]) -> None:
    """Neither with `start_ahead="off"` nor where all sessions share a limit is anything started ahead."""
    with AgentBay.local(**options) as bay:  # type: ignore[arg-type]
        with bay.session(DESKTOP) as session:
            assert session.computer.get_screen_size().success
        time.sleep(4)
        with bay.session(DESKTOP) as session:
            assert not session.command.run("test -e /tmp/.agentbay-desktop").success


def test_the_end_leaves_nothing(tmp_path: Path) -> None:
    """Neither a directory nor a process of what waits is left when the runtime ends."""
    with AgentBay.local(state_dir=str(tmp_path)) as bay:
        with taken_ahead(bay):
            pass
        assert eventually(lambda: list(tmp_path.glob("sessions/*/tmp/.agentbay_browser-ahead/DevToolsActivePort")))
    assert not list(tmp_path.glob("sessions/*"))


@asynccontextmanager
async def pool_after_a_desktop(directory: Path) -> AsyncIterator[PrestartedSandboxes]:
    """Yield a pool over real sandboxes, in one of which a desktop was used."""
    state_dir = StateDirectory.open(str(directory))
    sandboxes = await SandboxManager.start()
    pool = PrestartedSandboxes(sandboxes, state_dir, NetworkProvider(), Limits(), enabled=True)
    try:
        sandbox = await sandboxes.create(SandboxSpec(root=state_dir.new_session("used")))
        desktop = pool.programs_for("linux_latest")[1]
        await desktop.start(sandbox, {})
        await sandbox.close()
        desktop.close()
        yield pool
    finally:
        await pool.close()
        await sandboxes.close()
        state_dir.close()


def kept_directories(directory: Path) -> list[str]:
    return [path.name for path in directory.joinpath("sessions").iterdir() if path.name != "used"]


async def test_it_is_given_up_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that no session takes is ended, and the next use makes another."""
    monkeypatch.setattr(started_ahead, "_KEPT_SECONDS", 0.5)
    async with pool_after_a_desktop(tmp_path) as pool, asyncio.timeout(PATIENCE):
        while not kept_directories(tmp_path):
            await asyncio.sleep(0.02)
        while kept_directories(tmp_path):
            await asyncio.sleep(0.02)
        assert pool.take("linux_latest", "none", {}) is None


async def test_it_is_taken_once_and_by_the_same_network_only(tmp_path: Path) -> None:
    """One session gets it, if its network and variables are those that it was made with."""
    async with pool_after_a_desktop(tmp_path) as pool, asyncio.timeout(PATIENCE):
        assert pool.take("browser_latest", "none", {}) is None
        while (taken := pool.take("linux_latest", "none", {})) is None:
            await asyncio.sleep(0.02)
        assert pool.take("linux_latest", "none", {}) is None
        await taken.sandbox.close()
        taken.desktop.close()
        while not kept_directories(tmp_path) or kept_directories(tmp_path) == [taken.session_id]:
            await asyncio.sleep(0.02)
        while pool.take("linux_latest", "host", {}) is None and kept_directories(tmp_path) != [taken.session_id]:
            await asyncio.sleep(0.02)
        assert pool.take("linux_latest", "none", {}) is None


async def test_not_with_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is short of memory keeps it for the sessions."""
    monkeypatch.setattr(started_ahead, "available_memory", lambda: (1 << 30) - 1)
    async with pool_after_a_desktop(tmp_path) as pool:
        await asyncio.sleep(1.5)
        assert not kept_directories(tmp_path)
        assert pool.take("linux_latest", "none", {}) is None
