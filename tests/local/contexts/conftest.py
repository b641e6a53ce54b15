from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.contexts.storage import BucketStorage, DiskStorage, ObjectStoreServer, Storage, running_object_store
from tests.local.raw import Wire, embedded


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStoreServer]:
    with running_object_store() as server:
        yield server


@pytest.fixture(scope="session", params=["disk", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return make_storage(request, request.param, "shared", tmp_path_factory.mktemp("state"))


def make_storage(request: pytest.FixtureRequest, kind: str, prefix: str, state_dir: Path) -> Storage:
    """Return an empty storage of a kind."""
    if kind == "disk":
        return DiskStorage(state_dir)
    return BucketStorage(request.getfixturevalue("object_store"), prefix, state_dir)


@pytest.fixture(scope="session")
def wire(storage: Storage) -> Iterator[Wire]:
    """Return a client of the runtime with that storage, shared by all tests."""
    with embedded(None, *storage.options, **storage.environment) as (child, wire):
        yield wire
        assert child.close_stdin() == 0
        complaints = child.standard_error()
        assert "ERROR" not in complaints
        assert "Traceback" not in complaints
