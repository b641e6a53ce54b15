from __future__ import annotations

from pathlib import Path

import pytest

from tests.local.contexts.actions import (
    context_files,
    create_context,
    delete_and_wait,
    get_file,
    mount_item,
    put_file,
    sync_item,
    wait_for_transfers,
)
from tests.local.raw import Refused, Wire
from tests.local.traces import mounts_with

pytestmark = pytest.mark.parametrize("storage", ["disk"], indirect=True)  # `test_bucket` has what a bucket says to it


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("path", ["/mnt/ctx", "/tmp/shared", "/home/wuying/m/n"])
def test_live(wire: Wire, path: str, *, bound: bool):
    """What one session writes to a mounted context, all sessions see at once."""
    context = create_context(wire)
    put_file(wire, context, f"{path}/before", b"b")

    def bind(session: str) -> None:
        if bound:
            wire.data("BindContexts", SessionId=session, PersistenceDataList=[mount_item(context, path)])

    fields = {} if bound else {"PersistenceDataList": [mount_item(context, path)]}
    with wire.session(**fields) as one, wire.session(**fields) as two:
        bind(one)
        bind(two)
        assert [entry["ContextId"] for entry in wire.data("DescribeSessionContexts", SessionId=one)] == [context]
        assert wire.stdout(one, f"cat {path}/before; mkdir {path}/d; echo live > {path}/d/f") == "b"
        assert (
            wire.stdout(two, f"cat {path}/d/f; echo x >> {path}/d/f; stat -c %U {path}/d/f {path}/before")
            == "live\nwuying\nwuying\n"
        )
        assert get_file(wire, context, f"{path}/d/f") == b"live\nx\n"
        put_file(wire, context, f"{path}/after", b"a")
        assert wire.stdout(one, f"cat {path}/after") == "a"
        wire.data("SyncContext", SessionId=one, ContextId=context)
        assert [entry["status"] for entry in wait_for_transfers(wire, one)] == ["Success"]
    assert context_files(wire, context, path) == {"before": b"b", "after": b"a", "d/f": b"live\nx\n"}
    with wire.session(PersistenceDataList=[sync_item(context, path)]) as session:
        wait_for_transfers(wire, session)
        assert wire.stdout(session, f"cat {path}/d/f") == "live\nx\n"


@pytest.mark.parametrize("bound", [False, True])
def test_read_only_and_elsewhere(wire: Wire, *, bound: bool):
    """A read-only mount refuses writes, and all mounts show the same files."""
    context = create_context(wire)
    listed = [
        mount_item(context, "/mnt/rw"),
        mount_item(context, "/mnt/ro", mode="readOnly"),
        mount_item(context, "/mnt/sub", "sub"),
    ]
    with wire.session(PersistenceDataList=[mount_item(context, "/mnt/rw")]) as session:
        wire.stdout(session, "mkdir /mnt/rw/sub; echo 1 > /mnt/rw/sub/f")
    with wire.session(**({} if bound else {"PersistenceDataList": listed})) as session:
        if bound:
            wire.data("BindContexts", SessionId=session, PersistenceDataList=listed)
        assert wire.stdout(session, "echo 2 > /mnt/rw/g; cat /mnt/ro/g /mnt/sub/f") == "2\n1\n"
        for command in ("echo x > /mnt/ro/h", "rm /mnt/ro/g", "mv /mnt/ro/g /mnt/ro/i", "chmod 777 /mnt/ro/g"):
            refused = wire.sh(session, command)
            assert refused["exit_code"] != 0
            assert "Read-only file system" in refused["stderr"]
    assert (
        context_files(wire, context, "/mnt/ro")
        == context_files(wire, context, "/mnt/rw")
        == {"sub/f": b"1\n", "g": b"2\n"}
    )


def test_source_path(wire: Wire):
    """A source path mounts an uploaded folder, and must exist in the context."""
    context = create_context(wire)
    put_file(wire, context, "/datasets/train/f.csv", b"1,2")
    with wire.session(PersistenceDataList=[mount_item(context, "/mnt/train", "/datasets/train")]) as session:
        assert wire.stdout(session, "cat /mnt/train/f.csv") == "1,2"
    for source, code in (
        ("/nosuch", "InvalidSourcePath.NotFound"),
        ("../x", "InvalidParameter.Path"),
        ("a*", "InvalidParameter.Path"),
    ):
        with pytest.raises(Refused) as refused:
            wire.create(PersistenceDataList=[mount_item(context, "/mnt/x", source)])
        assert refused.value.code == code


def test_links_in_a_mount(wire: Wire):
    """A link in a mounted context never leads to the host."""
    context = create_context(wire)
    with wire.session(PersistenceDataList=[mount_item(context, "/mnt/c")]) as session:
        wire.stdout(session, "cd /mnt/c; ln -s /etc up; ln -s /etc/passwd pw; mkdir real; echo 1 > real/f")
        put_file(wire, context, "/mnt/c/up/new", b"x")  # replaces the link
        assert wire.stdout(session, "cat /mnt/c/up/new; ls /etc/new 2>&1 | cat").startswith("x")
        assert get_file(wire, context, "/mnt/c/pw") is None
        wire.stdout(session, "cd /mnt/c; mv real gone; ln -s /etc real")
        with pytest.raises(Refused):
            wire.create(PersistenceDataList=[mount_item(context, "/mnt/d", "real")])
    assert not Path("/etc/new").exists()
    assert context_files(wire, context, "/mnt/c") == {"up/new": b"x", "gone/f": b"1\n"}


def test_cleared_while_mounted(wire: Wire):
    """A clear empties a mounted context, which stays usable."""
    context = create_context(wire)
    with wire.session(PersistenceDataList=[mount_item(context, "/mnt/c")]) as session:
        wire.stdout(session, "mkdir /mnt/c/d; echo 1 > /mnt/c/d/f")
        wire.data("ClearContext", Id=context)
        while wire.data("GetContext", ContextId=context)["State"] == "clearing":
            pass
        assert wire.stdout(session, "ls -A /mnt/c; echo 2 > /mnt/c/g") == ""
        assert context_files(wire, context, "/mnt/c") == {"g": b"2\n"}
        delete_and_wait(wire, session)
    assert not mounts_with(context)
