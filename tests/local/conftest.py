from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.raw import Wire, embedded
from tests.local.users import USERS, User, the_user

if sys.platform != "linux":
    pytest.skip("the local runtime needs Linux", allow_module_level=True)


@pytest.fixture(scope="session")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="session")
def wire(state_dir: Path) -> Iterator[Wire]:
    """A client of one runtime that the tests share; each makes sessions of its own."""
    with embedded(state_dir) as (child, wire):
        yield wire
        assert child.close_stdin() == 0
        complaints = child.standard_error()
        assert "ERROR" not in complaints
        assert "Traceback" not in complaints


@pytest.fixture
def session(wire: Wire) -> Iterator[str]:
    with wire.session() as session:
        yield session


@pytest.fixture(scope="module", params=USERS)
def somebody(request: pytest.FixtureRequest) -> Iterator[User]:
    """Who runs the tests and, if that is root, an ordinary user."""
    with the_user(request.param) as user:
        yield user


@pytest.fixture
def who(somebody: User) -> Iterator[User]:
    """The same, with an empty directory."""
    yield somebody
    for left in somebody.directory.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
