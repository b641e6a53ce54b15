"""Playwright drives the browser of a session through `get_endpoint_url()`, as people use it."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Dialog, Page, Playwright, Route, async_playwright, expect

from agentbay import AsyncAgentBay, AsyncSession, BrowserOption, CreateSessionParams

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium; scripts/test says how to get it"),
]
ORIGIN = "http://127.0.0.1:30151"
FORM = """<!doctype html><title>form</title><meta charset=utf-8>
<form action=sent.html><label>Word <input name=word></label> <textarea name=text></textarea>
<select name=kind><option>a<option>b</select> <select name=many multiple><option>1<option>2<option>3</select>
<label><input type=checkbox name=yes> Yes</label> <label><input type=radio name=size value=s> Small</label>
<label><input type=radio name=size value=l> Large</label> <input type=date name=day> <input type=range name=level>
<input type=file name=one> <input type=file name=several multiple> <button>Send</button></form>"""
STAGE = """<!doctype html><title>stage</title><meta charset=utf-8><style>body { height: 3000px }</style>
<iframe name=outer srcdoc="<input name=deep><iframe srcdoc='<p>innermost</p>'></iframe>"></iframe>
<div id=host></div> <button id=target>target</button> <div id=log></div> <p id=hidden hidden>shown</p>
<div id=from draggable=true>from</div> <div id=to>to</div>
<a id=new target=_blank href=other.html>new</a> <a id=down href=file.bin download>down</a>
<script>
document.getElementById('host').attachShadow({mode: 'open'}).innerHTML = '<button>shadow</button>';
const log = (text) => { document.getElementById('log').textContent += text + ' '; };
for (const kind of ['click', 'dblclick', 'contextmenu', 'mouseenter'])
  document.getElementById('target').addEventListener(kind, () => log(kind));
