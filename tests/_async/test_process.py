"""Background processes: output, input, signals and exit codes."""

from __future__ import annotations

import hashlib
import math
import signal
from collections.abc import AsyncIterator
from functools import partial

import pytest

from agentbay import (
    AsyncAgentBay,
    AsyncOutput,
    AsyncSession,
    CommandError,
    Config,
    DeadlineExceeded,
    InvalidArgumentError,
)
from tests import cutting
from tests.at_once import async_at_once

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def session() -> AsyncIterator[AsyncSession]:
    async with AsyncAgentBay.local() as bay, bay.session() as session:
        yield session


async def test_streams_and_exit_code(session: AsyncSession) -> None:
    """Both streams and the exit code are read, repeatedly."""
    process = await session.command.start("echo ü; sleep 0.2; printf last; echo why >&2; exit 7")
    assert [line async for line in process.stdout.lines()] == ["ü", "last"]
    assert await process.stderr.read() == "why\n"
    assert (await process.wait(), process.exit_code) == (7, 7)
    assert b"".join([chunk async for chunk in process.stdout.chunks(2)]) == b"\nlast"


async def test_place_and_environment(session: AsyncSession) -> None:
    """A process starts in its directory with its environment."""
    await session.env.set({"OF_THE_SESSION": "2"})
    process = await session.command.start("pwd; echo $ONE $OF_THE_SESSION", cwd="/tmp", envs={"ONE": "1"})
    assert await process.stdout.read() == "/tmp\n1 2\n"
    with pytest.raises(CommandError, match="/none"):
        await session.command.start("true", cwd="/none")
    with pytest.raises(ValueError, match="must be strings"):
        await session.command.start("true", envs={"A": 1})  # type: ignore[dict-item]


async def test_output_comes_while_it_runs(session: AsyncSession) -> None:
    """Output is read before the process ends."""
    process = await session.command.start("echo now; sleep 300")
    async for text in process.stdout:
        assert text == "now\n"
        break
    assert await process.poll() is None
    await process.kill()
    assert await process.wait(60) == 137


async def test_characters_are_never_cut(session: AsyncSession) -> None:
    """Split characters are joined, invalid bytes replaced."""
    process = await session.command.start(r"printf '\303'; sleep 0.3; printf '\274 \377'")
    texts = [text async for text in process.stdout]
    assert "".join(texts) == "ü \N{REPLACEMENT CHARACTER}"


async def test_input(session: AsyncSession) -> None:
    """Input of any size arrives whole, and ends when closed."""
    process = await session.command.start("sha256sum; echo done")
    data = bytes(range(256)) * 700
    await process.send_stdin("text\n")
    await process.send_stdin(data)
    await process.close_stdin()
    await process.close_stdin()
    assert (await process.stdout.read()).split()[0] == hashlib.sha256(b"text\n" + data).hexdigest()
    with pytest.raises(CommandError, match="input"):
        await process.send_stdin("too late")


async def test_input_that_nobody_reads(session: AsyncSession) -> None:
    """Unread input raises with the number of bytes accepted."""
    process = await session.command.start("sleep 300")
    with pytest.raises(DeadlineExceeded, match="does not read") as caught:
        await process.send_stdin(b"x" * 200_000, timeout=4)
    assert caught.value.extra["sent"] == 65536
    await process.kill()


async def test_writers_at_once(session: AsyncSession) -> None:
    """Input of several writers arrives whole, each part once and unmixed."""
    process = await session.command.start("cat")
    handles = [process, process, process, await session.command.attach(process.id)]
    parts = [f"{number}".encode() * 50_000 for number in range(4)]
    await async_at_once([partial(handle.send_stdin, part) for handle, part in zip(handles[:3], parts[:3], strict=True)])
    await async_at_once([partial(handle.send_stdin, b"y" * 4000 + b"\n") for handle in handles])
    await process.close_stdin()
    written = await process.stdout.read()
    assert sorted(written[:150_000:50_000]) == ["0", "1", "2"]
    assert all(len(set(written[start : start + 50_000])) == 1 for start in range(0, 150_000, 50_000))
    assert written[150_000:] == ("y" * 4000 + "\n") * 4


async def test_input_that_was_not_taken_is_removed(session: AsyncSession) -> None:
    """Input that a process did not take stays nowhere, and other types are refused."""
    process = await session.command.start("sleep 300")
    with pytest.raises(InvalidArgumentError, match="data must be a string or bytes, not of type int"):
        await process.send_stdin(3)  # type: ignore[arg-type]
    with pytest.raises(DeadlineExceeded):
        await process.send_stdin(b"secret" * 40_000, timeout=1)
    await process.kill()
    await process.wait()
    await process.remove()
    assert (await session.command.run("ls -A /tmp | grep agentbay")).stdout == ""


