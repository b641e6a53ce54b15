"""Transfers are whole or fail: they name what is missing, and delete nothing unseen."""

from __future__ import annotations

import json
import os
from pathlib import Path

import httpx
import pytest

from agentbay import AgentBay, Config, ContextSync, CreateSessionParams
from agentbay.local.contexts.baseline import Baseline
from agentbay.local.contexts.binding_spec import parse_binding_specs
from agentbay.local.contexts.context_database import ContextDatabase
from agentbay.local.contexts.disk_backend import DiskBackend
from agentbay.local.contexts.store import ContextStore
from agentbay.local.contexts.upload import Upload
from tests.local.contexts.actions import (
    context_files,
    create_context,
    get_file,
    mount_item,
    put_file,
    sync_and_check,
    sync_item,
    wait_for_transfers,
)
from tests.local.raw import Wire, embedded
from tests.local.users import USERS, User

TOP = "/tmp/data"


def failure(wire: Wire, session: str, **fields: str) -> str:
    """Synchronise, and return the message of the transfer, which must have failed."""
    wire.data("SyncContext", SessionId=session, **fields)
    wanted = {name: value for name, value in fields.items() if name != "Mode"}
    [one] = wait_for_transfers(wire, session, TaskType=fields.get("Mode", "upload"), **wanted)
    assert one["status"] == "Failed", one
    return str(one["errorMessage"])


@pytest.mark.parametrize("somebody", USERS, indirect=True)
def test_unreadable_files_are_named(who: User):
    """Sync, delete and download fail over files they cannot read, and take the rest."""
    with (
        embedded(who.directory / "state", **who.starts()) as (_, wire),
        AgentBay(wire.key, Config(endpoint=wire.url)) as bay,
    ):
        context = bay.context.create("c").unwrap().context
        params = CreateSessionParams(context_syncs=[ContextSync(context.id, TOP)])
        session = bay.create(params).unwrap().session
        run = session.command.run
        run(f"mkdir -p {TOP}/d; cd {TOP}; echo work > f; echo other > g; echo deep > d/h; chmod 000 f d").check()
        synced = session.context.sync()
        assert not synced.success
        for path in ("f", "d"):
            assert f"{TOP}/{path}: Permission denied" in synced.error_message
        assert context_files(wire, context.id, TOP) == {"g": b"other\n"}
        run(f"chmod 700 {TOP}/f {TOP}/d").check()
        session.context.sync().unwrap()
        assert context_files(wire, context.id, TOP) == {"f": b"work\n", "g": b"other\n", "d/h": b"deep\n"}
        run(f"echo new > {TOP}/f; chmod 000 {TOP}/f").check()
        deleted = bay.delete(session, sync_context=True)
        assert (deleted.success, f"{TOP}/f" in deleted.error_message) == (False, True)


def test_download_never_gives_old_content(wire: Wire, tmp_path: Path):
    """A file that became unreadable does not arrive with its old content."""
    with AgentBay(wire.key, Config(endpoint=wire.url)) as bay, bay.session() as session:
        up = session.file_system.get_file_transfer_context_path()
        session.command.run(f"mkdir -p {up}; echo v1 > {up}/f").check()
        session.file_system.download_file(f"{up}/f", tmp_path / "f").unwrap()
        session.command.run(f"echo v2 > {up}/f; chmod 000 {up}/f").check()
        outcome = session.file_system.download_file(f"{up}/f", tmp_path / "f")
        assert (outcome.success, "Permission denied" in outcome.error_message) == (False, True)


def test_directory_replaced_by_a_file(wire: Wire):
    """A directory turned into a file deletes no file of other sessions."""
    context = create_context(wire)
    put_file(wire, context, f"{TOP}/x/f", b"1")
    with (
        wire.session(PersistenceDataList=[sync_item(context, TOP)]) as one,
        wire.session(PersistenceDataList=[sync_item(context, TOP)]) as two,
    ):
        wait_for_transfers(wire, one)
        wait_for_transfers(wire, two)
        wire.stdout(two, f"echo work > {TOP}/x/new")
        sync_and_check(wire, two)
        wire.stdout(one, f"rm -r {TOP}/x; echo file > {TOP}/x; echo more > {TOP}/y")
        assert f"{TOP}/x/new" in failure(wire, one, ContextId=context)
        assert context_files(wire, context, TOP) == {"x/f": b"1", "x/new": b"work\n"}
        wire.stdout(one, f"mv {TOP}/x {TOP}/z")
        sync_and_check(wire, one)
    assert context_files(wire, context, TOP) == {"x/new": b"work\n", "y": b"more\n", "z": b"file\n"}


def test_directory_replaced_with_nothing_lost(wire: Wire):
    """A directory turned into a file or link and back is synchronised."""
    context = create_context(wire)
    with wire.session(PersistenceDataList=[sync_item(context, TOP)]) as session:
        for command, expected in (
            ("mkdir x; echo 1 > x/f; mkdir x/empty", {"x/f": b"1\n"}),
            ("rm -r x; echo 2 > x", {"x": b"2\n"}),
            ("rm x; mkdir -p x/y; echo 3 > x/y/f", {"x/y/f": b"3\n"}),
            ("rm -r x; ln -s z x; echo 4 > z", {"z": b"4\n"}),
            ("rm x; mkdir x; echo 5 > x/f", {"x/f": b"5\n", "z": b"4\n"}),
        ):
            wire.stdout(session, f"mkdir -p {TOP}; cd {TOP}; {command}")
            sync_and_check(wire, session)
            assert context_files(wire, context, TOP) == expected


