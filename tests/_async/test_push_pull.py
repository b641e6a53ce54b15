"""Pushing and pulling whole directories."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from agentbay import AsyncAgentBay, AsyncFileSystem, AsyncSession, Config, ConnectionLost, FileError, TreeProgress
from agentbay._transport.tree_plan import TreeEntry, plan_transfer, read_tree_listing
from tests import cutting

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture(scope="module")
async def session() -> AsyncIterator[AsyncSession]:
    async with AsyncAgentBay.local() as bay, bay.session() as session:
        yield session


@pytest.fixture(params=["by link", "by service"])
async def files(session: AsyncSession, request: pytest.FixtureRequest) -> AsyncIterator[AsyncFileSystem]:
    await session.command.run("rm -rf ~/* /tmp/.agentbay*")
    link = session.link_url
    if request.param == "by service":
        session.link_url = ""
    yield session.file_system
    session.link_url = link


def contents(root: Path) -> dict[str, object]:
    """Return what is below a directory.

    A file's bytes and permissions, a link's target, None for a directory.
    """
    found: dict[str, object] = {}
    for folder, directories, names in os.walk(root):
        for name in [*directories, *names]:
            path = Path(folder, name)
            key = path.relative_to(root).as_posix()
            if path.is_symlink():
                found[key] = str(path.readlink())
            else:
                found[key] = None if path.is_dir() else (path.read_bytes(), path.stat().st_mode & 0o777)
    return found


def make_tree(root: Path, count: int) -> None:
    """Make files of all sizes and names, empty directories, and links."""
    root.mkdir()
    for number in range(count):
        place = root / f"d{number % 7}" / f"e{number % 3}" / f"file {number}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(f"{number} ".encode() * (number % 50))
    (root / "empty").mkdir()
    (root / "-rf").write_text("x")
    (root / "new\nline [a]*'\"$x ü").write_bytes(bytes(range(256)))
    (root / "big").write_bytes(os.urandom(300_000))
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("big")


async def test_there_and_back(files: AsyncFileSystem, tmp_path: Path) -> None:
    """A pushed tree is pulled back identical, and repeating copies nothing."""
    make_tree(tmp_path / "a", 200)
    seen: list[TreeProgress] = []
    pushed = await files.push(tmp_path / "a", "work/tree", progress=seen.append)
    assert pushed.copied == sorted(contents(tmp_path / "a"))
    assert (seen[-1].files_done, seen[-1].bytes_done) == (len(pushed.copied), pushed.bytes)
    assert [step.bytes_done for step in seen] == sorted(step.bytes_done for step in seen)
    pulled = await files.pull("~/work/tree", tmp_path / "b")
    assert pulled.copied == pushed.copied
    assert contents(tmp_path / "b") == contents(tmp_path / "a")
    for again in (await files.push(tmp_path / "b", "work/tree"), await files.pull("work/tree", tmp_path / "a")):
        assert (again.copied, again.unchanged) == ([], len(pushed.copied))
    left = await files.session.command.run("find / -name '.agentbay-*' 2>/dev/null")
    assert left.output == ""


async def test_only_what_differs(files: AsyncFileSystem, tmp_path: Path) -> None:
    """Only changes are copied, and deletions only if asked for."""
    make_tree(tmp_path / "a", 5)
    await files.push(tmp_path / "a", "tree")
    (tmp_path / "a" / "big").write_text("small")
    (tmp_path / "a" / "run.sh").unlink()
    (tmp_path / "a" / "empty").rmdir()
    (tmp_path / "a" / "empty").write_text("a file now")
    assert (await files.push(tmp_path / "a", "tree")).copied == ["big", "empty"]
    assert (await files.push(tmp_path / "a", "tree", delete=True)).deleted == ["run.sh"]
    await files.pull("tree", tmp_path / "b")
    assert contents(tmp_path / "b") == contents(tmp_path / "a")
    (tmp_path / "b" / "extra").mkdir()
    assert (await files.pull("tree", tmp_path / "b")).deleted == []
    assert (await files.pull("tree", tmp_path / "b", delete=True)).deleted == ["extra"]


async def test_checksum(files: AsyncFileSystem, tmp_path: Path) -> None:
    """Different contents of equal size and time are found by checksum."""
    (tmp_path / "a").mkdir()
    file = tmp_path / "a" / "x"
    file.write_text("one")
    await files.push(tmp_path / "a", "tree")
    status = file.stat()
    file.write_text("two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (await files.push(tmp_path / "a", "tree")).copied == []
    assert (await files.push(tmp_path / "a", "tree", checksum=True)).copied == ["x"]
    assert (await files.read_file("tree/x")).content == "two"


async def test_ignored(files: AsyncFileSystem, tmp_path: Path) -> None:
    """Ignored files neither travel nor are removed."""
    make_tree(tmp_path / "a", 0)
    (tmp_path / "a" / "node_modules" / "x").mkdir(parents=True)
    (tmp_path / "a" / "node_modules" / "x" / "y.js").write_text("x")
    await files.write_file("tree/node_modules/theirs", "x")
    report = await files.push(tmp_path / "a", "tree", ignore=["node_modules/", "b*", "!big"], delete=True)
    assert "big" in report.copied
    assert not any(path.startswith("node_modules") for path in report.copied)
    assert report.deleted == []
    with pytest.raises(TypeError, match="list of patterns"):
        await files.push(tmp_path / "a", "tree", ignore="*.pyc")


async def test_links_out_of_the_directory(files: AsyncFileSystem, tmp_path: Path) -> None:
    """A session cannot plant or follow links out of the directory."""
    await files.session.command.run(
        "mkdir tree; cd tree; ln -s /etc/passwd out; ln -s ../../x up; ln -s ok in; echo > ok"
    )
    report = await files.pull("tree", tmp_path / "b")
    assert report.skipped == ["out", "up"]
    assert report.copied == ["in", "ok"]
    await files.session.command.run("rm -r tree; mkdir -p tree/in; echo > tree/in/x")
    (tmp_path / "b" / "in").unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "b" / "in").symlink_to(tmp_path / "elsewhere")
    await files.pull("tree", tmp_path / "b")
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_failures(files: AsyncFileSystem, tmp_path: Path) -> None:
    """A failure names the path."""
    with pytest.raises(FileError, match="none is not a directory"):
        await files.push(tmp_path / "none", "tree")
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match="not a directory"):
        await files.pull("tree", tmp_path / "file")
    await files.write_file("file", "x")
    with pytest.raises(FileError, match="Not a directory"):
        await files.push(tmp_path, "file")
    with pytest.raises(FileError, match="/usr/x"):
        await files.push(tmp_path, "/usr/x")
    assert (await files.pull("none", tmp_path / "c")).copied == []


async def test_resumes_after_a_cut(tmp_path: Path) -> None:
    """Cuts in both directions cost only time."""
    make_tree(tmp_path / "a", 20)
    with cutting.runtime("--link-url", "off") as port:
        proxy = cutting.CuttingProxy(port, [9_500, 10_500, 11_500, 100_000, 200_000])
        try:
            async with (
                AsyncAgentBay(cutting.KEY, Config(endpoint=f"http://127.0.0.1:{proxy.port}")) as bay,
                bay.session() as session,
            ):
                files = session.file_system
                for _ in range(10):
                    try:
                        await files.push(tmp_path / "a", "tree")
                        await files.pull("tree", tmp_path / "b")
                        break
                    except ConnectionLost:
                        continue
        finally:
            proxy.close()
        assert proxy.cuts == 5
    assert contents(tmp_path / "b") == contents(tmp_path / "a")


@pytest.mark.soak
async def test_ten_thousand_files(session: AsyncSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten thousand files are pushed and pulled back identical."""
    make_tree(tmp_path / "a", 10_000)
    began = time.monotonic()
    await session.file_system.push(tmp_path / "a", "many")
    pushed = time.monotonic()
    await session.file_system.pull("many", tmp_path / "b")
    pulled = time.monotonic()
    assert contents(tmp_path / "b") == contents(tmp_path / "a")
    with capsys.disabled():
        print(f"\n10,000 files pushed in {pushed - began:.1f} s, pulled in {pulled - pushed:.1f} s, identical")


# ── Decisions ────────────────────────────────────────────────────────────────────────────────────────────────────────


TREE = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.builds(
        TreeEntry, st.sampled_from(["f", "d", "l"]), st.integers(0, 2), st.integers(0, 1).map(lambda n: n * 10**9)
    ),
)


@given(TREE, TREE, st.booleans())
def test_plan_makes_them_equal(source: dict[str, TreeEntry], target: dict[str, TreeEntry], delete: bool) -> None:
    """Carrying out the plan makes the target equal to the source."""
    made = plan_transfer(source, target, delete=delete)
    result = {path: entry for path, entry in target.items() if path not in made.deleted}
    result |= {path: source[path] for path in made.copied}
    assert {path: entry.kind for path, entry in result.items() if path in source} == {
        path: entry.kind for path, entry in source.items()
    }
    assert not delete or set(result) == set(source)
    assert sorted(path for batch in made.batches for path in batch) == made.copied
    assert not plan_transfer(source, source, delete=delete).copied


@given(st.binary())
def test_listing_of_any_bytes(data: bytes) -> None:
    """Any bytes as a listing are read or refused."""
    try:
        read_tree_listing(data)
    except FileError:
        pass
