"""Pushing and pulling whole directories."""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from agentbay import (
    AsyncAgentBay,
    AsyncFileSystem,
    AsyncSession,
    Config,
    ConnectionLost,
    FileError,
    InvalidArgumentError,
    TreeProgress,
)
from agentbay._transport.tree_plan import TreeEntry, TreeScan, plan_transfer
from agentbay._transport.tree_scripts import read_tree_listing
from tests import cutting
from tests.at_once import async_at_once

pytestmark = pytest.mark.slow


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


async def test_holes_stay(files: AsyncFileSystem, tmp_path: Path) -> None:
    """A file of holes is one on the other side too, by either way, and takes no time to send."""
    (tmp_path / "a").mkdir()
    shapes = {"inside": [(0, b"begin"), (40 << 20, b"end")], "at its end": [(1 << 20, b"x")], "nothing else": []}
    for name, parts in shapes.items():
        with (tmp_path / "a" / name).open("wb") as file:
            for offset, data in parts:
                file.seek(offset)
                file.write(data)
            file.truncate(60 << 20)
    await files.push(tmp_path / "a", "tree")
    used = await files.session.command.run("du -sk tree | cut -f1; cat tree/* | sha256sum")
    await files.pull("tree", tmp_path / "b")
    for name in shapes:
        assert filecmp.cmp(tmp_path / "a" / name, tmp_path / "b" / name, shallow=False)
        assert (tmp_path / "b" / name).stat().st_blocks < 1000
    digest = hashlib.sha256()
    for name in sorted(shapes):
        digest.update((tmp_path / "a" / name).read_bytes())
    kilobytes, found = used.output.split()[:2]
    assert int(kilobytes) < 1000
    assert found == digest.hexdigest()
    assert (await files.push(tmp_path / "b", "tree")).copied == []


@pytest.mark.parametrize("files", ["by link"], indirect=True)  # which takes pieces
async def test_large_file_that_grows(files: AsyncFileSystem, tmp_path: Path) -> None:
    """A file of several pieces that is changed between them is what it was at one time, in whole."""
    await files.session.command.run("mkdir tree; head -c 40m /dev/urandom > tree/log")
    writer = await files.session.command.start("while sleep 0.01; do printf line >> tree/log; done")
    await files.pull("tree", tmp_path / "b")
    await writer.kill()
    there = (await files.read_file("tree/log", format="bytes")).unwrap().content
    back = (tmp_path / "b" / "log").read_bytes()
    assert len(back) >= 40 << 20
    assert there.startswith(back)


async def test_only_what_differs(files: AsyncFileSystem, tmp_path: Path) -> None:
    """Only changes are copied, and deletions only if asked for."""
    make_tree(tmp_path / "a", 5)
    await files.push(tmp_path / "a", "tree")
    (tmp_path / "a" / "big").write_text("small")
    (tmp_path / "a" / "run.sh").unlink()
    (tmp_path / "a" / "empty").rmdir()
    (tmp_path / "a" / "empty").write_text("a file now")
    report = await files.push(tmp_path / "a", "tree")
    assert (report.copied, report.skipped, report.deleted) == (["big"], ["empty"], [])
    report = await files.push(tmp_path / "a", "tree", delete=True)
    assert (report.copied, report.skipped, report.deleted) == (["empty"], [], ["empty", "run.sh"])
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
    with pytest.raises(InvalidArgumentError, match="ignore must be a list of strings"):
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
    report = await files.pull("tree", tmp_path / "b")
    assert (report.copied, report.skipped) == ([], ["in", "in/x"])
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_links_over_links_out_of_the_directory(files: AsyncFileSystem, tmp_path: Path) -> None:
    """A link that leads out by way of other links is skipped, and so is a loop."""
    up = "d/d/d/d/d/d/d/d/" + "../" * 8
    await files.session.command.run(
        f"mkdir tree; cd tree; ln -s . d; ln -s {up}etc/passwd leak; ln -s leak second; ln -s loop loop; "
        "mkdir e; ln -s ../e/../d/fine e/inside; echo > fine"
    )
    report = await files.pull("tree", tmp_path / "b")
    assert (report.copied, report.skipped) == (["d", "e", "e/inside", "fine"], ["leak", "loop", "second"])


