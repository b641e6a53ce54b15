"""The framework's own tests of terminals, patches and agents in sandboxes; and whole lives of ours."""

from __future__ import annotations

import asyncio
import copy
import io
import os
import sys
import warnings
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
from agents import Agent, RunConfig, Runner, function_tool
from agents.mcp import MCPServerStdio
from agents.run_state import RunState
from agents.sandbox import LocalSnapshotSpec, Manifest, SandboxAgent, SandboxRunConfig
from agents.sandbox.capabilities import Filesystem, Shell
from agents.sandbox.entries import Dir, File
from agents.sandbox.errors import (
    ConfigurationError,
    ExecTimeoutError,
    ExposedPortUnavailableError,
    InvalidManifestPathError,
    WorkspaceStartError,
)
from agents.sandbox.manifest import Environment
from agents.sandbox.types import User
from agents.strict_schema import ensure_strict_json_schema
from agents.testing import ScriptedModel, assistant_message, function_call
from documented import run_example
from gate import gate_to_runtime

from agentbay import AgentBay, CreateSessionParams, Session
from agentbay.errors import NotFoundError
from agentbay.integrations._openai_agents_session import AgentBaySandboxSessionState
from agentbay.integrations.openai_agents import (
    AgentBaySandboxClient,
    AgentBaySandboxClientOptions,
    AgentBaySandboxSession,
)
from agentbay.testing import LocalRuntime

pytestmark = [
    pytest.mark.usefixtures("agentbay_environment"),
    # the framework's tests of patches read their dictionary of files on the loop
    pytest.mark.filterwarnings("ignore:This blocks the running event loop"),
]
sys.path.insert(0, os.environ["FRAMEWORK_SOURCE"])
warnings.simplefilter("ignore", pytest.PytestUnknownMarkWarning)  # the framework's own marks


def take(module: ModuleType, *names: str) -> None:
    """Give tests of the framework our client, and add them to this module."""
    for name in ("UnixLocalSandboxClient", "UnixLocalSandboxClientOptions"):
        if hasattr(module, name):
            setattr(module, name, globals()[name.replace("UnixLocal", "AgentBay")])
    globals().update({name: found for name, found in vars(module).items() if name.startswith(names)})


take(import_module("tests.sandbox.test_run_cwd"), "test_")
take(import_module("tests.sandbox.test_exposed_ports"), "test_unix_local_resolve")
terminals = import_module("tests.sandbox.test_unix_local")
take(terminals, "TestUnixLocalPty", "TestUnixLocalApplyPatchRename")
# These look into the framework's own implementation of terminals; the last one needs a disk that folds names.
del terminals.TestUnixLocalPty.test_tty_start_cancellation_closes_open_file_descriptors
del terminals.TestUnixLocalPty.test_tty_fd_close_is_owned_without_blocking_termination
del terminals.TestUnixLocalPty.test_pty_exit_waits_for_output_close_before_terminal_cleanup
del terminals.TestUnixLocalApplyPatchRename.test_case_only_move_to_keeps_the_file


