"""Sessions on the private runtime, as a user has them."""

from __future__ import annotations

import pickle
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest

from agentbay import (
    AsyncAgentBay,
    AsyncSession,
    ClientClosedError,
    CodeTimeoutError,
    CommandError,
    CommandTimeoutError,
    ConflictError,
    CreateSessionParams,
    FileError,
    GitTimeoutError,
    InvalidArgumentError,
    LocalOptions,
    QuotaExceededError,
    SessionError,
    SessionNotFoundError,
)
from agentbay.local.options import Options
from agentbay.models.local_options import OF_THE_LAUNCHER, option_name
from tests.at_once import async_at_once


async def test_session_is_deleted_at_the_end_of_its_block(bay: AsyncAgentBay) -> None:
    """A session lives as long as its `with` block, also when that raises."""

    seen: list[AsyncSession] = []

    async def live() -> None:
        async with bay.session() as session:
            seen.append(session)
            assert (await session.get_status()).status == "RUNNING"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await live()
    assert (await seen[0].get_status()).status == "FINISH"
    assert isinstance((await bay.get(seen[0].session_id)).exception, SessionNotFoundError)


async def test_networks() -> None:
    """The network is chosen for the runtime, or by policy for a session."""
    async with AsyncAgentBay.local(network="none", allow_hosts=["registry.test", "10.0.0.7:8080"]) as bay:
        async with bay.session() as session:
            assert (
                await session.command.run("echo $HTTP_PROXY; curl -s http://127.0.0.1:3128; echo $?")
            ).output == "\n7\n"
            assert (await session.info()).unwrap().data.policy_id == "none"
        async with bay.session(CreateSessionParams(policy_id="proxy")) as session:
            result = await session.command.run("curl -s http://other.test")
            assert "agentbay: other.test:80 is not allowed" in result.output
            assert (await session.info()).unwrap().data.policy_id == "proxy"
        refused = await bay.create(CreateSessionParams(policy_id="lan"))
        assert not refused
        assert "none, proxy, host" in refused.error_message


async def test_without_namespaces() -> None:
    """Without namespaces sessions are processes that end with their block."""
    async with AsyncAgentBay.local(isolation="none") as bay, bay.session() as session:
        assert await session.file_system.write_file("/home/wuying/a.txt", "text")
        assert (await session.command.run("cat a.txt")).output == "text"
        assert (await session.pause_async()).success
        assert (await session.resume_async()).success
        assert (await session.command.run("cat ~/a.txt")).output == "text"


async def test_places_that_programs_know(bay: AsyncAgentBay) -> None:
    """`/workspace` and homes of cloud images are the session's home."""
    async with bay.session() as session:
        for number, place in enumerate(("/workspace", "/home/user", "/home/guest")):
            assert await session.file_system.create_directory(f"{place}/{number}")
            assert await session.file_system.write_file(f"{place}/{number}/file", place)
        assert (await session.command.run("cat ?/file")).output == "/workspace/home/user/home/guest"


async def test_what_takes_no_time_limit(bay: AsyncAgentBay) -> None:
    """None as a time limit is the default, and non-numbers are refused."""
    async with bay.session() as session:
        assert await session.command.run("true", timeout_ms=None)
        refused = await session.command.run("true", timeout_ms="5")  # type: ignore[arg-type]
        assert refused.error_message == "timeout_ms must be a number or None, not '5' (str)"
    assert "params must be a CreateSessionParams" in (await bay.create("linux_latest")).error_message  # type: ignore[arg-type]
    assert "limit must be a whole number" in (await bay.list(limit="5")).error_message  # type: ignore[arg-type]


async def test_session_may_be_deleted_inside_its_block(bay: AsyncAgentBay) -> None:
    """A session may be deleted inside its block."""
    async with bay.session() as session:
        assert await session.delete()
    assert not await session.delete()


async def test_many_sessions_through_one_client(bay: AsyncAgentBay) -> None:
    """A hundred sessions run through one client at once."""

    async def live(number: int) -> str:
        async with bay.session(CreateSessionParams(labels={"number": str(number)})) as session:
            await session.file_system.write_file("number.txt", str(number))
            return (await session.command.run("cat number.txt")).output

    outputs = await async_at_once([partial(live, number) for number in range(100)])
    assert outputs == [str(number) for number in range(100)]
    assert (await bay.list()).total_count == 0


