"""The store of images: sharing, removal, and what a kill leaves."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentbay.local.images.archives import import_archive
from agentbay.local.images.blob_files import upload_path
from agentbay.local.images.errors import DamagedImage, ImageError
from agentbay.local.images.importing import Importer
from agentbay.local.images.service import ImageService, Job
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


def test_uploads_of_a_killed_runtime_go_at_the_start(state: StateDirectory, store: ImageStore) -> None:
    """An archive that a killed runtime was taking is removed, and a download that can go on is kept."""
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


def test_a_task_that_fails_ends_its_job(state: StateDirectory) -> None:
    """Whatever a job fails by, whoever waits for it hears of that."""

    async def run() -> Job:
        service = ImageService(state, None)
        job = service.start_task(_fail())
        await service.close()
        return job

    job = asyncio.run(run())
    assert (job.state, job.error is not None and job.error.status_code) == ("failed", 500)