class SessionFiles(MutableMapping[Path, bytes]):
    """The files of a session, as the dictionary of the framework's tests of patches."""

    def __init__(self, session: Session) -> None:
        self._files = session.file_system

    def __getitem__(self, path: Path) -> bytes:
        try:
            return self._files.read_file(str(path), format="bytes").unwrap().content
        except FileNotFoundError as error:
            raise KeyError(path) from error

    def __setitem__(self, path: Path, content: bytes) -> None:
        self._files.write_file(str(path), content).unwrap()

    def __delitem__(self, path: Path) -> None:
        self._files.delete_file(str(path)).unwrap()

    def __iter__(self) -> Iterator[Path]:
        found = self._files.search_files("/workspace", "**").unwrap().matches
        return (Path(path) for path in found)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class PatchedSession(AgentBaySandboxSession):
    """A sandbox for the tests of patches, which keeps what they ask about."""

    place: ClassVar[Any] = None  # the session of the test

    def __init__(self, manifest: Manifest | None = None) -> None:
        super().__init__(
            AgentBaySandboxSessionState(
                manifest=manifest or Manifest(root="/workspace"),
                snapshot={"type": "noop", "id": "noop"},
                sandbox_id=self.place.handle.session_id,
            ),
            self.place.async_handle,
        )
        self.files = SessionFiles(self.place.handle)
        self.place.handle.file_system.create_directory(self.state.manifest.root).unwrap()
        self.mkdir_calls: list[tuple[Path, bool]] = []
        self.rm_calls: list[tuple[Path, bool]] = []
        self.mv_calls: list[tuple[Path, Path]] = []

    async def mkdir(self, path: Path | str, *, parents: bool = False, user: str | User | None = None) -> None:
        self.mkdir_calls.append((self.normalize_path(path), parents))
        await super().mkdir(path, parents=parents, user=user)

    async def rm(self, path: Path | str, *, recursive: bool = False, user: str | User | None = None) -> None:
        self.rm_calls.append((self.normalize_path(path), recursive))
        await super().rm(path, recursive=recursive, user=user)

    async def mv(self, source: Path | str, destination: Path | str, *, user: str | User | None = None) -> None:
        self.mv_calls.append((self.normalize_path(source), self.normalize_path(destination)))
        await super().mv(source, destination, user=user)


patches: Any = import_module("tests.sandbox.test_apply_patch")
patches.ApplyPatchSession = PatchedSession


def uses_sessions(name: str, found: Any) -> bool:
    """Tell whether a test of patches is about sandboxes, and not about doubles that fold names or fail."""
    if not name.startswith("test_") or name.startswith("test_fallback_move"):
        return False
    return {used for used in found.__code__.co_names if used.endswith("ApplyPatchSession")} == {"ApplyPatchSession"}


globals().update({name: found for name, found in vars(patches).items() if uses_sessions(name, found)})


@pytest.fixture(autouse=True)
def place(request: pytest.FixtureRequest, agentbay_local: LocalRuntime) -> Iterator[None]:
    """Make a session for a test of patches."""
    if request.function.__module__ != patches.__name__:
        yield
        return
    with agentbay_local.agent_bay() as bay, bay.session(CreateSessionParams(writable=["/"])) as session:
        found = asyncio.run(agentbay_local.async_agent_bay().get(session.session_id)).unwrap().session
        PatchedSession.place = SimpleNamespace(handle=session, async_handle=found)
        yield


@pytest.fixture
def bay(agentbay_local: LocalRuntime) -> Iterator[AgentBay]:
    with agentbay_local.agent_bay() as bay:
        yield bay


MANIFEST = Manifest(
    entries={
        "notes": Dir(children={"given.txt": File(content=b"given\n")}),
        "scratch.txt": File(content=b"not kept\n", ephemeral=True),
    },
    environment=Environment(value={"GREETING": "hello"}),
)


async def run(session: Any, command: str, **options: Any) -> str:
    done = await session.exec(command, **options)
    assert done.ok(), done.stderr
    return done.stdout.decode()


async def read(session: Any, path: str) -> bytes:
    return (await session.read(Path(path))).read()


def list_sessions(bay: AgentBay) -> list[str]:
    return [found["sessionId"] for found in bay.list(labels={"framework": "openai-agents"}).unwrap().session_ids]


