"""`agentbay mcp`, as the official client of the protocol meets it: as a process, over stdio and over HTTP."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from jsonschema import Draft202012Validator
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, ImageContent, TextContent

from agentbay import AsyncAgentBay
from agentbay.cli import main
from agentbay.testing import LocalRuntime
from tests.local.network.servers import serving as web_server

pytestmark = pytest.mark.slow
if sys.platform != "linux":
    pytest.skip("the local runtime needs Linux", allow_module_level=True)

COMMAND = [sys.executable, "-m", "agentbay", "mcp"]
PNG = b"\x89PNG\r\n\x1a\n"


def environment(runtime: LocalRuntime | None = None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENTBAY_")}
    return {**kept, **(runtime.environment if runtime else {})}


def with_pid_file(path: Path, runtime: LocalRuntime | None = None) -> StdioServerParameters:
    script = f'echo $$ > {path}; exec "$@"'
    return StdioServerParameters(command="/bin/sh", args=["-c", script, "-", *COMMAND], env=environment(runtime))


@contextlib.asynccontextmanager
async def connected(*arguments: str, runtime: LocalRuntime | None = None) -> AsyncIterator[Client]:
    server = StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], *arguments], env=environment(runtime))
    async with Client(stdio_client(server), read_timeout_seconds=120) as client:
        yield client


@contextlib.contextmanager
def serving(*arguments: str, runtime: LocalRuntime | None = None, token: str = "") -> Iterator[str]:
    more = {"AGENTBAY_MCP_TOKEN": token} if token else {}
    command = [*COMMAND, "--http", "0", *arguments]
    with subprocess.Popen(command, env={**environment(runtime), **more}, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            line = server.stderr.readline()
            assert " ready at " in line, line + server.stderr.read()
            yield line.rsplit(" ", 1)[1].strip()
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[Client]:
    """A client of a server with all tools and a session of its own, which tests share: a server takes long to start."""
    async with connected() as client:
        yield client


def text(result: CallToolResult) -> str:
    return "\n".join(item.text for item in result.content if isinstance(item, TextContent))


def images(result: CallToolResult) -> list[bytes]:
    return [base64.b64decode(item.data) for item in result.content if isinstance(item, ImageContent)]


async def called(client: Client, name: str, **arguments: Any) -> str:
    result = await client.call_tool(name, arguments)
    assert not result.is_error, text(result)
    return text(result)


async def names(client: Client) -> list[str]:
    return [tool.name for tool in (await client.list_tools()).tools]


async def sessions(bay: AsyncAgentBay) -> list[str]:
    return [item["sessionId"] async for item in bay.iter_sessions(labels={"made-by": "agentbay-mcp"})]


async def until_gone(bay: AsyncAgentBay) -> None:
    with anyio.fail_after(30):
        while await sessions(bay):
            await anyio.sleep(0.1)


async def use_commands(client: Client, used: set[str]) -> None:
    async def call(name: str, **arguments: Any) -> str:
        used.add(name)
        return await called(client, name, **arguments)

    assert await call("run_command", command="cat; echo oops >&2; exit 3", stdin="hi\n", cwd="/tmp") == (
        "hi\nstandard error:\noops\n[exit code 3]"
    )
    started = await call("start_process", command="echo up; read line; echo got $line; sleep 60")
    process = re.findall(r"Started process (\w+) ", started)[0]
    assert "still running" in await call("read_process", process_id=process)
    assert f"{process}  still running" in await call("list_processes")
    await call("write_process", process_id=process, text="this\n")
    with anyio.fail_after(20):
        while "got this" not in await call("read_process", process_id=process, wait_seconds=0.1):
            pass
    assert await call("stop_process", process_id=process) == "Stopped; exit code 137."
    assert await call("list_processes") == "There are none."
    assert await call("run_code", code="x = 6\nprint('text')\nx * 7") == "text\n\n42"
    assert await call("run_code", code="x + 1") == "7"


async def use_files(client: Client, used: set[str]) -> None:
    async def call(name: str, **arguments: Any) -> str:
        used.add(name)
        return await called(client, name, **arguments)

    await call("create_directory", path="d/e")
    assert await call("write_file", path="d/a.txt", content="ä\n") == "Written 3 bytes to d/a.txt."
    await call("write_file", path="d/a.txt", content="2\n3\n", append=True)
    await call("edit_file", path="d/a.txt", edits=[{"old_text": "2", "new_text": "two"}])
    assert await call("read_file", path="d/a.txt") == "ä\ntwo\n3\n"
    assert await call("read_file", path="d/a.txt", first_line=2, max_lines=1) == "two\n\n[1 more lines]"
    assert await call("list_directory", path="d") == "a.txt  9\ne/"
    await call("move_file", source="d/a.txt", destination="d/e/b.txt")
    assert (await call("search_files", pattern="*.txt")).endswith("/d/e/b.txt")
    await call("delete_file", path="d/e/b.txt")
    assert await call("search_files", pattern="*.txt") == "No file has such a name."
    await call("start_process", command="python3 -m http.server 30105")
    assert (await call("get_link", port=30105)).startswith("http")


async def use_screens(client: Client, used: set[str]) -> None:
    async def call(name: str, **arguments: Any) -> str:
        used.add(name)
        return await called(client, name, **arguments)

    await call("browser_open", url="data:text/html,<title>T</title><h1>Hello</h1><input id=i>")
    assert await call("browser_evaluate", expression="document.body.innerText.trim()") == "Hello"
    assert await call("browser_evaluate", expression="Promise.resolve({a: [1]})") == '{"a": [1]}'
    failed = await client.call_tool("browser_evaluate", {"expression": "nothing.here()"})
    assert failed.is_error
    assert "ReferenceError" in text(failed)
    for name in ("browser_screenshot", "screenshot"):
        used.add(name)
        assert images(await client.call_tool(name, {}))[0].startswith((PNG, b"\xff\xd8\xff"))
    await call("start_app", command="xterm -geometry 80x24+10+10")
    with anyio.fail_after(20):
        while "  at " not in (windows := await call("list_windows")):
            await anyio.sleep(0.1)
    x, y = map(int, re.findall(r"  at (-?\d+),(-?\d+)", windows)[0])
    await call("click", x=x + 60, y=y + 60)
    await call("type_text", text="echo typed > typed.txt")
    await call("press_keys", keys=["Enter"])
    with anyio.fail_after(20):
        while (await client.call_tool("read_file", {"path": "typed.txt"})).is_error:
            await anyio.sleep(0.1)
    await call("scroll", x=x + 60, y=y + 60, direction="up")
    await call("drag", from_x=x + 40, from_y=y + 40, to_x=x + 80, to_y=y + 60)


async def test_every_tool_over_stdio() -> None:
    """Each tool does what it says, without an account; only acting in words needs a model."""
    used: set[str] = set()
    async with connected() as client:
        await use_commands(client, used)
        await use_files(client, used)
        await use_screens(client, used)
        acted = await client.call_tool("browser_act", {"instruction": "click"})
        assert acted.is_error
        assert "model" in text(acted)
        assert {*used, "browser_act"} == set(await names(client))


async def test_code_shows_images(client: Client) -> None:
    """Plots are images, which `read_file` shows too."""
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.savefig('p.png')\nplt.show()"
    assert images(await client.call_tool("run_code", {"code": code}))[0].startswith(PNG)
    assert images(await client.call_tool("read_file", {"path": "p.png"}))[0].startswith(PNG)
    failed = await client.call_tool("run_code", {"code": "1 / 0"})
    assert "ZeroDivisionError" in text(failed)


async def test_output_arrives_while_it_is_written(client: Client) -> None:
    """A command's output is sent as progress before the command ends."""
    arrived: list[str] = []
    done = anyio.Event()

    async def note(_progress: float, _total: float | None, message: str | None) -> None:
        arrived.append(message or "")
        done.set()

    async with anyio.create_task_group() as group:
        command = "echo first; until [ -e go ]; do sleep 0.05; done; echo last"
        results: list[CallToolResult] = []

        async def call() -> None:
            results.append(await client.call_tool("run_command", {"command": command}, progress_callback=note))

        group.start_soon(call)
        with anyio.fail_after(30):
            await done.wait()
        assert (arrived, results) == (["first\n"], [])
        await called(client, "run_command", command="touch go")
    assert text(results[0]) == "first\nlast\n[exit code 0]"


