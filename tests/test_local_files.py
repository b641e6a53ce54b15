"""Local files that something else replaces while they are sent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentbay import FileError
from agentbay._local_files import LocalSource, LocalTarget
from agentbay._local_tree import Archive, scan_tree

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "file"
    made.write_text("content")
    return made


def replace_by_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def test_a_fifo_in_the_place_of_a_file(file: Path):
    """A FIFO that has taken a file's place since the look at it is refused instead of waited for."""
    source = LocalSource(file)
    scan = scan_tree(file.parent, lambda path, is_directory: False, digests=False)
    replace_by_fifo(file)
    with pytest.raises(FileError, match="file is not a file any more"):
        source.rewind()
    with pytest.raises(FileError, match="file is not a file any more"):
        Archive(file.parent, scan.entries)


def test_what_no_file_replaces(file: Path):
    """A received file replaces no FIFO, directory or device, directly or through a link."""
    replace_by_fifo(file)
    (link := file.with_name("link")).symlink_to("file")
    for place in (file, link, file.parent, Path(os.devnull)):
        with pytest.raises(FileError, match=place.name):
            LocalTarget(place, overwrite=True)


def test_a_file_that_grows_and_is_replaced(file: Path):
    """What is sent is what was there when it was opened, in the announced size."""
    source = LocalSource(file)
    file.write_text("content and more")
    source.rewind()
    replace_by_fifo(file)
    assert source.read() == b"content"
    assert source.read() == b""
    source.close()
