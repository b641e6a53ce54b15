"""Terminals, on the local runtime and against a scripted service."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentbay import (
    AsyncAgentBay,
    AsyncPtyHandle,
    AsyncSession,
    Config,
    ConnectionLost,
    DeadlineExceeded,
    InvalidArgumentError,
    PtyError,
    PtyNotConnectedError,
    PtySession,
    PtySessionNotFoundError,
    ReplyError,
    SessionNotFoundError,
)
from agentbay._concurrency import async_sleep
from tests.scripted_ws import Peer, WsServer

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the local runtime needs Linux")


@pytest.fixture(scope="module")
async def bay() -> AsyncIterator[AsyncAgentBay]:
    async with AsyncAgentBay.local(strict=True) as made:
        yield made


@pytest.fixture
async def session(bay: AsyncAgentBay) -> AsyncIterator[AsyncSession]:
    async with bay.session() as made:
        yield made


async def read_until(handle: AsyncPtyHandle, wanted: bytes, seconds: float = 60.0) -> bytes:
    """Read output until a text appears in it."""
    seen, end = b"", time.monotonic() + seconds
    while wanted not in seen:
        seen += await handle._output_queue.get(end - time.monotonic()) or b""
    return seen


@pytest.fixture(params=["by the runtime", "by the shell"])
async def any_session(session: AsyncSession, request: pytest.FixtureRequest) -> AsyncSession:
    """A session whose service knows terminals without echo, and one whose service does not."""
    if request.param == "by the shell":
        session.mcpTools = []
    return session


async def test_a_program_with_arguments(any_session: AsyncSession) -> None:
    """A terminal runs a program with its arguments, of which nothing is expanded."""
    show = "import sys; print(sys.argv[1:], sys.stdout.isatty())"
    for echo in True, False:
        argv = ["python3", "-c", show, "a b", "$HOME", "'"]
        async with await any_session.pty.create(argv=argv, echo=echo) as handle:
            assert await handle.read_until("True", 60) == b"['a b', '$HOME', \"'\"] True"
            assert await handle.wait(20) == 0
    for wrong in ({"argv": []}, {"argv": ["true"], "shell": "sh"}):
        with pytest.raises(InvalidArgumentError):
            await any_session.pty.create(**wrong)  # type: ignore[arg-type]


async def test_without_echo(any_session: AsyncSession) -> None:
    """Without echo only what programs write arrives, from a program and from the shell."""
    ready = ["sh", "-c", "echo ready; exec cat"]
    async with await any_session.pty.create(argv=ready, echo=False) as handle:
        await handle.read_until("ready\r\n", 60)
        await handle.send_input("once\n")
        assert await handle.read_until("\n") == b"once\r\n"
        await handle.send_input("twice\n\x04")
        assert await handle.wait(20) == 0
        assert await rest(handle) == b"twice\r\n"
    async with await any_session.pty.create(echo=False) as handle:
        await handle.read_until("$ ", 60)
        await handle.send_input("echo $((6 * 7))\n")
        assert b"echo" not in await handle.read_until("42\r\n")
    async with await any_session.pty.create(argv=["cat"]) as handle:
        await handle.send_input("once\n")
        assert await handle.read_until("once\r\nonce\r\n") == b"once\r\nonce\r\n"


async def test_input_before_the_program_runs(session: AsyncSession) -> None:
    """Nothing is echoed of what is typed at once, since the terminal is made without echo."""
    async with await session.pty.create(argv=["sh", "-c", "sleep 0.3; exec cat"], echo=False) as handle:
        await handle.send_input("early\n\x04")
        assert await handle.wait(20) == 0
        assert await rest(handle) == b"early\r\n"


async def test_reading(session: AsyncSession) -> None:
    """Reads give each byte once, in order, whichever methods take turns."""
    script = "printf 'one:two:'; read line; printf 'three\\n'; exit 3"
    async with await session.pty.create(argv=["sh", "-c", script], echo=False) as handle:
        assert await handle.read_until(b"one:") == b"one:"
        assert await handle.read_until(re.compile(rb"t.o:?")) == b"two:"
        with pytest.raises(DeadlineExceeded, match="three"):
            await handle.read_until("three", 0.3)
        with pytest.raises(TimeoutError):
            await handle.read(0.1)
        await handle.send_input("\n")
        assert await handle.read_until("thr") == b"thr"
        assert await handle.wait(20) == 3
        with pytest.raises(PtyError, match="ended before 'nothing'"):
            await handle.read_until("nothing", 20)
        assert await rest(handle) == b"ee\r\n"
        assert await handle.read(20) == b""


async def test_reading_beside_a_callback(session: AsyncSession) -> None:
    """Output that a callback receives cannot be read too."""
    async with await session.pty.create(argv=["echo", "x"], on_data=lambda data: None) as handle:
        with pytest.raises(PtyError, match="on_data takes"):
            await handle.read(20)
        with pytest.raises(PtyError, match="on_data takes"):
            await handle.read_until("x", 20)


async def rest(handle: AsyncPtyHandle) -> bytes:
    """Read output to its end."""
    return b"".join([piece async for piece in handle])


async def broken_rest(handle: AsyncPtyHandle) -> tuple[bytes, PtyError | None]:
    """Read output to its end, and return the error that ended it too."""
    seen = bytearray()
    try:
        async for piece in handle:
            seen += piece
    except PtyError as error:
        return bytes(seen), error
    return bytes(seen), None


async def test_shell(session: AsyncSession) -> None:
    """A terminal has the size, environment and job control of a real one."""
    handle = await session.pty.create(cols=91, rows=37, cwd="/tmp", envs={"MINE": "ä ö"})
    assert handle.is_connected
    assert handle.exit_code is None
    await handle.send_input("stty size; tty; pwd; echo $TERM/$MINE; test -t 0 -a -t 2 && echo yes; exit 3\n")
    output = (await rest(handle)).decode()
    for wanted in ("37 91", "/dev/pts/", "\r\n/tmp\r\n", "xterm-256color/ä ö", "yes"):
        assert wanted in output
    assert await handle.wait(60) == 3
    assert handle.exit_code == 3
    assert not handle.is_connected


async def test_nothing_is_lost(session: AsyncSession) -> None:
    """All output of a program that ends at once arrives."""
    for _ in range(20):
        got: list[bytes] = []
        handle = await session.pty.create(shell="sh -c 'printf first; printf last; exit 7'", on_data=got.append)
        assert await handle.wait(60) == 7
        assert b"".join(got) == b"firstlast"
    handle = await session.pty.create(shell="sh -c 'stty -opost; seq 200000'")
    assert await rest(handle) == b"".join(b"%d\n" % number for number in range(1, 200_001))
    handle = await session.pty.create(shell=r"""sh -c 'printf "\377\376\303"; sleep 0.1; printf "\244\303(x"'""")
    assert await rest(handle) == b"\xff\xfe\xc3\xa4\xc3(x"


async def test_utf8_is_never_split(session: AsyncSession) -> None:
    """Pieces of text end at whole characters."""
    got: list[bytes] = []
    handle = await session.pty.create(
        shell="sh -c 'i=0; while [ $i -lt 4000 ]; do printf 漢; i=$((i+1)); done'", on_data=got.append
    )
    await handle.wait(60)
    assert b"".join(got).decode() == "漢" * 4000
    for piece in got:
        piece.decode()


async def test_input_and_signals(session: AsyncSession) -> None:
    """Input arrives byte by byte, Ctrl-C interrupts, and resizing is noticed."""
    handle = await session.pty.create(shell="sh -c 'stty raw -echo; printf ready; head -c 4 | od -An -tx1'")
    await read_until(handle, b"ready")
    await handle.send_input(b"\xff\x00a\xfe")
    assert b"ff 00 61 fe" in await rest(handle)
    handle = await session.pty.create(
        shell="sh -c 'trap \"stty size\" WINCH; printf ready; while :; do sleep 0.05; done'"
    )
    await read_until(handle, b"ready")
    await handle.resize(101, 11)
    await read_until(handle, b"11 101")
    await handle.send_input("\x03")
    assert await handle.wait(60) == 130


async def test_large_input(session: AsyncSession) -> None:
    """Input of any size arrives, also faster than the program reads."""
    handle = await session.pty.create(shell="sh -c 'stty raw -echo; echo READY; exec head -c 3000003 > /tmp/got'")
    await read_until(handle, b"READY")
    await handle.send_input(b"x" * 1_500_000)
    for _ in range(5):
        await handle.send_input("y" * 300_000)
    await handle.send_input("end")
    assert await handle.wait(60) == 0
    got = await session.command.run(
        "tr -d y < /tmp/got | sha256sum; printf '%1500000s' | tr ' ' x > /tmp/x; "
        "(cat /tmp/x; printf end) | sha256sum; wc -c < /tmp/got"
    )
    first, second, size = got.stdout.splitlines()
    assert (first == second, size) == (True, "3000003")


async def test_input_of_another_type(session: AsyncSession) -> None:
    """Input that is neither text nor bytes is refused by name."""
    async with await session.pty.create() as handle:
        with pytest.raises(InvalidArgumentError, match="data must be bytes or a string, not of type int"):
            await handle.send_input(3)  # type: ignore[arg-type]


async def test_list_connect_kill(session: AsyncSession) -> None:
    """The list is true, late clients see earlier output, and kill is reported."""
    first = await session.pty.create(cols=50, rows=10)
    await read_until(first, b"$ ")
    second = await session.pty.create(shell="sh -c 'exit 4'")
    await second.wait(60)
    await first.resize(60, 20)
    await first.send_input("echo remem'ber'\n")
    await read_until(first, b"remember")
    assert await session.pty.list() == [
        PtySession(first.pty_session_id, 60, 20, "running"),
        PtySession(second.pty_session_id, 80, 24, "exited", 4),
    ]
    first.disconnect()
    assert not first.is_connected
    with pytest.raises(PtyNotConnectedError):
        await first.send_input("x")
    with pytest.raises(PtyNotConnectedError):
        await first.wait()
    again = await session.pty.connect(first.pty_session_id)
    assert b"remember" in await read_until(again, b"remember")
    await again.kill()
    assert await again.wait(60) == -9
    ended = await session.pty.connect(second.pty_session_id)
    assert await ended.wait(60) == 4
    for call in (session.pty.connect, session.pty.kill):
        with pytest.raises(PtySessionNotFoundError):
            await call("pty-unknown")


async def test_terminal_outlives_the_client(bay: AsyncAgentBay, session: AsyncSession) -> None:
    """Another client finds a session's terminal and its output."""
    other = (await bay.get(session.session_id)).session
    assert other is not None
    handle = await other.pty.create()
    await read_until(handle, b"$ ")
    await handle.send_input("sleep 0.2; echo still'here'\n")
    await read_until(handle, b"sleep")
    await other.ws.aclose()
    with pytest.raises(PtyError, match="lost"):
        await handle.wait(60)
    await async_sleep(0.5)
    again = await session.pty.connect(handle.pty_session_id)
    await read_until(again, b"stillhere")
    await again.send_input("exit\n")
    assert await again.wait(60) == 0


