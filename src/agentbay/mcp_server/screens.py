"""Tools for the browser and for the desktop of a session."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

import httpx
from mcp.server.mcpserver import Image
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from agentbay import ActOptions, AsyncBrowserOperator

from .devtools import evaluate
from .tool_group import ToolGroup, shorten, tool

_X = Annotated[int, Field(ge=0, description="Pixels from the left edge of the screen.")]
_Y = Annotated[int, Field(ge=0, description="Pixels from the upper edge of the screen.")]
_Button = Annotated[Literal["left", "right", "middle"], Field(description="Mouse button.")]


class BrowserTools(ToolGroup):
    """Use the browser of the sandbox."""

    group = "browser"

    @tool(needs="page_use_navigate")
    async def browser_open(self, url: Annotated[str, Field(description="URL of the page.")]) -> str:
        """Open a page in the browser of the sandbox."""
        said = await (await self._operator()).navigate(url)
        if said.startswith("Navigation failed"):
            raise ToolError(said)
        return said

    @tool(needs="page_use_screenshot", writes=False)
    async def browser_screenshot(
        self,
        full_page: Annotated[bool, Field(description="The whole page, instead of the part in view.")] = False,
    ) -> Image:
        """Take a screenshot of the page in the browser."""
        said = await (await self._operator()).screenshot(full_page=full_page)
        header, _, data = said.partition(";base64,")
        if not header.startswith("data:image/"):
            raise ToolError(said)
        return Image(data=base64.b64decode(data), format=header.removeprefix("data:image/"))

    @tool(needs="page_use_navigate")
    async def browser_evaluate(
        self,
        expression: Annotated[str, Field(description="JavaScript, such as: document.body.innerText")],
    ) -> str:
        """Evaluate JavaScript in the page.

        So you can read its text, click its elements and fill in its forms. A promise is awaited. Returns the value as
        JSON, or a text as it is.
        """
        session = await self.current.get()
        await self._operator()
        return shorten(await evaluate(await session.browser.get_endpoint_url(), expression))

    @tool(needs="page_use_act_async")
    async def browser_act(
        self,
        instruction: Annotated[str, Field(description="What to do on the page, such as: click the link Prices")],
    ) -> str:
        """Do something on the page, said in words.

        A model of the service finds out how.
        """
        done = await (await self._operator()).act(ActOptions(action=instruction))
        if not done.success:
            raise ToolError(done.message)
        return done.message

    async def _operator(self) -> AsyncBrowserOperator:
        session = await self.current.get()
        await session.browser._start(None)  # `initialize` logs why it fails, and a model cannot read that
        return session.browser.operator


class DesktopTools(ToolGroup):
    """Use the desktop of the sandbox."""

    group = "desktop"

    @tool(needs="screenshot", writes=False)
    async def screenshot(self) -> Image:
        """Take a screenshot of the desktop."""
        session = await self.current.get()
        if session.link_url:
            return Image(data=(await session.computer.beta_take_screenshot()).unwrap().data, format="png")
        url = (await session.computer.screenshot()).unwrap().data
        async with httpx.AsyncClient() as http:
            return Image(data=(await http.get(url)).raise_for_status().content, format="png")

    @tool(needs="click_mouse")
    async def click(
        self,
        x: _X,
        y: _Y,
        button: _Button = "left",
        double: Annotated[bool, Field(description="Click twice, with the left button.")] = False,
    ) -> str:
        """Click at a point of the screen."""
        pressed = "double_left" if double else button
        (await (await self.current.get()).computer.click_mouse(x, y, pressed)).unwrap()
        return f"Clicked at {x}, {y}."

    @tool(needs="drag_mouse")
    async def drag(
        self,
        from_x: _X,
        from_y: _Y,
        to_x: _X,
        to_y: _Y,
        button: _Button = "left",
    ) -> str:
        """Press a mouse button at one point and release it at another."""
        (await (await self.current.get()).computer.drag_mouse(from_x, from_y, to_x, to_y, button)).unwrap()
        return f"Dragged to {to_x}, {to_y}."

    @tool(needs="scroll")
    async def scroll(
        self,
        x: _X,
        y: _Y,
        direction: Annotated[Literal["up", "down", "left", "right"], Field(description="Where to.")] = "down",
        amount: Annotated[int, Field(ge=1, le=100, description="Steps of the mouse wheel.")] = 3,
    ) -> str:
        """Scroll at a point of the screen."""
        (await (await self.current.get()).computer.scroll(x, y, direction, amount)).unwrap()
        return f"Scrolled {direction}."

    @tool(needs="input_text")
    async def type_text(self, text: Annotated[str, Field(description="Text to type.")]) -> str:
        """Type text into the window that has the focus."""
        (await (await self.current.get()).computer.input_text(text)).unwrap()
        return "Typed."

    @tool(needs="press_keys")
    async def press_keys(
        self,
        keys: Annotated[list[str], Field(min_length=1, description="Keys pressed together, such as Ctrl and c.")],
    ) -> str:
        """Press keys together and release them."""
        (await (await self.current.get()).computer.press_keys(keys)).unwrap()
        return f"Pressed {'+'.join(keys)}."

    @tool(needs="list_root_windows", writes=False)
    async def list_windows(self) -> str:
        """List the windows on the desktop, with their places and sizes in pixels."""
        windows = (await (await self.current.get()).computer.list_root_windows()).unwrap().windows
        lines = [
            f"{each.window_id}  {each.title!r}  at {each.absolute_upper_left_x},{each.absolute_upper_left_y}"
            f"  {each.width}x{each.height}"
            for each in windows
        ]
        return "\n".join(lines) or "There are none."

    @tool(needs="start_app")
    async def start_app(
        self, command: Annotated[str, Field(description="Command of the application, such as: xterm")]
    ) -> str:
        """Start an application on the desktop."""
        processes = (await (await self.current.get()).computer.start_app(command)).unwrap().data
        return "\n".join(f"{each.pname} (pid {each.pid})" for each in processes) or "Started."
