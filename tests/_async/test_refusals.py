"""Refusals say why, and what to do: of sessions that ended or are paused, of paths, of the network."""

from __future__ import annotations

import gc
import re
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentbay import (
    AgentBayError,
    AgentError,
    AsyncAgentBay,
    AsyncSession,
    CodeError,
    CommandError,
    Config,
    ConflictError,
    ContextSync,
    CreateSessionParams,
    GitError,
    InvalidRequestError,
    PtyError,
    SessionNotFoundError,
    ToolError,
)


async def refusal(call: Callable[..., Any], *args: Any) -> AgentBayError:
    """Return the error that a call raises or that its failed result holds."""
    try:
        result = await call(*args)
    except AgentBayError as error:
        return error
    assert not result.success
    assert str(result.exception) == result.error_message
    assert isinstance(result.exception, AgentBayError)
    return result.exception


Call = Callable[[AsyncSession], Any]
# A call for each way to a session: tools, actions, contexts, the WebSocket.
CALLS: dict[str, Call] = {
    "command": lambda s: s.command.run("ls"),
    "files": lambda s: s.file_system.write_file("x", b"1"),
    "upload": lambda s: s.file_system.upload_file(__file__, "x"),
    "code": lambda s: s.code.run_code("1", "python"),
    "code streamed": lambda s: s.code.run_code("1", "python", stream_beta=True),
    "terminals": lambda s: s.pty.list(),
    "new terminal": lambda s: s.pty.create(),
    "context sync": lambda s: s.context.sync(),
    "pause": lambda s: s.pause(),
    "browser agent": lambda s: s.agent.browser.execute_task("look"),
}
CALLS_OF_THE_PAUSED: dict[str, Call] = {
    "labels": lambda s: s.get_labels(),
    "new labels": lambda s: s.set_labels({"a": "b"}),
    "info": lambda s: s.info(),
    "link": lambda s: s.get_link("https", 30100),
    "context info": lambda s: s.context.info(),
    "keep_alive": lambda s: s.keep_alive(),
    "get": lambda s: s.agent_bay.get(s.session_id),
    "delete": lambda s: s.delete(),
}


@pytest.mark.parametrize("by", ["itself", "another"])
async def test_ended_sessions_say_when_and_why(bay: AsyncAgentBay, by: str) -> None:
    """Every call to a deleted session tells when and why it ended."""
    gone = (await bay.create()).unwrap().session
    terminal = await gone.pty.create()
    await (gone if by == "itself" else (await bay.get(gone.session_id)).unwrap().session).delete()
    end = rf"Session {gone.session_id} ended at 20.*: It was deleted\."
    for name, call in (CALLS | CALLS_OF_THE_PAUSED).items():
        assert re.search(end, str(await refusal(call, gone))), name
    for use in (terminal.wait, terminal.kill, lambda: terminal.send_input("x"), lambda: terminal.resize(9, 9)):
        error = await refusal(use)
        assert isinstance(error, PtyError)
        assert re.search(end, str(error))
        assert "connect()" not in str(error)
    assert isinstance(await refusal(gone.pty.list), SessionNotFoundError)


async def test_unknown_sessions_are_named(bay: AsyncAgentBay) -> None:
    """A call to a session that there never was says that there is none, in the name of the parameter."""
    error = await refusal(AsyncSession(bay, "session-unknown").command.run, "ls")
    assert "There is no session session-unknown" in str(error)
    assert "no session unknown-id" in str(await refusal(bay.delete, "unknown-id"))


async def test_paused_sessions_say_how_to_go_on(bay: AsyncAgentBay) -> None:
    """A call to a paused session says to call resume(), whether its WebSocket was open before or not."""
    async with bay.session() as session:
        for opened in (False, True):
            if opened:
                await session.pty.list()
            (await session.pause()).unwrap()
            for name, call in CALLS.items():
                error = await refusal(call, session)
                assert f"Session {session.session_id} is paused: call resume() first." in str(error), name
                kinds = (ConflictError, AgentError)
                assert isinstance(error, (*kinds, PtyError, ToolError) if opened else kinds), name
            (await session.resume()).unwrap()


async def test_unclosed_clients_are_named() -> None:
    """A client of a runtime that nobody closed is named in the warning."""
    bay = AsyncAgentBay.local()
    (await bay.list()).unwrap()
    # Its connections are of this test's loop, which closes them; the runtime is left.
    stop = bay.client._launcher.stop  # type: ignore[union-attr]
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del bay
            gc.collect()
        assert "An AgentBay client was not closed" in " ".join(str(warning.message) for warning in caught)
    finally:
        stop()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"isolation": "strong"}, "isolation: must be auto or landlock or none, not 'strong'"),
        ({"network": "-x"}, "network: must be none or proxy or host, not '-x'"),
        ({"network": "proxy", "isolation": "none"}, "network=proxy takes namespaces, which isolation=none does"),
        ({"allow_hosts": ["a b"]}, "allow_hosts: 'a b' is not HOST"),
        ({"session_memory": "2 gigs"}, "session_memory: '2 gigs' is no size"),
        ({"max_sessions": 0}, "max_sessions: must be a whole number, at least 1, not '0'"),
        ({"task_time": -1.0}, "task_time: must be seconds, 0 or more"),
        ({"model": "m"}, "model_url and model belong together"),
        ({"allow_hosts": ["a" * 200_000]}, "Argument list too long"),
        ({"state_dir": __file__}, "it is a file, and a directory is wanted"),
        ({"state_dir": f"{__file__}/x"}, "cannot be used: Not a directory"),
        ({"state_dir": "/proc/x"}, "/proc/x cannot be used: No such file or directory"),
    ],
)
async def test_runtimes_that_cannot_start(options: Any, told: str) -> None:
    """Why a runtime does not start is told by the names of the arguments."""
    async with AsyncAgentBay.local(**options) as bay:
        message = (await bay.list()).error_message
    assert told in message
    assert "--" not in message
    assert "Errno" not in message