@pytest.mark.parametrize("tool", ["run_command", "run_code"])
async def test_cancel_ends_the_process(client: Client, tool: str) -> None:
    """A cancelled call leaves no process behind, and the server goes on."""
    began = f"{tool}-began"
    arguments: dict[str, Any] = {"command": f"touch {began}; sleep 4321 & sleep 4321; wait"}
    if tool == "run_code":
        arguments = {"code": f"import subprocess; open({began!r}, 'w').close(); subprocess.run(['sleep', '4321'])"}
    async with anyio.create_task_group() as group:
        group.start_soon(client.call_tool, tool, arguments)
        with anyio.fail_after(60):
            while (await client.call_tool("read_file", {"path": began})).is_error:
                await anyio.sleep(0.1)
        group.cancel_scope.cancel()
    with anyio.fail_after(20):
        while "no sleep" not in await called(client, "run_command", command="pgrep -a sleep || echo no sleep"):
            await anyio.sleep(0.1)
    assert await called(client, "list_processes") == "There are none."


async def test_time_limit(client: Client) -> None:
    """A command that takes too long is killed, and the answer has its output so far."""
    late = await client.call_tool("run_command", {"command": "echo part; sleep 60", "timeout_seconds": 1})
    assert late.is_error
    assert "killed after 1 s" in text(late)
    assert "part" in text(late)