async def test_attach_and_signal(session: AsyncSession) -> None:
    """A process is found by its id, and signals reach its children."""
    process = await session.command.start("trap 'echo caught; exit 5' TERM; sleep 301 & wait")
    again = await session.command.attach(process.id)
    assert again.pid == process.pid
    sleeps = "until pgrep -x -f 'sleep 301'; do sleep 0.05; done"
    assert (await session.command.run(sleeps, timeout_ms=60_000)).success
    await again.signal(signal.SIGTERM)
    assert await process.wait(60) == 5
    assert await again.stdout.read() == "caught\n"
    await again.signal(signal.SIGTERM)
    with pytest.raises(CommandError, match="no process"):
        await session.command.attach("0" * 16)
    with pytest.raises(ValueError, match="id of a process"):
        await session.command.attach("; rm -rf /")


async def test_wait_ends_in_time(session: AsyncSession) -> None:
    """A wait that times out leaves the process running."""
    process = await session.command.start("sleep 300")
    with pytest.raises(TimeoutError, match="still runs"):
        await process.wait(0.2)
    assert await process.poll() is None
    with pytest.raises(CommandError, match="still runs"):
        await process.remove()
    await process.kill()
    await process.wait(60)


async def test_waits_without_a_limit(session: AsyncSession) -> None:
    """Infinity is a valid time limit everywhere."""
    process = await session.command.start("cat")
    await process.send_stdin("x", timeout=math.inf)
    await process.close_stdin()
    assert await process.wait(timeout=math.inf) == 0
    terminal = await session.pty.create(shell="sh -c 'exit 2'", timeout_s=math.inf)
    assert await terminal.wait(math.inf) == 2
    assert await session.ws.call("PTY_SERVER", {"method": "pty.list", "params": {}}, math.inf)
    assert (await session.get_metrics(read_timeout=math.inf)).success
    assert (await session.pause(timeout=math.inf)).success
    assert (await session.resume(timeout=math.inf)).success


async def test_client_without_a_limit() -> None:
    """A client without a limit gives commands a day."""
    async with AsyncAgentBay.local(timeout=math.inf) as bay, bay.session() as session:
        assert await session.file_system.write_file("bytes", b"\xff")
        process = await session.command.start("cat")
        await process.send_stdin("x")
        await process.kill()
        assert await process.wait() == 137


async def test_process_without_an_exit_code(session: AsyncSession) -> None:
    """A process killed with its keeper has output but no exit code."""
    texts: list[str] = []
    process = await session.command.start("echo before; sleep 300")
    async for _ in process.stdout:
        break
    await session.command.run(f"read -r child keeper < ~/.agentbay/processes/{process.id}/pid; kill -9 $keeper $child")
    with pytest.raises(CommandError, match="no exit code"):
        await seen(process.stdout, texts)
    assert texts == ["before\n"]
    with pytest.raises(CommandError, match="no exit code"):
        await process.wait(60)


async def seen(output: AsyncOutput, texts: list[str]) -> None:
    async for text in output:
        texts.append(text)  # noqa: PERF401 - what came before an error counts


async def test_lost_output_is_an_error(session: AsyncSession) -> None:
    """Lost output is an error, not shorter output."""
    process = await session.command.start("seq 1000")
    await process.wait(60)
    await session.command.run(f": > ~/.agentbay/processes/{process.id}/stdout")
    with pytest.raises(CommandError, match="lost"):
        _ = [chunk async for chunk in process.stdout.chunks(100)]
    await process.remove()
    with pytest.raises(CommandError, match="no process"):
        await process.stdout.read()


async def test_hundred_thousand_lines_over_a_stream_that_is_cut() -> None:
    """Output arrives complete and in order over a connection cut five times."""
    wanted = "".join(f"line {number}\n" for number in range(1, 100_001))
    with cutting.runtime("--link-url", "off") as port:
        proxy = cutting.CuttingProxy(port, [200_000, 400_000, 600_000, 800_000, 1_000_000])
        try:
            async with (
                AsyncAgentBay(cutting.KEY, Config(endpoint=f"http://127.0.0.1:{proxy.port}")) as bay,
                bay.session() as session,
            ):
                process = await session.command.start("seq -f 'line %.0f' 100000")
                assert await process.stdout.read() == wanted
                assert await process.wait() == 0
        finally:
            proxy.close()
        assert proxy.cuts == 5
