"""Forks and snapshots, run by root and by an ordinary user: what is shared, what goes on, and what outlives what."""

from __future__ import annotations

import json
import os
import random
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import httpx
import pytest

from tests.local.images.builds import Built, busybox_layer, needs_busybox
from tests.local.images.test_sessions import import_image
from tests.local.raw import Wire, embedded
from tests.local.traces import eventually
from tests.local.users import User

pytestmark = needs_busybox
ROOMS = [("", "/home/wuying"), ("task:1", "/srv")]  # image, and a directory to write
RANDOM_CHANGES = (
    "mkdir -p a/b; [ -d c ] || { rm -f c; mkdir c; }; echo {n} > a/b/{n}; echo {n} > c/{n}",
    "rm -rf a; mkdir a; echo {n} > a/new",
    "rm -rf c; echo {n} > c",
    "rm -rf c; mkdir c; echo {n} > c/f",
    "rm -rf a/b",
    "touch list; ln -f list hard{n}",
    "mkdir -p a; chmod 750 a",
    "rm -f hard*; ln -s nowhere link{n}",
    "echo {n} >> list",
    "touch list; mv list moved{n}; echo {n} > list",
)
FACTS = "ls -lR . | grep -v '^total' | tr -s ' ' | cut -d' ' -f1,3-"  # all but the number of names of a file
TREE = f"find . | sort; find . -type f | sort | while read f; do echo $f; cat $f; done; {FACTS}"


@pytest.fixture(scope="module")
def running(somebody: User) -> Iterator[Wire]:
    with embedded(somebody.directory / "forks-state", "--session-disk", "60MiB", **somebody.starts()) as (child, wire):
        import_image(wire, Built([busybox_layer()], {"WorkingDir": "/srv"}).oci_archive(), "task:1")
        yield wire
        child.close_stdin()
        assert "Traceback" not in child.standard_error()


@pytest.fixture(params=ROOMS, ids=["machine", "image"])
def room(request: pytest.FixtureRequest, running: Wire) -> Iterator[tuple[str, str]]:
    """A session, and a directory of it."""
    image, directory = request.param
    with running.session(**({"ImageId": image} if image else {})) as session:
        running.stdout(session, f"mkdir -p {directory}")
        yield session, directory


def forked(wire: Wire, session: str, count: int = 1) -> list[str]:
    return [made["SessionId"] for made in wire.data("ForkSession", SessionId=session, Count=count)]


def inodes(state: Path, name: str) -> set[int]:
    return {
        (Path(top) / name).stat().st_ino for top, _, names in os.walk(state) if name in names and "trash" not in top
    }


def layer_count(wire: Wire, session: str, directory: str) -> int:
    """How many layers lie below a directory."""
    place = "/" if directory == "/srv" else directory
    mounts = [line.split() for line in wire.stdout(session, "cat /proc/mounts").splitlines()]
    (options,) = [mount[3] for mount in mounts if mount[1] == place]
    (lower,) = [option for option in options.split(",") if option.startswith("lowerdir=")]
    return lower.count(":") + 1


def test_what_was_written_is_shared_not_copied(running: Wire, room: tuple[str, str], somebody: User) -> None:
    """A fork has the very files of its session, until one of the two changes them."""
    session, directory = room
    running.stdout(
        session, f"cd {directory}; head -c 10000000 /dev/zero > shared-file; echo one > small; ln small hard"
    )
    running.stdout(
        session, f"cd {directory}; head -c 1000 /dev/zero > sparse; truncate -s 20M sparse; chmod 4750 small"
    )
    state = somebody.directory / "forks-state"
    before = inodes(state, "shared-file")
    forks = forked(running, session, 3)
    assert inodes(state, "shared-file") == before
    assert len(before) == 1
    facts = f"cd {directory}; ls -l small hard; du -k sparse; cat hard; wc -c < shared-file"
    assert len({running.stdout(one, facts) for one in (session, *forks)}) == 1
    running.stdout(session, f"echo of the session > {directory}/small")
    running.stdout(forks[0], f"echo of the fork > {directory}/small; rm {directory}/sparse")
    assert running.stdout(forks[1], f"cat {directory}/small") == "one\n"
    assert running.stdout(session, f"cat {directory}/small; ls {directory}/sparse").startswith("of the session\n")
    # a fork outlives its session, and has forks of its own
    running.data("DeleteSessionAsync", SessionId=session)
    (grandchild,) = forked(running, forks[0])
    for one in forks:
        running.data("DeleteSessionAsync", SessionId=one)
    assert running.stdout(grandchild, f"cat {directory}/small; wc -c < {directory}/shared-file") == (
        "of the fork\n10000000\n"
    )
    running.data("DeleteSessionAsync", SessionId=grandchild)
    assert eventually(lambda: not inodes(state, "shared-file"))