async def test_callbacks(session: AsyncSession, caplog: pytest.LogCaptureFixture) -> None:
    """A callback may use the session, and may raise."""
    calm: list[bytes] = []
    listed: list[list[PtySession]] = []

    async def list_them(_: bytes) -> None:
        listed.append(await session.pty.list())
        await session.command.run("touch seen")
        raise ValueError("a fault of the user's")

    other = await session.pty.create(on_data=calm.append)
    shell = "sh -c 'echo one; until [ -e seen ]; do sleep 0.05; done; echo two'"
    handle = await session.pty.create(shell=shell, on_data=list_them)
    with caplog.at_level(logging.ERROR):
        assert await handle.wait(60) == 0
    assert len(listed) >= 2
    assert "a fault of the user's" in caplog.text
    await other.send_input("exit 5\n")
    assert await other.wait(60) == 5
    assert b"exit" in b"".join(calm)
    with pytest.raises(PtyError, match="on_data"):
        await rest(handle)


async def test_wait_has_a_limit(session: AsyncSession) -> None:
    """Waiting times out, and leaving the block kills the program."""
    async with await session.pty.create() as handle:
        with pytest.raises(TimeoutError):
            await handle.wait(0.1)
        assert handle.is_connected
    assert await handle.wait(60) == -9


