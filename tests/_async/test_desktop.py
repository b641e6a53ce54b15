"""The desktop of a session, driven and read back: a terminal and a small Tk program."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest

from agentbay import AsyncAgentBay, AsyncSession, CreateSessionParams, MouseButton, ScrollDirection, Window
from agentbay._concurrency import async_sleep

Image = pytest.importorskip("PIL.Image")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(shutil.which, ("Xtigervnc", "blackbox", "xterm", "wish"))),
        reason="no X server, window manager, xterm or Tk; scripts/test says how to get them",
    ),
]
_T = TypeVar("_T")
WAIT_SECONDS = 60.0
RED = (255, 0, 0)
# Writes what happens to it into a file. It is busy after a press, so that movements wait for it.
TK_PROGRAM = r"""
wm title . "a Tk program"
wm geometry . 400x300+200+150
set log [open log.txt w]
fconfigure $log -buffering line -encoding utf-8
proc say {args} {global log; puts $log [join $args " "]}
proc work {} {set end [expr {[clock milliseconds] + 200}]; while {[clock milliseconds] < $end} {}}
pack [entry .entry -textvariable content] -fill x
pack [canvas .canvas -background #ff0000] -expand 1 -fill both
bind .canvas <ButtonPress> {say press %b %X %Y; work}
bind .canvas <ButtonRelease> {say release %b %X %Y}
bind .canvas <Double-Button-1> {say double %X %Y}
bind .canvas <B1-Motion> {say drag %X %Y}
bind .entry <Return> {say text $content; set content ""}
bind . <KeyPress> {say down %K}
bind . <KeyRelease> {say up %K}
wm protocol . WM_DELETE_WINDOW {say closed; exit}
focus .entry
say ready
"""


async def until(ask: Callable[[], Awaitable[_T | None]]) -> _T:
    """Ask again until there is an answer, and return it."""
    end = time.monotonic() + WAIT_SECONDS
    while not (found := await ask()):
        assert time.monotonic() < end
        await async_sleep(0.02)
    return found


async def read_log(session: AsyncSession) -> list[str]:
    return (await session.file_system.read_file("log.txt")).content.splitlines()


async def wait_for_line(session: AsyncSession, line: str) -> list[str]:
    async def found() -> list[str] | None:
        lines = await read_log(session)
        return lines if line in lines else None

    return await until(found)


async def find_window(session: AsyncSession, title: str) -> Window:
    async def found() -> Window | None:
        windows = (await session.computer.list_root_windows()).unwrap().windows
        return next((window for window in windows if window.title == title), None)

    return await until(found)


@pytest.fixture
async def desktop(bay: AsyncAgentBay) -> AsyncIterator[AsyncSession]:
    async with bay.session(CreateSessionParams(image_id="linux_latest")) as session:
        yield session


@pytest.fixture
async def program(desktop: AsyncSession) -> AsyncSession:
    """A session with the Tk program, whose window is there."""
    (await desktop.file_system.write_file("program.tcl", TK_PROGRAM)).unwrap()
    started = (await desktop.computer.start_app("wish program.tcl")).unwrap().data
    assert "wish" in started[0].pname
    await find_window(desktop, "a Tk program")
    await wait_for_line(desktop, "ready")
    return desktop


async def test_mouse(program: AsyncSession) -> None:
    """Clicks, drags and the wheel arrive where they were aimed at."""
    computer = program.computer
    window = await find_window(program, "a Tk program")
    x, y = (window.absolute_upper_left_x or 0) + 100, (window.absolute_upper_left_y or 0) + 100
    for button, number in ((MouseButton.LEFT, 1), (MouseButton.MIDDLE, 2), (MouseButton.RIGHT, 3)):
        (await computer.click_mouse(x, y + 10 * number, button)).unwrap()
        await wait_for_line(program, f"press {number} {x} {y + 10 * number}")
        await wait_for_line(program, f"release {number} {x} {y + 10 * number}")
    (await computer.click_mouse(x + 50, y, MouseButton.DOUBLE_LEFT)).unwrap()
    await wait_for_line(program, f"double {x + 50} {y}")
    (await computer.drag_mouse(x, y, x + 80, y + 40)).unwrap()
    lines = await wait_for_line(program, f"release 1 {x + 80} {y + 40}")
    assert f"press 1 {x} {y}" in lines
    assert [line for line in lines if line.startswith("drag")][:-1]  # on the way, not only at the end
    (await computer.scroll(x, y, ScrollDirection.DOWN, 3)).unwrap()
    (await computer.scroll(x, y, ScrollDirection.UP)).unwrap()
    lines = await wait_for_line(program, f"release 4 {x} {y}")
    assert lines.count(f"press 5 {x} {y}") == 3
    (await computer.move_mouse(7, 9)).unwrap()
    assert (await computer.get_cursor_position()).data == {"x": 7, "y": 9}


async def test_text(program: AsyncSession) -> None:
    """Text of any script is typed, also more characters than a keyboard has keys."""
    alphabet = "".join(map(chr, range(0x4E00, 0x4E00 + 200)))
    for text in ("Shift & symbols: ~{}|\\\"'`^", "Grüße, Καλημέρα, שלום, 漢字, €", alphabet, "the same again: é漢"):
        (await program.computer.input_text(f"{text}\n")).unwrap()
        await wait_for_line(program, f"text {text}")


async def test_keys(program: AsyncSession) -> None:
    """Keys are pressed together, held and released, by names of several conventions."""
    computer = program.computer
    (await computer.press_keys(["F5"])).unwrap()
    await wait_for_line(program, "up F5")
    for keys, line in ((["PageUp"], "up Prior"), (["ArrowLeft"], "up Left"), (["A"], "up a"), (["é"], "up eacute")):
        (await computer.press_keys(keys)).unwrap()
        await wait_for_line(program, line)
    (await computer.press_keys(["Ctrl"], hold=True)).unwrap()
    await wait_for_line(program, "down Control_L")
    (await computer.press_keys(["F7"])).unwrap()
    lines = await wait_for_line(program, "up F7")
    assert "up Control_L" not in lines
    (await computer.release_keys(["ctrl"])).unwrap()
    await wait_for_line(program, "up Control_L")
    # With the keys of an editor: select all, copy, and paste twice.
    (await computer.input_text("twice")).unwrap()
    for keys in (["Ctrl", "slash"], ["Ctrl", "c"], ["End"], ["Ctrl", "v"], ["Enter"]):
        (await computer.press_keys(keys)).unwrap()
    await wait_for_line(program, "text " + 2 * "aétwice")


async def test_terminal(desktop: AsyncSession) -> None:
    """A command that is typed into a terminal runs, and its text comes back."""
    assert (await desktop.computer.start_app("xterm -u8 -T terminal")).unwrap().data[0].pname == "xterm"
    await find_window(desktop, "terminal")
    (await desktop.computer.input_text("printf '%s' 'naïve 漢字 😀 $HOME' > typed.txt; touch done\n")).unwrap()

    async def typed() -> str | None:
        return (await desktop.file_system.read_file("typed.txt")).content or None

    assert await until(typed) == "naïve 漢字 😀 $HOME"


async def test_screenshots(program: AsyncSession) -> None:
    """Both formats show the screen: the program's red canvas is where its window is."""
    size = (await program.computer.get_screen_size()).data
    window = await find_window(program, "a Tk program")
    point = ((window.absolute_upper_left_x or 0) + 100, (window.absolute_upper_left_y or 0) + 100)
    for format in ("png", "jpeg"):

        async def shown(format: str = format) -> Image.Image | None:
            taken = await program.computer.beta_take_screenshot(format)
            image = Image.open(io.BytesIO(taken.data))
            assert (taken.width, taken.height) == image.size == (size["width"], size["height"])
            assert (taken.mime_type, image.format) == (f"image/{format}", format.upper())
            near = all(abs(seen - meant) < 10 for seen, meant in zip(image.getpixel(point), RED, strict=True))
            return image if near else None

        image = await until(shown)
        assert image.getpixel((5, 5))[0] < 250  # the background is not red


async def test_windows(program: AsyncSession) -> None:
    """Windows are listed, activated, resized, shown in every state, and closed."""
    computer = program.computer
    window = await find_window(program, "a Tk program")
    assert (window.pname, window.width, window.height) == ("wish8.6" if window.pname != "wish" else "wish", 400, 300)
    (await computer.start_app("xterm -T other")).unwrap()
    other = await find_window(program, "other")
    (await computer.activate_window(window.window_id)).unwrap()
    active = (await computer.get_active_window()).unwrap().window
    assert active is not None
    assert active.window_id == window.window_id
    (await computer.resize_window(window.window_id, 500, 250)).unwrap()
    resized = await find_window(program, "a Tk program")
    assert (resized.width, resized.height) == (500, 250)
    screen = (await computer.get_screen_size()).data
    (await computer.fullscreen_window(window.window_id)).unwrap()
    full = await find_window(program, "a Tk program")
    assert (full.absolute_upper_left_x, full.absolute_upper_left_y) == (0, 0)
    assert (full.width, full.height) == (screen["width"], screen["height"])
    (await computer.maximize_window(window.window_id)).unwrap()
    largest = await find_window(program, "a Tk program")
    assert (largest.width or 0) > 1200
    (await computer.restore_window(window.window_id)).unwrap()
    restored = await find_window(program, "a Tk program")
    assert (restored.width, restored.height) == (500, 250)
    (await computer.minimize_window(window.window_id)).unwrap()
    assert [app.pname for app in (await computer.list_visible_apps()).unwrap().data] == ["xterm"]
    (await computer.restore_window(window.window_id)).unwrap()
    assert len((await computer.list_visible_apps()).unwrap().data) == 2
    (await computer.close_window(window.window_id)).unwrap()
    await wait_for_line(program, "closed")
    left = (await computer.list_root_windows()).unwrap().windows
    assert [found.window_id for found in left] == [other.window_id]


async def test_focus_mode(program: AsyncSession) -> None:
    """In focus mode the input goes on to the same window when another one opens."""
    window = await find_window(program, "a Tk program")
    (await program.computer.activate_window(window.window_id)).unwrap()
    (await program.computer.focus_mode(True)).unwrap()
    (await program.computer.start_app("xterm -T intruder")).unwrap()
    await find_window(program, "intruder")

    async def has_focus() -> bool:
        active = (await program.computer.get_active_window()).window
        return active is not None and active.window_id == window.window_id

    await until(has_focus)
    (await program.computer.focus_mode(False)).unwrap()
    intruder = await find_window(program, "intruder")
    (await program.computer.activate_window(intruder.window_id)).unwrap()


async def test_applications(desktop: AsyncSession) -> None:
    """Applications are listed, started, and stopped by name, process and command."""
    computer = desktop.computer
    entry = "[Desktop Entry]\nType=Application\nName=Mine\nExec=xterm -T mine %F\n"
    (await desktop.file_system.write_file(".local/share/applications/mine.desktop", entry)).unwrap()
    (await desktop.file_system.write_file("Desktop/icon.desktop", entry.replace("Mine", "Icon"))).unwrap()
    apps = (await computer.get_installed_apps()).unwrap().data
    mine = next(app for app in apps if app.name == "Mine")
    assert (mine.start_cmd, "Icon" in [app.name for app in apps]) == ("xterm -T mine", False)
    assert [app.name for app in await computer.get_installed_apps(start_menu=False, desktop=True)] == ["Icon"]
    for way in ("pname", "pid", "cmd"):
        started = (await computer.start_app(mine.start_cmd)).unwrap().data
        await find_window(desktop, "mine")
        if way == "pname":
            (await computer.stop_app_by_pname("xterm")).unwrap()
        elif way == "pid":
            (await computer.stop_app_by_pid(started[0].pid)).unwrap()
        else:
            (await computer.stop_app_by_cmd(mine.stop_cmd or "")).unwrap()

        async def gone() -> bool:
            return not (await computer.list_visible_apps()).unwrap().data

        await until(gone)


async def test_bad_input(desktop: AsyncSession) -> None:
    """What cannot be done is refused with the reason, and the desktop goes on."""
    computer = desktop.computer
    refused = {
        "(5000, 3) is not on the screen": await computer.click_mouse(5000, 3),
        "(-1, 0) is not on the screen": await computer.move_mouse(-1, 0),
        "notches": await computer.scroll(1, 1, "up", 0),
        "no key 'Hyperdrive'": await computer.press_keys(["Hyperdrive"]),
        "keys must not be empty": await computer.press_keys([]),
        "U+0001 cannot be typed": await computer.input_text("a\x01"),
        "at most 100000 characters": await computer.input_text("x" * 100_001),
        "no window 77": await computer.close_window(77),
        "must fit the screen": await computer.resize_window(77, 0, 10),
        "no window has the input focus": await computer.get_active_window(),
        "start_cmd must not be empty": await computer.start_app(" "),
        "exit code 127": await computer.start_app("no-such-program"),
        "work_directory": await computer.start_app("xterm", "/no/such/directory"),
        "no process is called 'nobody'": await computer.stop_app_by_pname("nobody"),
        "no process 99999": await computer.stop_app_by_pid(99999),
        "process 1 may not be ended": await computer.stop_app_by_pid(1),
        "with a NUL character": await desktop.call_mcp_tool("start_app", {"start_cmd": "xterm\0"}),
        "NUL character cannot be used": await desktop.call_mcp_tool("stop_app_by_cmd", {"stop_cmd": "\0"}),
        "exit code 3": await computer.stop_app_by_cmd("exit 3"),
    }
    for reason, result in refused.items():
        assert not result.success, reason
        assert reason in result.error_message
    assert (await computer.get_screen_size()).success


async def test_crash_pause_and_end(program: AsyncSession) -> None:
    """A pause freezes the desktop, after a crash a new one starts, and no process of the old one is left."""
    assert (await program.pause()).success
    assert not (await program.computer.get_screen_size()).success
    assert (await program.resume()).success
    await find_window(program, "a Tk program")
    await program.command.run("pkill -9 Xtigervnc; while pgrep Xtigervnc; do sleep 0.05; done", 30_000)

    async def works_again() -> bool:
        return (await program.computer.list_root_windows()).success

    await until(works_again)
    assert (await program.computer.list_root_windows()).unwrap().windows == []
    assert (await program.command.run("pgrep -xc Xtigervnc")).output.strip() == "1"


async def test_display_is_the_sessions_own(bay: AsyncAgentBay, desktop: AsyncSession) -> None:
    """The X server listens at a path in the session, and lets in only who has its cookie."""
    (await desktop.computer.get_screen_size()).unwrap()
    listening = (await desktop.command.run("cat /proc/net/unix /proc/net/tcp")).output
    assert "/tmp/.X11-unix/X0" in listening
    assert "@" not in listening
    (await desktop.file_system.write_file("end.tcl", "exit")).unwrap()
    assert (await desktop.command.run("wish end.tcl", 30_000)).exit_code == 0
    refused = await desktop.command.run("XAUTHORITY=/dev/null wish end.tcl", 30_000)
    assert "couldn't connect to display" in refused.stderr
    async with bay.session(CreateSessionParams(image_id="code_latest")) as neighbour:
        assert (await neighbour.command.run("ls /tmp/.X11-unix; echo $DISPLAY")).output.strip() == ""
