"""Tools of other MCP servers in a session: by a command, over HTTP, and when the server goes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from agentbay import (
    AsyncSession,
    ConfigurationError,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidArgumentError,
    SessionNotFoundError,
    ToolError,
)
from agentbay._concurrency import async_sleep
from agentbay.errors import ConnectionLost
from tests.at_once import async_at_once

pytestmark = pytest.mark.slow
SERVER = [sys.executable, str(Path(__file__).parent.parent / "mcp_server_for_mounts.py")]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def servers_of(mark: str) -> list[int]:
    """Return the processes whose command line has a mark."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                found.append(int(entry.name))
        except OSError:  # it has ended
            continue
    return found


@pytest.fixture
def http_server() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with subprocess.Popen([*SERVER, "http", str(port)]) as server:

        def is_listening() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_for(is_listening)
        yield f"http://127.0.0.1:{port}/mcp"
        server.kill()


async def test_command(session: AsyncSession) -> None:
    """Its tools are listed beside those of the session, and called by the same method."""
    before = {tool.name for tool in await session.list_mcp_tools()}
    tools = await session.mount_mcp(SERVER)
    assert {tool.name for tool in tools} == {"count_words", "show_variable", "draw", "fail", "end", "wait"}
    listed = {tool.name: tool for tool in await session.list_mcp_tools()}
    assert set(listed) == before | {tool.name for tool in tools}
    found = listed["count_words"]
    assert (found.description, found.input_schema["required"]) == ("Count the words of a text.", ["text"])
    result = await session.call_mcp_tool("count_words", {"text": "one two three"})
    assert (result.data, result.structured_content) == ("3", {"result": 3})
    drawn = (await session.call_mcp_tool("draw", {})).unwrap()
    assert [item["type"] for item in drawn.content] == ["text", "image"]
    assert "hello" in (await session.call_mcp_tool("shell", {"command": "echo hello"})).unwrap().data
    other = session.with_options(timeout=30)
    assert (await other.call_mcp_tool("count_words", {"text": "x"})).data == "1"
    # an image's own list is that of the service
    assert {tool.name for tool in await session.list_mcp_tools("linux_latest")} == before


