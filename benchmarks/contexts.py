"""Measure the synchronisation of contexts, for many small files and one large.

    python benchmarks/contexts.py [--bucket] [FILES MEBIBYTES]...

Each pair of numbers is a run of its own, with so many files of some 100 bytes and one file of so many MiB. Files are
kept on this disk, flushed before a sync is acknowledged, or in a bucket of moto's server: one Python process on this
machine, which is then what limits it. The result is `results/contexts.txt`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from measure import KEY, machine, peak_mib, runtime

from agentbay import AgentBay, Config, ContextSync, CreateSessionParams, Session, SyncPolicy, UploadPolicy

TOP = "/tmp/many"
MAKE = """
import os, sys
os.makedirs("/tmp/many", exist_ok=True); os.chdir("/tmp/many")
for number in range(int(sys.argv[1])):
    if number % 100 == 0: os.mkdir(f"d{number // 100}")
    with open(f"d{number // 100}/f{number}", "w") as file: file.write(f"{number} " * 20)
with open("big", "wb") as file:
    for _ in range(int(sys.argv[2])): file.write(os.urandom(1 << 20))
"""
DIGEST = f"cd {TOP} && find . -type f -print0 | sort -z | xargs -0 cat | sha256sum; find {TOP} -type f | wc -l"


def main() -> None:
    """Run the measurements of the command line, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bucket", action="store_true")
    parser.add_argument("numbers", nargs="*", type=int, default=[100_000, 1, 1, 2048])
    given = parser.parse_args()
    print(f"$ python {' '.join(sys.argv)}")
    print(machine())
    print(f"{'':8}{'files':>9}{'MiB':>7}{'up s':>9}{'again s':>9}{'down s':>9}{'peak MiB':>10}")
    for files, mebibytes in zip(given.numbers[::2], given.numbers[1::2], strict=True):
        with (
            tempfile.TemporaryDirectory() as folder,
            _bucket() if given.bucket else nullcontext(([], {})) as (options, environment),
            runtime("--state-dir", f"{folder}/state", *options, **environment) as (url, child),
            AgentBay(KEY, Config(endpoint=url), timeout=1800) as bay,
        ):
            times = _measure(bay, files, mebibytes)
            times_text = "".join(f"{seconds:9.1f}" for seconds in times)
            where = "bucket" if given.bucket else "disk"
            print(f"{where:8}{files:9,}{mebibytes:7,}{times_text}{peak_mib(child.pid):10,}", flush=True)


def _measure(bay: AgentBay, files: int, mebibytes: int) -> tuple[float, float, float]:
    """Return the seconds of a first sync, an unchanged one, and a download."""
    context = bay.context.create(f"{files}-{mebibytes}").unwrap().context
    policy = SyncPolicy(upload_policy=UploadPolicy(auto_upload=False))
    params = CreateSessionParams(context_syncs=[ContextSync(context.id, TOP, policy)])
    session = bay.create(params).unwrap().session
    _run(session, f"python3 -c '{MAKE}' {files} {mebibytes}")
    made = _run(session, DIGEST)
    began = time.perf_counter()
    session.context.sync(max_retries=1500).unwrap()
    synced = time.perf_counter()
    session.context.sync(max_retries=1500).unwrap()
    again = time.perf_counter()
    bay.delete(session).unwrap()
    empty = bay.create(CreateSessionParams()).unwrap().session
    down = time.perf_counter()
    empty.context.bind(ContextSync(context.id, TOP, policy)).unwrap()
    came = time.perf_counter()
    assert _run(empty, DIGEST) == made
    bay.delete(empty).unwrap()
    return synced - began, again - synced, came - down


def _run(session: Session, command: str) -> str:
    return session.command.execute_command(command, timeout_ms=1_800_000).check().output


@contextmanager
def _bucket() -> Iterator[tuple[list[str], dict[str, str]]]:
    import httpx
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    endpoint = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    httpx.put(f"{endpoint}/measured", trust_env=False).raise_for_status()
    credentials = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "NO_PROXY": "127.0.0.1"}
    yield ["--context-store", f"s3://measured/contexts?endpoint={endpoint}&region=us-east-1"], credentials
    server.stop()


if __name__ == "__main__":
    main()