document.getElementById('to').addEventListener('dragover', (event) => event.preventDefault());
document.getElementById('to').addEventListener('drop', () => log('drop'));
localStorage.setItem('kept', 'stored'); sessionStorage.setItem('short', 'session');
document.cookie = 'name=value; max-age=1000';
setTimeout(() => { document.getElementById('hidden').hidden = false; }, 200);
</script>"""
EXTENSION = {
    "manifest.json": json.dumps(
        {
            "manifest_version": 3,
            "name": "mark",
            "version": "1",
            "content_scripts": [{"matches": ["<all_urls>"], "js": ["mark.js"], "run_at": "document_start"}],
        }
    ),
    "mark.js": "document.documentElement.dataset.extension = 'loaded';",
}


@pytest.fixture(scope="module")
async def session(bay: AsyncAgentBay) -> AsyncIterator[AsyncSession]:
    """A session with a web server, and a browser with an extension."""
    async with bay.session(CreateSessionParams(image_id="browser_latest")) as session:
        site = {"form.html": FORM, "stage.html": STAGE, "file.bin": "x" * 5000}
        site |= {f"{name}.html": f"<title>{name}</title>{name}" for name in ("other", "sent")}
        for name, text in site.items():
            assert (await session.file_system.write_file(f"site/{name}", text)).success
        for name, text in EXTENSION.items():
            assert (await session.file_system.write_file(f"extensions/mark/{name}", text)).success
        await session.command.start("python3 -m http.server 30151 --directory site")
        (await session.command.run(f"until curl -s {ORIGIN} >/dev/null; do sleep 0.05; done", 30_000)).check()
        option = BrowserOption(extension_path="/home/wuying/extensions", cmd_args=["--accept-lang=de"])
        assert await session.browser.initialize(option)
        yield session


@pytest.fixture(scope="module")
async def playwright() -> AsyncIterator[Playwright]:
    async with async_playwright() as playwright:
        yield playwright


@pytest.fixture
async def page(session: AsyncSession, playwright: Playwright) -> AsyncIterator[Page]:
    """A new tab of the browser."""
    browser = await playwright.chromium.connect_over_cdp(await session.browser.get_endpoint_url())
    page = await browser.contexts[0].new_page()
    yield page
    await page.close()
    await browser.close()


async def test_forms(page: Page) -> None:
    """Every kind of field is filled in, and the form is sent."""
    await page.goto(f"{ORIGIN}/form.html")
    await page.get_by_label("Word").fill("hällo 😀")
    await page.locator("textarea").press_sequentially("typed")
    await page.select_option("[name=kind]", "b")
    await page.select_option("[name=many]", ["1", "3"])
    await page.check("[name=yes]")
    await page.get_by_label("Large").check()
    await page.fill("[name=day]", "2026-01-02")
    await page.fill("[name=level]", "70")
    assert await page.input_value("[name=word]") == "hällo 😀"
    assert await page.is_checked("[name=yes]")
    await page.click("button")
    await page.wait_for_url("**/sent.html*")
    for part in (
        "word=h%C3%A4llo",
        "text=typed",
        "kind=b",
        "many=1&many=3",
        "yes=on",
        "size=l",
        "2026-01-02",
        "level=70",
    ):
        assert part in page.url
    await page.go_back()
    assert await page.title() == "form"
    await page.go_forward()
    await page.reload()
    assert await page.title() == "sent"


async def test_keyboard_and_mouse(page: Page) -> None:
    """Keys and shortcuts are typed, and the mouse clicks, hovers, drags and scrolls."""
    await page.goto(f"{ORIGIN}/form.html")
    await page.focus("[name=word]")
    await page.keyboard.type("keys")
    await page.keyboard.press("Backspace")
    assert await page.input_value("[name=word]") == "key"
    await page.keyboard.press("Control+A")
    await page.keyboard.insert_text("新")
    assert await page.input_value("[name=word]") == "新"
    await page.uncheck("[name=yes]")
    await page.goto(f"{ORIGIN}/stage.html")
    await page.hover("#target")
    await page.dblclick("#target")
    await page.click("#target", button="right")
    await page.drag_and_drop("#from", "#to")
    words = set((await page.locator("#log").inner_text()).split())
    assert words == {"mouseenter", "click", "dblclick", "contextmenu", "drop"}
    await page.mouse.wheel(0, 500)
    await page.wait_for_function("scrollY > 0")


async def test_frames_and_shadow_roots(page: Page) -> None:
    """Frames in frames and shadow roots are reached, and what appears later is waited for."""
    await page.goto(f"{ORIGIN}/stage.html")
    outer = page.frame_locator("iframe")
    await outer.locator("[name=deep]").fill("below")
    assert await outer.locator("[name=deep]").input_value() == "below"
    await expect(outer.frame_locator("iframe").locator("p")).to_have_text("innermost")
    assert await page.locator("#host button").inner_text() == "shadow"
    await page.wait_for_selector("#hidden", state="visible")
    assert len(page.frames) == 3
    assert "button" in await page.locator("body").aria_snapshot()


async def test_files(page: Page, session: AsyncSession, tmp_path: Path) -> None:
    """Files of this machine are uploaded, and downloads arrive in the session."""
    await page.goto(f"{ORIGIN}/form.html")
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"content of {name}")
    await page.set_input_files("[name=one]", str(tmp_path / "a.txt"))
    assert await page.evaluate("document.forms[0].one.files[0].text()") == "content of a.txt"
    async with page.expect_file_chooser() as choosing:
        await page.click("[name=several]")
    chooser = await choosing.value
    assert chooser.is_multiple()
    await chooser.set_files([str(tmp_path / "a.txt"), str(tmp_path / "b.txt")])
    assert await page.evaluate("document.forms[0].several.files.length") == 2
    await page.goto(f"{ORIGIN}/stage.html")
    async with page.expect_download() as loading:
        await page.click("#down")
    download = await loading.value
    assert download.suggested_filename == "file.bin"
    assert await download.failure() is None
    loaded = await session.file_system.read_file(str(await download.path()), format="bytes")
    assert loaded.unwrap().content == b"x" * 5000


async def test_dialogs_and_tabs(page: Page) -> None:
    """Dialogs are answered, and tabs are opened by links and by the program."""
    await page.goto(f"{ORIGIN}/stage.html")
    seen: list[str] = []

    async def answer(dialog: Dialog) -> None:
        seen.append(f"{dialog.type} {dialog.message}")
        if dialog.message == "no":
            await dialog.dismiss()
        else:
            await dialog.accept("typed")

    page.on("dialog", answer)
    assert await page.evaluate("alert('hello')") is None
    assert await page.evaluate("[confirm('yes'), confirm('no'), prompt('word')]") == [True, False, "typed"]
    assert seen == ["alert hello", "confirm yes", "confirm no", "prompt word"]
    async with page.expect_popup() as opening:
        await page.click("#new")
    popup = await opening.value
    await popup.wait_for_load_state()
    assert await popup.title() == "other"
    second = await page.context.new_page()
    await second.goto(f"{ORIGIN}/sent.html")
    assert {popup, second} <= set(page.context.pages)
    await page.bring_to_front()
    await popup.close()
    await second.close()
    assert popup.is_closed()


async def test_state(page: Page) -> None:
    """Cookies and storage are read, set and cleared."""
    await page.goto(f"{ORIGIN}/stage.html")
    context = page.context
    await context.add_cookies([{"name": "mine", "value": "1", "url": ORIGIN, "httpOnly": True}])
    assert {cookie.get("name") for cookie in await context.cookies(ORIGIN)} == {"name", "mine"}
    assert await page.evaluate("document.cookie") == "name=value"
    await context.clear_cookies(name="mine")
    assert [cookie.get("name") for cookie in await context.cookies(ORIGIN)] == ["name"]
    assert await page.evaluate("[localStorage.kept, sessionStorage.short]") == ["stored", "session"]
    stored = await context.storage_state()
    assert {"name": "kept", "value": "stored"} in stored["origins"][0]["localStorage"]


async def test_network(page: Page) -> None:
    """Requests are answered, changed, refused and waited for by the program."""

    async def fulfil(route: Route) -> None:
        await route.fulfill(body="<title>mine</title>", content_type="text/html")

    async def change(route: Route) -> None:
        await route.continue_(headers={**route.request.headers, "x-mine": "1"})

    async def refuse(route: Route) -> None:
        await route.abort()

    await page.route("**/other.html", fulfil)
    await page.route("**/sent.html", change)
    await page.route("**/file.bin", refuse)
    await page.goto(f"{ORIGIN}/other.html")
    assert await page.title() == "mine"
    async with page.expect_request("**/sent.html") as asking, page.expect_response("**/sent.html") as answering:
        await page.goto(f"{ORIGIN}/sent.html")
    request, response = await asking.value, await answering.value
    assert (request.method, response.status) == ("GET", 200)
    assert "sent" in await response.text()
    assert await page.evaluate(f"fetch('{ORIGIN}/file.bin').then(() => 'came', () => 'refused')") == "refused"
    await page.unroute_all()
    assert await page.evaluate(f"fetch('{ORIGIN}/file.bin').then((answer) => answer.status)") == 200
    await page.set_extra_http_headers({"x-more": "2"})
    await page.context.set_offline(True)
    assert await page.evaluate("navigator.onLine") is False
    await page.context.set_offline(False)


async def test_pictures(page: Page, session: AsyncSession) -> None:
    """Screenshots of pages, elements and clips, and a PDF file."""
    await page.goto(f"{ORIGIN}/stage.html")
    whole = await page.screenshot(full_page=True)
    assert whole.startswith(b"\x89PNG")
    assert int.from_bytes(whole[20:24], "big") >= 3000
    clip = await page.screenshot(clip={"x": 0, "y": 0, "width": 50, "height": 40})
    assert (int.from_bytes(clip[16:20], "big"), int.from_bytes(clip[20:24], "big")) == (50, 40)
    assert (await page.locator("#target").screenshot(type="jpeg")).startswith(b"\xff\xd8")
    assert (await page.pdf()).startswith(b"%PDF")
    assert (await session.browser.screenshot(page)).startswith(b"\x89PNG")


async def test_the_world_of_a_page(page: Page) -> None:
    """Place, size, colours and language are simulated, and an extension is loaded."""
    await page.context.grant_permissions(["geolocation"], origin=ORIGIN)
    await page.context.set_geolocation({"latitude": 1.0, "longitude": 2.0})
    await page.set_viewport_size({"width": 500, "height": 400})
    await page.emulate_media(color_scheme="dark")
    await page.add_init_script("window.early = 'set'")
    await page.expose_function("double", lambda number: 2 * number)
    await page.goto(f"{ORIGIN}/stage.html")
    locate = "new Promise((done) => navigator.geolocation.getCurrentPosition((place) => done(place.coords.latitude)))"
    assert await page.evaluate(locate) == 1.0
    assert await page.evaluate("[innerWidth, innerHeight]") == [500, 400]
    assert await page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is True
    assert await page.evaluate("early") == "set"
    assert await page.evaluate("double(21)") == 42
    assert await page.evaluate("document.documentElement.dataset.extension") == "loaded"
    assert await page.evaluate("navigator.language") == "de"
    async with page.expect_console_message() as logging:
        await page.evaluate("console.log('logged', 7)")
    assert (await logging.value).text == "logged 7"
    async with page.expect_event("pageerror") as failing:
        await page.evaluate("setTimeout(() => { throw new Error('thrown') })")
    assert (await failing.value).message == "thrown"
    devtools = await page.context.new_cdp_session(page)
    assert "result" in await devtools.send("Runtime.evaluate", {"expression": "1"})
