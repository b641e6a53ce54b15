"""Both clients drive browsers and agents in the same way."""

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

from tests.capture import Answered, Captured, capturing
from tests.once import once
from tests.test_official_wire import official  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).with_name("official_browser.py")
ACCIDENT = re.compile(r'("trace_id": )"[0-9a-f]{32}"')

REFUSAL = re.compile(r"Error: (\S+) code: \d+, (.*?) request id: .*")

# Where ours is better on purpose: what differs, and why. docs/migration.md tells it to users.
SENT_DIFFERENTLY = {
    "sync skills.bind": "the official client fails before it sends anything",
    "sync skills.bind: refused": "the same",
}
READ_DIFFERENTLY = {"sync skills.bind": "it succeeds", "sync skills.bind: refused": "the service's reason is told"}


class Service:
    """Answers each request with the step's next answer, and records requests."""

    def __init__(self) -> None:
        self.step = ""
        self.answers: list[Any] = []
        self.steps: dict[str, list[tuple[str, Any]]] = {}

    def answer(self, request: Captured) -> Answered | dict[str, Any]:
        if request.path == "/step":
            told = json.loads(request.body or next(iter(request.form)))
            self.step, self.answers = told["step"], told["answers"]
            self.steps[self.step] = []
            return {}
        fields = {name: value for name, value in request.form.items() if name != "Authorization"}
        envelope = {"RequestId": "R-1", "Success": True, "Code": "ok", "HttpStatusCode": 200, "Message": ""}
        if request.action == "CreateMcpSession":
            return {**envelope, "Data": {"SessionId": "session-1", "Success": True, "ToolList": "[]"}}
        written = {name: read(value) for name, value in fields.items()}
        self.steps[self.step].append((request.action, json.loads(ACCIDENT.sub(r'\1"ID"', json.dumps(written)))))
        made = self.answers[0] if self.answers else {}
        self.answers = self.answers[1:] or self.answers
        if isinstance(made, dict) and "refuse" in made:
            refusal = {**envelope, "Success": False, "Code": "Refused.Example", "Message": made["refuse"]}
            return Answered(json.dumps({**refusal, "HttpStatusCode": 400}).encode(), 400)
        if isinstance(made, dict) and "text" in made:
            content = [{"type": "text", "text": made["text"]}]
            return {**envelope, "Data": {"content": content, "isError": made.get("isError", False)}}
        return {**envelope, "Data": made}


def read(value: str) -> Any:
    """Read a form field that holds JSON, so that its spacing does not count."""
    try:
        return json.loads(value) if value[:1] in "[{" else value
    except ValueError:
        return value


def agrees(ours: Any, theirs: Any) -> bool:
    """Whether ours says the same, or more."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(agrees(ours[name], theirs[name]) for name in ours)
    if isinstance(ours, str) and isinstance(theirs, str):
        text = REFUSAL.sub(r"[\1] \2", theirs)
        says_more = ours.startswith(text) or text.endswith(ours) or has_words(ours, text)
        return ours == text or (bool(ours and text) and says_more)
    if isinstance(ours, list) and isinstance(theirs, list) and "ValueError" in ours:
        return set(theirs) <= set(ours)
    return bool(ours == theirs)


def has_words(ours: str, theirs: str) -> bool:
    """Whether ours has the words of the other text in their order."""
    words = iter(ours.split())
    return all(word in words for word in theirs.split())


def run(python: str, flavour: str, cwd: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the program, and return what each step sent and what it returned."""
    cwd.mkdir()
    service = Service()
    environ = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    with capturing(service.answer) as capture:
        command = [python, str(PROGRAM), flavour, capture.url, str(cwd)]
        done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return service.steps, json.loads(done.stdout.splitlines()[-1].replace(str(cwd), "DIRECTORY"))


@pytest.fixture(scope="module")
def runs(official: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:  # noqa: F811
    """What each client sent and read in each flavour, as "ours sync"."""
    who = {"official": official, "ours": sys.executable}

    def run_all(place: Path) -> dict[str, Any]:
        pairs = [(name, flavour) for name in who for flavour in ("sync", "async")]
        with ThreadPoolExecutor() as pool:
            found = pool.map(lambda pair: run(who[pair[0]], pair[1], place / "-".join(pair)), pairs)
        return dict(zip(map(" ".join, pairs), found, strict=True))

    made: dict[str, Any] = once(tmp_path_factory, "browser", run_all)
    return made


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_both_send_the_same(runs: dict[str, Any], flavour: str, subtests: pytest.Subtests) -> None:
    """Ours sends what the official client sends, except for listed differences."""
    expected, found = runs[f"official {flavour}"][0], runs[f"ours {flavour}"][0]
    assert list(found) == list(expected)
    assert len(found) > 100
    for step, requests in expected.items():
        with subtests.test(step):
            assert (found[step] == requests) is (f"{flavour} {step}" not in SENT_DIFFERENTLY)


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_both_read_the_same(runs: dict[str, Any], flavour: str, subtests: pytest.Subtests) -> None:
    """Ours returns what the official client returns, except for listed differences."""
    expected, found = runs[f"official {flavour}"][1], runs[f"ours {flavour}"][1]
    for step, value in expected.items():
        with subtests.test(step):
            assert agrees(found[step], value) is (f"{flavour} {step}" not in READ_DIFFERENTLY), (found[step], value)


def test_flavours_are_the_same(runs: dict[str, Any]) -> None:
    """Our two flavours send and read the same."""
    assert runs["ours sync"] == runs["ours async"]
