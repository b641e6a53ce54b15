"""Offer a session's tools to any LangChain agent. Needs langchain-core.

    python examples/langchain_tool.py

The model is left out, so this needs no key: `model.bind_tools(tools)` gives them to one. What a model would send as a
tool call is sent here by hand.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from langchain_core.tools import BaseTool, ToolException, tool

from agentbay import AgentBayError, AsyncAgentBay, AsyncSession


def tools_of(session: AsyncSession) -> list[BaseTool]:
    """Return the tools of one session, which report errors to the model."""

    @tool
    async def shell(command: Annotated[str, "As typed at a prompt."]) -> str:
        """Run a command in the sandbox, and return its exit code and output."""
        try:
            result = (await session.command.run(command, timeout=20)).unwrap()
        except AgentBayError as error:
            raise ToolException(error.message) from error
        return f"exit code {result.exit_code}\n{result.output[-4000:]}"

    @tool
    async def write_file(path: Annotated[str, "Relative to the home directory."], content: str) -> str:
        """Write a file in the sandbox."""
        try:
            (await session.file_system.write_file(path, content)).unwrap()
        except AgentBayError as error:
            raise ToolException(error.message) from error
        return f"{path} written"

    for made in (shell, write_file):
        made.handle_tool_error = True
    return [shell, write_file]


async def main() -> None:
    """Call the tools as a model would."""
    calls = [
        (
            "write_file",
            {"path": "fib.py", "content": "a, b = 0, 1\nwhile a < 50:\n    print(a)\n    a, b = b, a + b\n"},
        ),
        ("shell", {"command": "python3 fib.py | paste -sd ' '"}),
        ("write_file", {"path": "/etc/passwd", "content": "mine"}),
        ("shell", {"command": "false"}),
    ]
    async with AsyncAgentBay.local() as bay, bay.session() as session:
        tools = {made.name: made for made in tools_of(session)}
        for name, arguments in calls:
            message = await tools[name].ainvoke({"type": "tool_call", "id": "1", "name": name, "args": arguments})
            print(f"{name} -> {message.content.strip()}")


if __name__ == "__main__":
    asyncio.run(main())
