"""The store of images: sharing, removal, and what a kill leaves."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentbay.local.images.archives import import_archive
from agentbay.local.images.blob_files import upload_path
from agentbay.local.images.errors import DamagedImage, ImageError
from agentbay.local.images.importing import Importer
from agentbay.local.images.service import ImageService
from agentbay.local.images.store import Image, ImageStore
from agentbay.local.state_dir import StateDirectory
from tests.local.images.builds import Built, digest, directory, member, names, symlink, tar
from tests.local.traces import eventually

BASE = tar(
    directory("etc"), member("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"), member("bin/sh", b"", mode=0o755)
)
TOP = tar(member("top", b"t"))


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    state = StateDirectory.open(str(tmp_path / "state"))
    yield state
    state.close()


@pytest.fixture
def store(state: StateDirectory) -> Iterator[ImageStore]:
    store = ImageStore(state, None)
    yield store
    store.close()


def add(store: ImageStore, name: str, content: bytes, place: Path) -> Image:
    file = place / "archive.tar"
    file.write_bytes(content)
    return import_archive(file, name, "test", Importer(store))


def layer_directories(store: ImageStore) -> list[str]:
    return names(store.blobs.parent / "layers")


def test_sources_give_the_same_image(store: ImageStore, tmp_path: Path) -> None:
    """An OCI archive and what `docker save` writes are one image, with its layers once."""
    built = Built([BASE, TOP], {"Env": ["A=1", "B=x=y"], "WorkingDir": "/app/", "User": "0", "Cmd": ["sh"]})
    first = add(store, "a:1", built.oci_archive(), tmp_path)
    second = add(store, "b:1", built.docker_archive(), tmp_path)
    assert first.id == second.id == digest(built.config)
    assert second.names == ["a:1", "b:1"]
    assert len(layer_directories(store)) == 2
    assert (first.config.env, first.config.workdir, first.config.command) == ({"A": "1", "B": "x=y"}, "/app", ["sh"])
    assert (first.user.name, first.user.home, first.programs.shell) == ("root", "/root", "/bin/sh")


def test_layers_packed_with_zstd(store: ImageStore, tmp_path: Path) -> None:
    """Layers may be packed with zstd, in one frame or several; a damaged one is refused."""
    zstandard = pytest.importorskip("zstandard")
    content = tar(member("etc/a", b"a" * 300_000), member("b", os.urandom(1000)))
    compress = zstandard.ZstdCompressor().compress
    image, several = Built([content]), compress(content[:1000]) + compress(content[1000:])
    for number, packed in enumerate((compress(content), several)):
        image.layers = [packed]
        (tmp_path / "image.tar").write_bytes(image.oci_archive())
        added = import_archive(tmp_path / "image.tar", f"z:{number}", "test", Importer(store))
        (layer,) = store.layer_paths(added.layers)
        assert Path(layer, "etc/a").read_bytes() == b"a" * 300_000
        store.remove(f"z:{number}")
    image.layers = [several[:-20]]
    (tmp_path / "image.tar").write_bytes(image.oci_archive())
    with pytest.raises(DamagedImage):
        import_archive(tmp_path / "image.tar", "z:3", "test", Importer(store))


def test_layers_are_shared(store: ImageStore, tmp_path: Path) -> None:
    """Images with one base have its layer once; it goes with the last image."""
    add(store, "a:1", Built([BASE]).oci_archive(), tmp_path)
    add(store, "b:1", Built([BASE, TOP]).oci_archive(), tmp_path)
    assert len(layer_directories(store)) == 2
    store.remove("a:1")
    assert len(layer_directories(store)) == 2
    store.remove("b:1")
    assert layer_directories(store) == []
    assert store.images() == []


def test_names(store: ImageStore, tmp_path: Path) -> None:
    """Images are found by name, by name without the tag latest, and by enough digits of the id."""
    image = add(store, "a:latest", Built([BASE]).oci_archive(), tmp_path)
    digits = image.id.removeprefix("sha256:")
    for name in ("a:latest", "a", image.id, digits, digits[:8]):
        found = store.find(name)
        assert found is not None
        assert found.id == image.id
    for name in ("b", "a:1", digits[:7], "sha256:", "", "%"):
        assert store.find(name) is None
    add(store, "a:latest", Built([BASE, TOP]).oci_archive(), tmp_path)  # takes the name away from the first
    assert [known.names for known in store.images()] == [["a:latest"], []]
    assert [known.id for known in store.prune()] == [image.id]
    assert len(store.images()) == 1
    store.remove("a")
    assert store.images() == []


def test_layers_in_use_stay(store: ImageStore, tmp_path: Path) -> None:
    """What is removed while something uses it goes when that ends."""
    image = add(store, "a:1", Built([BASE]).oci_archive(), tmp_path)
    with store.keep(image.layers), store.keep(image.layers):
        store.remove("a:1")
        assert len(layer_directories(store)) == 1
    assert eventually(lambda: layer_directories(store) == [])


def _without_magic(archive: bytes) -> bytes:
    """Return an archive as `tar` wrote it before POSIX."""
    blocks = bytearray(archive)
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        starts = [info.offset for info in members]
    for start in starts:
        blocks[start + 257 : start + 265] = bytes(8)
        blocks[start + 148 : start + 156] = b" " * 8
        blocks[start + 148 : start + 156] = b"%06o\0 " % sum(blocks[start : start + 512])
    return bytes(blocks)


def test_old_archives(store: ImageStore, tmp_path: Path) -> None:
    """An archive of an image without the mark of POSIX is one all the same, packed too."""
    old = _without_magic(Built([BASE]).docker_archive())
    assert add(store, "a:1", old, tmp_path).names == ["a:1"]
    assert add(store, "b:1", gzip.compress(old), tmp_path).names == ["a:1", "b:1"]


def _packed(*pieces: bytes) -> bytes:
    out = io.BytesIO()
    with gzip.open(out, "wb", 1) as packer:
        for piece in pieces:
            packer.write(piece)
    return out.getvalue()


def _header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_first_header_takes_no_memory(store: ImageStore, tmp_path: Path, kind: bytes) -> None:
    """What an archive begins with is bounded before anybody knows what it is."""
    packed = _packed(_header(kind, 300 << 20), *[bytes(1 << 20)] * 300)
    tracemalloc.start()
    try:
        with pytest.raises(DamagedImage, match="header of 314572800 bytes"):
            add(store, "a:1", packed, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"manifests": [{"platform": "linux"}]}, "for which machines"),
        ({"manifests": [{"platform": [1]}]}, "for which machines"),
        ({"manifests": {"a": 1}}, "does not list its manifests"),
    ],
)
def test_malformed_indexes(store: ImageStore, tmp_path: Path, document: object, reason: str) -> None:
    with pytest.raises(DamagedImage, match=reason):
        add(store, "a:1", tar(member("index.json", json.dumps(document).encode())), tmp_path)


@pytest.mark.parametrize("rootfs", ["layers", ["x"], {"diff_ids": [1]}, {"diff_ids": {}}, 5])
def test_malformed_configurations(store: ImageStore, tmp_path: Path, rootfs: object) -> None:
    with pytest.raises(DamagedImage, match="does not list its layers"):
        add(store, "a:1", Built([BASE], rootfs=rootfs).oci_archive(), tmp_path)


def test_ids_of_very_many_digits(store: ImageStore, tmp_path: Path) -> None:
    """Ids that no user has are passed over in passwd, and refused as the user of an image."""
    digits = "9" * 5000
    root = tar(member("etc/passwd", f"a:x:{digits}:0:a:/:/bin/sh\nb:x:7:{digits}:b:/:/bin/sh\n".encode()))
    assert add(store, "a:1", Built([root]).oci_archive(), tmp_path).user.uid == 0
    for user in ("a", "b", digits, f"0:{digits}", "٣"):
        with pytest.raises(ImageError, match="does not have"):
            add(store, "b:1", Built([root], {"User": user}).oci_archive(), tmp_path)


def test_lies_are_found(store: ImageStore, tmp_path: Path) -> None:
    """A layer that is not what the configuration says, and a manifest that names what is not there, are refused."""
    lying = Built([BASE], rootfs={"type": "layers", "diff_ids": [digest(b"other")]})
    with pytest.raises(DamagedImage, match="has the digest"):
        add(store, "a:1", lying.oci_archive(), tmp_path)
    more = Built([BASE], rootfs={"type": "layers", "diff_ids": [digest(BASE), digest(TOP)]})
    with pytest.raises(DamagedImage, match="more layers than its manifest"):
        add(store, "a:1", more.oci_archive(), tmp_path)
    for broken in (
        tar(member("index.json", b"{")),
        tar(member("index.json", b'{"manifests": [{"digest": "sha256:' + b"0" * 64 + b'"}]}')),
        tar(member("index.json", b'{"manifests": [{"digest": "../../etc/passwd"}]}')),
        tar(member("index.json", b'{"manifests": {}}')),
        tar(member("manifest.json", b'[{"Config": "../x", "Layers": ["/etc/passwd"]}]')),
        tar(member("manifest.json", b"[]")),
        tar(member("manifest.json", b"[" * 100_000)),
        b"no archive",
    ):
        with pytest.raises(ImageError):
            add(store, "a:1", broken, tmp_path)
    with pytest.raises(ImageError, match="is for linux/s390x"):
        add(store, "a:1", Built([BASE], architecture="s390x").oci_archive(), tmp_path)
    with pytest.raises(ImageError, match="'nobody-here', whom its /etc/passwd does not have"):
        add(store, "a:1", Built([BASE], {"User": "nobody-here"}).oci_archive(), tmp_path)
    assert store.images() == []
    assert names(store.blobs.parent / "work") == []


def test_uploads_of_a_killed_runtime_go_at_the_start(state: StateDirectory) -> None:
    """An archive that a killed runtime was taking is removed, and a download that can go on is kept."""
    store = ImageStore(state, None)
    upload, download = upload_path(store.blobs, "img-1"), store.blobs / ("0" * 64)
    for path in (upload, download):
        path.write_bytes(b"x")
    store.close()
    again = ImageStore(state, None)
    assert names(store.blobs) == [download.name]
    again.close()


def test_a_root_file_system(store: ImageStore, tmp_path: Path) -> None:
    """An archive of a root file system is an image, whatever its links to passwd and shells are."""
    content = tar(
        symlink("bin", "usr/bin"), member("usr/bin/real", mode=0o755), symlink("usr/bin/sh", "/bin/real"),
        symlink("usr/bin/python3", "/nowhere"), symlink("etc", "/conf"),
        member("conf/passwd", b"root:x:0:0::/r:/bin/sh"),
    )  # fmt: skip
    image = add(store, "a:1", content, tmp_path)
    assert (image.user.home, image.programs.shell, image.programs.python) == ("/r", "/bin/sh", "")


IMPORT = """
import sys
from pathlib import Path
from agentbay.local.images.archives import import_archive
from agentbay.local.images.importing import Importer
from agentbay.local.images.store import ImageStore
from agentbay.local.state_dir import StateDirectory
store = ImageStore(StateDirectory.open(sys.argv[1]), None)
print("ready", flush=True)
for number in range(1000):
    import_archive(Path(sys.argv[2]), f"a:{number}", "test", Importer(store))
    print(f"a:{number}", flush=True)
    if number % 2:
        store.remove(f"a:{number - 1}")
        store.remove(f"a:{number}")
        print("removed", flush=True)
