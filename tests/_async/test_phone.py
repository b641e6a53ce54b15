"""A phone that adb lists, driven through the local runtime."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agentbay import AgentBayError, AsyncAgentBay, AsyncSession, CreateSessionParams, KeyCode
from tests.adb_phone import BARS, ELEMENTS, HEIGHT, WIDTH, AdbPhone, color, draw_screen, example_phone

Image = pytest.importorskip("PIL.Image")

pytestmark = pytest.mark.skipif(shutil.which("adb") is None, reason="no adb; scripts/test says how to get it")


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdbPhone]:
    played = example_phone(tmp_path)
    monkeypatch.setenv("ADB_SERVER_SOCKET", played.address)
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    yield played
    played.close()


@pytest.fixture
async def session(phone: AdbPhone) -> AsyncIterator[AsyncSession]:
    async with AsyncAgentBay.local() as bay, bay.session(CreateSessionParams(image_id="mobile_latest")) as made:
        yield made


def logged(tmp_path: Path) -> list[str]:
    return (tmp_path / "input").read_text().splitlines()


async def test_touch_and_keys(session: AsyncSession, tmp_path: Path) -> None:
    """Taps, swipes, keys and text arrive at the phone as they were meant."""
    mobile = session.mobile
    assert (await mobile.tap(10, 20)).success
    assert (await mobile.swipe(1, 2, 3, 4, 500)).success
    assert (await mobile.send_key(KeyCode.KEYCODE_HOME)).success
    assert (await mobile.input_text("it's 100%s; $(reboot)\nnext")).success
    assert logged(tmp_path) == [
        "tap 10 20",
        "swipe 1 2 3 4 500",
        "keyevent 3",
        "text it's%s100%",
        "text s;%s$(reboot)",
        "keyevent KEYCODE_ENTER",
        "text next",
    ]
    refused = await mobile.input_text("naïve")
    assert "printable ASCII only, and 'ï' is not" in refused.error_message


async def test_elements(session: AsyncSession) -> None:
    """Elements are listed once the screen has come to rest, as a tree, as XML, and those to click."""
    found = await session.mobile.get_all_ui_elements()
    [frame] = found.elements
    [button] = frame["children"]
    assert (frame["isParent"], button["text"], button["resourceId"]) == (True, "OK & go", "com.example:id/ok")
    assert button["bounds_rect"] == {"left": 10, "top": 20, "right": 110, "bottom": 60}
    assert (await session.mobile.get_all_ui_elements(format="xml")).raw == ELEMENTS
    [clickable] = (await session.mobile.get_clickable_ui_elements()).elements
    assert (clickable["text"], clickable["contentDesc"]) == ("OK & go", "go")


async def test_screenshots(session: AsyncSession, tmp_path: Path) -> None:
    """A long screenshot holds the page once, whatever the scrolling has moved, and ends where the page does."""
    for number, top in enumerate((0, 120, 200, 200)):
        (tmp_path / f"screen{number}.png").write_bytes(draw_screen(top))
    taken = await session.mobile.beta_take_screenshot("jpeg")
    assert (taken.width, taken.height, taken.mime_type) == (WIDTH, HEIGHT, "image/jpeg")
    whole = await session.mobile.beta_take_long_screenshot(max_screens=9)
    image = Image.open(io.BytesIO(whole.data))
    assert image.size == (WIDTH, HEIGHT + 200)
    shown = [image.getpixel((5, row)) for row in range(image.height)]
    assert shown[BARS:-BARS] == [color(row) for row in range(image.height - 2 * BARS)]
    assert {*shown[:BARS], *shown[-BARS:]} == {(255, 255, 255)}


async def test_applications(session: AsyncSession, phone: AdbPhone) -> None:
    """Applications are listed, started, also at one of their screens, and stopped."""
    mobile = session.mobile
    assert len((await mobile.get_installed_apps(True, False, False)).data) == 2
    [app] = (await mobile.get_installed_apps(True, False, True)).data
    assert app.name == "com.example"
    [process] = (await mobile.start_app(app.start_cmd)).data
    assert (process.pname, process.pid) == ("com.example", 4242)
    assert (await mobile.start_app("com.example", activity=".Other")).success
    assert "am start -W -n com.example/.Other" in phone.commands
    assert (await mobile.stop_app_by_cmd(app.stop_cmd)).success
    assert phone.commands[-1] == "am force-stop com.example"
    assert "No activities found" in (await mobile.start_app("monkey -p com.missing 1")).error_message
    assert "names no package" in (await mobile.stop_app_by_cmd("; reboot")).error_message
    assert (await mobile.start_app("monkey -p com.example 1; reboot")).success
    assert "monkey -p com.example '1;' reboot" in phone.commands


async def test_an_unplugged_phone(session: AsyncSession, phone: AdbPhone) -> None:
    """A phone that is gone is told at once: only a screen that moves is asked again."""
    phone.is_unplugged = True
    began = time.monotonic()
    found = await session.mobile.get_all_ui_elements(timeout_ms=40_000)
    assert "device not found" in found.error_message
    assert time.monotonic() - began < 20


async def test_endless_output(session: AsyncSession, phone: AdbPhone) -> None:
    """Output of a phone without an end is refused, and takes no memory without an end."""
    phone.play("screencap", f"exec head -c {80 << 20} /dev/zero")
    with pytest.raises(AgentBayError, match="more than the 64 MiB"):
        await session.mobile.beta_take_screenshot("png")


async def test_adb(session: AsyncSession, phone: AdbPhone) -> None:
    """The address of a phone on the network is told, and a cable has none."""
    assert "adb -s R58M12ABCDE reaches it" in (await session.mobile.get_adb_url("key")).error_message
    phone.states = {"192.0.2.7:5555": "device"}
    assert (await session.mobile.get_adb_url("key")).data == "adb connect 192.0.2.7:5555"


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ({}, "adb lists no phone. Plug one in, with USB debugging switched on."),
        ({"A1": "unauthorized"}, "A1 is unauthorized: confirm this computer on its screen."),
        ({"A1": "device", "B2": "device"}, "adb lists several, and ANDROID_SERIAL must name one: A1, B2."),
    ],
)
async def test_no_phone(phone: AdbPhone, states: dict[str, str], reason: str) -> None:
    """Where no phone can be driven, a session for one is refused, and told why."""
    phone.states = states
    async with AsyncAgentBay.local() as bay:
        refused = await bay.create(CreateSessionParams(image_id="mobile_latest"))
        assert not refused.success
        assert reason in refused.error_message


async def test_other_sessions_have_no_phone(phone: AdbPhone) -> None:
    """The tools of a phone are those of its image alone."""
    async with AsyncAgentBay.local() as bay, bay.session() as session:
        assert "create the session with image_id='mobile_latest'" in (await session.mobile.tap(1, 2)).error_message
        with pytest.raises(AgentBayError, match="tap"):
            (await session.mobile.tap(1, 2)).unwrap()
    assert phone.commands == []
