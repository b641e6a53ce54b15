"""Sessions on images, run by root and by an ordinary user: what they may do, and what they must not."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.local.contexts.actions import context_files, sync_item, wait_for_transfers
from tests.local.images.builds import Built, busybox_layer, directory, member, needs_busybox, symlink, tar
from tests.local.raw import Refused, Wire, embedded
from tests.local.traces import PATIENCE, eventually, processes_with, unique_seconds
from tests.local.users import User

pytestmark = needs_busybox
SETTINGS = (
    "kernel/msgmnb", "kernel/shmmax", "fs/mqueue/queues_max", "net/ipv4/ip_forward", "kernel/core_pattern",
    "user/max_user_namespaces",
)  # fmt: skip


def import_image(wire: Wire, archive: bytes, name: str) -> dict[str, Any]:
    job = wire.data("ImportImage", Name=name)
    wire.http.put(job["UploadUrl"], content=archive).raise_for_status()
    deadline = time.monotonic() + PATIENCE
    while job["State"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
        job = wire.data("DescribeImageJob", JobId=job["JobId"])
    assert job["State"] == "done", job
    image: dict[str, Any] = job["Image"]
    return image


@pytest.fixture(scope="module")
def running(somebody: User) -> Iterator[Wire]:
    state = somebody.directory / "images-state"
    with embedded(state, "--session-disk", "60MiB", **somebody.starts()) as (child, wire):
        layer = busybox_layer(directory("srv/data"), member("srv/data/file", b"lower"), directory("locked", 0o500))
        import_image(wire, Built([layer]).oci_archive(), "root:1")
        import_image(wire, Built([layer], {"User": "app", "WorkingDir": "/srv"}).docker_archive(), "app:1")
        for name in ("root:1", "app:1"):
            make_mount_points(wire, state, name)
        yield wire
        child.close_stdin()
        assert "Traceback" not in child.standard_error()


def layers_of(state: Path) -> list[str]:
    return sorted(path.name for path in (state / "images/layers").iterdir())


def make_mount_points(wire: Wire, state: Path, image: str) -> None:
    """Start a session on an image, and wait for the layer that this makes."""
    count = len(layers_of(state))
    with wire.session(ImageId=image):
        assert eventually(lambda: len(layers_of(state)) > count)


def tree_digest(state: Path) -> str:
    """A digest of all that the store has unpacked."""
    found = hashlib.sha256()
    for path in sorted((state / "images/layers").rglob("*")):
        status = path.lstat()
        found.update(f"{path} {status.st_mode} {status.st_uid} {status.st_mtime_ns} {status.st_size}\n".encode())
    return found.hexdigest()


def test_root_of_an_image_is_nobody_outside(running: Wire) -> None:
    """Uid 0 in a session has no capability, keeps none when it starts programs, and owns no process of the host."""
    with running.session(ImageId="root:1") as session:
        filtered = "while read n v; do case $n in Cap*|NoNew*) echo $n $v; esac; done"
        lines = running.sh(session, f"id -u; cat /proc/self/status | {filtered}")["stdout"].split("\n")
        assert lines[0] == "0"
        assert [line.split()[1].strip("0") for line in lines[1:6]] == [""] * 5
        assert lines[6] == "NoNewPrivs: 1"
        # settings of the kernel: those of its own namespaces too
        for setting in SETTINGS:
            refused = running.sh(session, f"echo 1 > /proc/sys/{setting}")
            assert refused["exit_code"] != 0, setting
        uids = running.sh(session, "cat /proc/self/uid_map")["stdout"].split()
        assert uids[0] == "0"
        assert uids[1] != "0"


def test_the_store_is_out_of_reach(running: Wire, somebody: User) -> None:
    """Whatever a session does to its root, the unpacked layers stay as they are, to the last byte and time."""
    state = somebody.directory / "images-state"
    before = tree_digest(state)
    with running.session(ImageId="root:1") as session:
        script = (
            "chmod 777 /bin /srv/data/file; echo x >> /srv/data/file; rm -rf /locked /etc; mv /bin/ls /bin/ls2; "
            "touch -d @0 /bin; mkdir /etc; ln -s /proc/1/root /out"
        )
        running.sh(session, script)
        assert running.sh(session, "cat /srv/data/file")["stdout"] == "lowerx\n"
        # links lead nowhere but into the session
        assert running.sh(session, "cat /out/etc/shadow")["exit_code"] != 0
    assert tree_digest(state) == before
    with running.session(ImageId="app:1") as session:
        assert running.sh(session, "cat /srv/data/file; pwd; id -u; id -g")["stdout"] == "lower/srv\n4711\n4712\n"
        assert running.sh(session, "echo y > /srv/data/file && cat data/file")["stdout"] == "y\n"
    assert tree_digest(state) == before


def test_mount_points_are_made_once(running: Wire, somebody: User) -> None:
    """Further sessions on an image make nothing in it: what they need is a layer, which goes with the image."""
    state = somebody.directory / "images-state"
    before = layers_of(state)
    odd = [member("etc/hosts", b"odd"), symlink("etc/resolv.conf", "/nowhere"), directory("tmp", 0o700)]
    import_image(running, Built([busybox_layer(*odd)]).oci_archive(), "points:1")
    make_mount_points(running, state, "points:1")
    shown = "cat /etc/hosts /etc/resolv.conf; ls -ld /tmp; cat /opt/session-python/pyvenv.cfg"
    with running.session(ImageId="points:1") as session:
        upper = state / "sessions" / session / "image/upper"
        assert running.stdout(session, shown).startswith("127.0.0.1 localhost agentbay\n::1")
        assert "\ndrwxrwxrwt " in running.stdout(session, shown)
        assert "\nhome = " in running.stdout(session, shown)
        assert not list(upper.iterdir())
        running.stdout(session, "rm /etc/hosts /opt/session-python/pyvenv.cfg; chmod 700 /tmp")
        (made,) = running.data("ForkSession", SessionId=session, Count=1)
        running.data("RemoveImage", Image="points:1")
        assert running.sh(session, "cat /etc/hosts")["exit_code"] != 0
        assert running.stdout(made["SessionId"], shown).startswith("127.0.0.1 localhost agentbay\n::1")
        running.data("DeleteSessionAsync", SessionId=made["SessionId"])
    assert eventually(lambda: layers_of(state) == before)


PASSWD = {
    "a FIFO": member("etc/passwd", type=b"6"),
    "the addresses of the kernel": symlink("etc/passwd", "/proc/kallsyms"),
    "the map of process 1": symlink("etc/passwd", "/proc/1/maps"),
    "the memory of the kernel": symlink("etc/passwd", "/proc/kcore"),
}


@pytest.mark.parametrize("name", PASSWD)
def test_the_setup_reads_only_files_of_the_image(running: Wire, name: str) -> None:
    """While root sets up a session, links of its image show it nothing of /proc, and a FIFO does not stop it."""
    programs = busybox_layer()
    hiding = tar(member("etc/.wh.passwd"), PASSWD[name])
    import_image(running, Built([programs, hiding], {"User": "77:78"}).oci_archive(), "odd:1")
    with running.session(ImageId="odd:1") as session:
        assert running.stdout(session, "cat /etc/passwd; id -u") == "user77:x:77:78:user77:/home/wuying:/bin/sh\n77\n"
    running.data("RemoveImage", Image="odd:1")


@pytest.mark.parametrize("target", ["/proc/1/fd/5", "/proc/1/cwd", "/proc/self/fd/8", "/proc/1/root"])
def test_the_setup_follows_no_link_of_processes(running: Wire, target: str) -> None:
    """Directories of an image that are links to those of processes lead nowhere during the setup."""
    places = [symlink(name, target) for name in ("home", "opt")]
    import_image(running, Built([busybox_layer(*places)]).oci_archive(), "odd:1")
    with pytest.raises(Refused, match="could not be made"), running.session(ImageId="odd:1"):
        pass
    running.data("RemoveImage", Image="odd:1")


def test_nothing_of_the_host_is_shown(running: Wire, somebody: User) -> None:
    """A session on an image sees no program and no file of the host, and its mounts name no path of the store."""
    with running.session(ImageId="root:1") as session:
        assert running.sh(session, "ls /usr /var /nix")["exit_code"] != 0
        mounts = running.sh(session, "cat /proc/1/mountinfo")["stdout"]
        assert str(somebody.directory / "images-state") not in mounts
        (root,) = [line for line in mounts.splitlines() if line.split()[4] == "/"]
        assert "overlay" in root
        assert "nosuid" in root
        assert "nodev" in root


def test_writes_count_to_the_disk_limit(running: Wire) -> None:
    """What a session writes anywhere in its root counts, and a session beyond its limit is stopped."""
    with running.session(ImageId="root:1") as session:
        done = running.sh(session, "cat /dev/zero > /srv/big; echo after")
        assert done["exit_code"] != 0
        assert "may use 60 MiB of disk" in done["stderr"]
        assert running.sh(session, "rm /srv/big && touch /srv/small")["exit_code"] == 0


def test_mounts_and_uploads_of_contexts(running: Wire) -> None:
    """Contexts are mounted and copied into a session on an image as into any other."""
    context = running.data("GetContext", Name="of-images", AllowCreate=True)["Id"]
    items = [
        {"ContextId": context, "Path": "/srv/shared", "Type": "mount", "MountConfig": {"AccessMode": "readWrite"}},
    ]
    with running.session(ImageId="app:1", PersistenceDataList=json.dumps(items)) as session:
        assert running.sh(session, "echo kept > /srv/shared/f && cat shared/f")["stdout"] == "kept\n"
    with running.session(ImageId="root:1", PersistenceDataList=json.dumps(items)) as session:
        assert running.sh(session, "cat /srv/shared/f")["stdout"] == "kept\n"


@pytest.mark.parametrize("image", ["root:1", ""], ids=["image", "fork of the machine"])
def test_uploads_of_a_dead_session(running: Wire, image: str) -> None:
    """What a session on layers has written is uploaded when its process 1 was killed: its overlay is mounted again."""
    context = running.data("GetContext", Name=f"dead-{image[:4]}", AllowCreate=True)["Id"]
    top, marker = "/home/wuying/data", unique_seconds()
    given = {"ImageId": image} if image else {}
    session = running.create(PersistenceDataList=[sync_item(context, top)], **given)
    wait_for_transfers(running, session)
    running.stdout(session, f"mkdir -p {top}; echo before > {top}/first")
    (fork,) = running.data("ForkSession", SessionId=session, Count=1)
    running.data("DeleteSessionAsync", SessionId=fork["SessionId"])
    running.stdout(session, f"echo after > {top}/second; cd /tmp; sleep {marker} > /dev/null 2>&1 &")
    assert eventually(lambda: processes_with(marker))
    status = Path(f"/proc/{processes_with(marker)[0]}/status").read_text()
    os.kill(int(re.search(r"PPid:\s+(\d+)", status)[1]), signal.SIGKILL)  # type: ignore[index]
    assert eventually(lambda: running.status(session) == "FINISH")
    assert context_files(running, context, top) == {"first": b"before\n", "second": b"after\n"}


def test_overlays_wait_for_no_disk(running: Wire) -> None:
    """An overlay writes nothing to the disk at once, or its end would wait for all that anybody has written there."""
    with running.session(ImageId="root:1") as session, running.session() as other:
        running.stdout(other, "echo x > written")
        (fork,) = running.data("ForkSession", SessionId=other, Count=1)
        for one in (session, other, fork["SessionId"]):
            mounts = running.stdout(one, "cat /proc/mounts").splitlines()
            overlays = [mount.split()[3] for mount in mounts if mount.startswith("overlay ")]
            assert overlays
            assert all("volatile" in options for options in overlays)  # or "fsync=volatile"
        running.data("DeleteSessionAsync", SessionId=fork["SessionId"])


def test_pause_and_many_at_once(running: Wire) -> None:
    """A paused session goes on as it was, and sessions on one image do not meet."""
    sessions = [running.create(ImageId="root:1") for _ in range(5)]
    try:
        for number, session in enumerate(sessions):
            running.sh(session, f"echo {number} > /mine")
        running.data("PauseSessionAsync", SessionId=sessions[0])
        while running.status(sessions[0]) != "PAUSED":
            time.sleep(0.02)
        running.data("ResumeSessionAsync", SessionId=sessions[0])
        while running.status(sessions[0]) != "RUNNING":
            time.sleep(0.02)
        assert [running.sh(session, "cat /mine")["stdout"] for session in sessions] == [f"{n}\n" for n in range(5)]
    finally:
        for session in sessions:
            running.data("DeleteSessionAsync", SessionId=session)


def test_forks_of_strange_files(running: Wire, somebody: User) -> None:
    """Files that cannot be read, links that lead out, pipes and deep trees are copied as they are, and nothing else."""
    secret = somebody.directory / "secret"
    secret.write_text("of the host")
    secret.chmod(0o644)
    with running.session(ImageId="root:1") as session:
        script = (
            f"cd /srv; ln -s {secret} out; ln -s / all; mkdir closed; echo c > closed/f; chmod 0 closed/f closed; "
            "echo one > a; ln a b; rm data/file; mkdir -p /deep; cd /deep; i=0; "
            "while [ $i -lt 100 ]; do mkdir d; cd d; i=$((i+1)); done; echo bottom > x"
        )
        assert running.sh(session, script)["exit_code"] == 0
        (made,) = running.data("ForkSession", SessionId=session, Count=1)
        fork = made["SessionId"]
        try:
            assert running.sh(fork, "cat /srv/out")["exit_code"] != 0
            found = running.sh(fork, "ls /srv/data; cat /srv/b; ls -ld /srv/closed")["stdout"]
            assert found.startswith("one\nd---------")
            opened = "chmod 700 /srv/closed; chmod 600 /srv/closed/f; cat /srv/closed/f"
            assert running.sh(fork, opened)["stdout"] == "c\n"
            assert running.sh(fork, f"cat /deep/{'d/' * 100}x")["stdout"] == "bottom\n"
            assert running.sh(session, "cat /srv/b; ls -ld /srv/closed")["stdout"].startswith("one\nd---------")
        finally:
            running.data("DeleteSessionAsync", SessionId=fork)


def test_layers_of_forks_go_with_them(running: Wire, somebody: User) -> None:
    """The layer that forks share is removed when the last of them has ended, and not before."""
    layers = somebody.directory / "images-state/images/layers"
    before = sorted(layers.iterdir())
    with running.session(ImageId="app:1") as session:
        running.stdout(session, "echo mine > /srv/mine")
        forks = [made["SessionId"] for made in running.data("ForkSession", SessionId=session, Count=4)]
        assert len(sorted(layers.iterdir())) == len(before) + 1
    for fork in forks[1:]:
        running.data("DeleteSessionAsync", SessionId=fork)
    assert running.sh(forks[0], "cat /srv/data/file")["stdout"] == "lower"
    running.data("DeleteSessionAsync", SessionId=forks[0])
    deadline = time.monotonic() + PATIENCE
    while sorted(layers.iterdir()) != before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_upload_urls_serve_once(running: Wire) -> None:
    """A URL for an archive takes one archive, and nobody can make one up."""
    url = running.data("ImportImage", Name="once:1")["UploadUrl"]
    assert running.http.get(url).status_code == 403
    assert running.http.put(url[:-1] + "!", content=b"x").status_code == 403
    assert running.http.put(url[:-1] + "%C3%A9", content=b"x").status_code == 403
    assert running.http.put(url, content=b"x").status_code == 200
    assert running.http.put(url, content=b"x").status_code == 403


def test_upload_urls_serve_one_at_a_time(running: Wire) -> None:
    """A URL takes no second archive while the first one arrives, and serves no more when that breaks off."""
    job = running.data("ImportImage", Name="once:2")
    parts = urlsplit(job["UploadUrl"])

    def described() -> dict[str, Any]:
        found: dict[str, Any] = running.data("DescribeImageJob", JobId=job["JobId"])
        return found

    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=PATIENCE) as first:
        head = f"PUT {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: 1000\r\n\r\n"
        first.sendall(head.encode() + b"x" * 10)
        assert eventually(lambda: not described()["UploadUrl"])
        assert running.http.put(job["UploadUrl"], content=b"x").status_code == 403
        assert described()["State"] == "running"
    assert eventually(lambda: described()["State"] == "failed")
    assert "did not arrive whole" in described()["Message"]
    assert running.http.put(job["UploadUrl"], content=b"x").status_code == 403


def test_a_killed_runtime_keeps_its_images(somebody: User) -> None:
    """Images survive the kill of the runtime, and sessions of before are gone with what they wrote."""
    state = somebody.directory / "killed-state"
    with embedded(state, **somebody.starts()) as (child, wire):
        import_image(wire, Built([busybox_layer()]).oci_archive(), "kept:1")
        session = wire.create(ImageId="kept:1")
        wire.sh(session, "echo x > /written")
        child.process.kill()
        child.process.wait()
    with embedded(state, **somebody.starts()) as (_, wire):
        assert [image["Names"] for image in wire.data("ListImages")] == [["kept:1"]]
        with wire.session(ImageId="kept:1") as session:
            assert wire.sh(session, "cat /written")["exit_code"] != 0
        assert not list((state / "images/work").iterdir())
