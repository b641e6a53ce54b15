"""Background processes: output, input, signals and exit codes."""

from __future__ import annotations

import hashlib
import math
import secrets
import signal
from collections.abc import AsyncIterator
from functools import partial

import pytest

from agentbay import (
    AsyncAgentBay,
    AsyncOutput,
    AsyncProcess,
    AsyncSession,
    CommandError,
    Config,
    ConflictError,
    DeadlineExceeded,
    InvalidArgumentError,
    PathNotFoundError,
)
from agentbay._async import process_tools
from agentbay._async.process import process_control
from agentbay._concurrency import async_sleep
from agentbay._transport.command_line import CommandLine
from agentbay._wire.process_tools import StartProcess
from tests import cutting
from tests.at_once import async_at_once
from tests.raw_calls import without_raw_calls

from .ways import WAYS, client_by


def without_process_tools(session: AsyncSession) -> None:
    """Make a session look as one of a service without tools for processes."""
    session.mcpTools = [tool for tool in session.mcpTools if tool.server != StartProcess.server]


@pytest.fixture(scope="module", params=["by raw calls", "by tools", "by scripts"])
async def session(bay: AsyncAgentBay, request: pytest.FixtureRequest) -> AsyncIterator[AsyncSession]:
    async with bay.session() as session:
        if request.param == "by scripts":
            without_process_tools(session)
        elif request.param == "by tools":
            without_raw_calls(session)
        yield session


@pytest.fixture
async def session_with_scripts(bay: AsyncAgentBay) -> AsyncIterator[AsyncSession]:
    async with bay.session() as session:
        without_process_tools(session)
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
    with pytest.raises(PathNotFoundError, match="/none"):
        await session.command.start("true", cwd="/none")
    with pytest.raises(ValueError, match="must be strings"):
        await session.command.start("true", envs={"A": 1})  # type: ignore[dict-item]


NAMES = {"D": "/data", "u": "ada", "holder": "me", "n": "1", "HOME": "/tmp/h", "x": "", "born": "here"}


async def test_variables_are_its_own(session: AsyncSession) -> None:
    """A process has the variables that a command has, with the caller's own values."""
    show = "env | grep -v '^_=' | sort"
    await session.env.set({"child": "of the session"})
    for envs in (NAMES, {}):
        expected = await session.command.run(show, envs=envs)
        process = await session.command.start(show, envs=envs)
        assert await process.stdout.read() == expected.stdout
        assert await process.wait(60) == 0


async def test_own_search_path(session: AsyncSession) -> None:
    """A process may have any PATH, and its handle works all the same."""
    process = await session.command.start("echo $PATH; read line; echo $line", envs={"PATH": "/opt/tools"})
    await process.send_stdin("line\n")
    assert await process.wait(60) == 0
    assert await process.stdout.read() == "/opt/tools\nline\n"


async def test_signals_are_its_own(session: AsyncSession) -> None:
    """A process ignores no signal from the start, and SIGINT interrupts it."""
    program = (
        "exec python3 -uc 'import signal, time\n"
        "try:\n"
        " print([s.name for s in signal.Signals if signal.getsignal(s) == signal.SIG_IGN])\n"
        " time.sleep(300)\n"
        "except KeyboardInterrupt: raise SystemExit(7)'"
    )
    process = await session.command.start(program)
    async for line in process.stdout.lines():
        assert line == "['SIGPIPE', 'SIGXFSZ']"  # which Python itself ignores
        break
    await process.signal(signal.SIGINT)
    assert await process.wait(60) == 7
    for number in (0, 65):
        with pytest.raises(InvalidArgumentError, match="number must be the number of a signal"):
            await process.signal(number)


async def test_commands_of_any_length(session: AsyncSession) -> None:
    """A command longer than an argument of a program starts as others do."""
    text = f"echo $0; cat <<'END' | wc -c\n{'x' * 300_000}\nEND\necho \"it's\" 'done'"
    process = await session.command.start(text)
    assert await process.stdout.read() == "sh\n300001\nit's done\n"


async def test_list(session: AsyncSession) -> None:
    """A list has all processes with what was started, the newest last, until they are removed."""
    before = {process.id for process in await session.command.list()}
    commands = ["sleep 300", "echo 'a  b'\nexit 3", "exec sleep 301"]
    started = [await session.command.start(command) for command in commands]
    await started[1].wait(60)
    listed = [process for process in await session.command.list() if process.id not in before]
    assert [process.command for process in listed] == commands
    assert [process.exit_code for process in listed] == [None, 3, None]
    assert [(process.id, process.pid) for process in listed] == [(process.id, process.pid) for process in started]
    assert await listed[1].stdout.read() == "a  b\n"
    for process in listed:
        await process.kill()
        await process.wait(60)
        await process.remove()
    assert {process.id for process in await session.command.list()} == before


async def test_many_waiters(session: AsyncSession) -> None:
    """Each of many who wait at once gets its exit code."""
    processes = [await session.command.start(f"read line; exit {number}") for number in range(30)]
    waiting = [partial(process.wait, 120) for process in processes]
    closing = [process.close_stdin for process in processes]
    results = await async_at_once([*waiting, *closing])
    assert results[:30] == list(range(30))


async def test_cancelled_starts_leave_nothing(session: AsyncSession) -> None:
    """A start whose answer is not waited for leaves no process, and its id is not used again."""
    before = {process.id for process in await session.command.list()}
    control = process_control(session)
    process_id = secrets.token_hex(8)
    await control.start(process_id, CommandLine("exec sleep 302"), None, None, "")
    await control.cancel(process_id)
    for late in (process_id, secrets.token_hex(8)):
        await control.cancel(late)
        with pytest.raises(CommandError, match="cancelled"):
            await control.start(late, CommandLine("exec sleep 302"), None, None, "")
    assert (await session.command.run("pgrep -x -f 'sleep 302'")).exit_code == 1
    assert {process.id for process in await session.command.list()} == before


@pytest.mark.parametrize("way", WAYS)
async def test_time_paused_does_not_count(bay: AsyncAgentBay, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause while a process is waited for uses up none of the time, and ends no wait."""
    monkeypatch.setattr(process_tools, "REPLY_MARGIN_SECONDS", 1.0)
    async with client_by(way, bay) as other, other.session() as session:
        process = await session.command.start("sleep 3; exit 5")

        async def pause() -> int:
            await async_sleep(0.5)
            await session.pause()
            await async_sleep(12)
            await session.resume()
            return 0

        assert await async_at_once([pause, partial(process.wait, 10)]) == [0, 5]
        await session.pause()
        other_process = AsyncProcess(session, process.id, process.pid)
        with pytest.raises(ConflictError):
            await other_process.wait(4)


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


async def test_process_without_an_exit_code(session_with_scripts: AsyncSession) -> None:
    """A process killed with its keeper has output but no exit code."""
    session = session_with_scripts
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


async def test_lost_output_is_an_error(session_with_scripts: AsyncSession) -> None:
    """Lost output is an error, not shorter output."""
    session = session_with_scripts
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
        with cutting.CuttingProxy(port, [200_000, 400_000, 600_000, 800_000, 1_000_000]) as proxy:
            async with (
                AsyncAgentBay(cutting.KEY, Config(endpoint=f"http://127.0.0.1:{proxy.port}")) as bay,
                bay.session() as session,
            ):
                process = await session.command.start("seq -f 'line %.0f' 100000")
                assert await process.stdout.read() == wanted
                assert await process.wait() == 0
        assert proxy.cuts == 5
