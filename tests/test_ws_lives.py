"""A session's WebSocket across event loops, forks and exits."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROGRAM = textwrap.dedent(
    """
    import asyncio, os
    from agentbay import AgentBay, AsyncAgentBay

    bay, found = AsyncAgentBay.local(strict=True), {}

    async def use():
        session = found.setdefault("session", None) or (await bay.create()).session
        found["session"] = session
        handle = await session.pty.create(shell="sh -c 'echo hi; exit 2'")
        print(b"".join([piece async for piece in handle]), await handle.wait(60), flush=True)
        await session.pty.create()  # left open

    async def end():
        await found["session"].delete()
        await bay.aclose()

    for step in (use, use, end):
        asyncio.run(step())

    bay = AgentBay.local(strict=True)
    session = bay.create().session
    handle = session.pty.create(on_data=lambda _: None)
    child = os.fork()
    if child == 0:
        print("child", session.pty.create(shell="sh -c 'exit 4'").wait(60), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    handle.send_input("exit 6\\n")
    print("parent", handle.wait(60), flush=True)
    session.pty.create(on_data=lambda _: None)
    print("end", flush=True)  # with all left open
    """
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the local runtime needs Linux")
def test_lives(tmp_path: Path) -> None:
    """Each loop and process has its own connection, which never keeps it alive."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.stdout.split("\n") == ["b'hi\\r\\n' 2", "b'hi\\r\\n' 2", "child 4", "parent 6", "end", ""], done.stderr
    assert "Traceback" not in done.stderr
    assert "Resource" not in done.stderr
