"""Examples of the API reference.

`docs/generate/reference.py` shows the body of each test below the method it is named after.
"""

from __future__ import annotations

from agentbay import AsyncAgentBay, AsyncSession, BetaContextMount, ContextSync, CreateSessionParams


async def test_client() -> None:
    """A client and its private runtime close at the end of the block."""
    async with AsyncAgentBay.local() as bay, bay.session() as session:
        print((await session.command.run("hostname")).output)


async def test_client_create(bay: AsyncAgentBay) -> None:
    """The result has the session, and `unwrap` raises where there is none."""
    params = CreateSessionParams(image_id="linux_latest", labels={"project": "demo"})
    session = (await bay.create(params)).unwrap().session
    (await session.delete()).unwrap()


async def test_client_get(bay: AsyncAgentBay, session: AsyncSession) -> None:
    """A session is found by its id."""
    again = (await bay.get(session.session_id)).unwrap().session
    assert again.session_id == session.session_id


async def test_client_list(bay: AsyncAgentBay, session: AsyncSession) -> None:
    """Labels find sessions."""
    await session.set_labels({"project": "listed"})
    found = (await bay.list(labels={"project": "listed"})).unwrap()
    assert [item["sessionId"] for item in found.session_ids] == [session.session_id]


async def test_session(session: AsyncSession) -> None:
    """Everything in a session hangs on it."""
    (await session.file_system.write_file("hello.txt", "hello\n")).unwrap()
    assert (await session.command.run("cat hello.txt")).output == "hello\n"


async def test_session_delete(bay: AsyncAgentBay) -> None:
    """A result that is true says that the session is gone."""
    session = (await bay.create()).unwrap().session
    result = await session.delete()
    assert result.success, result.error_message


async def test_session_set_labels(session: AsyncSession) -> None:
    """Labels are replaced as a whole."""
    (await session.set_labels({"project": "demo", "owner": "ada"})).unwrap()
    assert (await session.get_labels()).data == {"project": "demo", "owner": "ada"}


async def test_session_info(session: AsyncSession) -> None:
    """`data` is a SessionInfo."""
    info = (await session.info()).unwrap().data
    assert info.session_id == session.session_id
    assert info.resource_url


async def test_session_get_link(session: AsyncSession) -> None:
    """`data` is a URL with a token of its own."""
    link = (await session.get_link("https", 30100)).unwrap().data
    assert link.startswith("http")


async def test_session_list_mcp_tools(session: AsyncSession) -> None:
    """The tools that the session's image offers."""
    tools = (await session.list_mcp_tools()).tools
    assert "shell" in [tool.name for tool in tools]


async def test_session_call_mcp_tool(session: AsyncSession) -> None:
    """A tool by its name, like those that the services call."""
    result = await session.call_mcp_tool("write_file", {"path": "/tmp/note", "content": "hello"})
    assert result.success, result.error_message


async def test_session_pause(session: AsyncSession) -> None:
    """A paused session stands still, and goes on where it stood."""
    assert (await session.pause(timeout=60)).unwrap().status == "PAUSED"
    assert (await session.resume(timeout=60)).unwrap().status == "RUNNING"


async def test_command(session: AsyncSession) -> None:
    """An exit code is an answer."""
    result = await session.command.run("echo hello; exit 3", cwd="/tmp", timeout_ms=10_000)
    assert (result.exit_code, result.stdout) == (3, "hello\n")


async def test_process(session: AsyncSession) -> None:
    """A command in the background, followed line by line."""
    process = await session.command.start("for n in 1 2 3; do echo $n; done")
    assert [line async for line in process.stdout.lines()] == ["1", "2", "3"]
    assert await process.wait(timeout=30) == 0


async def test_code(session: AsyncSession) -> None:
    """What one cell defines, the next one has."""
    await session.code.run_code("numbers = [1, 2, 3]", "python")
    answer = await session.code.run_code("sum(numbers)", "python")
    assert answer.result == "6"


async def test_filesystem(session: AsyncSession) -> None:
    """Relative paths begin at the home directory."""
    files = session.file_system
    (await files.write_file("notes/plan.txt", "first\nsecond\n")).unwrap()
    assert (await files.read_file("notes/plan.txt")).content == "first\nsecond\n"
    assert [entry.name for entry in (await files.list_directory("notes")).entries] == ["plan.txt"]


async def test_watch(session: AsyncSession) -> None:
    """Changes as they happen."""
    files = session.file_system
    (await files.create_directory("inbox")).unwrap()
    async with files.watch("inbox", interval=0.1) as changes:
        (await files.write_file("inbox/letter", "hi")).unwrap()
        async for change in changes:
            print(change.event_type, change.path)
            break


async def test_context(bay: AsyncAgentBay) -> None:
    """A context is there until it is deleted."""
    context = (await bay.context.create("datasets")).unwrap().context
    assert "datasets" in [found.name for found in (await bay.context.list()).contexts]
    await bay.context.delete(context)


async def test_context_manager(bay: AsyncAgentBay) -> None:
    """What a session writes below the path is in the context after a sync."""
    context = (await bay.context.create("results")).unwrap().context
    params = CreateSessionParams(context_syncs=[ContextSync(context.id, "/tmp/results")])
    async with bay.session(params) as session:
        await session.file_system.write_file("/tmp/results/answer.txt", "42")
        assert await session.context.sync()
    files = await bay.context.list_files(context.id, "/tmp/results")
    assert [entry.file_name for entry in files.entries] == ["answer.txt"]


async def test_context_manager_bind(bay: AsyncAgentBay, session: AsyncSession) -> None:
    """A context is mounted into a session that runs."""
    context = (await bay.context.create("shared-notes")).unwrap().context
    assert await session.context.bind(BetaContextMount(context.id, "/mnt/notes"))


async def test_env(session: AsyncSession) -> None:
    """Variables hold for what begins afterwards."""
    (await session.env.set({"STAGE": "test"})).unwrap()
    assert (await session.command.run("echo $STAGE")).stdout == "test\n"


async def test_git(session: AsyncSession) -> None:
    """Methods of git raise, and paths begin at the home directory."""
    git = session.git
    await git.init("shop", initial_branch="main")
    await git.configure_user("shop", "Ada", "ada@example.com")
    await session.file_system.write_file("shop/README", "A shop.\n")
    await git.add("shop")
    await git.commit("shop", "Begin")
    assert [entry.message for entry in (await git.log("shop")).entries] == ["Begin"]


async def test_pty(session: AsyncSession) -> None:
    """A terminal ends with its shell."""
    seen: list[bytes] = []
    terminal = await session.pty.create(cols=80, rows=24, on_data=seen.append)
    await terminal.send_input(b"echo $((6 * 7)); exit 3\n")
    assert await terminal.wait(timeout_s=30) == 3
    assert b"42" in b"".join(seen)