async def test_nothing_is_removed_without_delete(files: AsyncFileSystem, tmp_path: Path) -> None:
    """Without delete an entry of another kind stays, on both sides, and is named in `skipped`."""
    here = tmp_path / "here"
    for name in ("a", "b"):
        (here / name).mkdir(parents=True)
        (here / name / "work").write_text("x")
    (here / "c").write_text("x")
    await files.session.command.run("mkdir -p tree/c; cd tree; echo > a; ln -s /etc b; echo > c/work; echo > new")
    report = await files.pull("tree", here)
    assert (report.copied, report.deleted, report.skipped) == (["new"], [], ["a", "b", "c", "c/work"])
    assert sorted(contents(here)) == ["a", "a/work", "b", "b/work", "c", "new"]
    report = await files.push(here, "tree")
    assert (report.copied, report.deleted, report.skipped) == ([], [], ["a", "a/work", "b", "b/work", "c"])
    left = await files.session.command.run("cd tree; find . -type f -o -type l | sort")
    assert left.stdout.split() == ["./a", "./b", "./c/work", "./new"]


async def test_delete_keeps_what_is_ignored(files: AsyncFileSystem, tmp_path: Path) -> None:
    """Deleting keeps ignored entries and the directories that hold them, on both sides."""
    here = tmp_path / "here"
    (here / "conf").mkdir(parents=True)
    (here / "conf" / ".env").write_text("SECRET=1")
    (here / "conf" / "old").write_text("1")
    await files.session.command.run("mkdir -p tree/data; cd tree; echo > a; echo > data/.env; echo > data/old")
    report = await files.pull("tree", here, ignore=[".env"], delete=True)
    assert (report.copied, report.deleted) == (["a", "data", "data/old"], ["conf/old"])
    assert sorted(contents(here)) == ["a", "conf", "conf/.env", "data", "data/old"]
    shutil.rmtree(here / "data")
    report = await files.push(here, "tree", ignore=[".env"], delete=True)
    assert (report.copied, report.deleted) == (["conf"], ["data/old"])
    left = await files.session.command.run("cd tree; find . -type f | sort")
    assert left.stdout.split() == ["./a", "./data/.env"]
    (here / "data").write_text("a file now")
    report = await files.push(here, "tree", ignore=[".env"], delete=True)
    assert report.skipped == ["data"]


async def test_unreadable_files(files: AsyncFileSystem, tmp_path: Path) -> None:
    """What the session cannot read fails the pull by name, unless it is ignored."""
    await files.session.command.run(
        "mkdir -p tree/private; cd tree; echo 1 > a; echo 2 > b; echo > private/x; chmod 000 b private"
    )
    (tmp_path / "here" / "private").mkdir(parents=True)
    (tmp_path / "here" / "private" / "mine").write_text("x")
    with pytest.raises(FileError, match="could not read b, private"):
        await files.pull("tree", tmp_path / "here", delete=True)
    assert contents(tmp_path / "here")["a"] == (b"1\n", 0o644)
    assert (tmp_path / "here" / "private" / "mine").exists()
    report = await files.pull("tree", tmp_path / "there", ignore=["private/", "b"])
    assert report.copied == ["a"]
    await files.session.command.run("chmod 700 tree/private tree/b")


async def test_file_that_shrinks_while_it_is_pulled(files: AsyncFileSystem, tmp_path: Path) -> None:
    """A file that changes all the time arrives without zeros that it never held."""
    code = (
        "import os, time\nfile = os.open('tree/log', os.O_RDWR | os.O_CREAT)\nend = time.time() + 60\n"
        "while time.time() < end:\n"
        "    os.pwrite(file, b'A' * (20 << 20), 0)\n    time.sleep(.02)\n"
        "    os.ftruncate(file, 1000)\n    time.sleep(.02)\n"
    )
    await files.write_file("churn.py", code)
    await files.session.command.run("mkdir tree; (python3 churn.py >/dev/null 2>&1 & echo $! > pid); sleep 0.5")
    try:
        for number in range(3):
            await files.pull("tree", tmp_path / f"{number}")
            data = (tmp_path / f"{number}" / "log").read_bytes()
            assert data.count(b"A") == len(data) >= 1000
    finally:
        await files.session.command.run("kill $(cat pid)")


