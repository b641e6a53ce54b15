"""The tests that the security pages name exist, and the table of attempts is that of the tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ["SECURITY.md", "docs/runtime.md", "docs/security-attempts.md"]
NAME = re.compile(r"`(test_\w+)`")
DEFINITION = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)
ATTEMPT = re.compile(r"^    Attempt\($\n^        \"([^\"]+)\"|^    Attempt\(\"([^\"]+)\"", re.MULTILINE)


@pytest.fixture(scope="module")
def names() -> set[str]:
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if "_sync" not in path.parts]
    found = {path.stem for path in files}
    return found.union(*(DEFINITION.findall(path.read_text("utf-8")) for path in files))


@pytest.mark.parametrize("page", PAGES)
def test_named_tests_exist(page: str, names: set[str]) -> None:
    """Each test that a page names exists."""
    named = NAME.findall((ROOT / page).read_text("utf-8"))
    assert named or page == "docs/runtime.md"
    assert not set(named) - names


def test_attempts_are_listed() -> None:
    """The page of attempts lists each attempt that the tests make in a sandbox."""
    source = (ROOT / "tests/local/sandbox/attempts.py").read_text("utf-8")
    attempts = {first or second for first, second in ATTEMPT.findall(source)}
    page = (ROOT / "docs/security-attempts.md").read_text("utf-8")
    assert len(attempts) > 30
    assert not {name for name in attempts if f"| {name} |" not in page}