def test_processes_go_on(running: Wire, room: tuple[str, str]) -> None:
    """A process in the directory where sessions start notices nothing of forks."""
    session, directory = room
    start = "/home/wuying" if directory == "/home/wuying" else "/"
    loop = "(while [ ! -e go ]; do sleep 0.05; done; echo relative > made; sleep 1000) > /dev/null 2>&1 &"
    running.stdout(session, f"cd {start}; {loop}")
    (fork,) = forked(running, session)
    assert layer_count(running, session, directory)  # it has got a new overlay
    running.stdout(session, f"touch {start}/go")
    assert eventually(lambda: running.sh(session, f"cat {start}/made 2> /dev/null")["stdout"] == "relative\n")
    assert running.sh(fork, f"ls {start}/go {start}/made")["exit_code"] != 0
    running.data("DeleteSessionAsync", SessionId=fork)


@pytest.mark.parametrize(
    "obstacle",
    [
        "exec 3>> log; while [ ! -e stop ]; do echo x >&3; sleep 0.02; done; echo end >&3",
        "mkdir sub; cd sub; while [ ! -e ../stop ]; do sleep 0.02; done; echo end > ../log",
        "exec 3< .; while [ ! -e stop ]; do sleep 0.02; done; echo end > /proc/self/fd/3/log",
    ],
    ids=["writing", "working directory", "open directory"],
)
def test_files_in_use_are_copied(running: Wire, room: tuple[str, str], obstacle: str, somebody: User) -> None:
    """Where processes use files in a way that they would notice, a fork gets a copy, and they go on."""
    session, directory = room
    running.stdout(session, f"cd {directory}; echo kept > used; ({obstacle}) > /dev/null 2>&1 & sleep 0.2")
    state = somebody.directory / "forks-state"
    before = inodes(state, "used")
    (fork,) = forked(running, session)
    assert len(inodes(state, "used") - before) == 1
    seen = running.sh(fork, f"cat {directory}/used {directory}/log")["stdout"]
    assert seen.startswith("kept\n")
    running.stdout(session, f"touch {directory}/stop")
    assert eventually(lambda: running.sh(session, f"cat {directory}/log 2> /dev/null")["stdout"].endswith("end\n"))
    assert running.sh(fork, f"cat {directory}/used {directory}/log")["stdout"] == seen
    running.data("DeleteSessionAsync", SessionId=fork)


HELD = {
    "a mapping": "f = open('held', 'r+'); m = mmap.mmap(f.fileno(), 4); f.close(); "
    "write = lambda d: m.__setitem__(slice(4), d)",
    "a descriptor on its way": "a, b = socket.socketpair(); fd = os.open('held', os.O_RDWR); "
    "socket.send_fds(a, [b'x'], [fd]); os.close(fd); "
    "write = lambda d: os.pwrite(got[0] if got else got.extend(socket.recv_fds(b, 1, 1)[1]) or got[0], d, 0)",
    "a path descriptor": "fd = os.open('held', os.O_PATH); "
    "write = lambda d: open(f'/proc/self/fd/{fd}', 'r+b').write(d)",
    "a read-only descriptor": "fd = os.open('held', os.O_RDONLY); "
    "write = lambda d: open(f'/proc/self/fd/{fd}', 'r+b').write(d)",
}
HOLDER = """import mmap, os, socket, time
got = []
{}
open('ready', 'w').close()
while not os.path.exists('/tmp/write'): time.sleep(0.02)
try: write(b'EVIL')
except OSError: pass
open('/tmp/written', 'w').close()
time.sleep(1000)
"""