async def test_busy_directories(files: AsyncFileSystem, tmp_path: Path) -> None:
    """Files that vanish while a directory is copied count as not there."""
    (tmp_path / "a").mkdir()
    for number in range(300):
        (tmp_path / "a" / f"f{number}").write_text("x")
    stop = threading.Event()

    def churn() -> None:
        names = [tmp_path / "a" / f"tmp{number}" for number in range(30)]
        while not stop.is_set():
            for name in names:
                name.write_text("x")
            for name in names:
                name.unlink()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for number in range(5):
            report = await files.push(tmp_path / "a", f"tree{number}")
            assert sum(path.startswith("f") for path in report.copied) == 300
    finally:
        stop.set()
        thread.join()


async def test_pushes_of_the_same_files_at_once(files: AsyncFileSystem, tmp_path: Path) -> None:
    """Several pushes of the same content at once all arrive."""
    (tmp_path / "a").mkdir()
    for number in range(3):
        (tmp_path / "a" / f"f{number}").write_bytes(os.urandom(200_000))
    reports = await async_at_once([lambda to=to: files.push(tmp_path / "a", to) for to in ("x", "y", "z")])
    assert [len(report.copied) for report in reports] == [3, 3, 3]
    sums = await files.session.command.run("cat x/* | sha256sum; cat y/* | sha256sum; cat z/* | sha256sum; ls -A /tmp")
    assert len(set(sums.stdout.splitlines()[:3])) == 1
    assert ".agentbay-" not in sums.stdout


async def test_modes_of_directories(files: AsyncFileSystem, tmp_path: Path) -> None:
    """Directories keep their permissions in both directions."""
    (tmp_path / "a" / ".ssh").mkdir(parents=True)
    (tmp_path / "a" / ".ssh" / "key").write_text("x")
    (tmp_path / "a" / ".ssh").chmod(0o700)
    await files.push(tmp_path / "a", "tree")
    assert (await files.session.command.run("stat -c %a tree/.ssh")).stdout == "700\n"
    await files.pull("tree", tmp_path / "b")
    assert (tmp_path / "b" / ".ssh").stat().st_mode & 0o777 == 0o700
    (tmp_path / "a" / ".ssh" / "new").write_text("x")
    assert (await files.push(tmp_path / "a", "tree")).copied == [".ssh/new"]
    assert (await files.session.command.run("stat -c %a tree/.ssh")).stdout == "700\n"


async def test_names_with_the_prefix_of_temporary_files(files: AsyncFileSystem, tmp_path: Path) -> None:
    """A user's `.agentbay-` file is copied, a name of a temporary file is reported as skipped."""
    await files.session.command.run("mkdir tree; cd tree; echo > .agentbay-mine; echo > .agentbay-0123456789abcdef")
    report = await files.pull("tree", tmp_path / "a")
    assert (report.copied, report.skipped) == ([".agentbay-mine"], [".agentbay-0123456789abcdef"])


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("tar cf - --transform='s/x/y/' ./x", "not asked for: 'y'"),
        ("head -c 70000000 /dev/zero > x; tar cf - ./x", "much more than it listed"),
        ("ln x z; tar cf - ./z ./x", "not asked for: 'z'"),
        ("tar cf - ./x ./x", "not asked for: 'x'"),
        ("rm x; mkfifo x; tar cf - ./x", "no file: 'x'"),
        ("echo nonsense", "no archive"),
    ],
)
async def test_archives_of_a_hostile_session(
    files: AsyncFileSystem, tmp_path: Path, program: str, message: str
) -> None:
    """An archive that a session has made up is refused, and nothing else is written."""
    await files.session.command.run(
        f"mkdir -p tree .local/bin; printf x > tree/x; printf '#!/bin/sh\nPATH=/usr/bin:/bin\n{program}\n' "
        "> .local/bin/tar; chmod +x .local/bin/tar"
    )
    try:
        with pytest.raises(FileError, match=message):
            await files.pull("tree", tmp_path / "a")
    finally:
        await files.session.command.run("rm .local/bin/tar")
    assert set(contents(tmp_path / "a")) <= {"x"}


