"""Unpacking layers: what overlayfs wants, and what hostile archives must not do."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from agentbay.local.images.errors import DamagedImage, ImageError, LimitExceeded
from agentbay.local.images.layer_source import LayerSource
from agentbay.local.images.layer_writer import LayerLimits, LayerStats, LayerWriter
from agentbay.local.images.tar_reader import TarReader
from agentbay.local.images.tree_copy import TreeCopy
from agentbay.local.sandbox.shared import dirfd
from tests.local.images.builds import Member, directory, hardlink, member, names, symlink, tar


def unpack(top: Path, content: bytes, *lowers: Path, limits: LayerLimits | None = None) -> LayerStats:
    top.mkdir()
    writer = LayerWriter(str(top), [str(lower) for lower in lowers], None, limits or LayerLimits(min_free_bytes=0))
    source = LayerSource(io.BytesIO(content), lambda _: None)
    writer.unpack(source)
    source.finish()
    return writer.stats


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return "user.overlay.opaque" in os.listxattr(path)


def test_files_links_and_modes(tmp_path: Path) -> None:
    """Files, directories and links arrive, without set-id bits, devices and owners."""
    facts = unpack(
        tmp_path / "a",
        tar(
            directory("usr", 0o500),
            member("usr/tool", b"run", mode=0o6755, uid=123, mtime=1_000_000),
            member("usr/closed", b"x", mode=0),
            symlink("bin", "usr"),
            hardlink("usr/same", "usr/tool"),
            member("dev/sda", type=tarfile.BLKTYPE),
            member("pipe", type=tarfile.FIFOTYPE),
            directory("tmp", 0o1777),
        ),
    )
    top = tmp_path / "a"
    assert (top / "usr/tool").read_bytes() == b"run"
    status = (top / "usr/tool").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_mtime) == (0o755, os.geteuid(), 1_000_000)
    assert (top / "usr/same").stat().st_ino == status.st_ino
    assert stat.S_IMODE((top / "usr").stat().st_mode) == 0o700
    assert stat.S_IMODE((top / "usr/closed").stat().st_mode) == 0o400
    assert (top / "bin").readlink() == Path("usr")
    assert stat.S_ISFIFO((top / "pipe").stat().st_mode)
    assert stat.S_IMODE((top / "tmp").stat().st_mode) == 0o1777
    assert not (top / "dev/sda").exists()
    assert facts.devices == 1


def test_later_entries_replace_earlier_ones(tmp_path: Path) -> None:
    """Of two entries of one name the later one counts, whatever kinds they are."""
    unpack(
        tmp_path / "a",
        tar(
            member("x", b"1"), directory("x"), member("x/y", b"2"), member("x", b"3"),
            symlink("l", "/etc"), directory("l"), member("l/z", b"4"),
            directory("d"), member("d/e/f"), symlink("d", "l"), member("d/g", b"5"),
        ),
    )  # fmt: skip
    assert (tmp_path / "a/x").read_bytes() == b"3"
    assert (tmp_path / "a/l/z").read_bytes() == b"4"
    assert (tmp_path / "a/l/g").read_bytes() == b"5"
    assert not Path("/etc/z").exists()
    assert not Path("/etc/g").exists()


def test_whiteouts(tmp_path: Path) -> None:
    """Whiteouts become what overlayfs takes for removed; in the lowest layer there is nothing to remove."""
    below, above = tmp_path / "below", tmp_path / "above"
    unpack(below, tar(member("a/gone"), member("a/kept"), member("b/old"), member("c/old"), member(".wh.nothing")))
    unpack(
        above,
        tar(
            member("a/.wh.gone"), member("a/.wh.never"), directory("b"), member("b/.wh..wh..opq"), member("b/new"),
            member(".wh.c"), directory("c"), member("c/new"), member(".wh..wh.plnk"),
        ),
        below,
    )  # fmt: skip
    assert is_whiteout(above / "a/gone")
    assert names(above / "a") == ["gone"]
    assert is_opaque(above / "b")
    assert is_opaque(above / "c")
    assert not is_opaque(above / "a")
    assert names(above) == ["a", "b", "c"]
    assert not list(below.glob(".wh*"))


def test_links_of_lower_layers_are_followed_inside(tmp_path: Path) -> None:
    """A path through a link of a lower layer goes where a running system would put it, never out of the image."""
    below, above = tmp_path / "below", tmp_path / "above"
    unpack(below, tar(directory("usr/bin", 0o711), symlink("bin", "usr/bin"), symlink("out", "/../../../etc")))
    unpack(above, tar(member("bin/tool", b"t"), member("out/agentbay-test", b"t")), below)
    assert (above / "usr/bin/tool").read_bytes() == b"t"
    assert stat.S_IMODE((above / "usr/bin").stat().st_mode) == 0o711
    assert (above / "etc/agentbay-test").read_bytes() == b"t"
    assert not Path("/etc/agentbay-test").exists()
    assert not os.path.lexists(above / "bin")


def test_hard_links_to_lower_layers_are_copies(tmp_path: Path) -> None:
    """A hard link to a file of a lower layer leaves that file as it is."""
    below, above = tmp_path / "below", tmp_path / "above"
    unpack(below, tar(member("d/f", b"content", mode=0o640), symlink("d/l", "f")))
    unpack(above, tar(hardlink("g", "d/f"), hardlink("m", "d/l")), below)
    assert (above / "g").read_bytes() == b"content"
    assert (above / "g").stat().st_ino == (above / "d/f").stat().st_ino
    assert (above / "m").is_symlink()
    assert (below / "d/f").stat().st_nlink == 1


HOSTILE = {
    "parent": tar(member("../escaped")),
    "parent inside": tar(member("a/../../escaped")),
    "hard link out": tar(hardlink("x", "../../../etc/passwd")),
    "hard link to a directory": tar(directory("d"), hardlink("x", "d")),
    "hard link to nothing": tar(hardlink("x", "absent")),
    "hard link through a link": tar(symlink("l", "/etc"), hardlink("x", "l/passwd")),
    "whiteout of the parent": tar(member(".wh...")),
    "circle": tar(symlink("a", "b"), symlink("b", "a"), member("a/x")),
    "long name": tar(member("n" * 300)),
    "deep": tar(directory("d/" * 400)),
    "no tar": b"this is no archive, " * 100,
    "cut off": tar(member("f", b"x" * 5000))[:2000],
    "cut off gzip": gzip.compress(os.urandom(100_000))[:50_000],
    "damaged gzip": b"\x1f\x8b" + os.urandom(1000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused(tmp_path: Path, name: str) -> None:
    """What leads outside, is damaged or nonsense ends in an error, and nothing is written elsewhere."""
    with pytest.raises(ImageError):
        unpack(tmp_path / "a", HOSTILE[name])
    assert names(tmp_path) == ["a"]


def test_links_are_not_followed_out_while_writing(tmp_path: Path) -> None:
    """A link to a directory of the host leads to that path inside the image."""
    target = tmp_path / "host"
    target.mkdir()
    unpack(
        tmp_path / "a",
        tar(symlink("l", str(target)), member("l/file", b"x"), symlink("up", "../../host"), member("up/f")),
    )
    assert not list(target.iterdir())
    assert (tmp_path / "a" / str(target)[1:] / "file").read_bytes() == b"x"
    assert (tmp_path / "a/host/f").exists()


def test_bombs(tmp_path: Path) -> None:
    """Too many entries, too many bytes, and too strong a compression end in an error."""
    many = tar(*(member(f"f{number}") for number in range(50)))
    with pytest.raises(LimitExceeded, match="more than 40 entries"):
        unpack(tmp_path / "a", many, limits=LayerLimits(entries=40, min_free_bytes=0))
    with pytest.raises(LimitExceeded, match="more than 0 GiB"):
        unpack(tmp_path / "b", tar(member("f", b"x" * 2000)), limits=LayerLimits(size=1000, min_free_bytes=0))
    zeros = io.BytesIO()
    with gzip.open(zeros, "wb") as packer:
        info = tarfile.TarInfo("zeros")
        info.size = 300 << 20
        packer.write(info.tobuf())
        for _ in range(300):
            packer.write(bytes(1 << 20))
    with pytest.raises(LimitExceeded, match="bomb"):
        unpack(tmp_path / "c", zeros.getvalue())


def _header(name: str, size: int, kind: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_large_headers_take_no_memory(tmp_path: Path, kind: bytes) -> None:
    """A header that claims gigabytes is refused before it is read."""
    with pytest.raises(DamagedImage, match="header of 68719476736 bytes"):
        unpack(tmp_path / "a", _header("x", 64 << 30, kind) + bytes(512))


def _records(*records: bytes) -> bytes:
    """An extended header with these records, each `NAME=VALUE`."""
    content = b""
    for record in records:
        length = len(record) + 2
        length += len(str(length + len(str(length))))
        content += b"%d %s\n" % (length, record)
    return _header("x", len(content), tarfile.XHDTYPE) + content + bytes(-len(content) % 512)


def test_names_in_headers_take_no_memory() -> None:
    """Of the records of headers only those are kept that matter, however many headers come before an entry."""
    headers = (_records(*(b"n%d.%d=" % (number, each) for each in range(20_000))) for number in range(10))
    archive = io.BytesIO(b"".join(headers) + tar(member("f")))
    tracemalloc.start()
    try:
        (entry,) = TarReader(archive.read)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()
    assert entry.name == "f"


@pytest.mark.parametrize("size", [str(1 << 63), "9" * 4000, "9" * 5000, "-1", "x"], ids=len)
def test_impossible_sizes(size: str) -> None:
    """A size that no file has is refused, in an archive that is read in order or by places."""
    archive = _records(f"size={size}".encode()) + _header("f", 0, tarfile.REGTYPE)
    with pytest.raises(DamagedImage, match=r"size|malformed"):
        list(TarReader(io.BytesIO(archive).read))
    with pytest.raises(DamagedImage, match="size"):
        list(TarReader(io.BytesIO(_header("f", 1 << 80, tarfile.REGTYPE)).read))


DEEP = {
    "one": [symlink("l", "d/" * 2000)],
    "nearly too many": [symlink("l", "d/" * 480)],
    "in each other": [symlink("l", "l0"), *(symlink(f"l{n}", f"l{n + 1}/{'d/' * 200}") for n in range(38))],
}


@pytest.mark.parametrize("name", DEEP)
def test_links_of_many_parts(tmp_path: Path, name: str) -> None:
    """Links that name very many directories are an error of the layer."""
    with pytest.raises(ImageError, match=r"too deep|nested deeper"):
        unpack(tmp_path / "a", tar(*DEEP[name], member("l/x")))


def test_links_are_followed_as_the_kernel_does(tmp_path: Path) -> None:
    """The parent of a link is that of the directory to which it leads."""
    links = [directory("x/y"), symlink("a", "x/y"), symlink("l", "a/../z"), symlink("m", "../../../l/./w")]
    unpack(tmp_path / "a", tar(*links, member("m/f", b"f")))
    assert (tmp_path / "a/x/z/w/f").read_bytes() == b"f"


def test_copies_keep_holes(tmp_path: Path) -> None:
    """Copied files keep their holes, which may be larger than the disk."""
    size = 1 << 43
    below, above = tmp_path / "below", tmp_path / "above"
    unpack(below, tar(member("d/f")))
    with (below / "d/f").open("r+b") as file:
        for place in (5 << 20, size - (5 << 20)):
            file.seek(place)
            file.write(b"data")
        file.truncate(size)
    facts = unpack(above, tar(hardlink("g", "d/f")), below)
    assert facts.size < 1 << 20
    copying = TreeCopy(None, LayerLimits(min_free_bytes=0))
    (tmp_path / "copy").mkdir()
    copying.copy(str(below), str(tmp_path / "copy"))
    for copied in (above / "g", tmp_path / "copy/d/f"):
        assert copied.stat().st_size == size
        assert copied.stat().st_blocks * 512 < 1 << 20
        with copied.open("rb") as file:
            file.seek(size - (5 << 20))
            assert file.read(5) == b"data\0"


def test_sparse_files_are_refused(tmp_path: Path) -> None:
    """Sparse files are refused by name, since their sizes are only claims."""
    with pytest.raises(DamagedImage, match="sparse file, 'big'"):
        unpack(tmp_path / "a", _header("big", 0, tarfile.GNUTYPE_SPARSE) + bytes(1024))


NAMES = st.lists(st.sampled_from(["a", "b", "c", "..", ".", ".wh.a", ".wh..wh..opq", "l"]), min_size=1, max_size=4)
MEMBERS = st.one_of(
    st.builds(lambda parts: member("/".join(parts), b"x"), NAMES),
    st.builds(lambda parts: directory("/".join(parts)), NAMES),
    st.builds(lambda parts, target: symlink("/".join(parts), "/".join(target)), NAMES, NAMES),
    st.builds(lambda parts, target: hardlink("/".join(parts), "/".join(target)), NAMES, NAMES),
)


@given(st.lists(st.lists(MEMBERS, max_size=12), min_size=1, max_size=3))
def test_any_layers_stay_inside(tmp_path_factory: pytest.TempPathFactory, stack: list[list[Member]]) -> None:
    """Whatever layers hold, they are unpacked or refused, and nothing is written beside them."""
    place = tmp_path_factory.mktemp("any")
    inside = place / "in" / "side"
    inside.mkdir(parents=True)
    lowers: list[Path] = []
    for number, members in enumerate(stack):
        try:
            unpack(inside / str(number), tar(*members), *lowers)
        except ImageError:
            break
        lowers.insert(0, inside / str(number))
    assert names(place) == ["in"]
    assert names(place / "in") == ["side"]
    for name in names(inside):
        fd = os.open(inside, dirfd.DIRECTORY_OPEN_FLAGS)
        dirfd.remove(name, fd)  # which fails if something is there that no removal of a session could handle
        os.close(fd)