"""


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path: Path) -> None:
    """After a kill the store has what was confirmed, whole, and nothing else."""
    layers = [tar(*(member(f"l{layer}/f{number}", os.urandom(2000)) for number in range(150))) for layer in range(3)]
    archive = tmp_path / "image.tar"
    archive.write_bytes(Built(layers).oci_archive())
    for _ in range(12):
        command = [sys.executable, "-c", IMPORT, str(tmp_path / "state"), str(archive)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            time.sleep(random.uniform(0, 0.4))
            child.send_signal(signal.SIGKILL)
            confirmed = [line.strip() for line in child.stdout.readlines() if line.endswith("\n")]
        state = StateDirectory.open(str(tmp_path / "state"))
        store = ImageStore(state, None)
        if confirmed and confirmed[-1] != "removed" and int(confirmed[-1][2:]) % 2 == 0:
            assert store.find(confirmed[-1]) is not None
        for image in store.images():
            for layer in store.layer_paths(image.layers):
                (folder,) = Path(layer).iterdir()
                assert len(list(folder.iterdir())) == 150
        known = {chain.removeprefix("sha256:") for image in store.images() for chain in image.layers}
        assert set(layer_directories(store)) == known
        assert names(store.blobs.parent / "work") == []
        store.close()
        state.close()


async def _fail() -> Image:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_a_task_that_fails_ends_its_job(state: StateDirectory) -> None:
    """Whatever a job fails by, whoever waits for it hears of that."""
    service = ImageService(state, None)
    job = service.start_task(_fail())
    await service.close()
    assert (job.state, job.error is not None and job.error.status_code) == ("failed", 500)