async def test_archive_that_lacks_a_file(files: AsyncFileSystem, tmp_path: Path) -> None:
    """A file that is missing in the archive fails the pull by name."""
    await files.session.command.run(
        "mkdir -p tree .local/bin; printf x > tree/x; printf y > tree/y; "
        "printf '#!/bin/sh\nexec /usr/bin/tar cf - ./x\n' > .local/bin/tar; chmod +x .local/bin/tar"
    )
    try:
        with pytest.raises(FileError, match="could not read y"):
            await files.pull("tree", tmp_path / "a")
    finally:
        await files.session.command.run("rm .local/bin/tar")


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
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "kept").write_text("x")
    with pytest.raises(FileError, match="none does not exist"):
        await files.pull("none", tmp_path / "c", delete=True)
    assert (tmp_path / "c" / "kept").exists()


async def test_resumes_after_a_cut(tmp_path: Path) -> None:
    """Cuts in both directions cost only time."""
    make_tree(tmp_path / "a", 20)
    with cutting.runtime("--link-url", "off") as port:
        with cutting.CuttingProxy(port, [40_000, 41_000, 42_000, 140_000, 240_000]) as proxy:
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
        assert proxy.cuts == 5
    assert contents(tmp_path / "b") == contents(tmp_path / "a")


@pytest.mark.soak
async def test_ten_thousand_files(
    shared_session: AsyncSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten thousand files are pushed and pulled back identical."""
    make_tree(tmp_path / "a", 10_000)
    began = time.monotonic()
    await shared_session.file_system.push(tmp_path / "a", "many")
    pushed = time.monotonic()
    await shared_session.file_system.pull("many", tmp_path / "b")
    pulled = time.monotonic()
    assert contents(tmp_path / "b") == contents(tmp_path / "a")
    with capsys.disabled():
        print(f"\n10,000 files pushed in {pushed - began:.1f} s, pulled in {pulled - pushed:.1f} s, identical")


PATHS = st.sampled_from(["a", "b", "b/c", "b/d", "b/d/e"])
TREE = st.dictionaries(
    PATHS,
    st.builds(
        TreeEntry, st.sampled_from(["f", "d", "l"]), st.integers(0, 2), st.integers(0, 1).map(lambda n: n * 10**9)
    ),
)


def make_scan(tree: dict[str, TreeEntry], ignored: frozenset[str] = frozenset()) -> TreeScan:
    """Return a scan in which only directories hold other entries."""
    scan = TreeScan(lambda path, _: path in ignored)
    for path, entry in sorted(tree.items()):
        if "/" not in path or getattr(scan.entries.get(path.rpartition("/")[0]), "kind", "") == "d":
            scan.add(path, entry)
    return scan


@given(TREE, TREE, st.frozensets(PATHS), st.booleans())
def test_plan_makes_them_equal(
    source: dict[str, TreeEntry], target: dict[str, TreeEntry], ignored: frozenset[str], delete: bool
) -> None:
    """Carrying out the plan makes the target equal to the source, except where that is not allowed."""
    there, here = make_scan(source, ignored), make_scan(target, ignored)
    plan = plan_transfer(there, here, delete=delete)
    removed = {*plan.replaced, *plan.extraneous}
    result = {path: entry for path, entry in here.entries.items() if path not in removed}
    result |= {path: there.entries[path] for path in plan.copied}
    for path, entry in there.entries.items():
        assert path in plan.skipped or result[path].kind == entry.kind
    assert delete or not removed
    assert not removed & here.protected
    if delete and not ignored:
        assert set(result) == set(there.entries)
        assert not plan.skipped
    assert sorted(path for batch in plan.batches for path in batch) == plan.copied
    assert not plan_transfer(there, there, delete=delete).copied


@given(st.binary())
def test_listing_of_any_bytes(data: bytes) -> None:
    """Any bytes as a listing are read or refused."""
    try:
        read_tree_listing(data)
    except FileError:
        pass
