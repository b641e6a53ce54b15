"""Both clients drive browsers and agents in the same way."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.both_clients import run_both, run_program
from tests.capture import Answered, Captured

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).with_name("official_browser.py")
ACCIDENT = re.compile(r'(?<="trace_id": ")[0-9a-f]{32}|(?<=mobile_sim_)[0-9a-f]{32}_[0-9]+')

REFUSAL = re.compile(r"Error: (\S+) code: \d+, (.*?) request id: .*")

# Where ours is better on purpose: what differs, and why. docs/migration.md tells it to users.
SENT_DIFFERENTLY = {
    "sync skills.bind": "the official client fails before it sends anything",
    "sync skills.bind: refused": "the same",
}
_SIMULATED_PHONES = {
    "has_mobile_info, no path": "a path is refused when it is set",
    "has_mobile_info, refused": "an error of this package, not one of the HTTP layer",
    "upload, its own": "a failed result, as for every other reason",
    "upload, no URL": "the same",
    "upload, no context": "the service's reason is told",
}
READ_DIFFERENTLY = {
    "sync skills.bind": "it succeeds",
    "sync skills.bind: refused": "the service's reason is told",
    **{
        f"{flavour} simulate: {step}": _SIMULATED_PHONES[step]
        for flavour in ("sync", "async")
        for step in _SIMULATED_PHONES
    },
}


class Service:
    """Answers each request with the step's next answer, and records requests."""

    def __init__(self) -> None:
        self.url = self.step = ""
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
        self.steps[self.step].append((request.action, json.loads(ACCIDENT.sub("ID", json.dumps(written)))))
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
    service = Service()
    printed = run_program(python, PROGRAM, flavour, cwd, service)
    return service.steps, json.loads(printed.replace(str(cwd), "DIRECTORY"))


@pytest.fixture(scope="module")
def runs(official: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each client sent and read in each flavour, as "ours sync"."""
    return run_both(official, tmp_path_factory, "browser", run)


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