@pytest.mark.parametrize("size", [(0, 24), (80, 0), (501, 24), (80, 501), (-1, 1), (True, 24), ("80", 24)])
async def test_impossible_sizes(session: AsyncSession, size: tuple[Any, Any]) -> None:
    """An impossible size is refused before anything is sent."""
    with pytest.raises(PtyError, match="Invalid terminal size"):
        await session.pty.create(*size)
    handle = await session.pty.create(500, 500)
    with pytest.raises(PtyError, match="Invalid terminal size"):
        await handle.resize(*size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shell": "no-such-program"}, "command not found"),
        ({"shell": "/etc/profile"}, "Permission denied"),
        ({"shell": "'"}, "quotation"),
        ({"cwd": "/no/such/directory"}, "No such file"),
    ],
)
async def test_cannot_start(session: AsyncSession, options: dict[str, Any], message: str) -> None:
    """A program that cannot start is an error and leaves no terminal."""
    with pytest.raises(PtyError, match=message):
        await session.pty.create(**options)
    assert await session.pty.list() == []


async def test_paused_and_deleted(bay: AsyncAgentBay) -> None:
    """A terminal pauses with its session and ends with it."""
    async with bay.session() as session:
        handle = await session.pty.create()
        await read_until(handle, b"$ ")
        await session.pause()
        with pytest.raises(PtyError, match="PAUSED"):
            await session.pty.list()
        await handle.send_input("echo a'wake'\n")
        await session.resume()
        await read_until(handle, b"awake")
    with pytest.raises(PtyError, match="not known"):
        await handle.wait(60)
    assert handle.exit_code is None
    with pytest.raises(SessionNotFoundError):
        await session.pty.list()