@pytest.mark.parametrize("way", HELD)
def test_forks_share_nothing_that_can_be_written(running: Wire, way: str) -> None:
    """What a session holds of a file from before a fork leads to no file of the fork."""
    with running.session() as session:
        running.text(session, "write_file", path="/tmp/holder.py", content=HOLDER.format(HELD[way]), mode="overwrite")
        start = "cd /home/wuying; echo GOOD > held; python3 /tmp/holder.py > /dev/null 2>&1 &"
        running.stdout(session, f"{start} until [ -e /home/wuying/ready ]; do sleep 0.02; done")
        (fork,) = forked(running, session)
        running.stdout(session, "touch /tmp/write; until [ -e /tmp/written ]; do sleep 0.02; done")
        assert running.stdout(fork, "cat /home/wuying/held") == "GOOD\n"
        running.data("DeleteSessionAsync", SessionId=fork)


PROBE = """python3 -c "
import socket
s = socket.create_connection(('127.0.0.1', 3128), 9)
s.sendall(b'CONNECT pypi.org:443 HTTP/1.1\\r\\nHost: pypi.org\\r\\n\\r\\n')
print(s.recv(300))
" """


def test_forks_reach_no_more_than_their_session(running: Wire) -> None:
    """The hosts that a session may reach are those of its forks, and no secret of it opens them."""
    with running.session(SessionOptions={"Network": []}) as session:
        (fork,) = forked(running, session)
        for one in (session, fork):
            assert "not among the hosts" in running.stdout(one, PROBE)
        facts = [running.data("GetMcpResource", SessionId=one) for one in (session, fork)]
        assert not {str(value) for value in facts[0].values() if value} & {
            str(value) for name, value in facts[1].items() if value and name != "PolicyId"
        }
        running.data("DeleteSessionAsync", SessionId=fork)


def test_mounts_of_contexts_stay(running: Wire, room: tuple[str, str]) -> None:
    """A context that is mounted into a session stays mounted there, and is not forked."""
    _, directory = room
    context = running.data("GetContext", Name="of-forks", AllowCreate=True)["Id"]
    place = f"{directory}/mounted place"
    mount = {"ContextId": context, "Path": place, "Type": "mount", "MountConfig": {"AccessMode": "readWrite"}}
    image = {} if directory == "/home/wuying" else {"ImageId": "task:1"}
    with running.session(PersistenceDataList=json.dumps([mount]), **image) as session:
        running.stdout(session, f"echo before > '{place}/f'")
        (fork,) = forked(running, session)
        assert running.sh(fork, f"cat '{place}/f'")["exit_code"] != 0
        assert running.stdout(session, f"echo after >> '{place}/f'; cat '{place}/f'") == "before\nafter\n"
        running.data("DeleteSessionAsync", SessionId=fork)
    with running.session(PersistenceDataList=json.dumps([mount]), **image) as again:
        assert running.stdout(again, f"cat '{place}/f'") == "before\nafter\n"


def test_what_is_shared_counts(running: Wire, room: tuple[str, str]) -> None:
    """The disk limit counts what a session has written before a fork: to itself, and to the fork."""
    session, directory = room
    running.stdout(session, f"head -c 40000000 /dev/zero > {directory}/first")
    (fork,) = forked(running, session)
    for one in (session, fork):
        script = f"head -c 40000000 /dev/zero > {directory}/second; r=$?; sleep 1; rm {directory}/second; exit $r"
        assert eventually(partial(_fails, running, one, script))
    running.data("DeleteSessionAsync", SessionId=fork)


def test_many_layers_mean_the_same_merged(running: Wire, room: tuple[str, str]) -> None:
    """However often a session is forked, its layers stay few, and all forks have what it had."""
    session, directory = room
    seed = random.randrange(1 << 30)
    moves = random.Random(seed)
    deepest = 0
    for number in range(24):
        change = moves.choice(RANDOM_CHANGES).replace("{n}", str(number))
        running.stdout(session, f"cd {directory}; echo {number} >> count; {change}")
        (fork,) = forked(running, session)
        trees = [running.stdout(one, f"cd {directory}; {TREE}") for one in (session, fork)]
        assert trees[0] == trees[1], (seed, number)
        deepest = max(deepest, layer_count(running, fork, directory))
        running.data("DeleteSessionAsync", SessionId=fork)
    assert 16 <= deepest <= 20, (seed, deepest)
    assert eventually(lambda: _fork_layers(running, session, directory) < 12)