async def test_sessions_do_not_see_each_other(bay: AsyncAgentBay) -> None:
    """Sessions see neither files nor processes of each other."""
    async with bay.session() as one, bay.session() as other:
        await one.file_system.write_file("/tmp/secret", "one's")
        await one.command.run("sleep 1000 > /dev/null 2>&1 &")
        assert not await other.file_system.read_file("/tmp/secret")
        assert "sleep" not in (await other.command.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")).output


async def test_pause_stops_everything_and_loses_nothing(bay: AsyncAgentBay) -> None:
    """A paused session stands still, refuses work, and continues on resume."""
    async with bay.session() as session:
        await session.command.run("(while :; do echo >> count; sleep 0.01; done) > /dev/null 2>&1 &")
        await session.command.run("until [ -s count ]; do sleep 0.05; done", timeout_ms=60_000)
        assert (await session.pause(timeout=60)).status == "PAUSED"
        assert isinstance((await session.command.run("true")).exception, ConflictError)
        assert isinstance((await session.pause()).exception, ConflictError)
        assert (await session.resume(timeout=60)).status == "RUNNING"
        grows = "before=$(wc -l < count); until [ $(wc -l < count) -gt $before ]; do sleep 0.05; done"
        assert (await session.command.run(grows, timeout_ms=60_000)).success


async def test_begun_pause_is_waited_for_by_looking(bay: AsyncAgentBay) -> None:
    """`pause_async` and `resume_async` begin what `get_session` then shows."""
    async with bay.session() as session:
        assert await session.pause_async()
        data = (await bay.get_session(session.session_id)).unwrap().data
        assert data is not None
        assert data.status in ("PAUSING", "PAUSED")


async def test_command_outcomes(bay: AsyncAgentBay) -> None:
    """Exit codes are data, `check` raises, and a timeout carries the output."""
    async with bay.session() as session:
        failed = await session.command.run("echo said; echo why >&2; exit 7")
        assert (failed.exit_code, failed.stdout, failed.stderr) == (7, "said\n", "why\n")
        assert failed.unwrap() is failed
        with pytest.raises(CommandError, match="exited with 7: why"):
            failed.check()
        late = await session.command.run("echo begun; sleep 600", timeout_ms=3000)
        assert (late.exit_code, late.output) == (-1, "")
        with pytest.raises(CommandTimeoutError) as caught:
            late.unwrap()
        assert caught.value.stdout == "begun\n"


@pytest.mark.parametrize("size", [0, 1, 51 * 1024, 200_000])
async def test_files_survive_their_size(bay: AsyncAgentBay, size: int) -> None:
    """Long multi-byte text comes back unchanged, as text and as bytes."""
    text = "é" * size
    async with bay.session() as session:
        assert await session.file_system.write_file("deep/er/file.txt", text)
        assert (await session.file_system.read_file("deep/er/file.txt")).content == text
        assert (await session.file_system.read_file("deep/er/file.txt", format="bytes")).content == text.encode()


async def test_upload_over_a_directory(tmp_path: Path) -> None:
    """An uploaded file does not replace a directory."""
    (tmp_path / "file").write_text("file")
    async with AsyncAgentBay.local() as bay, bay.session() as session:
        files = session.file_system
        top = await files.get_file_transfer_context_path()
        assert await files.write_file(f"{top}/project/main.py", "work")
        result = await files.upload_file(tmp_path / "file", f"{top}/project")
        assert "Is a directory" in result.error_message
        assert (await files.read_file(f"{top}/project/main.py")).content == "work"


@pytest.mark.parametrize("name", ["[DIR] x", "[FILE]y", "a b", "---", "ünï", "new\nline", " lead"])
async def test_names_survive(bay: AsyncAgentBay, name: str) -> None:
    """A file's name comes back in a listing whatever it contains."""
    async with bay.session() as session:
        assert await session.file_system.write_file(f"names/{name}", "x")
        listed = (await session.file_system.list_directory("names")).unwrap()
        assert [entry.name for entry in listed.entries] == [name]


async def test_file_failures(bay: AsyncAgentBay) -> None:
    """Missing files, directories and read-only places fail with the path."""
    async with bay.session() as session:
        for result, path in (
            (await session.file_system.read_file("none.txt"), "none.txt"),
            (await session.file_system.read_file("/tmp"), "/tmp"),
            (await session.file_system.list_directory("/none"), "/none"),
            (await session.file_system.write_file("/usr/x", "x"), "/usr/x"),
        ):
            assert isinstance(result.exception, FileError)
            assert path in result.error_message


async def test_pages_and_iteration(bay: AsyncAgentBay) -> None:
    """The iterator reads all pages, and a page too many fails."""
    made = [(await bay.create(CreateSessionParams(labels={"n": "x"}))).unwrap().session for _ in range(5)]
    ids = [session.session_id for session in made if session]
    pages = [(await bay.list({"n": "x"}, page=page, limit=2)).unwrap() for page in (1, 2, 3)]
    assert [item["sessionId"] for page in pages for item in page.session_ids] == ids
    assert [page.total_count for page in pages] == [5, 5, 5]
    assert [item["sessionId"] async for item in bay.iter_sessions({"n": "x"}, limit=2)] == ids
    assert [item["sessionId"] async for item in bay.list({"n": "x"}, limit=2)] == ids
    assert [item["sessionId"] async for item in bay.list({"n": "x"}, 2, 2)] == ids[2:]
    assert pickle.loads(pickle.dumps(pages[0])).session_ids == pages[0].session_ids
    with pytest.raises(InvalidArgumentError, match="No more pages"):
        assert [item async for item in bay.list({"n": "x"}, page=4, limit=2)] == []
    assert "No more pages" in (await bay.list({"n": "x"}, page=4, limit=2)).error_message
    for session in made:
        assert session
        assert await session.delete()


async def test_strict_client_raises() -> None:
    """With `strict` every failure raises its own class."""
    async with AsyncAgentBay.local(strict=True) as bay:
        with pytest.raises(SessionNotFoundError):
            await bay.get("session-none")
        async with bay.session() as session:
            with pytest.raises(SessionError):
                await session.get_link(port=70000)
            assert (await session.command.run("exit 3")).exit_code == 3
            with pytest.raises(CommandTimeoutError) as caught:
                await session.command.run("echo begun; sleep 60", timeout_ms=500)
            assert caught.value.stdout == "begun\n"
            with pytest.raises(CodeTimeoutError):
                await session.code.run_code("import time; time.sleep(60)", "python", timeout_s=1)
            with pytest.raises(GitTimeoutError):
                await session.git.clone("http://127.0.0.1:9/a", timeout_ms=1)


async def test_output_above_the_limit_is_marked() -> None:
    """A result says when the service dropped output above its limit."""
    async with AsyncAgentBay.local() as bay, bay.session() as session:
        write = "head -c 68000000 /dev/zero | tr '\\0' x"
        result = await session.command.run(f"{write} >&2; echo end", timeout_ms=50_000)
        assert (result.exit_code, result.truncated, result.stdout) == (0, True, "end\n")
        assert not (await session.command.run("echo hi")).truncated
        result = await session.command.run(f"{write}; sleep 60", timeout_ms=8_000)
        assert isinstance(result.exception, CommandTimeoutError)
        assert (result.truncated, result.exception.truncated) == (True, True)


async def test_closed_client_says_so() -> None:
    """Every call of a closed client raises, and closing twice is harmless."""
    bay = AsyncAgentBay.local()
    await bay.aclose()
    await bay.aclose()
    with pytest.raises(ClientClosedError):
        await bay.list()


async def test_limits_of_a_private_runtime() -> None:
    """`local` takes the limits of `agentbay local`, as numbers and as texts."""
    options = LocalOptions(max_sessions=1, session_memory="256MiB", session_processes=40, output_limit=1000)
    async with AsyncAgentBay.local(**options) as bay, bay.session() as session:
        assert isinstance((await bay.create()).exception, QuotaExceededError)
        assert (await session.command.run("bash -c 'ulimit -u'")).output == "40\n"
        assert len((await session.command.run("head -c 5000 /dev/zero | tr '\\0' x")).output) <= 1000
        hoard = await session.command.run("python3 -c \"x = b'x' * (1 << 30); print(len(x))\"")
        assert hoard.exit_code == 137


def test_options_that_are_wrong() -> None:
    """An unknown option is refused with the one that was meant, a wrong type by name."""
    with pytest.raises(TypeError, match="did you mean 'max_sessions'"):
        AsyncAgentBay.local(max_session=1)  # type: ignore[call-arg]
    with pytest.raises(InvalidArgumentError, match="session_processes must be a whole number"):
        AsyncAgentBay.local(session_processes="many")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="link_url must be"):
        AsyncAgentBay.local(link_url="maybe")  # type: ignore[arg-type]


def test_options_are_those_of_the_command() -> None:
    """Every option of `agentbay local` is one of `local`, but for those of a service for others."""
    serving = {
        "host",
        "server_name",
        "port",
        "published",
        "socket",
        "tls_cert",
        "tls_key",
        "drain",
        "log_level",
        "log_format",
    }
    of_the_command = {f"--{option.name.replace('_', '-')}" for option in fields(Options) if option.name not in serving}
    of_the_launcher = {option_name(name) for name in OF_THE_LAUNCHER}
    assert {option_name(name) for name in LocalOptions.__annotations__} == of_the_command | of_the_launcher