async def test_variables(session: AsyncSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server has the variables that it is given, and not this program's key."""
    monkeypatch.setenv("AGENTBAY_API_KEY", "secret-key")
    await session.mount_mcp(SERVER, envs={"GIVEN": "yes"})
    shown = [await session.call_mcp_tool("show_variable", {"name": name}) for name in ("GIVEN", "AGENTBAY_API_KEY")]
    assert [each.data for each in shown] == ["yes", "unset"]


async def test_address(session: AsyncSession, http_server: str) -> None:
    """A server at an address; its query, which may be a key, is shown nowhere."""
    [tool, *_] = await session.mount_mcp(f"{http_server}?key=secret", headers={"X-Key": "secret"})
    assert tool.server == http_server.removeprefix("http://")
    assert (await session.call_mcp_tool("count_words", {"text": "a b"})).data == "2"
    await session.unmount_mcp(tool.server)
    assert (await session.call_mcp_tool("count_words", {"text": "a b"})).success is False


async def test_failures_of_tools(session: AsyncSession) -> None:
    """A tool that fails is a failed result with its words, as for tools of the session."""
    await session.mount_mcp(SERVER)
    failed = await session.call_mcp_tool("fail", {"reason": "no such word"})
    assert isinstance(failed.exception, ToolError)
    assert "no such word" in failed.error_message
    wrong = await session.call_mcp_tool("count_words", {})
    assert isinstance(wrong.exception, ToolError)


async def test_time_limit(session: AsyncSession, tmp_path: Path) -> None:
    """A call that takes too long is cancelled in the server."""
    await session.mount_mcp(SERVER)
    late = await session.call_mcp_tool("wait", {"marks": str(tmp_path)}, read_timeout=1500)
    assert isinstance(late.exception, DeadlineExceeded)
    wait_for((tmp_path / "cancelled").exists)


async def test_calls_at_once(session: AsyncSession) -> None:
    """Calls do not wait for each other's turn."""
    await session.mount_mcp(SERVER)

    async def count(words: int) -> str:
        return (await session.call_mcp_tool("count_words", {"text": "x " * words})).data

    answers = await async_at_once([partial(count, words) for words in range(10)])
    assert answers == [str(words) for words in range(10)]


async def test_server_that_ends(session: AsyncSession) -> None:
    """Its tools fail with a typed error, and it can be mounted again."""
    [tool, *_] = await session.mount_mcp(SERVER)
    for name in ("end", "count_words"):
        lost = await session.call_mcp_tool(name, {"text": ""} if name == "count_words" else {})
        assert isinstance(lost.exception, ConnectionLost), lost
    await session.unmount_mcp(tool.server)
    await session.mount_mcp(SERVER)
    assert (await session.call_mcp_tool("count_words", {"text": "x"})).data == "1"


async def test_clashes(session: AsyncSession) -> None:
    """Names that the session or another server has are refused, and the refused server ends."""
    with pytest.raises(InvalidArgumentError, match="taken here: shell"):
        await session.mount_mcp([*SERVER, "shell"])
    await session.mount_mcp(SERVER)
    with pytest.raises(InvalidArgumentError, match="count_words, draw"):
        await session.mount_mcp([*SERVER, "again-this-one"])
    assert not servers_of("again-this-one")
    assert (await session.call_mcp_tool("count_words", {"text": "x"})).data == "1"


async def test_servers_that_cannot_be_mounted(session: AsyncSession) -> None:
    """Each failure says which server and why, without what may be secret."""
    with pytest.raises(ConfigurationError, match="no-such-program"):
        await session.mount_mcp("no-such-program --token=secret")
    with pytest.raises(ConnectionFailed, match="true") as failed:
        await session.mount_mcp(["true", "secret"])
    assert "secret" not in str(failed.value)
    with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:9/mcp") as failed:
        await session.mount_mcp("http://user:secret@127.0.0.1:9/mcp?key=secret")
    assert "secret" not in str(failed.value)
    for wrong in ("", [], "http://", "'", "http://[", "http://host:99999999"):
        with pytest.raises(InvalidArgumentError, match="server"):
            await session.mount_mcp(wrong)
    for variable in ({"A=": "secret"}, {"": "secret"}):
        with pytest.raises(InvalidArgumentError, match="envs") as refused:
            await session.mount_mcp(SERVER, envs=variable)
        assert "secret" not in str(refused.value)
    for header in ({"A\n": "secret"}, {"A": "secret\nB: c"}, {"A": "secret ü"}):
        with pytest.raises(InvalidArgumentError, match="headers") as refused:
            await session.mount_mcp("http://127.0.0.1:9/mcp", headers=header)
        assert "secret" not in str(refused.value)
    with pytest.raises(InvalidArgumentError, match="headers"):
        await session.mount_mcp(SERVER, headers={})
    with pytest.raises(InvalidArgumentError, match="envs"):
        await session.mount_mcp("http://127.0.0.1:9/mcp", envs={})
    with pytest.raises(InvalidArgumentError, match="No MCP server 'none'"):
        await session.unmount_mcp("none")


async def test_silent_server(session: AsyncSession) -> None:
    """A server that does not answer is refused before it has ended, and ends all the same; also if the program does."""
    with pytest.raises(DeadlineExceeded, match="python"):
        await session.mount_mcp([*SERVER, "slow"], timeout=0.5)
    assert servers_of(f"{SERVER[-1]}\0slow")  # nobody waits for its end
    wait_for(lambda: not servers_of(f"{SERVER[-1]}\0slow"))


async def test_end_of_the_session(session: AsyncSession) -> None:
    """The server ends with its session."""
    other = (await session.agent_bay.create()).unwrap().session
    await other.mount_mcp([*SERVER, "ends-with-its-session"])
    assert servers_of("ends-with-its-session")
    await other.delete()
    assert not servers_of("ends-with-its-session")
    with pytest.raises(SessionNotFoundError, match=other.session_id):
        await other.mount_mcp([*SERVER, "ends-with-its-session"])
    assert not servers_of("ends-with-its-session")


async def test_end_of_the_session_during_a_call(session: AsyncSession, tmp_path: Path) -> None:
    """A call under way fails with a typed error."""
    other = (await session.agent_bay.create()).unwrap().session
    await other.mount_mcp(SERVER)

    async def call() -> object:
        return (await other.call_mcp_tool("wait", {"marks": str(tmp_path)})).exception

    async def end() -> None:
        while not (tmp_path / "begun").exists():
            await async_sleep(0.02)
        await other.delete()

    lost, _ = await async_at_once([call, end])
    assert isinstance(lost, ConnectionLost)
