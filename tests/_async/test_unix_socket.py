"""A runtime on a unix socket, which carries calls, WebSockets and links."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from agentbay import AsyncAgentBay, AsyncSession, Config, ConfigurationError, ConnectionFailed
from agentbay._concurrency import async_sleep
from agentbay._websocket import AsyncWebSocket, WebSocketEndpoint

from .test_links import SERVER

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the local runtime needs Linux")
KEY = "the-key-of-the-tests"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The socket of a runtime."""
    path = tmp_path_factory.mktemp("socket") / "s"
    program = "import sys; from agentbay.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "local", "--socket", str(path)]
    environment = {**os.environ, "AGENTBAY_API_KEY": KEY}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as runtime:
        try:
            assert runtime.stdout is not None
            assert runtime.stdout.readline() == f"agentbay local ready at unix:{path}\n"
            yield str(path)
        finally:
            runtime.terminate()


@pytest.fixture(scope="module")
async def bay(path: str) -> AsyncIterator[AsyncAgentBay]:
    async with AsyncAgentBay(KEY, Config(endpoint=f"unix:{path}"), strict=True) as made:
        yield made


@pytest.fixture(scope="module")
async def session(bay: AsyncAgentBay) -> AsyncIterator[AsyncSession]:
    async with bay.session() as made:
        yield made


async def test_calls(session: AsyncSession) -> None:
    """Tools answer through the service and the direct link."""
    assert (await session.command.run("echo called")).output == "called\n"
    await session.list_mcp_tools()
    assert session.link_url == f"http://localhost/link/{session.session_id}"
    assert (await session.command.run("echo directly")).output == "directly\n"


async def test_streams(session: AsyncSession) -> None:
    """WebSockets go through the socket."""
    assert session.ws_url == f"ws://localhost/ws/{session.session_id}"
    terminal = await session.pty.create(cols=80, rows=24)
    await terminal.send_input("echo $((6*7))\n")
    seen = b""
    async for piece in terminal:
        seen += piece
        if b"42" in seen:
            break
    await terminal.kill()
    pieces: list[str] = []
    await session.code.run_code("print(6 * 7)", "python", stream_beta=True, on_stdout=pieces.append)
    assert "".join(pieces) == "42\n"


async def test_presigned_urls(bay: AsyncAgentBay, tmp_path: Path) -> None:
    """Presigned URLs go through the socket."""
    context = (await bay.context.create("over-a-socket")).context
    assert context is not None
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    await bay.context.upload(context.id, tmp_path / "file", "/file")
    await bay.context.download(context.id, "/file", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == b"x" * 100_000


async def test_links(session: AsyncSession, path: str) -> None:
    """Links of both kinds lead into the session through the socket."""
    await session.file_system.write_file("server.py", SERVER)
    await session.command.run("python3 server.py 30100 > log 2>&1 &")
    page = (await session.get_link("https", 30100)).data
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=path), trust_env=False, timeout=60) as web:
        while (answer := await web.get(page + "a?b=c")).status_code == 502:
            await async_sleep(0.05)
    assert answer.json()[0] == "/a?b=c"
    url = (await session.get_link("wss", 30100)).data
    socket = await AsyncWebSocket.open(WebSocketEndpoint(url, "", None, None, path), 60)
    assert await socket.receive() == "/"
    await socket.send("said", 60)
    assert await socket.receive() == "said"
    await socket.aclose()


async def test_nobody_listens(tmp_path: Path) -> None:
    """Errors name the socket, and an impossible path is refused at once."""
    async with AsyncAgentBay(KEY, Config(endpoint=f"unix:{tmp_path}/none"), max_retries=0, strict=True) as bay:
        with pytest.raises(ConnectionFailed, match=f"{tmp_path}/none: .*No such file"):
            await bay.create()
    with pytest.raises(ConfigurationError, match="unix:/the/path"):
        AsyncAgentBay(KEY, Config(endpoint="unix:s"))
