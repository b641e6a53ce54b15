"""Use a sandbox through the Model Context Protocol. Needs the extras local and mcp.

    python examples/mcp_client.py

A client such as Claude or Cursor starts `agentbay mcp` in the same way, and its model chooses the calls.
"""

from __future__ import annotations

import asyncio
import sys

from mcp import Client, StdioServerParameters, stdio_client
from mcp_types import ImageContent, TextContent

PLOT = """
import matplotlib.pyplot as plt
plt.plot([n * n for n in range(10)])
plt.show()
"""


async def show_progress(progress: float, total: float | None, message: str | None) -> None:
    """Print the output of a command while it runs."""
    print(f"  {message}", end="")


async def main() -> None:
    """Call three tools."""
    arguments = ["-m", "agentbay", "mcp", "--local", "--tools", "commands,code"]
    async with Client(stdio_client(StdioServerParameters(command=sys.executable, args=arguments))) as client:
        print(*(tool.name for tool in (await client.list_tools()).tools))
        command = {"command": "for n in 1 2 3; do echo step $n; sleep 0.2; done; exit 4"}
        result = await client.call_tool("run_command", command, progress_callback=show_progress)
        assert isinstance(result.content[0], TextContent)
        print(result.content[0].text.splitlines()[-1])
        result = await client.call_tool("run_code", {"code": PLOT})
        assert isinstance(result.content[0], ImageContent)
        print(f"{result.content[0].mime_type}, {len(result.content[0].data)} characters")


if __name__ == "__main__":
    asyncio.run(main())
