"""Commands with arguments, input, merged streams, bytes and callbacks, on services that take them and on others."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from attrs import evolve

from agentbay import (
    AsyncSession,
    CommandTimeoutError,
    FileError,
    InvalidArgumentError,
    PathNotDirectoryError,
    PathNotFoundError,
    PathPermissionError,
)
from agentbay._wire.process_tools import StartProcess
from agentbay._wire.tools import Shell
from tests._async.scripted_files import client_of
from tests.scripted import Service, tool_says

_ARGUMENTS = ["", " ", "a b", "$HOME", "`id`", "*", "'\"", "line\nbreak", "-n", "ünï", "\\", "~"]
_BOTH = "for i in 1 2 3; do echo out $i; echo err $i >&2; done"
_MERGED = "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n"


def without_new_fields(session: AsyncSession) -> None:
    """Make a session look as one of a service whose tools take only a command line."""
    kept = {"command", "timeout_ms", "cwd", "envs"}
    session.mcpTools = [
        evolve(tool, input_schema={"properties": {name: {} for name in kept}}) if tool.name == Shell.tool else tool
        for tool in session.mcpTools
        if tool.server != StartProcess.server
    ]


@pytest.fixture(params=["by tools", "by the shell"])
async def any_session(session: AsyncSession, request: pytest.FixtureRequest) -> AsyncIterator[AsyncSession]:
    """A session that takes all of a command, and one that takes a command line."""
    if request.param == "by the shell":
        without_new_fields(session)
    yield session
    left = await session.command.run("ls -d /tmp/.agentbay-* ~/.agentbay/processes/* 2>/dev/null")
    assert left.stdout == ""  # no input or output of a command stays


async def test_arguments(any_session: AsyncSession) -> None:
    """Nothing in a list of arguments is expanded, in `run` and in `start`."""
    run = any_session.command.run
    show = ["python3", "-c", "import json, sys; print(json.dumps(sys.argv[1:]))", *_ARGUMENTS]
    assert json.loads((await run(show)).check().stdout) == _ARGUMENTS
    process = await any_session.command.start(show)
    assert json.loads(await process.stdout.read()) == _ARGUMENTS
    assert await process.wait(20) == 0
    await process.remove()
    assert (await run(["no-such-program"])).exit_code == 127
    assert (await run(["sh", "-c", "exit 5"])).exit_code == 5
    for wrong in ([], [""], ["a\0b"]):
        result = await run(wrong)
        assert isinstance(result.exception, InvalidArgumentError)


@pytest.mark.parametrize("data", ["ünï\n", b"\xff\x00\xfe", b"", b"0123456789abcdef" * 100_000], ids=len)
async def test_input(any_session: AsyncSession, data: str | bytes) -> None:
    """A command reads what it is given, to its end, byte for byte."""
    whole = data.encode() if isinstance(data, str) else data
    result = (await any_session.command.run("cat", stdin=data)).check()
    assert result.stdout_bytes == whole or "\N{REPLACEMENT CHARACTER}" in result.stdout
    size = await any_session.command.run(["wc", "-c"], stdin=data)
    assert int(size.stdout) == len(whole)
    process = await any_session.command.start("cat; echo end >&2", stdin=data)
    assert b"".join([chunk async for chunk in process.stdout.chunks()]) == whole
    assert await process.stderr.read() == "end\n"
    await process.remove()
    assert (await any_session.command.run("cat")).stdout == ""


async def test_unread_input(any_session: AsyncSession) -> None:
    """Input that nobody reads holds up nothing."""
    data = b"x" * (1 << 20)
    assert (await any_session.command.run("exit 3", stdin=data)).exit_code == 3
    process = await any_session.command.start("exit 4", stdin=data)
    assert await process.wait(20) == 4
    await process.remove()
    assert not await any_session.command.run("echo 'unfinished", stdin=data)


async def test_merged_streams(any_session: AsyncSession) -> None:
    """Both streams arrive as one, in the order of writing."""
    result = (await any_session.command.run(_BOTH, merge_stderr=True)).check()
    assert (result.stdout, result.stderr, result.output) == (_MERGED, "", _MERGED)
    listed = await any_session.command.run(["sh", "-c", _BOTH], merge_stderr=True)
    assert (listed.stdout, listed.stderr) == (_MERGED, "")
    process = await any_session.command.start(_BOTH, merge_stderr=True)
    assert (await process.stdout.read(), await process.stderr.read()) == (_MERGED, "")
    await process.remove()
    wrong = await any_session.command.run("echo 'unfinished", merge_stderr=True)
    assert "nterminated" in wrong.stdout
    assert wrong.stderr == ""


async def test_bytes_of_both_streams(session: AsyncSession) -> None:
    """The local runtime sends the bytes of what is no text, and of text they are the same."""
    result = await session.command.run(r"printf 'a\377b'; printf '\376' >&2")
    assert (result.stdout_bytes, result.stderr_bytes) == (b"a\xffb", b"\xfe")
    assert (result.stdout, result.stderr) == ("a\N{REPLACEMENT CHARACTER}b", "\N{REPLACEMENT CHARACTER}")
    assert "bytes" not in repr(result)
    json.dumps({name: value for name, value in vars(result).items() if name != "exception"})
    text = await session.command.run("printf ünï")
    assert (text.stdout_bytes, text.stderr_bytes) == ("ünï".encode(), b"")
    large = await session.command.run("head -c 3000000 /dev/zero | tr '\\0' '\\377'")
    assert large.stdout_bytes == b"\xff" * 3_000_000


async def test_callbacks(any_session: AsyncSession) -> None:
    """Output is handed out while the command runs, whole characters at a time."""
    told: list[tuple[str, str]] = []
    script = r"printf '\303'; echo err >&2; sleep 0.5; printf '\274\n'; until [ -f go ]; do sleep 0.05; done; exit 3"

    async def on_stdout(text: str) -> None:
        told.append(("stdout", text))
        if "ü" in text:  # the command waits for this, so it has been told while it runs
            await any_session.file_system.write_file("go", "")

    result = await any_session.command.run(
        script, on_stdout=on_stdout, on_stderr=lambda text: told.append(("stderr", text))
    )
    assert "".join(text for name, text in told if name == "stdout") == "ü\n"
    assert ("stderr", "err\n") in told
    assert (result.exit_code, result.stdout, result.stderr) == (3, "ü\n", "err\n")
    assert (result.stdout_bytes, bool(result)) == ("ü\n".encode(), False)
    assert await any_session.command.list() == []


async def test_callbacks_with_everything(any_session: AsyncSession) -> None:
    """Arguments, input, merged streams, a directory and variables go together with callbacks."""
    told: list[str] = []
    argv = ["sh", "-c", 'cat; pwd >&2; echo "$NAME"']
    result = await any_session.command.run(
        argv, cwd="/tmp", envs={"NAME": "value"}, stdin=b"in\n", merge_stderr=True, on_stdout=told.append
    )
    assert "".join(told) == result.check().stdout == "in\n/tmp\nvalue\n"
    assert result.stderr == ""
    assert (await any_session.command.run("cat; echo end", on_stderr=told.append)).stdout == "end\n"  # nothing to read


async def test_callbacks_and_time(any_session: AsyncSession) -> None:
    """At its time limit a followed command is killed, and its output so far is told."""
    told: list[str] = []
    result = await any_session.command.run("echo early; exec sleep 307", timeout_ms=1500, on_stdout=told.append)
    assert isinstance(result.exception, CommandTimeoutError)
    assert (result.exit_code, result.exception.stdout, told) == (-1, "early\n", ["early\n"])
    assert (await any_session.command.run("pgrep -x -f 'sleep 307'")).exit_code == 1


async def test_a_callback_that_raises(any_session: AsyncSession, caplog: pytest.LogCaptureFixture) -> None:
    """What a callback raises is logged and ends nothing."""

    def fail(text: str) -> None:
        raise ValueError(text)

    assert (await any_session.command.run("echo x; echo y", on_stdout=fail)).stdout == "x\ny\n"
    assert "raised an exception" in caplog.text


async def test_a_directory_that_cannot_be_entered(any_session: AsyncSession) -> None:
    """It is a typed error of `run`, with and without callbacks, and of `start`."""
    await any_session.command.run("echo x > file; mkdir -m 0 closed")
    wrong = {"none": PathNotFoundError, "file": PathNotDirectoryError, "closed": PathPermissionError}
    for cwd, kind in wrong.items():
        for result in (
            await any_session.command.run("echo ran", cwd=cwd),
            await any_session.command.run(["echo", "ran"], cwd=cwd, stdin="x"),
            await any_session.command.run("echo ran", cwd=cwd, on_stdout=print),
        ):
            assert isinstance(result.exception, kind), (cwd, result)
            assert isinstance(result.exception, OSError)
            assert (result.exit_code, result.stdout) == (-1, "")
            assert (result.exception.path or "").endswith(cwd)
        with pytest.raises(kind):
            await any_session.command.start("echo ran", cwd=cwd)
    own = await any_session.command.run("exit 126", cwd="/tmp")
    assert (own.exit_code, own.exception) == (126, None)


@pytest.mark.parametrize(
    "said",
    [
        json.dumps({"exit_code": 126, "stdout": "", "stderr": "sh: 1: cd: can't cd to /none\n"}),
        "Execution failed. Error code:-1 Error message: chdir /none: no such file or directory",
    ],
)
async def test_a_missing_directory_on_the_cloud(said: str) -> None:
    """Where the service gives only words, the directory itself is looked at."""
    failed = "Execution failed. Error code:-32602 Error message: Failed to get file status"
    missing = f"{failed}: /none, error: No such file or directory"
    script = {"shell": tool_says(said, is_error=True), "get_file_info": tool_says(missing, is_error=True)}
    with Service(script) as service:
        async with client_of(service) as (files, _):
            result = await files.session.command.run("pwd", cwd="/none")
    assert isinstance(result.exception, PathNotFoundError)
    assert (result.exit_code, result.exception.path) == (-1, "/none")


async def test_a_command_that_fails_on_the_cloud() -> None:
    """The failure of a command in a directory that is there stays its own."""
    said = json.dumps({"exit_code": 126, "stdout": "", "stderr": "x: Permission denied\n"})
    there = tool_says("size: 1\nisDirectory: true")
    with Service({"shell": tool_says(said, is_error=True), "get_file_info": there}) as service:
        async with client_of(service) as (files, _):
            result = await files.session.command.run("./x", cwd="/tmp")
    assert (result.exit_code, result.exception) == (126, None)


async def test_what_the_cloud_is_sent() -> None:
    """A service gets a command line, quoted for its shell, and no field that it does not know."""
    with Service(tool_says(json.dumps({"exit_code": 0, "stdout": "x", "stderr": ""}))) as service:
        async with client_of(service) as (files, sent):
            await files.session.command.run(["printf", "a b", "$HOME"])
            assert sent() == ("shell", {"command": "printf 'a b' '$HOME'", "timeout_ms": 50_000})
            await files.session.command.run("make", merge_stderr=True)
            assert sent()[1]["command"] == "exec 2>&1; eval ' make'"
            result: Any = await files.session.command.run("cat", stdin="text")
            names = [request.tool for request in service.requests]
            assert (names[-2:], result.stdout_bytes) == (["write_file", "shell"], b"x")
            assert not isinstance(result.exception, FileError)
