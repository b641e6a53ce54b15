"""The lines of the runtime's log."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

PROGRAM = r"""
import logging, sys
from agentbay.local.logs import configure_logging

configure_logging("info", sys.argv[1])
logger = logging.getLogger("agentbay.local.sessions")
logger.info("file %s", "x\nINFO agentbay.local.sessions: created session-forged\x1b]0;owned\x07\x9b31m\u2028end")
try:
    raise ValueError("y\nINFO agentbay.local.sessions: created session-forged\x1b[2J")
except ValueError:
    logger.exception("failed")
"""


@pytest.mark.parametrize("style", ["text", "json"])
def test_control_characters(style: str):
    """A name from a session can neither forge a line nor reach the terminal as an escape sequence."""
    run = subprocess.run([sys.executable, "-c", PROGRAM, style], capture_output=True, check=True, timeout=60)
    text = run.stderr.decode()
    assert not [character for character in text if character != "\n" and not character.isprintable()]
    lines = text.splitlines()
    assert not [line for line in lines if line.startswith("INFO agentbay.local.sessions: created")]
    assert r"x\nINFO" in text.replace(r"\\", "\\")
    if style == "text":
        assert [line for line in lines if not line.startswith("    ")] == [
            lines[0],
            "ERROR agentbay.local.sessions: failed",
        ]
    else:
        first, second = (json.loads(line) for line in lines)
        assert first["message"].startswith(r"file x\nINFO")
        assert "ValueError" in second["exception"]


UNREAD_PROGRAM = r"""
import logging, sys
from agentbay.local.logs import configure_logging

configure_logging("info", "text")
for number in range(30_000):
    logging.info("line %d", number)
print("logged", flush=True)
sys.stdin.readline()
for _ in range(60):
    logging.getLogger().handlers[0].flush()
"""


def test_nobody_reads():
    """A full pipe holds up nobody; what was dropped is counted."""
    with subprocess.Popen(
        [sys.executable, "-c", UNREAD_PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "logged\n"
        _, errors = run.communicate("\n", timeout=60)
    written = [int(number) for number in re.findall(r"INFO root: line (\d+)\n", errors)]
    dropped = [int(count) for count in re.findall(r"(\d+) lines were dropped", errors)]
    assert written == sorted(written)
    assert len(written) + len(dropped) == len(errors.splitlines())
    assert (len(written) + sum(dropped), dropped != []) == (30_000, True)