async def test_agent_over_a_pause(bay: AgentBay, tmp_path: Path) -> None:
    """A run that waits for approval is stored as JSON, its files come back in another session, and none is left."""

    @function_tool(needs_approval=True)
    def approve() -> str:
        return "approved"

    def make_agent(*steps: Any) -> SandboxAgent:
        model = ScriptedModel([[step] for step in steps])
        return SandboxAgent(
            name="worker", model=model, default_manifest=MANIFEST, tools=[approve], capabilities=[Shell(), Filesystem()]
        )

    client = AgentBaySandboxClient()
    config = RunConfig(sandbox=SandboxRunConfig(client=client, snapshot=LocalSnapshotSpec(base_path=tmp_path)))
    command = "cat notes/given.txt && echo $GREETING > made.txt"
    steps = [function_call("exec_command", {"cmd": command}, call_id="1"), function_call("approve", {}, call_id="2")]
    sessions = list_sessions(bay)
    agent = make_agent(*steps)
    first = await Runner.run(agent, "Go.", run_config=config)
    assert len(first.interruptions) == 1
    assert "given" in str(first.new_items)
    stored = first.to_state().to_json()
    assert list_sessions(bay) == sessions

    again = make_agent(
        function_call("exec_command", {"cmd": "cat made.txt scratch.txt"}, call_id="3"),
        assistant_message("hello was kept"),
    )
    state = await RunState.from_json(again, stored)
    state.approve(state.get_interruptions()[0])
    second = await Runner.run(again, state, run_config=config)
    assert second.final_output == "hello was kept"
    assert "hello\nnot kept" in [item for item in second.new_items if item.type == "tool_call_output_item"][-1].output
    assert list_sessions(bay) == sessions
    await client.aclose()


async def test_paused_session(agentbay_local: LocalRuntime) -> None:
    """A session that is paused at the end goes on with its processes, and `delete` ends it."""
    async with agentbay_local.async_agent_bay() as bay:
        client = AgentBaySandboxClient(bay)
        options = AgentBaySandboxClientOptions(pause_on_exit=True)
        async with await client.create(manifest=MANIFEST, options=options) as session:
            await run(session, "sleep 600 & echo $! > pid")
        state = client.deserialize_session_state(client.serialize_session_state(session.state))
        async with await client.resume(state) as resumed:
            assert resumed.state.sandbox_id == session.state.sandbox_id
            await run(resumed, "kill -0 $(cat pid)")
        await client.delete(resumed)
        assert isinstance((await bay.get(state.sandbox_id)).exception, NotFoundError)
        await client.delete(resumed)  # again does nothing


async def test_session_that_has_ended(bay: AgentBay, tmp_path: Path) -> None:
    """A sandbox that somebody deleted is made again from the snapshot."""
    async with AgentBaySandboxClient() as client:
        session = await client.create(manifest=MANIFEST, snapshot=LocalSnapshotSpec(base_path=tmp_path))
        await session.start()
        await run(session, "mkdir -p keep skip 'a b'; echo 1 > keep/a; echo 2 > skip/b; ln -s ../keep/a 'a b/link'")
        session.register_persist_workspace_skip_path("skip")
        await session.stop()
        assert bay.delete(session.state.sandbox_id).success
        assert not await session.running()
        async with await client.resume(session.state) as resumed:
            names = (await run(resumed, "find . -mindepth 1 | sort")).split("\n")
            assert names == [
                "./a b",
                "./a b/link",
                "./keep",
                "./keep/a",
                "./notes",
                "./notes/given.txt",
                "./scratch.txt",
                "",
            ]
            assert await read(resumed, "a b/link") == b"1\n"


async def test_commands_and_files() -> None:
    """Bytes, time limits, places outside of the workspace, ports and users."""
    async with AgentBaySandboxClient() as client, await client.create() as session:
        done = await session.exec("printf '\\000\\377'; echo bad >&2; exit 3")
        assert (done.stdout, done.stderr, done.exit_code) == (b"\0\xff", b"bad\n", 3)
        with pytest.raises(ExecTimeoutError):
            await session.exec("sleep 60", timeout=0.3)
        await session.write(Path("deep/er/data"), io.BytesIO(bytes(range(256)) * 4096))
        assert await read(session, "deep/er/data") == bytes(range(256)) * 4096
        assert await session.read_bounded(Path("deep/er/data"), max_bytes=3) == b"\0\1\2"
        for outside in ("/etc/passwd", "../x"):
            with pytest.raises(InvalidManifestPathError):
                await session.read(Path(outside))
        with pytest.raises(ConfigurationError, match="'root'"):
            await session.exec("true", user="root")
        assert session._inner.session.get_link  # what sandboxes of the framework cannot do is there
    with pytest.raises(ConfigurationError, match="one user"):
        await client.create(manifest=Manifest(users=[User(name="somebody")]))


