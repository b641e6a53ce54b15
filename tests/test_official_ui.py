"""Both clients drive desktops and phones with the same requests and results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.both_clients import run_both, run_program
from tests.capture import Captured

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
    service = Service()
    printed = run_program(python, PROGRAM, flavour, cwd, service)
    return service.steps, json.loads(printed)


@pytest.fixture(scope="module")
def runs(official: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return requests and results by client and flavour, as "ours sync"."""
    return run_both(official, tmp_path_factory, "ui", run)


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
