"""Both clients use files, environment, watching, git and transfers with the same outcome."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import cutting
from tests.both_clients import run_on_runtime

PROGRAM = Path(__file__).with_name("work_program.py")
EXPECTED: dict[str, Any] = {
    "files": {
        "directory": True,
        "info": [True, True, False, 7, 644],
        "info of a directory": True,
        "several": [True, {"/tmp/w/a.txt": "one\ntwo", "/tmp/w/deep/c.txt": "three"}],
        "found": ["/tmp/w/a.txt", "/tmp/w/deep/c.txt"],
        "found but": ["/tmp/w/a.txt"],
        "not found": [],
        "dry": True,
        "still": "one\ntwo",
        "edited": True,
        "then": "ONE\ntwo",
        "not edited": False,
        "moved": True,
        "deleted": True,
        "listing": [["a.txt", False], ["far", True]],
        "missing": [False, True],
        "aliases": [False, False, False],
        "whole": "ONE\ntwothree",
    },
    "env": {
        "set": True,
        "got": {"GREETING": "moin moin"},
        "all": True,
        "command": "moin moin\n",
        "code": "moin moin\n",
    },
    "watch": [
        ["create", "/tmp/watched/x.txt", "file"],
        ["modify", "/tmp/watched/x.txt", "file"],
        ["modify", "/tmp/watched/x.txt", "file"],
        ["modify", "/tmp/watched/x.txt", "file"],
    ],
    "git": {
        "made": "/tmp/first",
        "status": ["main", False, True, 1],
        "commit": True,
        "branches": [["main", "side"], "side"],
        "cloned": "/tmp/second",
        "log": [["A B", "a@example.com", "it's a start"]],
        "remote": "/tmp/first",
        "no remote": None,
        "config": "A B",
        "no repository": True,
    },
    "transfer": {
        "sent": [True, 200, 1_280_000, True],
        "there": True,
        "fetched": [True, 1_280_004, True],
    },
    "metrics": [True, True],
}


@pytest.fixture(scope="module", params=["on", "off"], ids=["by link", "by service"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the URL of a runtime, with and without direct links."""
    with cutting.runtime("--link-url", request.param) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("flavour", ["async", "sync"])
def test_ours(url: str, flavour: str, tmp_path: Path) -> None:
    """Our client works by both routes of a tool call."""
    assert run_on_runtime(sys.executable, PROGRAM, flavour, url, cutting.KEY, tmp_path) == EXPECTED


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["async", "sync"])
def test_official_client(official: str, url: str, flavour: str, tmp_path: Path) -> None:
    """The official client gets the same outcome."""
    assert run_on_runtime(official, PROGRAM, flavour, url, cutting.KEY, tmp_path) == EXPECTED
