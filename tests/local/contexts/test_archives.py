"""Zip archives that a session has made, in the downloads of later sessions."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from agentbay.local.contexts.archives import BadArchive, open_archive
from tests.local.contexts.actions import (
    context_files,
    create_context,
    put_file,
    session_files,
    sync_and_check,
    sync_item,
    wait_for_transfers,
)
from tests.local.raw import Wire

TOP = "/tmp/data"


def zip_of(content: bytes, method: int = zipfile.ZIP_DEFLATED, name: str = "f") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def with_field(archive: bytes, local: int, central: int, value: bytes) -> bytes:
    """Overwrite a field of the only member in its local and central headers."""
    changed = bytearray(archive)
    start = archive.index(b"PK\1\2")
    if local >= 0:
        changed[local : local + len(value)] = value
    if central >= 0:
        changed[start + central : start + central + len(value)] = value
    return bytes(changed)


def without_date() -> bytes:
    return with_field(zip_of(b"dated"), 10, 12, bytes(4))


def of_unknown_method() -> bytes:
    return with_field(zip_of(b"packed"), 8, 10, struct.pack("<H", 9))  # deflate64


def with_other_name() -> bytes:
    return with_field(zip_of(b"named"), 30, -1, b"g")


def encrypted() -> bytes:
    return with_field(zip_of(b"hidden"), 6, 8, struct.pack("<H", 1))


def damaged() -> bytes:
    return zip_of(b"content", zipfile.ZIP_STORED).replace(b"content", b"CONTENT", 1)


def bomb() -> bytes:
    return zip_of(bytes(100 << 20))


def shortened() -> bytes:
    return zip_of(b"x" * 1000)[:-30]


BAD = [of_unknown_method, with_other_name, encrypted, damaged, bomb, shortened]


@pytest.mark.parametrize("extracted", [True, False])
def test_bad_archives_do_not_keep_the_rest(wire: Wire, *, extracted: bool):
    """A bad archive arrives as a file, and so do all others."""
    context = create_context(wire)
    for make in BAD:
        put_file(wire, context, f"{TOP}/{make.__name__}.zip", make())
    put_file(wire, context, f"{TOP}/without_date.zip", without_date())
    put_file(wire, context, f"{TOP}/data.txt", b"important")
    listed = sync_item(context, TOP, **({"extractPolicy": {"extract": True}} if extracted else {}))
    with wire.session(PersistenceDataList=[listed]) as session:
        assert [(one["status"], one["errorMessage"]) for one in wait_for_transfers(wire, session)] == [("Success", "")]
        arrived = set(wire.stdout(session, f"cd {TOP}; find . -type f -printf '%P\\n'").split())
        dated = {"without_date/f"} if extracted else {"without_date.zip"}
        assert arrived == {"data.txt", *(f"{make.__name__}.zip" for make in BAD)} | dated
        assert wire.stdout(session, f"cat {TOP}/data.txt") == "important"


@pytest.mark.parametrize("make", BAD)
def test_bad_archives_are_refused(make: Callable[[], bytes]):
    """Every bad archive is refused before anything of it is used."""
    with pytest.raises(BadArchive):
        open_archive(io.BytesIO(make()), 0, from_upload=False)


def test_good_archive():
    """A member without a date has the date of its archive."""
    archive = open_archive(io.BytesIO(without_date()), 5, from_upload=False)
    [(path, member)] = archive.members()
    with archive.open(member) as file:
        assert (path, file.read(), archive.mtime_ns(member)) == ("f", b"dated", 5)


@pytest.mark.parametrize("name", ["../f", "/f", "a/../f", "a\\f", "a" * 256, "/".join("a" * 300), "a//b"])
def test_unsafe_names_are_left_out(name: str):
    """No member leaves its directory, or has a name that no file can have."""
    assert list(open_archive(io.BytesIO(zip_of(b"x", name=name)), 0, from_upload=False).members()) == []


class CountingFile(io.FileIO):
    """A file that records its largest read."""

    largest = 0

    def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
        data = super().read(-1 if size is None else size) or b""
        self.largest = max(self.largest, len(data))
        return data


def test_large_directory_is_not_read(tmp_path: Path):
    """The stated size of a central directory does not make the service read it."""
    size = 1 << 30
    path = tmp_path / "x.zip"
    with path.open("wb") as file:  # sparse
        file.truncate(size)
        file.seek(size)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, size, 0, 0))
    with CountingFile(str(path)) as file, pytest.raises(BadArchive):
        open_archive(file, 0, from_upload=False)
    assert file.largest < 64 << 20


def test_too_many_members():
    """An archive of millions of members is refused before they are parsed."""
    member = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0x21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    directory = member * 300_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFE, 0xFFFE, len(directory), 0, 0)
    with pytest.raises(BadArchive, match="directory"):
        open_archive(io.BytesIO(directory + end), 0, from_upload=True)


def test_damaged_archive_of_a_session(wire: Wire):
    """A damaged archive of mode Archive is reported, and the rest arrives."""
    context = create_context(wire)
    listed = sync_item(context, TOP, uploadPolicy={"uploadMode": "Archive", "archiveExcludePaths": ["single"]})
    with wire.session(PersistenceDataList=[listed]) as session:
        wire.stdout(session, f"mkdir -p {TOP}; cd {TOP}; echo one > a; echo two > single")
        sync_and_check(wire, session)
        assert set(context_files(wire, context, TOP)) == {"data.zip", "single"}
        put_file(wire, context, f"{TOP}/data.zip", b"no archive any more")
        wire.stdout(session, f"echo three > {TOP}/b")
        wire.data("SyncContext", SessionId=session, ContextId=context, Path=TOP)
        [one] = wait_for_transfers(wire, session, ContextId=context, TaskType="upload")
        assert (one["status"], "data.zip" in one["errorMessage"]) == ("Failed", True)
        assert context_files(wire, context, TOP)["data.zip"] == b"no archive any more"
    with wire.session(PersistenceDataList=[sync_item(context, TOP)]) as session:
        wait_for_transfers(wire, session)
        assert session_files(wire, session, TOP) == {"single": "two\n", "data.zip": "no archive any more"}
