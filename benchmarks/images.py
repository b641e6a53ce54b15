"""Measure images, snapshots and forks beside tar, sandlock, bubblewrap and crun, in one run.

    python benchmarks/images.py ARCHIVE
    python benchmarks/images.py copies      # only forks and snapshots, of a session without an image

ARCHIVE is a root file system as tar, such as `mmdebstrap --variant=minbase bookworm debian.tar` makes. The result is
`results/images.txt`. Times are the median and the fastest of several, in milliseconds. Peers are measured if they are
there: `bwrap` and `crun` as programs, sandlock as a package of the Python that SANDLOCK_PYTHON names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from measure import descendants, machine, proportional_bytes

from agentbay import AgentBay, CreateSessionParams, Session

CREATED, FORKED, AT_ONCE, LIVE = 40, 12, 100, 500
FILES, SIZE = 10_000, 1 << 30
WRITE = (
    "mkdir -p {top}/many{n}; cd {top}/many{n}; seq {files} | split -l 1 -a 4 - f; head -c {size} /dev/zero > {top}/big"
)
CRUN = """
import subprocess, sys, time
for number in range(20):
    began = time.perf_counter()
    subprocess.run([sys.argv[1], "--cgroup-manager=disabled", "run", f"measured-{number}"], check=True)
    print(1000 * (time.perf_counter() - began), end=" ")
"""
SANDLOCK = """
import sys, time
from sandlock import BranchAction, Sandbox
root, work = sys.argv[1:]
read = ["/usr", "/lib", "/lib64", "/bin", "/etc", "/dev", "/proc"]
def timed(call, count):
    found = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        found.append(1000 * (time.perf_counter() - began))
    print(*found)
def checked(result):
    assert result.success, result
