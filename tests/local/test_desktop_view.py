"""The page that shows a desktop live, in a real browser; and what is told of a machine without desktops."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from agentbay import AgentBay, BrowserOption, CreateSessionParams, SessionError
from agentbay.local.desktop import desktop, programs
from agentbay.local.desktop.desktop import DesktopFailed
from tests.local.traces import eventually, processes_with, unique_seconds

Image = pytest.importorskip("PIL.Image")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(shutil.which, ("Xtigervnc", "blackbox", "wish", "chromium", "websockify"))),
        reason="no X server, window manager, Tk or browser; scripts/test says how to get them",
    ),
]
PROGRAM = """
wm geometry . 400x300+200+150
. configure -background #00ff00
bind . <ButtonPress> {puts [open clicked.txt w] "%X %Y"; flush stdout; exit}
"""
PATIENCE = 60_000  # milliseconds


def wait(condition: Callable[[], bool]) -> None:
    assert eventually(condition)


def seen(page: Page, x: int, y: int) -> tuple[int, int, int]:
    """Return the color that a person sees at a point."""
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB").getpixel((x, y))


def pids_of(program: str, like: int) -> set[int]:
    """Return the processes of a program that run in the sandbox of another process."""
    found, namespace = set[int](), Path(f"/proc/{like}/ns/pid").readlink()
    for pid in processes_with(program):
        with suppress(OSError):  # it has just ended
            if Path(f"/proc/{pid}/ns/pid").readlink() == namespace:
                found.add(pid)
    return found


def test_people_see_and_use_the_desktop(agent_bay: AgentBay) -> None:
    """The page shows what a program draws, and its clicks and keys reach the program."""
    with agent_bay.session(CreateSessionParams(image_id="linux_latest")) as session, sync_playwright() as playwright:
        link = session.get_link().unwrap().data
        session.file_system.write_file("program.tcl", PROGRAM).unwrap()
        session.computer.start_app("xterm -u8 -geometry 60x5+0-0 -e sh -c 'cat > typed.txt'").unwrap()
        session.computer.start_app("wish program.tcl").unwrap()
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(PATIENCE)
        page.goto(link)
        assert ".localhost:" in page.url
        wait(lambda: seen(page, 400, 320)[1] > 200 > 100 > seen(page, 400, 320)[0])
        page.mouse.click(400, 320)
        wait(lambda: session.file_system.read_file("clicked.txt").content == "400 320\n")
        terminal = session.computer.list_root_windows().unwrap().windows[0]
        session.computer.activate_window(terminal.window_id).unwrap()
        page.keyboard.type("Typed in the page!")
        page.keyboard.press("Enter")
        wait(lambda: session.file_system.read_file("typed.txt").content == "Typed in the page!\n")
        browser.close()


def test_who_may_look(agent_bay: AgentBay) -> None:
    """The link is the only way in, and stays the same; a browser of the session comes first."""
    with agent_bay.session(CreateSessionParams(image_id="linux_latest")) as session:
        link = session.get_link("https").unwrap().data
        assert session.get_link().unwrap().data == link
        token, _, path = link.partition("/request_ai/")[2].partition("/path/")
        script = f"curl -s -o /dev/null -w '%{{http_code}}' http://127.0.0.1:{token.split('.')[1]}/"
        assert session.command.run(script).output == "404"
        assert session.command.run(script + path).output == "200"
        assert session.browser.initialize(BrowserOption())
        assert session.get_link().unwrap().data.startswith("ws://")
        assert session.get_link("https").unwrap().data == link
    with agent_bay.session(CreateSessionParams(image_id="code_latest")) as session:
        with pytest.raises(SessionError, match="no port specified"):
            session.get_link()
        session.computer.get_screen_size().unwrap()
        assert "/request_ai/" in session.get_link().unwrap().data


def test_a_desktop_is_a_part_of_its_session() -> None:
    """Its memory counts in the session, it is there after a pause, and `delete` leaves nothing of it."""
    params = CreateSessionParams(image_id="linux_latest")
    with AgentBay.local(start_ahead="off") as bay, bay.session(params) as session:
        before = session.get_metrics().unwrap().metrics.mem_used
        title = unique_seconds()
        session.computer.start_app(f"xterm -T {title}").unwrap()
        assert session.get_metrics().unwrap().metrics.mem_used > before + (20 << 20)
        session.pause().unwrap()
        session.resume().unwrap()
        assert session.computer.get_active_window().unwrap().window.title == title
        terminal = processes_with(title)[0]
        desktop_pids = pids_of("Xtigervnc", terminal) | pids_of("blackbox", terminal)
        assert len(desktop_pids) >= 2
    assert eventually(lambda: not desktop_pids & {*processes_with("Xtigervnc"), *processes_with("blackbox")})
    assert not processes_with(title)


def test_machine_without_an_x_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is missing is told with the line that installs it, and `doctor` says whether there are desktops."""
    done = subprocess.run(
        [sys.executable, "-m", "agentbay", "local", "doctor", "--json"], capture_output=True, check=False
    )
    assert json.loads(done.stdout)["desktop"] is True
    assert programs.missing_message() == ""
    monkeypatch.setattr(programs, "_VIEWER", tmp_path)
    desktop.view_files.cache_clear()
    with pytest.raises(DesktopFailed, match="apt-get install novnc"):
        desktop.view_files()
    monkeypatch.setattr(programs, "_SANDBOX_PATH", str(tmp_path))
    assert "apt-get install tigervnc-standalone-server blackbox" in programs.missing_message()
