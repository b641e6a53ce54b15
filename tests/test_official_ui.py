"""Both clients drive desktops and phones with the same requests and results."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.capture import Captured, capturing
from tests.once import once
from tests.test_official_wire import official  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).with_name("official_ui.py")
CLOCK = re.compile(r"(pm_lock\.trigger )\d+")

# Where ours is better on purpose: what differs, and why. docs/migration.md tells it to users.
READ_DIFFERENTLY = {
    "service: computer.beta_take_screenshot: gif": "the format is refused before the session is looked at",
    "service: mobile.beta_take_screenshot: gif": "the same",
    "service: computer.get_cursor_position": "data is a dict, as documented, not its JSON text",
    "direct: computer.get_cursor_position": "the same",
    "direct: mobile.beta_take_screenshot: another image": "the message is that of a desktop",
    "direct: mobile.beta_take_screenshot: refused": "the same",
    "service: mobile.get_all_ui_elements: csv": "a failed result has no raw text",
    "direct: mobile.get_all_ui_elements: csv": "the same",
}


class Service:
    """A service that answers and records each step's tool calls."""

    def __init__(self) -> None:
        self.url, self.step, self.reply = "", "", {}
        self.steps: dict[str, list[tuple[str, Any]]] = {}

    def answer(self, request: Captured) -> dict[str, Any]:
        if request.path == "/step":
            told = json.loads(request.body or next(iter(request.form)))
            self.step = told["step"]
            self.reply = {"content": [{"type": "text", "text": told["text"]}], "isError": told["isError"]}
            self.steps[self.step] = []
            return {}
        if request.path.endswith("/callTool"):
            call = json.loads(request.body)
            self.steps[self.step].append((f"direct {call['tool']}", self._without_clock(call["args"])))
            return {"data": {"result": self.reply}}
        envelope = {"RequestId": "R-1", "Success": True, "Code": "ok", "HttpStatusCode": 200, "Message": ""}
        fields = {name: value for name, value in request.form.items() if name != "Authorization"}
        if request.action == "CreateMcpSession":
            return {**envelope, "Data": self._created("direct" in fields.get("Labels", ""))}
        sent = {**fields, "Args": json.loads(fields["Args"])} if "Args" in fields else fields
        self.steps[self.step].append((request.action, self._without_clock(sent)))
        data = {"Url": "adb connect 192.0.2.1:5555"} if request.action == "GetAdbLink" else self.reply
        return {**envelope, "Data": data}

    def _created(self, direct: bool) -> dict[str, Any]:
        tools = {name: name for name in re.findall(r"[a-z_]+", "shell screenshot system_screenshot long_screenshot")}
        names = [*tools, "click_mouse", "start_app", "tap", "input_text", "get_all_ui_elements", "list_root_windows"]
        links = {"Token": "token-1", "LinkUrl": f"{self.url}/link/base/"} if direct else {}
        listed = json.dumps([{"name": name, "server": f"server_{name}"} for name in names]) if direct else "[]"
        return {"SessionId": "session-1", "Success": True, "ResourceUrl": "https://x/y", "ToolList": listed, **links}

    @staticmethod
    def _without_clock(sent: Any) -> Any:
        return json.loads(CLOCK.sub(r"\1TIME", json.dumps(sent)))


def run(python: str, flavour: str, cwd: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the program, and return each step's requests and result."""
    cwd.mkdir()
    service = Service()
    environ = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    with capturing(service.answer) as capture:
        service.url = capture.url
        command = [python, str(PROGRAM), flavour, capture.url]
        done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return service.steps, json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def runs(official: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:  # noqa: F811
    """Return requests and results by client and flavour, as "ours sync"."""
    who = {"official": official, "ours": sys.executable}

    def run_all(place: Path) -> dict[str, Any]:
        pairs = [(name, flavour) for name in who for flavour in ("sync", "async")]
        with ThreadPoolExecutor() as pool:
            found = pool.map(lambda pair: run(who[pair[0]], pair[1], place / "-".join(pair)), pairs)
        return dict(zip(map(" ".join, pairs), found, strict=True))

    made: dict[str, Any] = once(tmp_path_factory, "ui", run_all)
    return made


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_both_send_the_same(runs: dict[str, Any], flavour: str, subtests: pytest.Subtests) -> None:
    """In every step our client sends what the official client sends."""
    expected, found = runs[f"official {flavour}"][0], runs[f"ours {flavour}"][0]
    assert list(found) == list(expected)
    assert len(found) > 200
    for step, requests in expected.items():
        with subtests.test(step):
            assert found[step] == requests


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_both_read_the_same(runs: dict[str, Any], flavour: str, subtests: pytest.Subtests) -> None:
    """Our client returns what the official client returns, apart from listed differences."""
    expected, found = runs[f"official {flavour}"][1], runs[f"ours {flavour}"][1]
    for step, value in expected.items():
        with subtests.test(step):
            if step in READ_DIFFERENTLY:
                assert found[step] != value
            else:
                assert found[step] == value


def test_flavours_are_the_same(runs: dict[str, Any]) -> None:
    """Both flavours send and read the same."""
    assert runs["ours sync"] == runs["ours async"]
