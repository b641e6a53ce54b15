from __future__ import annotations

from pathlib import Path

import pytest

from tests.local.contexts.store import ended, get, item, made, mount, put, settled, tree
from tests.local.raw import Refused, Wire
from tests.local.traces import mounts_with

pytestmark = pytest.mark.parametrize("place", ["disk"], indirect=True)  # `test_bucket` has what a bucket says to it


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("path", ["/mnt/ctx", "/tmp/shared", "/home/wuying/m/n"])
def test_live(wire: Wire, path: str, *, bound: bool):
    """A mount shows the context itself, from the start or bound later: what one session writes, all have at once."""
    context = made(wire)
    put(wire, context, f"{path}/before", b"b")

    def having(session: str) -> None:
        if bound:
            wire.data("BindContexts", SessionId=session, PersistenceDataList=[mount(context, path)])

    fields = {} if bound else {"PersistenceDataList": [mount(context, path)]}
    with wire.session(**fields) as one, wire.session(**fields) as two:
        having(one)
        having(two)
        assert [entry["ContextId"] for entry in wire.data("DescribeSessionContexts", SessionId=one)] == [context]
        assert wire.stdout(one, f"cat {path}/before; mkdir {path}/d; echo live > {path}/d/f") == "b"
        assert (
            wire.stdout(two, f"cat {path}/d/f; echo x >> {path}/d/f; stat -c %U {path}/d/f {path}/before")
            == "live\nwuying\nwuying\n"
        )
        assert get(wire, context, f"{path}/d/f") == b"live\nx\n"
        put(wire, context, f"{path}/after", b"a")
        assert wire.stdout(one, f"cat {path}/after") == "a"
        wire.data("SyncContext", SessionId=one, ContextId=context)
        assert [entry["status"] for entry in settled(wire, one)] == ["Success"]
    assert tree(wire, context, path) == {"before": b"b", "after": b"a", "d/f": b"live\nx\n"}
    with wire.session(PersistenceDataList=[item(context, path)]) as session:
        settled(wire, session)
        assert wire.stdout(session, f"cat {path}/d/f") == "live\nx\n"


@pytest.mark.parametrize("bound", [False, True])
def test_read_only_and_elsewhere(wire: Wire, *, bound: bool):
    """A read-only mount refuses writes; a context shows the same wherever else it is mounted, and lists so."""
    context = made(wire)
    listed = [mount(context, "/mnt/rw"), mount(context, "/mnt/ro", mode="readOnly"), mount(context, "/mnt/sub", "sub")]
    with wire.session(PersistenceDataList=[mount(context, "/mnt/rw")]) as session:
        wire.stdout(session, "mkdir /mnt/rw/sub; echo 1 > /mnt/rw/sub/f")
    with wire.session(**({} if bound else {"PersistenceDataList": listed})) as session:
        if bound:
            wire.data("BindContexts", SessionId=session, PersistenceDataList=listed)
        assert wire.stdout(session, "echo 2 > /mnt/rw/g; cat /mnt/ro/g /mnt/sub/f") == "2\n1\n"
        for command in ("echo x > /mnt/ro/h", "rm /mnt/ro/g", "mv /mnt/ro/g /mnt/ro/i", "chmod 777 /mnt/ro/g"):
            refused = wire.sh(session, command)
            assert refused["exit_code"] != 0
            assert "Read-only file system" in refused["stderr"]
    assert tree(wire, context, "/mnt/ro") == tree(wire, context, "/mnt/rw") == {"sub/f": b"1\n", "g": b"2\n"}


def test_source_path(wire: Wire):
    """A source path names a folder that was uploaded to as well; one that is not there, or leads out, is refused."""
    context = made(wire)
    put(wire, context, "/datasets/train/f.csv", b"1,2")
    with wire.session(PersistenceDataList=[mount(context, "/mnt/train", "/datasets/train")]) as session:
        assert wire.stdout(session, "cat /mnt/train/f.csv") == "1,2"
    for source, code in (
        ("/nosuch", "InvalidSourcePath.NotFound"),
        ("../x", "InvalidParameter.Path"),
        ("a*", "InvalidParameter.Path"),
    ):
        with pytest.raises(Refused) as refused:
            wire.create(PersistenceDataList=[mount(context, "/mnt/x", source)])
        assert refused.value.code == code


def test_links_in_a_mount(wire: Wire):
    """A link that a session plants in a mounted context leads nowhere outside a session."""
    context = made(wire)
    with wire.session(PersistenceDataList=[mount(context, "/mnt/c")]) as session:
        wire.stdout(session, "cd /mnt/c; ln -s /etc up; ln -s /etc/passwd pw; mkdir real; echo 1 > real/f")
        put(wire, context, "/mnt/c/up/new", b"x")  # replaces the link
        assert wire.stdout(session, "cat /mnt/c/up/new; ls /etc/new 2>&1 | cat").startswith("x")
        assert get(wire, context, "/mnt/c/pw") is None
        wire.stdout(session, "cd /mnt/c; mv real gone; ln -s /etc real")
        with pytest.raises(Refused):
            wire.create(PersistenceDataList=[mount(context, "/mnt/d", "real")])
    assert not Path("/etc/new").exists()
    assert tree(wire, context, "/mnt/c") == {"up/new": b"x", "gone/f": b"1\n"}


def test_cleared_while_mounted(wire: Wire):
    """Clearing a mounted context empties it under the session's eyes; it goes on working."""
    context = made(wire)
    with wire.session(PersistenceDataList=[mount(context, "/mnt/c")]) as session:
        wire.stdout(session, "mkdir /mnt/c/d; echo 1 > /mnt/c/d/f")
        wire.data("ClearContext", Id=context)
        while wire.data("GetContext", ContextId=context)["State"] == "clearing":
            pass
        assert wire.stdout(session, "ls -A /mnt/c; echo 2 > /mnt/c/g") == ""
        assert tree(wire, context, "/mnt/c") == {"g": b"2\n"}
        ended(wire, session)
    assert not mounts_with(context)