async def test_long_output_is_shortened(client: Client) -> None:
    """The middle of a very long output is left out."""
    said = await called(client, "run_command", command="seq 100000")
    assert said.startswith("1\n2\n")
    assert "characters left out here" in said
    assert said.endswith("100000\n[exit code 0]")
    assert len(said) < 70_000


def parameters(schema: dict[str, Any], whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for parameter in schema.get("properties", {}).values():
        yield parameter
        items = parameter.get("items", {})
        yield from parameters(whole["$defs"][items["$ref"].rsplit("/", 1)[1]] if "$ref" in items else items, whole)


async def test_schemas_are_fit_for_a_model(client: Client) -> None:
    """Each tool and parameter has a description, a type, and items if it is a list."""
    tools = (await client.list_tools()).tools
    for tool in tools:
        Draft202012Validator.check_schema(tool.input_schema)
        assert tool.description
        assert tool.annotations
        for parameter in parameters(tool.input_schema, tool.input_schema):
            assert parameter["description"], (tool.name, parameter)
            assert parameter["type"], (tool.name, parameter)
            assert parameter["type"] != "array" or parameter["items"], (tool.name, parameter)


async def test_schemas_pass_through_a_framework(client: Client) -> None:
    """LangChain takes each tool as a function of a model, and loses no parameter, type or choice."""
    convert = pytest.importorskip("langchain_core.utils.function_calling").convert_to_openai_tool
    structured = pytest.importorskip("langchain_core.tools").StructuredTool
    tools = (await client.list_tools()).tools
    for tool in tools:
        made = structured.from_function(
            print, name=tool.name, description=tool.description, args_schema=tool.input_schema
        )
        function = convert(made)["function"]
        assert function["description"] == tool.description
        for name, parameter in tool.input_schema["properties"].items():
            passed = function["parameters"]["properties"][name]
            kept = ("type", "enum", "description")
            assert {key: passed.get(key) for key in kept} == {key: parameter.get(key) for key in kept}


async def test_arguments_of_a_program(client: Client) -> None:
    """Arguments reach the program as they are."""
    said = await called(client, "run_command", command="printf", arguments=["%s|", "a b", "$HOME", "*"])
    assert said == "a b|$HOME|*|\n[exit code 0]"


async def test_read_only_and_chosen_tools() -> None:
    """`--read-only` and `--tools` leave out what they should."""
    async with connected("--read-only", "--tools", "files,run_command,list_processes") as client:
        assert await names(client) == ["list_processes", "read_file", "list_directory", "search_files"]
        refused = await client.call_tool("run_command", {"command": "true"})
        assert refused.is_error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tools", "comands"], "There is no tool comands. Groups of tools are commands, code"),
        (["--image", "windows_latest"], "windows_latest"),
        (["--session", "s-1"], "AGENTBAY_API_KEY"),
        (["--http", "0", "--host", "0.0.0.0"], "AGENTBAY_MCP_TOKEN"),
    ],
)
def test_wrong_options(arguments: Sequence[str], said: str) -> None:
    """What cannot work ends the command with a message."""
    done = subprocess.run(
        [*COMMAND, *arguments], env=environment(), input="", capture_output=True, text=True, timeout=60
    )
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert not done.stdout


async def test_session_begins_with_the_first_call_and_ends_with_the_client(
    agentbay_local: LocalRuntime, async_agent_bay: AsyncAgentBay
) -> None:
    """Listing tools makes no session; the end of the client deletes the one that a call made."""
    async with connected(runtime=agentbay_local) as client:
        await names(client)
        assert await sessions(async_agent_bay) == []
        await called(client, "run_command", command="true")
        assert len(await sessions(async_agent_bay)) == 1
        made = (await async_agent_bay.get((await sessions(async_agent_bay))[0])).unwrap()
        (await made.session.delete()).unwrap()
        ended = await client.call_tool("run_command", {"command": "true"})
        assert "new, empty one" in text(ended)
        await called(client, "run_command", command="true")
    assert await sessions(async_agent_bay) == []