@asynccontextmanager
async def scripted(server: WsServer) -> AsyncIterator[AsyncSession]:
    """A session whose terminals are those of a script."""
    async with AsyncAgentBay("akm-test", Config(endpoint="http://127.0.0.1:9"), max_retries=0) as bay:
        session = AsyncSession(bay, "session-x")
        session.ws_url, session.token = server.url, "token-x"
        yield session


async def test_connection_lost() -> None:
    """A lost connection ends waiting and reading, without an exit code."""

    def script(peer: Peer) -> None:
        asked = peer.receive()
        peer.push("PTY_SERVER", eventType="pty.output", ptySessionId="p1", data="early ")
        peer.push("PTY_SERVER", eventType="pty.output", ptySessionId="p2", data="another's")
        peer.reply(asked, result={"ptySessionId": "p1"})
        peer.push("PTY_SERVER", eventType="pty.output", ptySessionId="p1", encoding="base64", data="!")
        peer.push("PTY_SERVER", eventType="pty.output", ptySessionId="p1", encoding="base64", data="bGF0ZQ==")
        peer.drop()

    with WsServer(script) as server:
        async with scripted(server) as session:
            handle = await session.pty.create()
            with pytest.raises(PtyError, match=r"lost.*not known.*pty.connect") as caught:
                await handle.wait(60)
            assert isinstance(caught.value.__cause__, ConnectionLost)
            seen, error = await broken_rest(handle)
            assert seen == b"early late"
            assert "lost" in str(error)
            assert handle.exit_code is None
            with pytest.raises(PtyNotConnectedError, match=r"pty\.connect"):
                await handle.send_input("x")


async def test_published_answers() -> None:
    """Answers as short as the published service's are understood."""

    def script(peer: Peer) -> None:
        created = peer.receive()
        assert created["data"]["params"]["envs"] == {"TERM": "vt100", "LANG": "en_US.UTF-8"}
        peer.reply(created, result={"ptySessionId": "p1"})
        peer.reply(peer.receive(), result={"ptySessionIds": ["p1"]})
        assert peer.receive()["data"] == {
            "method": "pty.input",
            "params": {"ptySessionId": "p1", "encoding": "base64", "data": "/w=="},
        }
        killed = peer.receive()
        peer.push("PTY_SERVER", eventType="pty.exit", ptySessionId="p1", exitCode=9)
        peer.reply(killed)
        peer.reply(peer.receive(), result={})
        peer.push("PTY_SERVER", eventType="pty.error", ptySessionId="p1", error="it broke")
        peer.reply(peer.receive(), result={})
        peer.reply(peer.receive(), result={"ptySessionId": []})
        peer.receive()

    with WsServer(script) as server:
        async with scripted(server) as session:
            handle = await session.pty.create(envs={"TERM": "vt100"})
            assert await session.pty.list() == [PtySession("p1", 0, 0, "running")]
            await handle.send_input(b"\xff")
            await handle.kill()
            assert await handle.wait(60) == 9
            again = await session.pty.connect("p1")
            with pytest.raises(PtyError, match="it broke"):
                await again.wait(60)
            with pytest.raises(ReplyError, match="ptySessionId"):
                await session.pty.create()
            with pytest.raises(ReplyError):
                await session.pty.create()


async def test_unread_output_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unread output is kept up to a limit, and the loss is counted."""
    monkeypatch.setattr(sys.modules[AsyncPtyHandle.__module__], "_MAX_UNREAD_BYTES", 100)

    def script(peer: Peer) -> None:
        peer.reply(peer.receive(), result={"ptySessionId": "p1"})
        for number in range(30):
            peer.push("PTY_SERVER", eventType="pty.output", ptySessionId="p1", data=f"{number:010}")
        peer.push("PTY_SERVER", eventType="pty.exit", ptySessionId="p1", exitCode=0)
        peer.receive()

    with WsServer(script) as server:
        async with scripted(server) as session:
            handle = await session.pty.create()
            await handle.wait(60)
            assert handle.dropped == 200
            assert await rest(handle) == b"".join(b"%010d" % number for number in range(20, 30))