async def test_a_state_directory_in_use() -> None:
    """A state directory that another runtime uses is refused by the argument's name."""
    with tempfile.TemporaryDirectory() as directory:
        async with AsyncAgentBay.local(state_dir=directory) as first:
            (await first.list()).unwrap()
            async with AsyncAgentBay.local(state_dir=directory) as second:
                message = (await second.list()).error_message
    assert f"Another runtime uses the state directory {Path(directory).resolve()}." in message
    assert "choose another state_dir." in message


async def test_unknown_images_are_refused(bay: AsyncAgentBay) -> None:
    """An image that there is not is refused with those there are, and a session knows its own."""
    error = await refusal(bay.create, CreateSessionParams(image_id="linx_latest"))
    assert isinstance(error, InvalidRequestError)
    assert "no image 'linx_latest': did you mean 'linux_latest'? It has linux_latest, code_latest" in str(error)
    for asked, image in ((None, "linux_latest"), ("code_latest", "code_latest")):
        async with bay.session(CreateSessionParams(image_id=asked)) as session:
            found = (await bay.get(session.session_id)).unwrap().session
            assert (session.image_id, found.image_id) == (image, image)


async def test_refusals_say_what_would_be_right(bay: AsyncAgentBay, session: AsyncSession) -> None:
    """A refused path or host comes with the way out."""
    context = (await bay.context.create("q")).unwrap().context
    assert context is not None
    params = CreateSessionParams(context_syncs=[ContextSync(context.id, "/etc/foo")])
    assert "put it below the home directory" in (await bay.create(params)).error_message
    (await session.file_system.write_file("x", "1")).unwrap()
    assert "Not a directory" in (await session.file_system.write_file("x/y", "1")).error_message
    with pytest.raises(GitError, match="allow_hosts="):
        await session.git.clone("https://code.example.com/a/b")


async def test_refused_hosts_are_told(session: AsyncSession) -> None:
    """A failed command tells which hosts the network refused, though its program is silent about that."""
    script = "import urllib.request as u\ntry: u.urlopen('https://code.example.com')\nexcept OSError: exit(3)"
    result = await session.command.run('python3 -c "$SCRIPT"', envs={"SCRIPT": script})
    assert (result.exit_code, result.stderr) == (3, "")
    assert result.refused_hosts == ["code.example.com:443"]
    assert "refused code.example.com:443: name it in allow_hosts=" in result.error_message
    with pytest.raises(CommandError, match=r"exited with 3\. The session's network refused code\.example\.com:443"):
        result.check()
    assert (await session.command.run("exit 3")).error_message == "The command exited with 3."


@pytest.mark.parametrize("streamed", [False, True], ids=["tool", "stream"])
@pytest.mark.parametrize(
    "code",
    [
        "%pip install -q --retries 0 --disable-pip-version-check -i https://code.example.com/simple thing",
        "!curl -s https://code.example.com",
        "answer = !curl -s https://code.example.com",
    ],
    ids=["pip", "curl", "assigned"],
)
async def test_refused_hosts_of_commands_in_cells(session: AsyncSession, code: str, streamed: bool) -> None:
    """A cell whose command fails, which is no error of the cell, tells on standard error which hosts were refused."""
    result = await session.code.run_code(code, "python", 120, streamed)
    assert result.success
    assert result.refused_hosts == ["code.example.com:443"]
    note = "network refused code.example.com:443: name it in allow_hosts= of local(), or in --allow-host.\n"
    assert result.logs.stderr[-1].endswith(note)
    quiet = await session.code.run_code("!false", "python", 60, streamed)
    assert (quiet.logs.stderr, quiet.refused_hosts) == ([], [])


@pytest.mark.parametrize("streamed", [False, True], ids=["tool", "stream"])
@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python", "import urllib.request as u; u.urlopen('https://code.example.com')"),
        ("javascript", "require('child_process').execSync('curl -s https://code.example.com')"),
    ],
)
async def test_refused_hosts_of_code(session: AsyncSession, language: str, code: str, streamed: bool) -> None:
    """Code that fails tells which hosts were refused, in every language."""
    result = await session.code.run_code(code, language, 60, streamed)
    assert result.refused_hosts == ["code.example.com:443"]
    assert result.error_message.endswith("name it in allow_hosts= of local(), or in --allow-host.")
    with pytest.raises(CodeError, match=r"network refused code\.example\.com:443"):
        result.check()
    repeated = await session.code.run_code("raise ValueError" if language == "python" else "x y", language)
    assert (repeated.success, repeated.refused_hosts) == (False, [])


async def test_failures_name_the_proxy() -> None:
    """A failed connection names the proxy, without its password."""
    async with AsyncAgentBay(
        "k", Config(endpoint="http://127.0.0.2:8000"), proxy="http://user:password@127.0.0.1:9", max_retries=0
    ) as bay:
        message = (await bay.list()).error_message
    assert "no connection to 127.0.0.2:8000 through the proxy http://…127.0.0.1:9" in message
    assert "password" not in message
