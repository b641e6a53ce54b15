"""Builds, pulls and imports that are killed, run out of disk or meet others: the store stays whole."""

from __future__ import annotations

import os
import random
import secrets
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from hashlib import md5
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.local.images.builds import Built, busybox_layer, directory, member, names, needs_busybox, tar
from tests.local.images.conftest import Registry
from tests.local.images.test_builds import build
from tests.local.images.test_sessions import import_image
from tests.local.raw import Wire, embedded
from tests.local.traces import eventually, mounts_with, processes_with
from tests.local.users import User

pytestmark = needs_busybox
DISK_MIB = 48


def check_whole(state: Path) -> None:
    """Check that the store has the layers that it knows, and nothing half made."""
    with closing(sqlite3.connect(state / "images/images.db")) as db:
        known = {chain.removeprefix("sha256:") for (chain,) in db.execute("SELECT chain FROM layers")}
        used = {
            chain.removeprefix("sha256:")
            for (facts,) in db.execute("SELECT json_extract(facts, '$.layers') FROM images")
            for chain in facts.strip("[]").replace('"', "").split(",")
        }
    assert set(names(state / "images/layers")) == known
    assert used <= known
    assert names(state / "images/work") == []
    assert names(state / "sessions") == []


def image_names(wire: Wire) -> set[str]:
    return {name for image in wire.data("ListImages") for name in image["Names"]}


def build_until_killed(wire: Wire, marker: str, life: int, acknowledged: list[str]) -> None:
    for number in range(1000):
        name = f"g{life}:{number}"
        text = (
            f"RUN : {marker}; echo {name} > /name; mkdir /d; for i in 1 2 3; do echo {name} > /d/$i; done; rm /bin/ls\n"
            f"COPY file /copied\nFROM base:1 AS other\nRUN : {marker}; echo {name} > /other\n"
            "FROM base:1\nCOPY --from=0 /name /copied /d/ /d/\nCOPY --from=other /other /\nRUN cat /other >> /d/all\n"
        )
        job = build(wire, text, member("file", random.randbytes(1 << 20)), Name=name)
        assert job["State"] == "done", job
        acknowledged.append(name)


@pytest.mark.parametrize("rounds", [3, pytest.param(50, marks=pytest.mark.soak)])
def test_killed_at_any_moment(somebody: User, rounds: int) -> None:
    """Whenever the runtime is killed, the next one has all images that were built, whole, and no process is left."""
    state = somebody.directory / f"build-killed-{rounds}"
    seed = random.randrange(1 << 30)
    moments, marker, acknowledged = random.Random(seed), f"marker-{secrets.token_hex(8)}", list[str]()
    for life in range(rounds):
        with embedded(state, **somebody.starts()) as (child, wire):
            if "base:1" not in image_names(wire):
                import_image(wire, Built([busybox_layer()]).oci_archive(), "base:1")
            timer = threading.Timer(moments.uniform(0.1, 2.0), child.process.kill)
            timer.start()
            with pytest.raises((httpx.TransportError, ValueError)):
                build_until_killed(wire, marker, life, acknowledged)
            timer.join()
        assert eventually(lambda: not processes_with(marker) and not mounts_with(str(state))), seed
        with embedded(state, **somebody.starts()) as (child, wire):
            assert set(acknowledged) <= image_names(wire), seed
            for name in acknowledged[-2:]:
                with wire.session(ImageId=name) as session:
                    assert wire.stdout(session, "cat /other /d/name /d/all") == f"{name}\n" * 3, seed
            assert child.close_stdin() == 0
            assert "Traceback" not in child.standard_error()
        check_whole(state)


def pull(wire: Wire, registry: Registry, name: str) -> None:
    job = wire.data("PullImage", Reference=f"{registry.host}/killed:1", Name=name)
    while job["State"] == "running":
        job = wire.data("DescribeImageJob", JobId=job["JobId"])
    assert job["State"] == "done", job


def pull_and_import_until_killed(wire: Wire, registry: Registry, life: int, acknowledged: set[str]) -> None:
    for number in range(1000):
        pulled, imported = f"p{life}:{number}", f"i{life}:{number}"
        pull(wire, registry, pulled)
        acknowledged.add(pulled)
        layers = [
            busybox_layer(),
            tar(member("srv/name", imported.encode()), member("srv/all", random.randbytes(1 << 18))),
        ]
        import_image(wire, Built(layers).oci_archive(), imported)
        acknowledged.add(imported)
        acknowledged.discard(pulled)
        wire.data("RemoveImage", Image=pulled)


