"""The cloud's MCP endpoint on the local runtime, as programs written for it use it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any
from urllib.request import urlopen

import anyio
import httpx
from jsonschema import Draft202012Validator
from mcp import ClientSession
from mcp.client.sse import sse_client

from agentbay.testing import LocalRuntime, local_runtime


@asynccontextmanager
async def connected(runtime: LocalRuntime, image: str = "linux_latest") -> AsyncIterator[ClientSession]:
    url = f"{runtime.endpoint}/v2/sse?APIKEY={runtime.api_key}&IMAGEID={image}"
    async with sse_client(url) as streams, ClientSession(*streams) as session:
        await session.initialize()
        yield session


async def call(session: ClientSession, name: str, **arguments: Any) -> str:
    result = await session.call_tool(name, arguments)
    assert not result.is_error, result
    return str(getattr(result.content[0], "text", ""))


async def test_life_of_a_sandbox(agentbay_local: LocalRuntime) -> None:
    """Created, used, shown in a browser, and killed."""
    async with connected(agentbay_local) as session:
        sandbox = await call(session, "create_sandbox")
        assert json.loads(await call(session, "shell", sandbox_id=sandbox, command="echo out"))["stdout"] == "out\n"
        command = {"sandbox_id": sandbox, "command": "echo bad >&2; exit 3", "timeout_ms": 9000}
        failed = await session.call_tool("shell", command)
        answer = json.loads(getattr(failed.content[0], "text", ""))
        assert (failed.is_error, answer["stderr"], answer["exit_code"]) == (True, "bad\n", 3)
        content = "x" * 300_000
        await call(session, "write_file", sandbox_id=sandbox, path="big.txt", content=content, mode="overwrite")
        assert await call(session, "read_file", sandbox_id=sandbox, path="big.txt") == content
        url = await call(session, "get_sandbox_url", sandbox_id=sandbox)
        page = await anyio.to_thread.run_sync(lambda: urlopen(url, timeout=30).read())
        assert sandbox.encode() in page
        await call(session, "kill_sandbox", sandbox_id=sandbox)
        gone = await session.call_tool("shell", {"sandbox_id": sandbox, "command": "true"})
        assert gone.is_error
        assert getattr(gone.content[0], "text", "").startswith("Code: InvalidMcpSession.NotFound")


async def test_sandbox_outlives_its_stream(agentbay_local: LocalRuntime) -> None:
    """Another client goes on with it; it is a session like any other."""
    async with connected(agentbay_local) as session:
        sandbox = await call(session, "create_sandbox")
    async with connected(agentbay_local) as session, agentbay_local.async_agent_bay() as bay:
        assert json.loads(await call(session, "shell", sandbox_id=sandbox, command="pwd"))["stdout"] == "/home/wuying\n"
        assert (await bay.delete(sandbox)).success


async def test_tools(agentbay_local: LocalRuntime) -> None:
    """Every tool says that it needs a sandbox, by a valid schema; images have tools of their own."""
    async with connected(agentbay_local) as session:
        tools = {tool.name: tool for tool in (await session.list_tools()).tools}
        assert {"create_sandbox", "get_sandbox_url", "kill_sandbox", "shell", "run_code", "read_file"} <= set(tools)
        for name, tool in tools.items():
            Draft202012Validator.check_schema(tool.input_schema)
            assert ("sandbox_id" in tool.input_schema.get("required", [])) == (name != "create_sandbox"), name
        for arguments in ({"command": "true"}, {"sandbox_id": 5, "command": "true"}, {"sandbox_id": "none"}):
            assert (await session.call_tool("shell", arguments)).is_error
        assert (await session.call_tool("no_tool", {"sandbox_id": "x"})).is_error


async def test_many_calls_at_once(agentbay_local: LocalRuntime) -> None:
    """A long call does not hold up others of its stream, and a cancelled one ends its command."""
    async with connected(agentbay_local) as session:
        sandbox = await call(session, "create_sandbox")
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: call(session, "shell", sandbox_id=sandbox, command="sleep 60", timeout_ms=90_000))
            await anyio.sleep(0.3)
            assert '"7\\n"' in await call(session, "shell", sandbox_id=sandbox, command="echo 7")
            group.cancel_scope.cancel()
        with anyio.fail_after(30):
            while "sleep" in await call(session, "shell", sandbox_id=sandbox, command="cat /proc/[0-9]*/comm"):
                await anyio.sleep(0.1)
        await call(session, "kill_sandbox", sandbox_id=sandbox)


async def test_who_may_not(agentbay_local: LocalRuntime) -> None:
    """Without the key, from pages of other sites, or with a guessed path nothing is served."""
    stream = f"{agentbay_local.endpoint}/v2/sse"
    async with httpx.AsyncClient() as client:
        assert (await client.get(stream)).status_code == 400
        assert "NOT_LOGIN" in (await client.get(stream, params={"APIKEY": "wrong"})).text
        page = {"Origin": "http://evil.example"}
        assert (await client.get(f"{stream}?APIKEY={agentbay_local.api_key}", headers=page)).status_code == 403
        guessed = await client.post(f"{agentbay_local.endpoint}/v2/messages/guessed", json={})
        assert guessed.status_code in (400, 404)
        assert agentbay_local.api_key not in guessed.text


def test_nothing_is_loaded_without_the_key() -> None:
    """A client without the key does not make the runtime load the protocol's package."""
    with local_runtime() as runtime:
        for path in ("/v2/sse", "/v2/sse?APIKEY=wrong", "/v2/messages/guessed"):
            assert "NOT_LOGIN" in httpx.get(f"{runtime.endpoint}{path}").text
        with httpx.stream("GET", f"{runtime.endpoint}/v2/sse?APIKEY={runtime.api_key}", timeout=30) as events:
            assert next(events.iter_lines()) == "event: endpoint"
        assert httpx.post(f"{runtime.endpoint}/v2/messages/guessed", json={}).status_code == 404