def test_file_replaced_by_a_directory(wire: Wire):
    """A new directory does not delete a file of another session."""
    context = create_context(wire)
    with wire.session(PersistenceDataList=[sync_item(context, TOP)]) as session:
        wait_for_transfers(wire, session)
        put_file(wire, context, f"{TOP}/x", b"work of another")
        wire.stdout(session, f"mkdir -p {TOP}/x; echo 1 > {TOP}/x/f")
        assert f"{TOP}/x" in failure(wire, session, ContextId=context)
        wire.stdout(session, f"rm {TOP}/x/f")
        assert f"{TOP}/x" in failure(wire, session, ContextId=context)
    assert context_files(wire, context, TOP) == {"x": b"work of another"}


def test_download_of_a_file_that_shrinks(tmp_path: Path):
    """The download of a file that is cut meanwhile breaks off, and brings no zeros."""
    with embedded(tmp_path / "state") as (_, wire):
        context = create_context(wire)
        with wire.session(PersistenceDataList=[mount_item(context, "/mnt/c")]) as session:
            wire.stdout(session, "head -c 64M /dev/zero | tr '\\0' x > /mnt/c/big")
            url = wire.data("GetContextFileDownloadUrl", ContextId=context, FilePath="/mnt/c/big")["Url"]
            with wire.http.stream("GET", url) as answer:
                pieces = answer.iter_raw()
                received = [next(pieces)]
                wire.stdout(session, "truncate -s 1M /mnt/c/big")
                with pytest.raises(httpx.RemoteProtocolError):
                    received.extend(pieces)
    assert set(b"".join(received)) == {ord("x")}


def test_presigned_put_replaces_no_directory(wire: Wire):
    """A PUT over a folder is refused, and so is one below a file."""
    context = create_context(wire)
    put_file(wire, context, f"{TOP}/x/f", b"1")
    for path in (f"{TOP}/x", f"{TOP}/x/f/g"):
        url = wire.data("GetContextFileUploadUrl", ContextId=context, FilePath=path)["Url"]
        refused = wire.http.put(url, content=b"2")
        assert (refused.status_code, refused.json()["Code"]) == (400, "PathConflict")
    assert get_file(wire, context, f"{TOP}/x/f") == b"1"


def test_synchronised_path_that_is_no_directory(wire: Wire):
    """A file at the synchronised path is an error, and deletes nothing."""
    context = create_context(wire)
    put_file(wire, context, f"{TOP}/f", b"1")
    with wire.session(PersistenceDataList=[sync_item(context, TOP)]) as session:
        wait_for_transfers(wire, session)
        wire.stdout(session, f"rm -r {TOP}; echo file > {TOP}")
        assert "Not a directory" in failure(wire, session, ContextId=context)
    assert context_files(wire, context, TOP) == {"f": b"1"}


def record(**content: object) -> bytes:
    body = json.dumps(content).encode()
    return len(body).to_bytes(4, "big") + body


FILE = {"kind": "file", "mode": 0o644, "mtime": 0, "facts": [0, 0, 0, 0]}
NO_CONTENT = bytes(4) + b"\1"
END = record(end=True)


@pytest.mark.parametrize(
    "stream",
    [
        record(path="../../up", **FILE) + NO_CONTENT + END,
        record(path="/abs", **FILE) + NO_CONTENT + END,
        record(path="a//b", **FILE) + NO_CONTENT + END,
        record(path="a\0b", **FILE) + NO_CONTENT + END,
        record(path="", kind="dir", mode=0o755) + END,
        record(path=["f"], **FILE) + NO_CONTENT + END,
        record(path="f", **{**FILE, "mtime": 1 << 100}) + NO_CONTENT + END,
        record(path="f", **{**FILE, "mode": "rw"}) + NO_CONTENT + END,
        record(path="l", kind="link", target="a\0b") + END,
        record(path="l", kind="link", target=5) + END,
        record(path="x", kind="unheard-of") + END,
        record(kind="file") + END,
        (0xFFFFFFF0).to_bytes(4, "big"),
        record(path="f", **FILE) + (0xFFFFFFF0).to_bytes(4, "big"),
        (20_000).to_bytes(4, "big") + b"[" * 20_000,
        b"[]",
        record(path="f", **FILE) + NO_CONTENT,
    ],
)
def test_malformed_streams(tmp_path: Path, stream: bytes):
    """A malformed stream changes nothing, and only its transfer fails."""
    owner = (os.getuid(), os.getgid())
    db = ContextDatabase(tmp_path / "contexts.db", durable=False)
    store = ContextStore(db, DiskBackend(tmp_path, owner, db, durable=False))
    context = store.get_or_create("c").id
    [spec] = parse_binding_specs([{"ContextId": context, "Path": TOP}])
    (tmp_path / "stream").write_bytes(stream)
    with (tmp_path / "stream").open("rb") as file, pytest.raises(OSError, match=r"stream"):
        Upload(store, spec, Baseline()).run(file.fileno())
    with store.open_reader(context) as contents:
        assert contents.children("/") == []
    assert not list((tmp_path / "staging").iterdir())
    store.close()