@pytest.mark.parametrize("rounds", [2, pytest.param(50, marks=pytest.mark.soak)])
def test_pulls_and_imports_killed_at_any_moment(somebody: User, registry: Registry, rounds: int) -> None:
    """Whenever the runtime is killed, the next one has all that was pulled and imported, whole, and no half image."""
    state, seed = somebody.directory / f"pull-killed-{rounds}", random.randrange(1 << 30)
    moments, acknowledged, content = random.Random(seed), set[str](), random.randbytes(3 << 20)
    registry.push("killed", "1", Built([busybox_layer(), *(tar(member(f"srv/{n}", content)) for n in range(3))]))
    for life in range(rounds):
        with embedded(state, **somebody.starts()) as (child, wire):
            timer = threading.Timer(moments.uniform(0.05, 1.5), child.process.kill)
            timer.start()
            with pytest.raises((httpx.TransportError, ValueError)):
                pull_and_import_until_killed(wire, registry, life, acknowledged)
            timer.join()
        with embedded(state, **somebody.starts()) as (child, wire):
            present = image_names(wire)
            assert acknowledged <= present, seed
            for name in sorted(present)[-2:]:
                with wire.session(ImageId=name) as session:
                    if name.startswith("i"):
                        assert wire.stdout(session, "cat /srv/name; wc -c < /srv/all") == f"{name}{1 << 18}\n", seed
                    else:
                        assert wire.stdout(session, "cat /srv/* | md5sum")[:32] == md5(content * 3).hexdigest(), seed
            pull(wire, registry, "whole:1")
            wire.data("RemoveImage", Image="whole:1")
            assert child.close_stdin() == 0
            assert "Traceback" not in child.standard_error()
        check_whole(state)


@pytest.fixture
def small_disk(somebody: User) -> Iterator[Path]:
    """A state directory on a small disk."""
    if os.geteuid() != 0:
        pytest.skip("mounting a disk takes root")
    place = somebody.directory / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=777", "small", place], check=True)
    try:
        yield place / "state"
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_full_disk(somebody: User, small_disk: Path) -> None:
    """A step for which the disk has no room fails by its line, and those after it have the room again."""
    with embedded(small_disk, **somebody.starts()) as (child, wire):
        import_image(wire, Built([busybox_layer()]).oci_archive(), "base:1")
        for _ in range(3):
            job = build(wire, "RUN cat /dev/zero > /big\n", Name="big:1")
            assert (job["State"], "Line 2: RUN" in job["Message"]) == ("failed", True), job
        # there is room for the files that are sent, and not for a second copy of them
        content = random.randbytes(DISK_MIB * 6 // 10 << 20)
        job = build(wire, "COPY file /big\n", member("file", content), Name="big:1")
        assert job["State"] == "failed"
        assert "Line 2: COPY" in job["Message"]
        assert any(words in job["Message"] for words in ("No space left", "too few for this image")), job
        assert eventually(lambda: names(small_disk / "images/blobs") == [])
        job = build(wire, "RUN echo fits > /small\n", Name="small:1")
        assert job["State"] == "done", job
        with wire.session(ImageId="small:1") as session:
            assert wire.stdout(session, "cat /small") == "fits\n"
        assert image_names(wire) == {"base:1", "small:1"}
        assert child.close_stdin() == 0
        assert "Traceback" not in child.standard_error()
    check_whole(small_disk)


@pytest.fixture
def running(somebody: User) -> Iterator[Wire]:
    state = somebody.directory / "meeting-state"
    with embedded(state, **somebody.starts()) as (child, wire):
        import_image(wire, Built([busybox_layer()]).oci_archive(), "base:1")
        yield wire
        assert child.close_stdin() == 0
        assert "Traceback" not in child.standard_error()
    check_whole(state)


def test_two_builds_of_one_name(running: Wire) -> None:
    """Builds of one name at the same time all end; equal ones are one image, and of others the last has the name."""
    texts = [f"RUN echo {number // 2} > /number; sleep 0.2\nRUN cat /number > /copy\n" for number in range(4)]
    with ThreadPoolExecutor() as pool:
        jobs = list(pool.map(lambda text: build(running, text, Name="same:1"), texts))
    assert [job["State"] for job in jobs] == ["done"] * 4, jobs
    made = [job["Image"]["ImageId"] for job in jobs]
    assert (made[0], made[2]) == (made[1], made[3])
    assert made[0] != made[2]
    named = running.data("GetImage", Image="same:1")["ImageId"]
    assert named in made
    for image in set(made):
        with running.session(ImageId=image) as session:
            assert running.stdout(session, "cat /copy") == f"{made.index(image) // 2}\n"
    assert len(running.data("PruneImages")) == 1


def test_removal_while_building(running: Wire) -> None:
    """What a build needs stays until it has ended, whoever removes the image that it began with."""
    text = "RUN echo begun; sleep 1; echo one > /one\nRUN echo two > /two\n"
    found: list[dict[str, Any]] = []
    building = threading.Thread(target=lambda: found.append(build(running, text, Name="kept:1")))
    building.start()
    assert eventually(lambda: processes_with("echo begun; sleep 1"))
    running.data("RemoveImage", Image="base:1")
    running.data("PruneImages")
    building.join()
    assert found[0]["State"] == "done", found
    with running.session(ImageId="kept:1") as session:
        assert running.stdout(session, "cat /one /two") == "one\ntwo\n"
    with pytest.raises(Exception, match=r"base:1"):
        running.data("GetImage", Image="base:1")


def test_large_contexts(running: Wire) -> None:
    """A context of very many files is copied."""
    many = [directory("d"), *(member(f"d/{number}", b"") for number in range(4_000))]
    job = build(running, "COPY d /d/\n", *many, Name="many:1")
    assert job["State"] == "done", job
    with running.session(ImageId="many:1") as session:
        assert running.stdout(session, "ls /d | wc -l").strip() == "4000"
