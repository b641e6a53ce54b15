"""The variable AGENTBAY_LOG: what it logs, and that no secret is in it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, sys, urllib.request
from agentbay import AgentBay, AsyncAgentBay, CreateSessionParams

SECRET = "s3cret-of-the-user"

async def with_await():
    async with AsyncAgentBay.local() as bay, bay.session(CreateSessionParams(envs={"TOKEN": SECRET})) as session:
        await session.command.run(f"echo {SECRET}", envs={"A": SECRET})
        await session.file_system.write_file("f", SECRET)
        print(session.token, bay.api_key, file=sys.stdout)

with AgentBay.local() as bay, bay.session(CreateSessionParams(envs={"TOKEN": SECRET})) as session:
    session.command.run(f"echo {SECRET}", envs={"A": SECRET})
    session.env.set({"B": SECRET})
    session.code.run_code(f"print('{SECRET}')", "python")
    session.file_system.write_file("f", SECRET)
    context = bay.context.get("of-the-log", create=True).context
    url = bay.context.get_file_upload_url(context.id, "/tmp/a.txt").url
    link = session.get_link("https", 30150).data
    session.pty.create()
    session.file_system.read_file("missing")
    bay.get("session-none")
    for text in (session.token, bay.api_key, url, link, session.ws_url, SECRET):
        print(text)
asyncio.run(with_await())
"""


def run(level: str, program: str = PROGRAM) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "AGENTBAY_LOG": level}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(sys.platform != "linux", reason="the local runtime needs Linux")
def test_calls_without_secrets() -> None:
    """Every call is a line on standard error, and none shows a key, a token, a link or a content."""
    done = run("debug")
    assert done.returncode == 0, done.stderr
    for wanted in ("CreateMcpSession: HTTP 200", "GetLink: HTTP 200", "GetSession: HTTP", "agentbay"):
        assert wanted in done.stderr
    secrets = done.stdout.split()
    assert len(secrets) >= 8
    assert [secret for secret in secrets if secret in done.stderr] == []


def test_a_level_that_is_none() -> None:
    """A wrong level is an error that names the variable."""
    done = run("loud", "from agentbay import AgentBay\nAgentBay('akm-x')")
    assert "ConfigurationError: AGENTBAY_LOG must be debug" in done.stderr


def test_nothing_is_logged_without_it() -> None:
    """Without the variable there is no handler, and with a higher level no line of a call."""
    program = "import logging, agentbay\nagentbay.AgentBay('akm-x').close()\n"
    program += "print(logging.getLogger('agentbay').handlers)"
    assert run("", program).stdout == "[]\n"
    assert "StreamHandler" in run("error", program).stdout