async def test_options(bay: AgentBay) -> None:
    """Roots anywhere, the network and ports are those of the session."""
    async with AgentBaySandboxClient() as client:
        options = AgentBaySandboxClientOptions(network=(), exposed_ports=(8000,), writable=("/logs",))
        async with await client.create(manifest=Manifest(root="/app/work"), options=options) as session:
            assert await run(session, "pwd; touch /logs/x; ls /logs") == "/app/work\nx\n"
            assert not (
                await session.exec("python3 -c 'import urllib.request as r; r.urlopen(\"http://pypi.org\")'")
            ).ok()
            with pytest.raises(ExposedPortUnavailableError) as refused:
                await session.resolve_exposed_port(8000)
            assert "get_link" in str(refused.value.context)
        sessions = list_sessions(bay)
        with pytest.raises(WorkspaceStartError, match="/proc/none"):
            await (await client.create(manifest=Manifest(root="/tmp/../proc/none"))).start()
        assert list_sessions(bay) == sessions


async def test_programs(bay: AgentBay) -> None:
    """A program that takes too long is killed, and one that outlives its sandbox is reported lost."""
    async with AgentBaySandboxClient() as client, await client.create() as session:
        late = await session.pty_exec_start("echo begun; sleep 60", timeout=0.5, yield_time_s=5)
        assert late.output == b"begun\n[killed after 0.5 s]\n"
        assert late.process_id is None
        started = await session.pty_exec_start("cat", tty=True, yield_time_s=0.3)
        assert bay.delete(session.state.sandbox_id).success
        lost = await session.pty_write_stdin(session_id=started.process_id, chars="", yield_time_s=5)
        assert lost.exit_code is not None


async def test_cancelled_creation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A creation that is cancelled leaves no session."""
    async with gate_to_runtime(monkeypatch) as gate, AgentBaySandboxClient() as client:
        await gate.cancel(client.create())


async def test_strict_client(agentbay_local: LocalRuntime) -> None:
    """A client that raises what others return makes no difference."""
    async with (
        agentbay_local.async_agent_bay(strict=True) as bay,
        AgentBaySandboxClient(bay) as client,
        await client.create() as session,
    ):
        with pytest.raises(ExecTimeoutError):
            await session.exec("sleep 60", timeout=0.3)
        assert (await bay.delete(session.state.sandbox_id)).success
        await client.delete(session)


async def test_tools_over_mcp() -> None:
    """Every tool of `agentbay mcp` has a schema that strict function calls take, and an agent uses them."""
    command = {"command": sys.executable, "args": ["-m", "agentbay", "mcp", "--local"]}
    async with MCPServerStdio(params=command, client_session_timeout_seconds=60) as server:
        for tool in await server.list_tools():
            schema = ensure_strict_json_schema(copy.deepcopy(tool.input_schema))
            assert set(schema["required"]) == set(tool.input_schema["properties"])
        call = function_call("run_command", {"command": "printf", "arguments": ["%s", "6 * 7"]}, call_id="1")
        model = ScriptedModel([[call], [assistant_message("done")]])
        agent = Agent(name="runner", model=model, mcp_servers=[server], mcp_config={"convert_schemas_to_strict": True})
        result = await Runner.run(agent, "Go.")
        assert "6 * 7" in str([item for item in result.new_items if item.type == "tool_call_output_item"])


def test_documented_example(bay: AgentBay) -> None:
    """The example of the documentation runs an agent, and leaves no session."""
    sessions = list_sessions(bay)
    call = function_call("exec_command", {"cmd": "echo $((6 * 7))"}, call_id="1")
    model = ScriptedModel([[call], [assistant_message("done")]])
    result = run_example("openai_agents", model=model)["result"]
    assert result.final_output == "done"
    assert "42" in next(item for item in result.new_items if item.type == "tool_call_output_item").output
    assert list_sessions(bay) == sessions
