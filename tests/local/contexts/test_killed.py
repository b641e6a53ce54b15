from __future__ import annotations

import random
import threading
from collections.abc import Callable

import httpx
import pytest

from tests.local.contexts.conftest import make_place
from tests.local.contexts.store import get, item, made, put, settled, statuses, tree
from tests.local.raw import Wire, embedded
from tests.local.users import USERS, User

TOP = "/tmp/data"
FILES = 30


def generation(number: int) -> str:
    """A command that makes a new state of all files: each is changed, one comes and one goes."""
    return (
        f"mkdir -p {TOP}/d && cd {TOP} && rm -f only-*; for f in $(seq {FILES}); do echo {number} > f$f; done; "
        f"echo {number} > d/only-{number}; echo {number} > only-{number}; "
        f"find d -name 'only-*' ! -name only-{number} -delete"
    )


def expected(number: int) -> dict[str, bytes]:
    content = b"%d\n" % number
    names = [*(f"f{one}" for one in range(1, FILES + 1)), f"only-{number}", f"d/only-{number}"]
    return dict.fromkeys(names, content) if number else {}


class Life:
    """One life of a runtime: generations are synchronised until it is killed."""

    def __init__(self, wire: Wire, context: str, number: int) -> None:
        self.wire, self.context = wire, context
        self.begun = self.synced = self.put = number

    def go_on(self, ready: Callable[[], None]) -> None:
        """Synchronise for ever; the first sync that is acknowledged says that it may be killed from now on."""
        first = self.synced
        session = self.wire.create(PersistenceDataList=[item(self.context, TOP)])
        settled(self.wire, session)
        while True:
            self.begun += 1
            put(self.wire, self.context, "/put", b"%d" % self.begun * 50_000)
            self.put = self.begun
            self.wire.stdout(session, generation(self.begun))
            self.wire.data("SyncContext", SessionId=session)
            while any(one["status"] == "Running" for one in statuses(self.wire, session, TaskType="upload")):
                pass
            [one] = statuses(self.wire, session, TaskType="upload")
            assert one["status"] == "Success", one
            if self.synced == first:
                ready()
            self.synced = self.begun


@pytest.mark.parametrize(
    ("somebody", "kind", "rounds"),
    [
        ("own", "disk", 5),
        *(("ordinary", "disk", 1) for _ in USERS[1:]),
        pytest.param("own", "disk", 50, marks=pytest.mark.soak),
        ("own", "bucket", 2),
        pytest.param("own", "bucket", 50, marks=pytest.mark.soak),
    ],
    indirect=["somebody"],
)
def test_killed_at_any_moment(request: pytest.FixtureRequest, who: User, kind: str, rounds: int):
    """Whenever a runtime is killed: what it had acknowledged is there, and no state is a mixture of two."""
    seed = random.randrange(1 << 30)
    moments = random.Random(seed)
    context, number, stored = "", 0, 0
    place = make_place(request, kind, f"killed-{seed}", who.directory)
    more = {**place.environment, **who.starts()}
    for _ in range(rounds):
        with embedded(None, *place.options, **more) as (child, wire):
            context = context or made(wire)
            life = Life(wire, context, number)
            timer = threading.Timer(moments.uniform(0.0, 0.5), child.process.kill)
            with pytest.raises((httpx.TransportError, ValueError)):
                life.go_on(timer.start)
            timer.join()
        with embedded(None, *place.options, **more) as (child, wire):
            found = tree(wire, context, TOP)
            number = int(next(iter(found.values()), b"0"))
            assert found == expected(number), seed
            assert life.synced <= number <= life.begun, seed
            kept = get(wire, context, "/put") or b"0"
            stored = int(kept[:1] if len(kept) == 1 else kept[: len(kept) // 50_000])
            assert kept in (b"%d" % stored * 50_000, b"0"), seed
            assert life.put <= stored <= life.begun or stored == 0 == life.put, seed
            number = max(number, stored)
            if number != int(next(iter(found.values()), b"0")):
                with wire.session(PersistenceDataList=[item(context, TOP)]) as session:
                    settled(wire, session)
                    wire.stdout(session, generation(number))
                    wire.data("SyncContext", SessionId=session)
                    settled(wire, session)
            assert child.close_stdin() == 0
            assert "Traceback" not in child.standard_error()
    assert number >= rounds  # each life had a sync acknowledged
    assert not list(who.directory.glob("contexts*/staging/*"))
