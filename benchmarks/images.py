"""Measure images: unpacking beside tar, sessions on one beside ordinary ones, snapshots and forks.

    python benchmarks/images.py ARCHIVE

ARCHIVE is a root file system as tar, such as `mmdebstrap --variant=minbase bookworm debian.tar` makes. The
result is `results/images.txt`. Times are the median and the fastest of several, on a machine that may do other work.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from agentbay import AgentBay, CreateSessionParams, Session

SESSIONS = 40
WRITE = (
    "mkdir -p /many; cd /many; i=0; while [ $i -lt {files} ]; do echo $i > f$i; i=$((i+1)); done; "
    "head -c {size} /dev/zero > big"
)


def main() -> None:
    """Run all measurements, and print a table."""
    archive = Path(sys.argv[1])
    print(f"$ python benchmarks/images.py {archive.name}")
    load = f"load {os.getloadavg()[0]:.1f}"
    print(f"{platform.system()}, Python {platform.python_version()}, {os.cpu_count()} processors, {load}")
    print(f"{'':52}{'median ms':>12}{'fastest ms':>12}")
    with tempfile.TemporaryDirectory() as folder, AgentBay.local(state_dir=f"{folder}/state") as bay:
        _show(f"tar -x of {archive.stat().st_size >> 20} MiB", _times(lambda: _tar(archive, folder), 3))
        _show("import of the same, with sending and digests", _times(lambda: _import(bay, archive), 3))
        bay.images.import_file(archive, name="measured:1")
        image = CreateSessionParams(image_id="measured:1")
        for params, what in ((None, "create, without an image"), (image, "create, on an image")):
            _delete(bay.create(params).unwrap().session)
            _show(what, _times(partial(_create, bay, params), SESSIONS, _delete))
        with bay.session(image) as session:
            _show("fork, nothing written", _times(lambda: session.fork(1), 20, _delete_all))
            _show("100 forks at once, nothing written", _times(lambda: session.fork(100), 2, _delete_all))
            session.command.run(WRITE.format(files=10_000, size=0), timeout_ms=120_000).check()
            _show("snapshot, 10,000 files written", _times(lambda: session.snapshot("files:1"), 3))
            _show("fork, 10,000 files written", _times(lambda: session.fork(1), 3, _delete_all))
            session.command.run(WRITE.format(files=0, size=1 << 30), timeout_ms=120_000).check()
            _show("fork, 10,000 files and 1 GiB written", _times(lambda: session.fork(1), 2, _delete_all))


def _tar(archive: Path, folder: str) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as target:
        subprocess.run(["tar", "-C", target, "-xf", str(archive)], check=True)


def _import(bay: AgentBay, archive: Path) -> None:
    bay.images.import_file(archive, name="again:1")
    bay.images.remove("again:1")


def _times(measured: Callable[[], Any], count: int, after: Callable[[Any], None] = lambda _: None) -> list[float]:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        result = measured()
        times.append(1000 * (time.perf_counter() - began))
        after(result)
    return times


def _create(bay: AgentBay, params: CreateSessionParams | None) -> Session:
    return bay.create(params).unwrap().session


def _delete(session: Session) -> None:
    session.delete().unwrap()


def _delete_all(sessions: list[Session]) -> None:
    for session in sessions:
        _delete(session)


def _show(what: str, times: list[float]) -> None:
    print(f"{what:52}{median(times):12,.1f}{min(times):12,.1f}", flush=True)


if __name__ == "__main__":
    main()
