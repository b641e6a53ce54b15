"""Pages of a session's browser: what they show, and actions on them."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Mapping, Set
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentbay._lazy_attrs import define, field
from agentbay.local.api_errors import PROXY_ERROR_PREFIX
from agentbay.local.browser.errors import DevToolsError, DevToolsTimeout
from agentbay.local.sandbox.service.manager import Sandbox

if TYPE_CHECKING:
    from agentbay.local.browser.devtools import DevTools

_WORLD = "agentbay"  # an isolated world, where the page cannot change what the script does
_LOAD_SECONDS = 30.0
_PROXY_ERROR_CHARACTERS = 500
_SETTLE_SECONDS = 3.0  # for a page that a click has opened
_HANGS = (
    "the page does not answer, as one in an endless loop does not; destroy() and initialize() start another browser"
)
_POLL_SECONDS = 0.05
_MAX_ELEMENTS = 200
_BLANK = "about:blank"
_MAX_OPENING = 20  # tabs that one action opens
_MAX_DIALOGS = 100  # reported, and being closed, at most
_DIALOG_EVENT, _OPENING_EVENT = "Page.javascriptDialogOpening", "Page.windowOpen"
# name: (key, code, Windows virtual key code, text)
_KEYS = {
    "enter": ("Enter", "Enter", 13, "\r"),
    "tab": ("Tab", "Tab", 9, ""),
    "escape": ("Escape", "Escape", 27, ""),
    "backspace": ("Backspace", "Backspace", 8, ""),
    "delete": ("Delete", "Delete", 46, ""),
    "space": (" ", "Space", 32, " "),
    "arrowup": ("ArrowUp", "ArrowUp", 38, ""),
    "arrowdown": ("ArrowDown", "ArrowDown", 40, ""),
    "arrowleft": ("ArrowLeft", "ArrowLeft", 37, ""),
    "arrowright": ("ArrowRight", "ArrowRight", 39, ""),
    "home": ("Home", "Home", 36, ""),
    "end": ("End", "End", 35, ""),
    "pageup": ("PageUp", "PageUp", 33, ""),
    "pagedown": ("PageDown", "PageDown", 34, ""),
}
KEY_NAMES = tuple(key for key, *_ in _KEYS.values() if key != " ")


@define(frozen=True, slots=False)
class PageContent:
    """What a page shows.

    Attributes:
        scroll: Pixels above the view, of the view, and of the whole page.
        elements: What can be clicked or filled in, each with a `selector`.
    """

    url: str = ""
    title: str = ""
    text: str = ""
    scroll: list[int] = field(factory=list)
    elements: list[dict[str, Any]] = field(factory=list)


@define(frozen=True, slots=False)
class Tab:
    """An open page: its DevTools target, title and URL."""

    target: str
    title: str
    url: str


class BrowserPages:
    """The pages of a browser over one connection, one of them current.

    Attributes:
        dialogs: Texts of the dialogs that pages have opened, and that were closed at once: they would block the page.
    """

    def __init__(self) -> None:
        self.dialogs: list[str] = []
        self._devtools: DevTools | None = None
        self._target = ""
        self._opening: list[str] = []  # what tabs show that the action under way opens
        self._sessions: dict[str, str] = {}  # CDP session by target
        self._closing: set[asyncio.Task[Any]] = set()

    @classmethod
    async def open(cls, sandbox: Sandbox, port: int, path: str, target: str = "", last: str = "") -> BrowserPages:
        """Connect to a browser.

        Args:
            target: The page to begin with; "" is `last` if it is still open, or else any.
            last: The page that was used last.

        Raises:
            DevToolsError: The browser does not answer, or has no such page.
        """
        from agentbay.local.browser.devtools import DevTools  # its library takes as long to import as a start

        pages = cls()
        pages._devtools = await DevTools.open(sandbox, port, path, pages._on_event)
        try:
            await pages.switch(target or await pages._choose_target(last))
        except BaseException:
            await pages.close()
            raise
        return pages

    async def close(self) -> None:
        """Disconnect, and leave the pages open."""
        for task in self._closing:
            task.cancel()
        await self._connection.close()

    async def tabs(self) -> list[Tab]:
        """Return the open pages."""
        listed = (await self._connection.call("Target.getTargets")).get("targetInfos")
        infos = [info for info in listed if isinstance(info, dict)] if isinstance(listed, list) else []
        return [
            Tab(str(info.get("targetId")), str(info.get("title")), str(info.get("url")))
            for info in infos
            if info.get("type") == "page" and not str(info.get("url")).startswith(("devtools:", "chrome-extension:"))
        ]

    async def switch(self, target: str) -> None:
        """Make a page the current one.

        Raises:
            DevToolsError: There is no such page, or it does not answer.
        """
        await self._attach(target)
        self._target = target
        # A page in the background is not drawn, so a screenshot of it would wait for ever.
        await self._call("Page.bringToFront")

    @property
    def target(self) -> str:
        """The DevTools target of the current page."""
        return self._target

    async def read(self, *, selector: str | None = None, characters: int) -> PageContent:
        """Read what the page shows, or a part of it."""
        found = await self._run("read", selector=selector, elements=_MAX_ELEMENTS, text=characters)
        if not isinstance(found, dict):
            raise DevToolsError("the page cannot be read")
        elements = found.get("elements")
        scroll = found.get("scroll")
        return PageContent(
            url=str(found.get("url")),
            title=str(found.get("title")),
            text=str(found.get("text"))[:characters],
            scroll=_pixels(scroll) if isinstance(scroll, list) else [],
            elements=[one for one in elements if isinstance(one, dict)][:_MAX_ELEMENTS]
            if isinstance(elements, list)
            else [],
        )

    async def screenshot(
        self, *, full_page: bool = False, clip: Mapping[str, float] | None = None, jpeg_quality: int | None = None
    ) -> str:
        """Take a screenshot, PNG or JPEG, as base64."""
        options: dict[str, Any] = {"format": "png"} if jpeg_quality is None else {"format": "jpeg"}
        if jpeg_quality is not None:
            options["quality"] = jpeg_quality
        if full_page and clip is None:
            size = await self._run("size")
            clip = {"x": 0, "y": 0, **(size if isinstance(size, dict) else {})}
        if clip is not None:
            options |= {"clip": {**clip, "scale": 1}, "captureBeyondViewport": True}
        taken = (await self._call("Page.captureScreenshot", **options)).get("data")
        if not isinstance(taken, str):
            raise DevToolsError("the browser took no screenshot")
        return taken

    async def navigate(self, url: str) -> None:
        """Open a URL, and wait until it has loaded.

        Raises:
            DevToolsError: It cannot be opened.
        """
        opened = await self._call("Page.navigate", url=url, timeout=_LOAD_SECONDS)
        if reason := opened.get("errorText"):
            raise DevToolsError(f"{url:.200} cannot be opened: {reason!s:.100}")
        await self._wait_until_loaded(asyncio.get_running_loop().time() + _LOAD_SECONDS)
        # To the browser, the answer of the egress proxy to plain HTTP is a page like any other.
        shown = await self.read(characters=_PROXY_ERROR_CHARACTERS)
        if not shown.title and shown.text.startswith(PROXY_ERROR_PREFIX):
            raise DevToolsError(f"{url:.200} cannot be opened: {shown.text.removeprefix(PROXY_ERROR_PREFIX).strip()}")

    async def go_back(self) -> None:
        """Go back to the page before."""
        history = await self._call("Page.getNavigationHistory")
        index, entries = history.get("currentIndex"), history.get("entries")
        if not isinstance(index, int) or not isinstance(entries, list) or not 0 < index <= len(entries):
            raise DevToolsError("there is no page before this one")
        await self._call("Page.navigateToHistoryEntry", entryId=entries[index - 1].get("id"))
        await self._wait_until_loaded(asyncio.get_running_loop().time() + _SETTLE_SECONDS)

    async def click(self, selector: str) -> None:
        """Click on an element in its middle."""
        place = await self._run("locate", selector=selector)
        if not isinstance(place, dict):
            raise DevToolsError("the element has no place on the page")
        at = {"x": place.get("x"), "y": place.get("y"), "button": "left", "clickCount": 1}
        async with self._settling():
            await self._call("Input.dispatchMouseEvent", type="mouseMoved", **{**at, "button": "none"})
            await self._call("Input.dispatchMouseEvent", type="mousePressed", **at)
            await self._call("Input.dispatchMouseEvent", type="mouseReleased", **at)

    async def fill(self, selector: str, text: str) -> None:
        """Replace the text of a field."""
        await self._run("focus", selector=selector)
        if text:
            await self._call("Input.insertText", text=text)
        else:
            await self.press("Delete")

    async def choose(self, selector: str, option: str) -> None:
        """Choose an option of a selection by its text or value."""
        async with self._settling():
            await self._run("choose", selector=selector, option=option)

    async def press(self, key: str) -> None:
        """Press a key, by a name of `KEY_NAMES` or a character."""
        if key.lower() not in _KEYS and len(key) != 1:
            raise DevToolsError(f"there is no key {key!r:.40}; there are {', '.join(KEY_NAMES)} and single characters")
        name, code, number, text = _KEYS.get(key.lower(), (key, "", 0, key))
        fields = {"key": name, "code": code, "windowsVirtualKeyCode": number}
        async with self._settling():
            await self._call("Input.dispatchKeyEvent", type="keyDown", **fields, **({"text": text} if text else {}))
            await self._call("Input.dispatchKeyEvent", type="keyUp", **fields)

    async def scroll(self, x: float, y: float) -> None:
        """Scroll by parts of the view."""
        await self._run("scroll", x=x, y=y)

    @property
    def _connection(self) -> DevTools:
        assert self._devtools is not None
        return self._devtools

    async def _attach(self, target: str) -> None:
        if target in self._sessions:
            return
        attached = await self._connection.call("Target.attachToTarget", targetId=target, flatten=True)
        session = str(attached.get("sessionId"))
        try:
            await self._connection.call("Page.enable", session)
        except DevToolsTimeout as error:
            raise DevToolsError(_HANGS) from error
        self._sessions[target] = session

    @asynccontextmanager
    async def _settling(self) -> AsyncIterator[None]:
        """Wait for what an action loads, also in the tabs that it opens."""
        before = {tab.target for tab in await self.tabs()}
        self._opening.clear()
        yield
        deadline = asyncio.get_running_loop().time() + _SETTLE_SECONDS
        await self._wait_until_loaded(deadline)
        acting = self._target
        try:
            async with asyncio.timeout_at(deadline):
                await self._wait_for_opened(before, deadline)
        except (DevToolsError, TimeoutError):  # it was closed again or refused, or does not load in time
            pass
        finally:
            self._target = acting

    async def _wait_for_opened(self, before: Set[str], deadline: float) -> None:
        """Wait until as many tabs have loaded as the page has said it opens."""
        opened: list[str] = []
        while len(opened) < len(self._opening):
            await asyncio.sleep(_POLL_SECONDS)
            opened = [tab.target for tab in await self.tabs() if tab.target not in before]
        for target in opened:
            await self._attach(target)
            self._target = target
            while True:
                if (await self.read(characters=0)).url != _BLANK:  # as it is at first, which counts as loaded
                    break
                await asyncio.sleep(_POLL_SECONDS)
            await self._wait_until_loaded(deadline)

    async def _choose_target(self, last: str) -> str:
        targets = [tab.target for tab in await self.tabs()]
        if targets:
            return last if last in targets else targets[0]
        made = await self._connection.call("Target.createTarget", url=_BLANK)
        return str(made.get("targetId"))

    async def _call(self, method: str, **params: Any) -> dict[str, Any]:
        return await self._connection.call(method, self._sessions[self._target], **params)

    async def _run(self, operation: str, **argument: Any) -> Any:
        """Run an operation of the page script, and return what it returns."""
        tree = (await self._call("Page.getFrameTree")).get("frameTree")
        frame = tree.get("frame") if isinstance(tree, dict) else None
        frame_id = frame.get("id") if isinstance(frame, dict) else None
        world = await self._call("Page.createIsolatedWorld", frameId=frame_id, worldName=_WORLD)
        answer = await self._call(
            "Runtime.evaluate",
            expression=f"({_page_script()})({json.dumps(operation)}, {json.dumps(argument)})",
            contextId=world.get("executionContextId"),
            returnByValue=True,
            userGesture=True,
        )
        if isinstance(failed := answer.get("exceptionDetails"), dict):
            exception = failed.get("exception")
            text = exception.get("description") if isinstance(exception, dict) else failed.get("text")
            raise DevToolsError(str(text).partition("\n")[0].removeprefix("Error: ")[:300])
        result = answer.get("result")
        return result.get("value") if isinstance(result, dict) else None

    async def _wait_until_loaded(self, deadline: float) -> None:
        """Wait until the page has loaded, or until a time of the event loop.

        A page that goes on loading is used as it is.
        """
        await asyncio.sleep(_POLL_SECONDS)  # for a navigation to begin
        while True:
            if await self._is_loaded() or asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def _is_loaded(self) -> bool:
        try:
            return await self._run("loaded") is True
        except DevToolsError:  # the page changes at this moment, or was closed
            return self._target not in {tab.target for tab in await self.tabs()}

    def _on_event(self, method: str, params: dict[str, Any], session: str) -> None:
        if method == _OPENING_EVENT and params.get("url") not in ("", _BLANK) and len(self._opening) < _MAX_OPENING:
            self._opening.append(str(params.get("url")))
        if method != _DIALOG_EVENT or len(self._closing) >= _MAX_DIALOGS:
            return
        if len(self.dialogs) < _MAX_DIALOGS:
            self.dialogs.append(f"{params.get('type')!s:.40}: {params.get('message')!s:.300}")
        accept = params.get("type") in ("alert", "beforeunload")
        task = asyncio.create_task(self._close_dialog(session, accept))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close_dialog(self, session: str, accept: bool) -> None:
        try:
            await self._connection.call("Page.handleJavaScriptDialog", session, accept=accept)
        except DevToolsError:  # another client has answered it
            pass


def _pixels(values: list[Any]) -> list[int]:
    # Infinity is JSON for Python
    return [int(value) for value in values[:3] if isinstance(value, (int, float)) and math.isfinite(value)]


@cache
def _page_script() -> str:
    return Path(__file__).with_name("page_script.js").read_text(encoding="utf-8")