timed(lambda: checked(Sandbox(fs_readable=["/"], chroot=root, cwd="/").run(["/bin/true"])), 20)
branch = lambda: Sandbox(fs_readable=read, fs_writable=[work], workdir=work, cwd=work, on_exit=BranchAction.ABORT)
timed(lambda: checked(branch().run(["/bin/sh", "-c", "echo new > added"])), 10)
made = Sandbox(fs_readable=read, init_fn=lambda: None, work_fn=lambda number: None)
timed(lambda: made.fork(100), 3)
"""


def main() -> None:
    """Run the measurements, and print a table."""
    print(f"$ python benchmarks/images.py {Path(sys.argv[1]).name}")
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        if sys.argv[1] == "copies":
            with AgentBay.local(state_dir=f"{folder}/state") as bay:
                _measure_copies(bay, Path(folder, "state"), None, "/home/wuying")
        else:
            _measure_all(Path(sys.argv[1]), folder)


def _measure_all(archive: Path, folder: str) -> None:
    _head("unpacking")
    _show(f"tar -x of {archive.stat().st_size >> 20} MiB", _times(partial(_unpack, archive, folder), 3))
    state = Path(folder, "state")
    with AgentBay.local(state_dir=str(state)) as bay:
        _show("import of the same, with sending and digests", _times(lambda: _import(bay, archive), 3))
        bay.images.import_file(archive, name="measured:1")
        _measure_sessions(bay)
        _measure_copies(bay, state, None, "/home/wuying")
        _measure_copies(bay, state, CreateSessionParams(image_id="measured:1"), "/srv")
        _measure_many(bay, state)
    _measure_peers(archive, folder)


def _measure_sessions(bay: AgentBay) -> None:
    _head("sessions")
    found = []
    for params, what in ((None, "without an image"), (CreateSessionParams(image_id="measured:1"), "on an image")):
        _delete(bay.create(params).unwrap().session)
        time.sleep(0.5)  # for the warm pool
        found.append(_times(partial(_create, bay, params), CREATED, _delete))
        _show(f"create, {what}", found[-1])
    ratios = [measure(found[1]) / measure(found[0]) for measure in (median, min)]
    print(f"{'  on an image, compared':52}{ratios[0]:11.2f}x{ratios[1]:11.2f}x")


def _measure_copies(bay: AgentBay, state: Path, params: CreateSessionParams | None, top: str) -> None:
    _head(f"copies of a session {'on an image' if params else 'without an image'}")
    with bay.session(params) as session:
        _measure_forks(session, state, top)
        _measure_snapshots(session, top)


def _measure_forks(session: Session, state: Path, top: str) -> None:
    _show("fork, nothing written", _times(lambda: session.fork(1), FORKED, _delete_all))
    times, took = list[float](), 0
    for number in range(4):
        session.command.run(WRITE.format(top=top, n=number, files=FILES, size=SIZE), timeout_ms=300_000).check()
        before = _disk_bytes(state)
        began = time.perf_counter()
        forks = session.fork(1)
        times.append(1000 * (time.perf_counter() - began))
        took = _disk_bytes(state) - before
        _delete_all(forks)
    _show(f"fork, {FILES:,} files and 1 GiB newly written", times)
    print(f"{'  disk space that the last of them took':52}{took >> 10:8,} KiB")
    times = _times(lambda: session.fork(AT_ONCE), 3, _delete_all)
    _show(f"{AT_ONCE} forks of that at once, each", [one / AT_ONCE for one in times])


def _measure_snapshots(session: Session, top: str) -> None:
    times = []
    for number in range(3):
        session.command.run(
            WRITE.format(top=top, n=f"-snapshot{number}", files=FILES, size=0), timeout_ms=300_000
        ).check()
        times += _times(partial(session.snapshot, f"files:{number}"), 1)
    _show(f"snapshot, {FILES:,} files newly written", times)


def _measure_many(bay: AgentBay, state: Path) -> None:
    _head(f"{LIVE} sessions on one image")
    memory, disk = proportional_bytes(descendants()), _disk_bytes(state)
    began = time.perf_counter()
    sessions = [_create(bay, CreateSessionParams(image_id="measured:1")) for _ in range(LIVE)]
    _show("create, each", [1000 * (time.perf_counter() - began) / LIVE])
    print(f"{'memory of each':52}{(proportional_bytes(descendants()) - memory) / LIVE / (1 << 20):8.2f} MiB")
    print(f"{'disk space of each':52}{(_disk_bytes(state) - disk) / LIVE / (1 << 10):8.1f} KiB")
    for session in sessions:
        _delete(session)


def _measure_peers(archive: Path, folder: str) -> None:
    _head("peers, on the unpacked tree")
    root = Path(folder, "root")
    root.mkdir()
    subprocess.run(["tar", "-C", root, "-xf", archive, "--exclude=./dev/*"], check=True)
    if bubblewrap := shutil.which("bwrap"):
        command = [bubblewrap, "--unshare-all", "--bind", str(root), "/", "--proc", "/proc", "--dev", "/dev", "true"]
        _show("bubblewrap", _times(partial(_run, command), 20))
    if crun := shutil.which("crun"):
        _measure_crun(crun, root, folder)
    if python := os.environ.get("SANDLOCK_PYTHON"):
        work = Path(folder, "work")
        work.mkdir()
        subprocess.run(["sh", "-c", WRITE.format(top=work, n=0, files=FILES, size=SIZE)], check=True)
        done = subprocess.run([python, "-c", SANDLOCK, root, work], capture_output=True, text=True, check=False)
        names = [
            "sandlock run",
            f"sandlock run, branch of {FILES:,} files and 1 GiB",
            "sandlock fork(100) of a process, in all",
        ]
        _show_lines(names, done)


def _measure_crun(crun: str, root: Path, folder: str) -> None:
    """Measure the runtime below podman, which itself refuses machines with both versions of control groups."""
    bundle = Path(folder, "bundle")
    bundle.mkdir()
    (bundle / "rootfs").symlink_to(root)
    subprocess.run([crun, "spec"], cwd=bundle, check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"args": ["true"], "terminal": False, "rlimits": []}
    config["root"]["path"] = str(root)
    config["linux"].pop("resources", None)
    config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]
    (bundle / "config.json").write_text(json.dumps(config))
    one_version = "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup"
    command = ["unshare", "-m", "sh", "-c", f'{one_version}; exec "$@"', "-", sys.executable, "-c", CRUN, crun]
    _show_lines(["crun run"], subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=False))


def _show_lines(names: list[str], done: subprocess.CompletedProcess[str]) -> None:
    for name, line in zip(names, done.stdout.splitlines(), strict=False):
        _show(name, [float(one) for one in line.split()])
    if done.returncode:
        print(f"{names[0]}: {done.stderr.strip().splitlines()[-1]:.100}")


def _unpack(archive: Path, folder: str) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as target:
        _run(["tar", "-C", target, "-xf", str(archive)])


def _import(bay: AgentBay, archive: Path) -> None:
    bay.images.import_file(archive, name="again:1")
    bay.images.remove("again:1")


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _times(measured: Callable[[], Any], count: int, after: Callable[[Any], None] = lambda _: None) -> list[float]:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        result = measured()
        times.append(1000 * (time.perf_counter() - began))
        after(result)
        time.sleep(0.1)  # what follows a deletion is no part of the next creation
    return times


def _create(bay: AgentBay, params: CreateSessionParams | None) -> Session:
    return bay.create(params).unwrap().session


def _delete(session: Session) -> None:
    session.delete().unwrap()


def _delete_all(sessions: list[Session]) -> None:
    for session in sessions:
        _delete(session)


def _disk_bytes(state: Path) -> int:
    done = subprocess.run(["du", "-sk", state], capture_output=True, text=True, check=False)  # files may vanish
    return int(done.stdout.split()[0]) << 10


def _head(what: str) -> None:
    print(f"\n{what + f' (load {os.getloadavg()[0]:.0f})':52}{'median ms':>12}{'fastest ms':>12}", flush=True)


def _show(what: str, times: list[float]) -> None:
    print(f"{what:52}{median(times):12,.1f}{min(times):12,.1f}", flush=True)


if __name__ == "__main__":
    main()
