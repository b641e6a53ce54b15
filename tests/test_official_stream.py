"""Both clients follow the tasks of agents, and notify browsers, with the same frames, events and results."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.both_clients import KEPT_VARIABLES, run_both
from tests.scripted_ws import Peer, WsServer

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).with_name("official_stream.py")
ASKING = ("a person is asked", "a person has no answer", "a person fails", "nobody is asked")
# Where ours is better on purpose: what differs, and why.
SENT_DIFFERENTLY = {"late": "ours tells the service to stop"}
BROWSER = "wuying_cdp_mcp_server"
TAKEOVER = {
    "type": "call-for-user",
    "id": 7,
    "code": 201,
    "message": "captcha",
    "action": "takeover",
    "extraParams": {},
}
CALL = {"toolCallId": "c-9", "toolName": "call_for_user", "args": {"prompt": "PIN?"}}


class Service:
    """Follows the script of each task, and keeps the frames that it gets."""

    def __init__(self) -> None:
        self.frames: dict[str, list[Any]] = {}

    def peer(self, peer: Peer) -> None:
        while True:
            asked = peer.receive()
            if asked["target"] == BROWSER:
                self._notify(peer, asked)
                continue
            name = f"{asked['target']}: {asked['data']['params']['task']}"
            self.frames[name] = [_without_accidents(asked)]
            self._follow(peer, asked, self.frames[name])

    def _notify(self, peer: Peer, told: dict[str, Any]) -> None:
        frames = self.frames.setdefault("notifications", [])
        frames.append(_without_accidents(told))
        if len(frames) == 1:
            peer.push(BROWSER, **TAKEOVER)
            peer.push(BROWSER, type="note", id=8, code=1, message="übrig")

    def _follow(self, peer: Peer, asked: dict[str, Any], frames: list[Any]) -> None:
        def tell(kind: str, number: int = 1, **data: Any) -> None:
            peer.reply(asked, phase="event", eventType=kind, seq=number, round=number + 1, **data)

        def end(**data: Any) -> None:
            peer.reply(asked, phase="end", **data)

        match asked["data"]["params"]["task"]:
            case "events":
                tell("reasoning", content="hm")
                tell("content", 2, content="Tapping. ")
                tell("tool_call", 3, toolCallId="c-1", toolName="tap", args={"x": 1})
                tell("tool_result", 4, toolCallId="c-1", toolName="tap", result={"isError": False, "output": "OK"})
                end(status="finished", taskResult="It is done.")
            case task if task in ASKING:
                tell("tool_call", **CALL)
                frames.append(_without_accidents(peer.receive()))
                end(status="finished", taskResult="unlocked")
            case "an error":
                tell("content", content="half")
                tell("error", error={"code": "E", "message": "no model"})
                end(status="finished", taskResult="")
            case "a bad end":
                tell("content", content="half")
                end(status="failed")
            case "an end without a result":
                tell("content", content="one ")
                tell("content", 2, content="two")
                end(status="finished")
            case "a result of its own":
                end(status="finished", taskResult="ok")
            case "late":
                tell("content", content="so far")
                frames.append(_without_accidents(peer.receive()))


def _without_accidents(frame: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in frame.items() if name != "invocationId"}


def run(python: str, flavour: str, cwd: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the program, and return the frames of each task, and what it found."""
    cwd.mkdir()
    service = Service()
    environ = {name: value for name, value in os.environ.items() if name in KEPT_VARIABLES}
    with WsServer(service.peer) as server:
        command = [python, str(PROGRAM), flavour, server.url]
        done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return service.frames, json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def runs(official: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each client sent and told in each flavour, as "ours sync"."""
    return run_both(official, tmp_path_factory, "stream", run)


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_both_send_the_same(runs: dict[str, Any], flavour: str, subtests: pytest.Subtests) -> None:
    """The frames of notifications and tasks are the same, to phones, browsers and desktops, but for listed differences.

    The official synchronous client hangs, or loses its connection, when a person is asked, so it does not do these.
    """
    expected, found = runs[f"official {flavour}"][0], runs[f"ours {flavour}"][0]
    assert (len(found), len(expected)) == (31, 31 if flavour == "async" else 19)
    for name, frames in expected.items():
        step = name.partition(": ")[2]
        with subtests.test(name):
            assert (found[name] == frames) is (step not in SENT_DIFFERENTLY)


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_both_tell_the_same(runs: dict[str, Any], flavour: str, subtests: pytest.Subtests) -> None:
    """The callbacks get the same events, and the results are the same."""
    expected, found = runs[f"official {flavour}"][1], runs[f"ours {flavour}"][1]
    for name, value in expected.items():
        with subtests.test(name):
            assert found[name] == value


def test_flavours_are_the_same(runs: dict[str, Any]) -> None:
    """Our two flavours send and tell the same."""
    assert runs["ours sync"] == runs["ours async"]
