"""Transfers for which a session's disk has no room: they fail, and leave nothing that takes room."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agentbay import AgentBay, AgentBayError, Config, Session
from tests.local.raw import KEY, Child

CONTENT = random.Random(1).randbytes(48 << 20)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with (
        Child(["-m", "agentbay.local", "--session-disk", "80MiB"]) as child,
        AgentBay(KEY, cfg=Config(endpoint=child.url)) as bay,
        bay.session() as made,
    ):
        yield made


def check_usable(session: Session) -> None:
    """Check that nothing is left of what failed, and that there is room again."""
    assert session.command.run("find / -name '.agentbay-*' 2>/dev/null").stdout == ""
    session.file_system.write_file("small", "x").unwrap()


def test_bytes(session: Session):
    """A write of bytes is made of parts, which are removed even if the command that joins them is killed."""
    for mode in "overwrite", "append":
        for _ in range(2):
            if session.file_system.write_file("model", CONTENT, mode):
                assert session.file_system.get_file_info("model").size == len(CONTENT)
            session.command.run("rm -f model")
            check_usable(session)


def test_upload(session: Session, tmp_path: Path):
    """An upload that is larger than the room there is says so, and leaves nothing."""
    (tmp_path / "model").write_bytes(CONTENT)
    place = session.file_system.get_file_transfer_context_path()
    session.command.run(f"mkdir -p {place}; head -c 40000000 /dev/zero | tr '\\0' x > {place}/large").check()
    uploaded = session.file_system.upload_file(tmp_path / "model", f"{place}/model")
    assert "No space left on device" in str(uploaded.error_message)
    session.command.run(f"head -c 20000000 {place}/large > {place}/small; mv {place}/small {place}/large")
    assert session.file_system.upload_file(tmp_path / "model", f"{place}/model").success
    session.command.run(f"rm {place}/*")
    check_usable(session)


def test_edit(session: Session):
    """An edit of a large file is made if the disk has room for another one, and refused otherwise."""
    change = [{"oldText": "x", "newText": "y"}]
    for size, fits in ((30_000_000, True), (48_000_000, False)):
        session.command.run(f"head -c {size} /dev/zero | tr '\\0' x > large").check()
        edited = session.file_system.edit_file("large", change)
        assert (edited.success, "No space left" in edited.error_message) == (fits, not fits)
        assert (
            session.command.run("head -c 2 large; stat -c ' %s' large").stdout == f"{'yx' if fits else 'xx'} {size}\n"
        )
        session.command.run("rm large").check()
        check_usable(session)


def test_push(session: Session, tmp_path: Path):
    """The archive of a push is removed if its unpacking is killed."""
    (tmp_path / "model").write_bytes(CONTENT)
    for _ in range(2):
        with suppress(AgentBayError):
            session.file_system.push(tmp_path, "pushed")
        session.command.run("rm -rf pushed")
        check_usable(session)


def test_pull(session: Session, tmp_path: Path):
    """A pull needs no room in the session: what it reads goes straight to this machine."""
    written = session.command.run("mkdir tree; head -c 48m /dev/urandom > tree/model; chmod 640 tree/model").check()
    assert not written.stderr
    session.file_system.pull("tree", tmp_path / "tree")
    digest = hashlib.sha256((tmp_path / "tree/model").read_bytes()).hexdigest()
    assert session.command.run("sha256sum < tree/model").stdout.split()[0] == digest
    assert session.file_system.pull("tree", tmp_path / "tree").unchanged == 1
    session.command.run("rm -rf tree").check()
    check_usable(session)


def test_move(session: Session):
    """A move to another file system is refused before anything is copied."""
    session.command.run("mkdir model-tree; head -c 48000000 /dev/zero | tr '\\0' x > model-tree/large").check()
    moved = session.file_system.move_file("model-tree", "/tmp/model-tree")
    assert "No space left on device" in moved.error_message
    assert session.command.run("ls model-tree; find /tmp -name model-tree -o -name '.agentbay-*'").stdout == "large\n"
    session.command.run("truncate -s 1000 model-tree/large").check()
    session.file_system.move_file("model-tree", "/tmp/model-tree").unwrap()
    check_usable(session)