async def test_bad_messages(agentbay_local: LocalRuntime) -> None:
    """What is no message is refused, and the stream goes on; the key may be a header."""
    headers = {"Authorization": f"Bearer {agentbay_local.api_key}"}
    async with httpx.AsyncClient(headers=headers, timeout=30) as client:
        async with client.stream("GET", f"{agentbay_local.endpoint}/v2/sse") as events:
            lines = events.aiter_lines()
            assert await anext(lines) == "event: endpoint"
            path = f"{agentbay_local.endpoint}{(await anext(lines)).removeprefix('data: ')}"
            assert (
                await client.post(path, content=b"{", headers={"Content-Type": "application/json"})
            ).status_code == 400
            assert (await client.post(path, content=b"{}", headers={"Content-Type": "text/plain"})).status_code == 400
            assert (await client.post(path, content=b" " * (9 << 20))).status_code in (400, 413)
            ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
            nested = json.dumps({**ping, "params": {"x": [[]] * 100_000}})
            refused = await client.post(path, content=nested, headers={"Content-Type": "application/json"})
            assert "more than 50,000 values" in refused.text
            assert (await client.post(path, json=ping)).status_code == 202
            async for line in lines:
                if line.startswith("data: "):
                    assert json.loads(line.removeprefix("data: ")) == {"jsonrpc": "2.0", "id": 1, "result": {}}
                    break
        with anyio.fail_after(10):
            while (await client.post(path, json=ping)).status_code != 404:
                await anyio.sleep(0.05)


def test_end_of_the_runtime() -> None:
    """An open stream does not hold up the end of its runtime, which waits 5 s for answers that have begun."""
    stack = ExitStack()
    runtime = stack.enter_context(local_runtime())
    url = f"{runtime.endpoint}/v2/sse?APIKEY={runtime.api_key}"
    with stack, httpx.stream("GET", url, timeout=30) as events:
        assert next(events.iter_lines()) == "event: endpoint"
        began = time.monotonic()
        stack.close()
        assert time.monotonic() - began < 4
