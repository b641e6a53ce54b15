"""What a kernel holds when code of its session first gets hold of it."""

from __future__ import annotations

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.local.raw import Wire, embedded
from tests.local.traces import eventually
from tests.local.users import User, give_packages

if find_spec("IPython") is None:
    pytest.skip("warm kernels need IPython", allow_module_level=True)

ATTACK = Path(__file__).with_name("newborn_attack.py").read_text()
FORKED_KERNEL = re.compile("agentbay.*kernel")
STARTS = 12
CAUGHT = 3  # kernels that must be caught
EVENT_LOOP = {"4", "5", "6"}  # the descriptors of the kernel's own: its selector, and a pair of sockets that wakes it
EVENTPOLL = "anon_inode:[eventpoll]"
OWN_TARGET = re.compile(
    r"pipe:|socket:|/dev/null|anon_inode:\[eventpoll\]|/.*\.pyc?$"
)  # the last is an import under way


def run_code(wire: Wire, session: str, code: str) -> str:
    return wire.text(session, "run_code", language="python", code=code, timeout_s=60)


def test_a_newborn_kernel_holds_nothing_of_others(somebody: User):
    """A kernel that is stopped and inspected while it starts holds only what is its own."""
    user = somebody if somebody.interpreter == sys.executable else give_packages(somebody, "ipython")
    options = ["--state-dir", str(user.directory / "state")]
    with embedded(None, *options, **user.starts()) as (_, wire), wire.session(ImageId="code_latest") as session:
        assert "42" in run_code(wire, session, "6 * 7")  # by now the zygote starts
        wire.text(session, "write_file", path="attack.py", content=ATTACK)
        wire.stdout(session, "python3 attack.py 50 > seen 2>&1 < /dev/null & sleep 0.1")
        assert eventually(lambda: "begun" in wire.stdout(session, "cat seen"))
        caught: list[dict[str, str]] = []
        for _ in range(STARTS):
            wire.data("CallMcpTool", SessionId=session, Name="restart_code_context", Args={"name": "python"}, Server="")
            assert "42" in run_code(wire, session, "6 * 7")
            lines = wire.stdout(session, "cat seen").splitlines()[1:]
            found = [json.loads(line) for line in lines if line.startswith("{")]
            caught = [process["files"] for process in found if FORKED_KERNEL.search(process["command"])]
            if len(caught) >= CAUGHT:
                break
        assert caught, "the attack has caught no kernel"
        for files in caught:
            assert set(files) <= {"0", "1", "2", "3", *EVENT_LOOP}, files
            others = {target for target in files.values() if not OWN_TARGET.match(target)}
            assert not others
            assert EVENTPOLL in files.values() or not EVENT_LOOP & set(files), files
