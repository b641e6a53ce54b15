"""`agentbay mcp`: offers a session to programs that speak the Model Context Protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json as json_module
import os
import shlex
import shutil
import sys
from importlib.util import find_spec
from typing import Annotated, Any, Literal

import typer

from agentbay.cli.groups import format_examples
from agentbay.cli.output import output
from agentbay.cli.shared import JsonOption
from agentbay.config import PROFILE_VARIABLE
from agentbay.errors import ConfigurationError, InvalidArgumentError

_EXAMPLES = format_examples(
    "agentbay mcp                                 # on standard input and output, as clients start it",
    "agentbay mcp --config                        # what to put into the settings of a client",
    "agentbay mcp --tools commands,files --allow-host example.com",
    "agentbay mcp --http 8765                     # at http://127.0.0.1:8765/mcp",
)


def add_to(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(epilog=_EXAMPLES)(mcp)


def mcp(
    http: Annotated[
        int | None, typer.Option(metavar="PORT", min=0, max=65535, help="Serve streamable HTTP on this port; 0 is any.")
    ] = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to serve HTTP on.")] = "127.0.0.1",
    session: Annotated[str, typer.Option(metavar="ID", help="Work in this session, and leave it there.")] = "",
    image: Annotated[str, typer.Option(metavar="IMAGE", help="Image of the session.")] = "",
    tools: Annotated[
        str, typer.Option(metavar="NAME,...", help="Only these tools or groups of tools.", show_default="all")
    ] = "",
    read_only: Annotated[bool, typer.Option("--read-only", help="Only tools that change nothing.")] = False,
    allow_host: Annotated[
        list[str], typer.Option(metavar="HOST[:PORT]", help="Host that sessions of the private runtime may reach.")
    ] = [],  # noqa: B006  # typer copies it
    local: Annotated[
        bool, typer.Option("--local", help="Use a private runtime on this machine, also if there is a key.")
    ] = False,
    config: Annotated[bool, typer.Option("--config", help="Print what common clients need, and end.")] = False,
    json: JsonOption = False,
) -> int:
    """Offer a session to programs that speak the Model Context Protocol (MCP).

    The session is made with the first call, and deleted when the client goes. Without AGENTBAY_API_KEY it runs on this
    machine, in a private runtime.
    """
    given: dict[str, Any] = {"session": session, "image": image, "tools": tools, "allow-host": allow_host}
    arguments = [f"--{name}={value}" for name, values in given.items() for value in _as_list(values)]
    arguments += [f"--{name}" for name, is_set in (("read-only", read_only), ("local", local)) if is_set]
    if config:
        _show_configuration(arguments)
        return 0
    private = local or not (os.environ.get("AGENTBAY_API_KEY") or os.environ.get(PROFILE_VARIABLE))
    if allow_host and not private:
        raise InvalidArgumentError("--allow-host is for the private runtime: add --local, or unset AGENTBAY_API_KEY.")
    if session and private:
        raise InvalidArgumentError("--session needs a service that stays: set AGENTBAY_API_KEY and AGENTBAY_ENDPOINT.")
    if find_spec("mcp") is None:
        raise ConfigurationError('This command needs the package mcp: pip install "agentbay-sdk[local,mcp]"')
    from agentbay.mcp_server import server

    options = server.ServerOptions(
        image=image,
        session_id=session,
        private=private,
        allow_hosts=allow_host,
        read_only=read_only,
        tools=[name.strip() for name in tools.split(",") if name.strip()],
    )
    # Ctrl-C is the usual way to end a server in a terminal.
    with contextlib.suppress(KeyboardInterrupt):
        if http is None:
            asyncio.run(server.serve_stdio(options))
        else:
            asyncio.run(server.serve_http(options, host, http, lambda url: output.note(f"agentbay mcp ready at {url}")))
    return 0


def _as_list(values: str | list[str]) -> list[str]:
    return ([values] if values else []) if isinstance(values, str) else values


def _show_configuration(arguments: list[str]) -> None:
    # Clients often start servers without the PATH of a shell.
    program = shutil.which("agentbay")
    command = [program] if program else [sys.executable, "-m", "agentbay"]
    line = [*command, "mcp", *arguments]
    entry = {"command": line[0], "args": line[1:]}
    servers = json_module.dumps({"mcpServers": {"agentbay": entry}}, indent=2)
    studio = json_module.dumps({"servers": {"agentbay": {"type": "stdio", **entry}}}, indent=2)
    toml = f"[mcp_servers.agentbay]\ncommand = {json_module.dumps(line[0])}\nargs = {json_module.dumps(line[1:])}"
    snippets: list[tuple[str, Literal["file", "command"], str, str]] = [
        ("Claude Code", "command", "", f"claude mcp add agentbay -- {shlex.join(line)}"),
        ("Claude Desktop", "file", "claude_desktop_config.json", servers),
        ("Cursor", "file", ".cursor/mcp.json", servers),
        ("VS Code", "file", ".vscode/mcp.json", studio),
        ("Gemini CLI", "file", ".gemini/settings.json", servers),
        ("Codex", "file", ".codex/config.toml", toml),
    ]
    clients = [{"client": client, kind: place or text, "content": text} for client, kind, place, text in snippets]
    pages = [f"# {client}{f', in {place}' if place else ''}\n{text}\n" for client, _, place, text in snippets]
    output.show({"clients": clients}, *"\n".join(pages).split("\n"))
