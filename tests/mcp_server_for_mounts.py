"""An MCP server of the tests: `python mcp_server_for_mounts.py [stdio|http PORT]`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("words", log_level="ERROR")


@server.tool()
def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


@server.tool()
def show_variable(name: str) -> str:
    """Return an environment variable of the server."""
    return os.environ.get(name, "unset")


@server.tool(structured_output=False)
def draw() -> list[Any]:
    """Return a text and an image."""
    return ["a dot", Image(data=b"\x89PNG", format="png")]


@server.tool()
def fail(reason: str) -> str:
    """Fail."""
    raise ToolError(reason)


@server.tool()
def end() -> str:
    """End the server at once."""
    os._exit(1)


@server.tool()
async def wait(marks: str) -> str:
    """Wait for a minute, and leave a file when that is cancelled."""
    try:
        Path(marks, "begun").touch()
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        Path(marks, "cancelled").touch()
        raise
    return "slept"


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["http", port]:
            server.run("streamable-http", port=int(port))
        case ["slow"]:
            time.sleep(60)
        case ["shell"]:
            server.tool(name="shell")(lambda command: command)
            server.run()
        case _:
            server.run()
