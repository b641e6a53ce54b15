from __future__ import annotations

import random
import threading
from collections.abc import Callable

import httpx
import pytest

from tests.local.contexts.actions import (
    context_files,
    create_context,
    get_file,
    put_file,
    sync_item,
    transfer_statuses,
    wait_for_transfers,
)
from tests.local.contexts.conftest import make_storage
from tests.local.raw import Wire, embedded
from tests.local.users import USERS, User

TOP = "/tmp/data"
FILES = 30


def generation(number: int) -> str:
    """Return a command that changes all files, adds one and deletes one."""
    return (
        f"mkdir -p {TOP}/d && cd {TOP} && rm -f only-*; for f in $(seq {FILES}); do echo {number} > f$f; done; "
        f"echo {number} > d/only-{number}; echo {number} > only-{number}; "
        f"find d -name 'only-*' ! -name only-{number} -delete"
    )


def expected(number: int) -> dict[str, bytes]:
    content = b"%d\n" % number
    names = [*(f"f{one}" for one in range(1, FILES + 1)), f"only-{number}", f"d/only-{number}"]
    return dict.fromkeys(names, content) if number else {}


class RuntimeRun:
    """One run of a runtime, which synchronises generations until it is killed."""

    def __init__(self, wire: Wire, context: str, number: int) -> None:
        self.wire, self.context = wire, context
        self.begun = self.synced = self.put = number

    def go_on(self, ready: Callable[[], None]) -> None:
        """Synchronise until killed, and call `ready` after the first acknowledged sync."""
        first = self.synced
        session = self.wire.create(PersistenceDataList=[sync_item(self.context, TOP)])
        wait_for_transfers(self.wire, session)
        while True:
            self.begun += 1
            put_file(self.wire, self.context, "/put", b"%d" % self.begun * 50_000)
            self.put = self.begun
            self.wire.stdout(session, generation(self.begun))
            self.wire.data("SyncContext", SessionId=session)
            while any(one["status"] == "Running" for one in transfer_statuses(self.wire, session, TaskType="upload")):
                pass
            [one] = transfer_statuses(self.wire, session, TaskType="upload")
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
    """After a kill at any moment, acknowledged syncs are whole and unmixed."""
    seed = random.randrange(1 << 30)
    moments = random.Random(seed)
    context, number, stored = "", 0, 0
    storage = make_storage(request, kind, f"killed-{seed}", who.directory)
    more = {**storage.environment, **who.starts()}
    for _ in range(rounds):
        with embedded(None, *storage.options, **more) as (child, wire):
            context = context or create_context(wire)
            life = RuntimeRun(wire, context, number)
            timer = threading.Timer(moments.uniform(0.0, 0.5), child.process.kill)
            with pytest.raises((httpx.TransportError, ValueError)):
                life.go_on(timer.start)
            timer.join()
        with embedded(None, *storage.options, **more) as (child, wire):
            found = context_files(wire, context, TOP)
            number = int(next(iter(found.values()), b"0"))
            assert found == expected(number), seed
            assert life.synced <= number <= life.begun, seed
            kept = get_file(wire, context, "/put") or b"0"
            stored = int(kept[:1] if len(kept) == 1 else kept[: len(kept) // 50_000])
            assert kept in (b"%d" % stored * 50_000, b"0"), seed
            assert life.put <= stored <= life.begun or stored == 0 == life.put, seed
            number = max(number, stored)
            if number != int(next(iter(found.values()), b"0")):
                with wire.session(PersistenceDataList=[sync_item(context, TOP)]) as session:
                    wait_for_transfers(wire, session)
                    wire.stdout(session, generation(number))
                    wire.data("SyncContext", SessionId=session)
                    wait_for_transfers(wire, session)
            assert child.close_stdin() == 0
            assert "Traceback" not in child.standard_error()
    assert number >= rounds  # each life had a sync acknowledged
    assert not list(who.directory.glob("contexts*/staging/*"))