@pytest.mark.parametrize("pause", [0.0, 0.05, 0.2])
def test_forks_that_nobody_gets(running: Wire, room: tuple[str, str], pause: float) -> None:
    """A client that goes away before it has its forks leaves none."""
    # So many that they take longer than the longest pause.
    form = {"Authorization": f"Bearer {running.key}", "SessionId": room[0], "Count": "60"}
    body, url = urlencode(form).encode(), urlsplit(running.url)
    with socket.create_connection((url.hostname, url.port)) as peer:
        head = f"POST /?Action=ForkSession HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: {len(body)}\r\n"
        peer.sendall(f"{head}Content-Type: application/x-www-form-urlencoded\r\n\r\n".encode() + body)
        time.sleep(pause)  # at any moment
    running.status(room[0])
    assert eventually(lambda: [found["SessionId"] for found in running.data("ListSession")] == [room[0]])


def _fails(wire: Wire, session: str, script: str) -> bool:
    return bool(wire.sh(session, script)["exit_code"])


def _fork_layers(wire: Wire, session: str, directory: str) -> int:
    (fork,) = forked(wire, session)
    try:
        return layer_count(wire, fork, directory)
    finally:
        wire.data("DeleteSessionAsync", SessionId=fork)


def _image_names(wire: Wire) -> set[str]:
    return {name for image in wire.data("ListImages") for name in image["Names"]}


def _copy_until_killed(wire: Wire, session: str, directory: str, life: int, acknowledged: list[str]) -> None:
    for number in range(1000):
        name = f"g{life}:{number}"
        wire.stdout(
            session,
            f"cd {directory}; echo {name} > name; rm -rf d; mkdir d; for i in 1 2 3; do echo {name} > d/$i; done",
        )
        job = wire.data("SnapshotSession", SessionId=session, Name=name)
        while job["State"] == "running":
            job = wire.data("DescribeImageJob", JobId=job["JobId"])
        assert job["State"] == "done", job
        acknowledged.append(name)
        forked(wire, session, 2)


@pytest.mark.parametrize("image", ["", "task:1"])
@pytest.mark.parametrize("rounds", [2, pytest.param(50, marks=pytest.mark.soak)])
def test_killed_at_any_moment(somebody: User, image: str, rounds: int) -> None:
    """Whenever the runtime is killed, the next one has all acknowledged snapshots, whole, and nothing half made."""
    state = somebody.directory / f"killed-{image[:4]}-{rounds}"
    directory = "/srv" if image else "/home/wuying"
    seed = random.randrange(1 << 30)
    moments = random.Random(seed)
    acknowledged: list[str] = []
    for life in range(rounds):
        with embedded(state, **somebody.starts()) as (child, wire):
            if image not in {"", *_image_names(wire)}:
                import_image(wire, Built([busybox_layer()], {"WorkingDir": "/srv"}).oci_archive(), image)
            session = wire.create(**({"ImageId": image} if image else {}))
            timer = threading.Timer(moments.uniform(0.2, 2.0), child.process.kill)
            timer.start()
            with pytest.raises((httpx.TransportError, ValueError)):
                _copy_until_killed(wire, session, directory, life, acknowledged)
            timer.join()
        with embedded(state, **somebody.starts()) as (child, wire):
            names = _image_names(wire)
            assert set(acknowledged) <= names, seed
            for name in sorted(names - {image})[-3:]:
                with wire.session(ImageId=name) as session:
                    found = wire.stdout(session, f"cat {directory}/name {directory}/d/*")
                    assert found == f"{name}\n" * 4, seed
            assert not list((state / "images/work").iterdir())
            assert child.close_stdin() == 0
            assert "Traceback" not in child.standard_error()
        with closing(sqlite3.connect(state / "images/images.db")) as db:
            known = {chain.removeprefix("sha256:") for (chain,) in db.execute("SELECT chain FROM layers")}
        assert {path.name for path in (state / "images/layers").iterdir()} == known, seed
        assert not list((state / "sessions").iterdir())