async def test_given_session_stays(agentbay_local: LocalRuntime, async_agent_bay: AsyncAgentBay) -> None:
    """`--session` works in a session of somebody else, and leaves it there."""
    async with async_agent_bay.session() as session:
        (await session.file_system.write_file("here.txt", "yes")).unwrap()
        async with connected("--session", session.session_id, runtime=agentbay_local) as client:
            assert await called(client, "read_file", path="here.txt") == "yes"
        assert (await session.get_status()).status == "RUNNING"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_killed_server_leaves_no_session(
    agentbay_local: LocalRuntime, async_agent_bay: AsyncAgentBay, number: signal.Signals, tmp_path: Path
) -> None:
    """After `kill` and `kill -9` of the server its session is deleted, also on a service that stays."""
    server = StdioServerParameters(
        command="/bin/sh",
        args=["-c", f'echo $$ > {tmp_path}/pid; exec "$@"', "-", *COMMAND],
        env=environment(agentbay_local),
    )
    async with Client(stdio_client(server)) as client:
        await called(client, "run_command", command="true")
        assert len(await sessions(async_agent_bay)) == 1
        os.kill(int((tmp_path / "pid").read_text()), number)
        await until_gone(async_agent_bay)


async def test_killed_server_leaves_no_process(tmp_path: Path) -> None:
    """After `kill -9` of a server with a runtime of its own nothing of it runs any more."""
    server = with_pid_file(tmp_path / "pid")
    async with Client(stdio_client(server)) as client:
        await called(client, "start_process", command="sleep 98765.4321")
        assert subprocess.run(["pgrep", "-f", "sleep 98765.4321"], stdout=subprocess.DEVNULL).returncode == 0
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        with anyio.fail_after(20):
            while subprocess.run(["pgrep", "-f", "sleep 98765.4321"], stdout=subprocess.DEVNULL).returncode == 0:
                await anyio.sleep(0.1)


async def test_http(agentbay_local: LocalRuntime, async_agent_bay: AsyncAgentBay) -> None:
    """Clients over HTTP share one session; a cancelled call ends its process, and the end of the server the session."""
    with serving(runtime=agentbay_local) as url:
        async with Client(url) as one, Client(url) as other:
            used: set[str] = set()
            await use_commands(one, used)
            await use_files(one, used)
            await called(one, "write_file", path="shared", content="yes")
            assert await called(other, "read_file", path="shared") == "yes"
            async with anyio.create_task_group() as group:
                group.start_soon(one.call_tool, "run_command", {"command": "touch began; sleep 4321"})
                with anyio.fail_after(60):
                    while (await other.call_tool("read_file", {"path": "began"})).is_error:
                        await anyio.sleep(0.1)
                group.cancel_scope.cancel()
            with anyio.fail_after(20):
                while "no sleep" not in await called(other, "run_command", command="pgrep -a sleep || echo no sleep"):
                    await anyio.sleep(0.1)
            assert len(await sessions(async_agent_bay)) == 1
    await until_gone(async_agent_bay)


async def test_http_token() -> None:
    """With a token in the environment, nobody without it is served."""
    with serving("--tools", "commands", token="secret-token") as url:
        async with httpx2.AsyncClient() as http:
            assert (await http.post(url, json={})).status_code == 401
            wrong = {"Authorization": "Bearer secret-tokem"}
            assert (await http.post(url, json={}, headers=wrong)).status_code == 401
        headers = {"Authorization": "Bearer secret-token"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            assert await called(client, "run_command", command="echo in") == "in\n[exit code 0]"


async def test_http_refuses_other_pages() -> None:
    """A page whose name was made to point to this machine is refused, as its Host and Origin show."""
    with serving("--tools", "commands") as url:
        async with httpx2.AsyncClient() as http:
            for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
                assert (await http.post(url, json={}, headers=headers)).status_code in (403, 421)


async def test_allowed_hosts() -> None:
    """Commands reach the hosts of --allow-host, and no others."""
    with web_server() as first, web_server() as second:
        async with connected("--allow-host", f"localhost:{first}", "--tools", "commands") as client:
            line = "curl -sS --noproxy '' -x $http_proxy http://localhost:{}/"
            assert (await called(client, "run_command", command=line.format(first))).startswith("GET /")
            assert f"--allow-host localhost:{second}" in await called(
                client, "run_command", command=line.format(second)
            )


def test_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    """`--config` prints entries that start this server with the given options."""
    assert main(["mcp", "--config", "--json", "--tools", "commands", "--allow-host", "example.com"]) == 0
    clients = {entry["client"]: entry["content"] for entry in json.loads(capsys.readouterr().out)["clients"]}
    assert {"Claude Code", "Claude Desktop", "Cursor", "VS Code", "Gemini CLI", "Codex"} == set(clients)
    entry = json.loads(clients["Claude Desktop"])["mcpServers"]["agentbay"]
    assert entry["args"][-3:] == ["mcp", "--tools=commands", "--allow-host=example.com"]
    assert json.loads(clients["VS Code"])["servers"]["agentbay"]["command"] == entry["command"]
    started = subprocess.run([entry["command"], *entry["args"]], input="", env=environment(), timeout=60)
    assert started.returncode == 0
