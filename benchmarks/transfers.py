"""Measure how the cost of moving bytes grows: with the size of a file, and with the number of files.

    python benchmarks/transfers.py [bytes] [files] [streams]

A file of 1 kB to 1 GiB goes into a session of the local runtime and back, beside `cp`. Directories of 1 to 10,000 small
files are pushed and pulled, beside `tar | tar`. Up to 256 MB go into the input of a process and come out of its output,
beside `cat | cat`. What stands in one line was measured one right after the other; each figure is the median of several
rounds, of one for the largest. "CPU" is the processor time of client, service and sandbox together: on a machine that
is busy with other work it says more than the duration. The result is `results/transfers.txt`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from measure import descendants, machine, peak_mib, processor_seconds, timed, timed_async

from agentbay import AgentBay, AsyncAgentBay, Session

SIZES = [10**3, 10**4, 10**5, 10**6, 10**7, 10**8, 1 << 30]
COUNTS = [1, 10, 100, 1000, 10_000]
STREAMS = [10**6, 10**7, 10**8, 256 * 10**6]
SMALL_FILE = b"some text of a small file\n" * 8
PLACE = "/tmp/file-transfer/file"
LARGE_BYTES, LARGE_COUNT = 10**8, 10_000  # from which on one round is enough


def main() -> None:
    """Run the measurements of the command line."""
    wanted = sys.argv[1:] or ["bytes", "files", "streams"]
    print(f"{machine()}; seconds")
    with tempfile.TemporaryDirectory() as folder, AgentBay.local() as bay, bay.session() as session:
        here = Path(folder)
        if "bytes" in wanted:
            show("bytes", "load", "cp", "up", "down", "async up", "async down", "CPU up", "CPU down", "peak MiB")
            for size in SIZES:
                measure_file(session, here, size)
        if "files" in wanted:
            show("files", "load", "tar|tar", "push", "pull", "push/tar", "pull/tar", "again")
            for count in COUNTS:
                measure_tree(session, here / str(count), count)
        if "streams" in wanted:
            show("bytes", "load", "cat|cat", "stdin", "output")
            for size in STREAMS:
                measure_streams(session, size)


def show(*cells: object) -> None:
    """Print a line of a table."""
    forms = {int: ",", float: ".3f"}
    texts = [format(cell, forms.get(type(cell), "")) for cell in cells]
    print("".join(f"{text:>14}" for text in texts), flush=True)


def seconds(call: Callable[[], object], rounds: int) -> float:
    """Return the median duration of a call in seconds."""
    return statistics.median(timed(call, rounds)) / 1000


def processor_time() -> float:
    """Return the processor time of this process and the runtime below it in seconds."""
    return processor_seconds({os.getpid(), *descendants()}, with_ended=True)


def load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def measure_file(session: Session, here: Path, size: int) -> None:
    """Send a file, and fetch it, in both flavours."""
    files, rounds = session.file_system, 1 if size > LARGE_BYTES else 5
    source, back = here / "source", here / "back"
    make_file(source, size)
    at_start = load()
    copied = seconds(lambda: shutil.copyfile(source, here / "copy"), rounds)
    before = processor_time()
    up = seconds(lambda: files.upload_file(source, PLACE).unwrap(), rounds)
    between = processor_time()
    down = seconds(lambda: files.download_file(PLACE, back).unwrap(), rounds)
    processor = (between - before) / rounds, (processor_time() - between) / rounds
    assert back.stat().st_size == size
    async_up, async_down = asyncio.run(measure_async(source, back, rounds))
    assert back.stat().st_size == size
    show(size, at_start, copied, up, down, async_up, async_down, *processor, peak_mib())
    for path in (source, back, here / "copy"):
        path.unlink()


def make_file(path: Path, size: int) -> None:
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        while size > 0:
            size -= file.write(block[:size])


async def measure_async(source: Path, back: Path, rounds: int) -> tuple[float, float]:
    """Send and fetch a file asynchronously, in a runtime of its own."""
    async with AsyncAgentBay.local() as bay, bay.session() as session:
        up = await timed_async(lambda: session.file_system.upload_file(source, PLACE), rounds)
        down = await timed_async(lambda: session.file_system.download_file(PLACE, back), rounds)
        return statistics.median(up) / 1000, statistics.median(down) / 1000


def measure_tree(session: Session, here: Path, count: int) -> None:
    """Push and pull a directory."""
    source = here / "source"
    for number in range(count):
        place = source / f"d{number // 100}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"f{number}").write_bytes(SMALL_FILE)
    times: dict[str, list[float]] = {"tar": [], "push": [], "pull": [], "again": []}
    at_start = load()
    for number in range(1 if count >= LARGE_COUNT else 3):
        there, back, copy = f"/tmp/tree-{count}-{number}", here / f"back{number}", here / f"copy{number}"
        copy.mkdir()
        script = 'tar -C "$0" -cf - . | tar -C "$1" -xf -'
        times["tar"].append(seconds(lambda: subprocess.run(["sh", "-c", script, source, copy], check=True), 1))  # noqa: B023
        times["push"].append(seconds(lambda: session.file_system.push(source, there), 1))  # noqa: B023
        times["pull"].append(seconds(lambda: session.file_system.pull(there, back), 1))  # noqa: B023
        times["again"].append(seconds(lambda: session.file_system.push(source, there), 1))  # noqa: B023
        assert sum(path.is_file() for path in back.rglob("*")) == count
    tar, push, pull, again = map(statistics.median, times.values())
    show(count, at_start, tar, push, pull, push / tar, pull / tar, again)


def measure_streams(session: Session, size: int) -> None:
    """Write to the input of a process, and read its output."""
    data, at_start = bytes(size), load()
    beside = seconds(lambda: subprocess.run(["sh", "-c", "cat | cat > /dev/null"], input=data, check=True), 3)

    def send() -> None:
        process = session.command.start("cat > /dev/null")
        process.send_stdin(data, timeout=600)
        process.close_stdin()
        assert process.wait() == 0
        process.remove()

    def receive() -> None:
        process = session.command.start(f"head -c {size} /dev/zero")
        assert sum(len(chunk) for chunk in process.stdout.chunks()) == size
        process.remove()

    show(size, at_start, beside, seconds(send, 3), seconds(receive, 3))


if __name__ == "__main__":
    main()
