"""Builds, run by root and by an ordinary user: what their files and commands may do, and what they must not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentbay.local.api_errors import internal_error
from agentbay.local.builds import service
from agentbay.local.builds.service import BuildService
from agentbay.local.images.archives import import_archive
from agentbay.local.images.importing import Importer
from agentbay.local.images.job_output import JobOutput
from agentbay.local.images.service import ImageService
from agentbay.local.network.provider import NetworkProvider
from agentbay.local.sandbox.service.manager import Limits, SandboxManager
from agentbay.local.state_dir import StateDirectory
from tests.local.images.builds import (
    Built,
    Member,
    busybox_layer,
    directory,
    hardlink,
    member,
    needs_busybox,
    symlink,
    tar,
)
from tests.local.images.test_sessions import import_image, tree_digest
from tests.local.raw import Refused, Wire, embedded
from tests.local.traces import PATIENCE
from tests.local.users import User

pytestmark = needs_busybox


def build(wire: Wire, text: str, *files: Member, **fields: Any) -> dict[str, Any]:
    """Build an image, and return its job at the end."""
    job = wire.data("BuildImage", Dockerfile=f"FROM base:1\n{text}", **fields)
    wire.http.put(job["UploadUrl"], content=tar(*files)).raise_for_status()
    deadline = time.monotonic() + PATIENCE
    while job["State"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
        job = wire.data("DescribeImageJob", JobId=job["JobId"], OutputFrom=0)
    return job


@pytest.fixture(scope="module")
def state(somebody: User) -> Path:
    return somebody.directory / "builds-state"


@pytest.fixture(scope="module")
def running(somebody: User, state: Path) -> Iterator[Wire]:
    with embedded(state, "--session-disk", "60MiB", **somebody.starts()) as (child, wire):
        import_image(wire, Built([busybox_layer(directory("srv"), symlink("out", "/srv"))]).oci_archive(), "base:1")
        yield wire
        child.close_stdin()
        assert "Traceback" not in child.standard_error()


def test_commands_are_confined(running: Wire, state: Path) -> None:
    """A command has no capability, no file of the host and no way to the layers below, as in a session."""
    before = tree_digest(state)
    script = (
        "id -u; while read n v; do case $n in CapEff:) echo $v; esac; done < /proc/self/status; ls /usr; "
        "rm -rf /srv; echo x > /bin/sh2; cat /proc/1/mountinfo"
    )
    job = build(running, f"RUN {script}\n", Name="confined:1")
    assert job["State"] == "done", job
    lines = job["Output"].splitlines()
    assert lines[2:4] == ["0", "0" * 16]
    assert str(state) not in job["Output"]
    base = running.data("GetImage", Image="base:1")
    assert base["Layers"] == 1
    running.data("RemoveImage", Image="confined:1")
    deadline = time.monotonic() + PATIENCE
    while tree_digest(state) != before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_links_of_commands_lead_nowhere(running: Wire, somebody: User) -> None:
    """What the runtime takes out of the files of a command it takes out of those, wherever they link to."""
    victim = somebody.directory / "victim"
    for name in ("etc/hosts", "opt/session-python/kept"):
        (victim / name).parent.mkdir(parents=True)
        (victim / name).write_text("of the host")
    linking = f"ln -s {victim}/etc /etc; ln -s {victim}/opt /opt; ln -s {victim} /link"
    script = f"rm -rf /etc /opt; mkdir -p {victim}/etc {victim}/opt; {linking}"
    job = build(
        running, f"RUN {script}\nCOPY file /link/here\nWORKDIR /link/there\n", member("file", b"x"), Name="links:1"
    )
    assert job["State"] == "done", job
    assert sorted(str(path.relative_to(victim)) for path in victim.rglob("*")) == [
        "etc", "etc/hosts", "opt", "opt/session-python", "opt/session-python/kept",
    ]  # fmt: skip
    with running.session(ImageId="links:1") as session:
        assert running.sh(session, f"cat {victim}/here")["stdout"] == "x"
        assert running.sh(session, "cat /etc/hosts")["exit_code"] == 0  # a session's own, in the image


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([member("../x", b"x")], "leads outside"),
        ([hardlink("x", "../../etc/passwd")], "leads outside"),
        ([hardlink("x", "absent")], "which it does not hold"),
        ([member("x/.wh.bin", b"")], "is named like"),
        ([member("/".join("d" * 300), b"x")], "nested deeper"),
    ],
    ids=["outside", "link-outside", "link-to-nothing", "whiteout", "deep"],
)
def test_hostile_contexts(running: Wire, files: list[Member], words: str) -> None:
    job = build(running, "COPY . /all/\n", *files)
    assert job["State"] == "failed"
    assert words in job["Message"]


def test_contexts_stay_inside(running: Wire, somebody: User) -> None:
    """Links lead within the image only, those of the context and those of the image, and devices are left out."""
    secret = somebody.directory / "build-secret"
    secret.write_text("of the host")
    files = [
        symlink("esc", str(somebody.directory)),
        symlink("file", str(secret)),
        member("dev", type=b"3", devmajor=1, devminor=3),
        directory("d"),
        member("d/x", b"x"),
    ]
    job = build(running, "COPY . /all/\nCOPY d /all/esc/\nCOPY d/x /out/\n", *files, Name="inside:1")
    assert job["State"] == "done", job
    assert not (somebody.directory / "x").exists()
    with running.session(ImageId="inside:1") as session:
        found = running.sh(session, f"ls /all /srv; cat /all/file; cat {somebody.directory}/x")
        assert found["stdout"] == "/all:\nd\nesc\nfile\n\n/srv:\nx\nx"


DOUBLING = [f"A{n}=$A{n - 1}$A{n - 1}" for n in range(1, 40)]
GROWING = {
    "ENV": "ENV A0=xxxxxxxxxx\n" + "".join(f"ENV {pair}\n" for pair in DOUBLING),
    "ENV in one": "ENV A=" + "x" * 100_000 + "\nENV " + " ".join(f"B{n}=$A" for n in range(1000)),
    "ARG": "ARG A0=xxxxxxxxxx " + " ".join(DOUBLING),
    "LABEL": "ENV A=" + "x" * 100_000 + "\nLABEL " + " ".join(f"B{n}=$A" for n in range(1000)),
    "here-document": "ENV A=" + "x" * 100_000 + "\nCOPY <<EOF /x\n" + "$A" * 20 + "\nEOF\n",
    "many": "ENV " + " ".join(f"B{n}=" for n in range(20_000)),
}


@pytest.mark.parametrize("name", GROWING)
def test_variables_that_grow_are_refused(running: Wire, name: str) -> None:
    """Variables that grow by each other fill no memory, and the message names the line."""
    job = build(running, GROWING[name])
    assert job["State"] == "failed"
    assert "Line " in job["Message"]
    assert "characters" in job["Message"]


async def test_outputs_are_forgotten(tmp_path: Path) -> None:
    """What builds print takes a bounded part of the memory, however many there were."""
    state = StateDirectory.open(str(tmp_path / "state"))
    images = ImageService(state, None)
    try:
        jobs = []
        for _ in range(20):
            job = images.expect_archive(lambda job, archive: None)
            job.output = JobOutput()
            job.output.write(bytes(10 << 20))
            job.error = internal_error("it failed")
            jobs.append(job)
        assert [bool(job.output and job.output.size) for job in jobs] == [False] * 13 + [True] * 7
    finally:
        await images.close()
        state.close()


def test_holes_of_commands_stay_holes(running: Wire, state: Path) -> None:
    """A file of holes that a command leaves takes no room in the image."""
    job = build(running, "RUN (exec 3>/big; dd if=/dev/zero of=/big bs=1 count=1 seek=8000000000000)\n", Name="holes:1")
    assert job["State"] == "done", job
    assert job["Image"]["Size"] < 50 << 20


def test_limits_hold(running: Wire) -> None:
    """A command that fills the disk is stopped, and one that leaves a process behind leaves none."""
    job = build(running, "RUN cat /dev/zero > /big\n")
    assert job["State"] == "failed"
    assert "may use 60 MiB of disk" in job["Output"]
    assert "Line 2: RUN: the command ended with exit code" in job["Message"]
    began = time.monotonic()
    assert build(running, "RUN sleep 1000 & echo started\n")["State"] == "done"
    assert time.monotonic() - began < 60
    job = build(running, "RUN while true; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done & sleep 0.5\n")
    assert job["State"] == "done"


def test_networks_hold(running: Wire) -> None:
    """A command has the network that was asked for, and none that the runtime does not allow."""
    job = build(running, "RUN env\n", McpPolicyId="none")
    assert "HTTP_PROXY" not in job["Output"]
    job = build(running, "RUN env # again\n", McpPolicyId="proxy")
    assert "HTTP_PROXY" in job["Output"]
    assert "HTTP_PROXY" not in running.data("GetImage", Image=job["Image"]["ImageId"])["Env"]
    with pytest.raises(Refused) as caught:
        running.data("BuildImage", Dockerfile="FROM base:1\n", Network=["elsewhere.example"])
    assert caught.value.code == "NetworkNotSupported.Local"


def test_a_stopped_runtime_ends_builds(somebody: User) -> None:
    """The end of a runtime waits for no build, and keeps the steps that were done."""
    place = somebody.directory / "stopped-state"
    with embedded(place, "--drain", "0", **somebody.starts()) as (child, wire):
        import_image(wire, Built([busybox_layer()]).oci_archive(), "base:1")
        job = wire.data("BuildImage", Dockerfile="FROM base:1\nRUN echo kept > /kept\nRUN echo begun; sleep 1000\n")
        wire.http.put(job["UploadUrl"], content=tar()).raise_for_status()
        deadline = time.monotonic() + PATIENCE
        while "begun\n[" not in f"{wire.data('DescribeImageJob', JobId=job['JobId'], OutputFrom=0)['Output']}[":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        began = time.monotonic()
        child.close_stdin()
        assert child.process.wait(PATIENCE) == 0
        assert time.monotonic() - began < 30
        assert "Traceback" not in child.standard_error()
    with embedded(place, **somebody.starts()) as (_, wire):
        assert sorted(image["Layers"] for image in wire.data("ListImages")) == [1, 2]
        assert "unchanged" in build(wire, "RUN echo kept > /kept\n")["Output"]


async def test_abandoned_builds_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that no client asks for any more is ended."""
    monkeypatch.setattr(service, "_ABANDONED_SECONDS", 1.0)
    monkeypatch.setattr(service, "_CHECK_SECONDS", 0.1)
    state, sandboxes = StateDirectory.open(str(tmp_path / "state")), await SandboxManager.start()
    images = ImageService(state, sandboxes.owner)
    builds = BuildService(images, sandboxes, NetworkProvider(), state, Limits())
    try:
        (tmp_path / "base.tar").write_bytes(Built([busybox_layer()]).oci_archive())
        await asyncio.to_thread(import_archive, tmp_path / "base.tar", "base:1", "test", Importer(images.store))
        job = await builds.start("FROM base:1\nRUN sleep 1000\n", "", "", {}, "none", None)
        (tmp_path / "context.tar").write_bytes(tar())
        job.take_archive(tmp_path / "context.tar")
        deadline = time.monotonic() + PATIENCE
        while job.error is None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert "nobody has asked for it" in job.error.message
        assert not (tmp_path / "context.tar").exists()
        assert list((tmp_path / "state/sessions").iterdir()) == []
    finally:
        await builds.close()
        await sandboxes.close()
        await images.close()
        state.close()
