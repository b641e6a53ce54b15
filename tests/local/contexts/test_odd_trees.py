"""Trees that code of a session makes to break an upload: endless files, deep directories, long paths."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

import pytest

from tests.local.contexts.actions import create_context, get_file, sync_item, wait_for_transfers
from tests.local.raw import Wire, embedded
from tests.local.users import User

TOP = "/home/wuying/data"
DEEP = "import os\nfor _ in range({levels}):\n    os.mkdir({name!r}); os.chdir({name!r})\nopen('end', 'w').close()"


@pytest.fixture(scope="module")
def wire(somebody: User) -> Iterator[Wire]:
    with embedded(somebody.directory / "state", **somebody.starts()) as (child, wire):
        yield wire
        assert child.close_stdin() == 0
        assert "Traceback" not in child.standard_error()


def uploaded(wire: Wire, prepare: str, **policy: object) -> tuple[str, str, str]:
    """Prepare files in a session and upload them; return the context, and how the upload ended and why."""
    context = create_context(wire)
    with wire.session(PersistenceDataList=[sync_item(context, TOP, **policy)]) as session:
        wire.stdout(session, f"cd {TOP} && echo kept > small && {prepare}")
        wire.data("SyncContext", SessionId=session)
        status = next(one for one in wait_for_transfers(wire, session) if one["taskType"] == "upload")
    return context, status["status"], status["errorMessage"]


@pytest.mark.parametrize("levels", [249, 400, 5000])
def test_deep_directories(wire: Wire, levels: int) -> None:
    """What is too deep for a context is left out and told, and the rest arrives."""
    program = DEEP.format(levels=levels, name="d")
    context, _, message = uploaded(wire, f'python3 -c "{program}"')
    assert get_file(wire, context, f"{TOP}/small") == b"kept\n"
    assert "too deeply" in message or "too long" in message


def test_long_paths(wire: Wire) -> None:
    """A path that is too long for a context does not keep the others from arriving."""
    program = DEEP.format(levels=30, name="d" * 200)
    context, _, message = uploaded(wire, f'python3 -c "{program}"')
    assert get_file(wire, context, f"{TOP}/small") == b"kept\n", message
    assert "too long" in message


def test_larger_than_the_disk(wire: Wire) -> None:
    """A file of holes that is larger than the disk is refused at once, without a byte of it."""
    free = shutil.disk_usage("/tmp").free
    _, status, message = uploaded(wire, f"truncate -s {free + (64 << 30)} holes")
    assert (status, "No space left" in message) == ("Failed", True)


def test_holes_stay_holes(wire: Wire) -> None:
    """A file of holes takes no space of the machine."""
    free = shutil.disk_usage("/tmp").free
    context, status, message = uploaded(wire, "truncate -s 3G holes; echo end >> holes")
    assert (status, message) == ("Success", "")
    assert free - shutil.disk_usage("/tmp").free < 2 << 30  # others write too
    url = wire.data("GetContextFileDownloadUrl", ContextId=context, FilePath=f"{TOP}/holes")["Url"]
    answer = wire.http.head(url)
    assert int(answer.headers["content-length"]) == (3 << 30) + 4


def test_holes_take_no_time(wire: Wire) -> None:
    """A file of holes nearly as large as the free disk keeps nobody waiting: its upload, and a client that leaves."""
    size = int(shutil.disk_usage("/tmp").free * 0.8)
    began = time.monotonic()
    context, status, message = uploaded(
        wire, f"truncate -s {size} holes; echo middle | dd of=holes bs=1M seek=1 conv=notrunc"
    )
    assert (status, message) == ("Success", "")
    url = wire.data("GetContextFileDownloadUrl", ContextId=context, FilePath=f"{TOP}/holes")["Url"]
    with wire.http.stream("GET", url) as answer:
        assert int(answer.headers["content-length"]) == size
        start = next(answer.iter_raw((1 << 20) + 10))
    assert start == bytes(1 << 20) + b"middle\n" + bytes(3)
    wire.data("DeleteContext", Id=context)
    assert time.monotonic() - began < 15


def test_holes_in_an_archive(wire: Wire) -> None:
    """A packed file has the zeros of its holes."""
    context, status, message = uploaded(
        wire, "truncate -s 3M holes; echo end >> holes", uploadPolicy={"uploadMode": "Archive"}
    )
    assert (status, message) == ("Success", "")
    with wire.session(PersistenceDataList=[sync_item(context, TOP)]) as session:
        wait_for_transfers(wire, session)
        assert wire.stdout(session, f"tail -c +3145729 {TOP}/holes; tr -d '\\0' < {TOP}/holes | wc -c") == "end\n4\n"


def test_file_that_grows_without_end(wire: Wire) -> None:
    """An upload ends although its file grows as fast as it is read."""
    grow = "import os, time\nfor size in range(1, 1 << 30): os.truncate('grows', size << 20); time.sleep(0.0002)"
    context = create_context(wire)
    with wire.session(PersistenceDataList=[sync_item(context, TOP)]) as session:
        wire.stdout(session, f'cd {TOP} && (setsid python3 -c "{grow}" >/dev/null 2>&1 &) ; sleep 0.5')
        wire.data("SyncContext", SessionId=session)
        statuses = wait_for_transfers(wire, session)
        assert [one["status"] for one in statuses if one["taskType"] == "upload"] == ["Success"]
