"""The tools of a browser's page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from agentbay.local.agent.toolbox import (
    Schema,
    StepFailed,
    check_tool,
    image_part,
    string,
    text_part,
    tool,
    wait,
    wait_tool,
    whole_number,
)
from agentbay.local.browser.errors import DevToolsError
from agentbay.local.browser.page import KEY_NAMES, BrowserPages, PageContent, Tab

_MAX_TEXT_CHARACTERS = 12_000  # of a page, in each step
_JPEG_QUALITY = 70
_MIN_HIDDEN_CHARACTERS = 4  # a shorter value is no secret, and is part of many words
_VARIABLE = re.compile(r"%(\w+)%")
_ELEMENT: Schema = {"type": "integer", "description": "The number of the element, as shown in brackets."}
_INSTRUCTIONS = (
    "You drive a web browser for a user. You see the URL, the text and the numbered elements of the current page."
)
_TOOLS = {
    "navigate": tool("navigate", "Open a URL.", ["url"], url="The whole URL."),
    "go_back": tool("go_back", "Go back to the page before."),
    "click": tool("click", "Click on an element.", ["element"], element=_ELEMENT),
    "type": tool(
        "type",
        "Replace the text of a field.",
        ["element", "text"],
        element=_ELEMENT,
        text="The new text. %name% stands for the value of a variable.",
        submit={"type": "boolean", "description": "Press Enter afterwards."},
    ),
    "choose": tool(
        "choose", "Choose an option of a selection.", ["element", "option"], element=_ELEMENT, option="Its text."
    ),
    "press": tool("press", "Press a key.", ["key"], key=f"{', '.join(KEY_NAMES)}, or one character."),
    "scroll": tool(
        "scroll",
        "Scroll by most of the view.",
        ["direction"],
        direction={"type": "string", "enum": ["up", "down", "left", "right"]},
    ),
    "switch_tab": tool("switch_tab", "Go to another tab.", ["tab"], tab={"type": "integer"}),
    "wait": wait_tool("Wait for the page."),
}
_DIRECTIONS = {"up": (0, -0.8), "down": (0, 0.8), "left": (-0.8, 0), "right": (0.8, 0)}


class PageTools:
    """The tools that act on the current page of a browser.

    Args:
        variables: Values that the model may type by their names, without ever seeing them.
        names: Which tools there are; None is all of them.
        selector: The part of the page that the model sees; None is all of it.
    """

    instructions = _INSTRUCTIONS

    def __init__(
        self,
        pages: BrowserPages,
        *,
        variables: Mapping[str, str] | None = None,
        use_vision: bool = False,
        full_page: bool = False,
        names: Sequence[str] | None = None,
        selector: str | None = None,
        characters: int = _MAX_TEXT_CHARACTERS,
    ) -> None:
        self.tools: list[Schema] = [_TOOLS[name] for name in (_TOOLS if names is None else names)]
        self._pages, self._variables = pages, dict(variables or {})
        self._use_vision, self._full_page = use_vision, full_page
        self._selector, self._characters = selector, characters
        self._tabs: list[Tab] = []
        self.content = PageContent()

    async def observe(self) -> list[Schema]:
        """Return what the current page shows."""
        try:
            self._tabs = await self._pages.tabs()
            if self._tabs and self._pages.target not in {tab.target for tab in self._tabs}:
                await self._pages.switch(self._tabs[0].target)  # the page was closed
            self.content = await self._pages.read(selector=self._selector, characters=self._characters)
            parts = [text_part(self._mask_variables(_describe(self.content, self._tabs, self._pages)))]
            if self._use_vision:
                taken = await self._pages.screenshot(full_page=self._full_page, jpeg_quality=_JPEG_QUALITY)
                parts.append(image_part(taken, "image/jpeg"))
        except DevToolsError as error:
            raise StepFailed(str(error)) from error
        return parts

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Call a tool."""
        check_tool(name, self.tools)
        try:
            await self._act(name, arguments)
        except DevToolsError as error:
            raise StepFailed(self._mask_variables(str(error))) from error
        dialogs, self._pages.dialogs[:] = self._pages.dialogs[:], []
        return "; ".join(["Done", *(f"a dialog was closed, {dialog}" for dialog in dialogs)])

    async def act_on(self, selector: str, name: str, text: str) -> None:
        """Call a tool for an element that was found before, by its selector.

        Raises:
            StepFailed: It cannot be done.
        """
        self.content = PageContent(elements=[{"selector": selector}])
        await self.call(name, {"element": 0, "text": text, "option": text, "key": text})

    def element(self, number: int) -> dict[str, Any]:
        """Return an element by the number under which it was shown."""
        if not 0 <= number < len(self.content.elements):
            raise StepFailed(f"there is no element {number}")
        return self.content.elements[number]

    def substitute_variables(self, text: str) -> str:
        """Replace the names of variables in a text by their values."""
        return _VARIABLE.sub(lambda found: self._variables.get(found[1], found[0]), text)

    async def _act(self, name: str, arguments: Mapping[str, Any]) -> None:
        pages = self._pages
        match name:
            case "navigate":
                await pages.navigate(self.substitute_variables(string(arguments, "url")))
            case "go_back":
                await pages.go_back()
            case "click":
                await pages.click(self._selector_of(arguments))
            case "type":
                await pages.fill(self._selector_of(arguments), self.substitute_variables(string(arguments, "text")))
                if arguments.get("submit") is True:
                    await pages.press("Enter")
            case "choose":
                await pages.choose(self._selector_of(arguments), self.substitute_variables(string(arguments, "option")))
            case "press":
                await pages.press(string(arguments, "key"))
            case "scroll":
                if arguments.get("direction") not in _DIRECTIONS:
                    raise StepFailed(f"direction must be {', '.join(_DIRECTIONS)}")
                await pages.scroll(*_DIRECTIONS[arguments["direction"]])
            case "switch_tab":
                number = whole_number(arguments, "tab")
                if not 0 <= number < len(self._tabs):
                    raise StepFailed(f"there is no tab {number}")
                await pages.switch(self._tabs[number].target)
            case _:
                await wait(arguments)

    def _selector_of(self, arguments: Mapping[str, Any]) -> str:
        return str(self.element(whole_number(arguments, "element")).get("selector"))

    def _mask_variables(self, text: str) -> str:
        """Replace the values of variables in a text by their names."""
        for name, value in self._variables.items():
            if len(value) >= _MIN_HIDDEN_CHARACTERS:
                text = text.replace(value, f"%{name}%")
        return text


def _describe(content: PageContent, tabs: Sequence[Tab], pages: BrowserPages) -> str:
    lines = [f"URL: {content.url}", f"Title: {content.title}"]
    if len(tabs) > 1:
        marks = [f"[{n}]{'*' if tab.target == pages.target else ''} {tab.title:.60}" for n, tab in enumerate(tabs)]
        lines.append(f"Tabs: {' | '.join(marks)}")
    if len(content.scroll) == 3:
        above, view, whole = content.scroll
        lines.append(f"Scrolled: {above} of {max(whole - view, 0)} pixels")
    lines += ["Elements:", *(f"[{n}] {_describe_element(one)}" for n, one in enumerate(content.elements))]
    return "\n".join([*lines, "Text:", content.text])


def _describe_element(element: Mapping[str, Any]) -> str:
    parts = [f"{element.get('kind')} {element.get('name')!r}"]
    parts += [f"{key}={element[key]!r}" for key in ("value", "checked", "disabled", "options") if key in element]
    return " ".join(parts)
