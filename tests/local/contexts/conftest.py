from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.contexts.places import InBucket, OnDisk, Place, Server, serving
from tests.local.raw import Wire, embedded


@pytest.fixture(scope="session")
def object_store() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture(scope="session", params=["disk", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(request, request.param, "shared", tmp_path_factory.mktemp("state"))


def make_place(request: pytest.FixtureRequest, kind: str, prefix: str, state_dir: Path) -> Place:
    """A place for the contexts of a runtime; every prefix is another."""
    if kind == "disk":
        return OnDisk(state_dir)
    return InBucket(request.getfixturevalue("object_store"), prefix, state_dir)


@pytest.fixture(scope="session")
def wire(place: Place) -> Iterator[Wire]:
    """A client of one runtime for each place, that the tests share."""
    with embedded(None, *place.options, **place.environment) as (child, wire):
        yield wire
        assert child.close_stdin() == 0
        complaints = child.standard_error()
        assert "ERROR" not in complaints
        assert "Traceback" not in complaints
