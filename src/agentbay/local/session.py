"""One session: its state machine, and the sandbox that it is."""

from __future__ import annotations

import asyncio
import secrets
import socket
import string
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentbay._wire.sessions import SessionDetail
from agentbay.local.changes import Changes
from agentbay.local.hub import Hub
from agentbay.local.journal import Journal
from agentbay.local.kernels.table import ContextFacts, Kernels
from agentbay.local.kernels.transcript import Transcript
from agentbay.local.lifetime import Lifetime
from agentbay.local.refusals import broken, session_not_found, wrong_state
from agentbay.local.sandbox.host import (
    Completed,
    FileOperationFailed,
    NotGiven,
    Running,
    Sandbox,
    SandboxError,
    SandboxGone,
    Terminal,
    Usage,
)
from agentbay.local.storage import Storage

if TYPE_CHECKING:
    from agentbay.local.contexts.bindings import SessionContexts
    from agentbay.local.network.proxy import Door

_ALPHABET = string.digits + string.ascii_lowercase


class State(str, Enum):
    """Where a session stands; the values are those of the wire."""

    CREATING = "CREATING"
    RUNNING = "RUNNING"
    PAUSING = "PAUSING"
    PAUSED = "PAUSED"
    RESUMING = "RESUMING"
    DELETING = "DELETING"
    FINISH = "FINISH"


_BEFORE: dict[State, frozenset[State]] = {
    State.RUNNING: frozenset({State.CREATING, State.RESUMING, State.PAUSING}),  # the last when a pause fails
    State.PAUSING: frozenset({State.RUNNING}),
    State.PAUSED: frozenset({State.PAUSING, State.RESUMING}),  # the last when a resumption fails
    State.RESUMING: frozenset({State.PAUSED}),
    State.DELETING: frozenset(State) - {State.DELETING, State.FINISH},
    State.FINISH: frozenset({State.DELETING}),
}


def make_id(prefix: str, length: int) -> str:
    """Make an id that nobody can guess, in the service's form."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(length))


class Session:
    """A session; made, found and ended by the `SessionTable`.

    Its state changes without a pause in between, so whoever changes it first wins, and the others are refused. What
    then takes time (freezing, thawing, killing) is done one after the other.
    """

    def __init__(
        self,
        *,
        directory: Path,
        session_id: str,
        image_id: str,
        labels: Mapping[str, str],
        lifetime: Lifetime,
        policy_id: str = "",
        region_id: str = "",
        kernels: Kernels | None = None,
    ) -> None:
        self.number = 0  # given when it is ready: the order in which clients see sessions
        self.directory, self.session_id, self.image_id = directory, session_id, image_id
        self.labels = dict(labels)
        self.lifetime = lifetime
        self.policy_id, self.region_id, self.end_reason = policy_id, region_id, ""
        self.app_instance_id, self.resource_id = make_id("ai-", 17), make_id("p-", 17)
        self.token = secrets.token_urlsafe(32)
        self.link_secret = secrets.token_bytes(32)  # signs what leads to a port of it, and to its page
        self.state = State.CREATING
        self.metered = (time.monotonic(), 0.0)  # when the processor time was last asked for, and how much it was
        self.kernels = kernels or Kernels()
        self.environment: dict[str, str] = {}  # set by its user, for all that is started from then on
        self.changes = Changes()
        self.journal = Journal()
        self.storage: Storage | None = None
        self.hub = Hub()
        self.contexts: SessionContexts | None = None
        self._sandbox: Sandbox | None = None
        self._door: Door | None = None
        self._changing = asyncio.Lock()
        self.created_at = time.time()
        self._created = self._active = time.monotonic()
        self._paused_at: float | None = None
        self._busy = 0

    @property
    def known(self) -> bool:
        """Whether clients may still use it."""
        return self.state not in (State.CREATING, State.DELETING, State.FINISH)

    def detail(self) -> SessionDetail:
        """Describe it, also after its end."""
        return SessionDetail(
            status=self.state.value,
            image_id=self.image_id,
            app_instance_id=self.app_instance_id,
            policy_id=self.policy_id,
            region_id=self.region_id,
            end_reason=self.end_reason,
        )

    def move(self, state: State) -> None:
        """Change the state.

        Raises:
            ConflictError: It cannot become that from what it is.
        """
        before = _BEFORE[state]
        if self.state not in before:
            needed = " or ".join(sorted(possible.value for possible in before))
            raise wrong_state(self.state.value, needed)
        self.state = state

    def start(self, sandbox: Sandbox, door: Door | None = None) -> None:
        """Begin to run; `door` is its way to the network, closed with it."""
        self._sandbox, self._door = sandbox, door
        self.move(State.RUNNING)

    async def pause(self) -> None:
        """Freeze every process, from PAUSING to PAUSED."""
        await self._change(State.PAUSING, State.PAUSED, State.RUNNING)

    async def resume(self) -> None:
        """Thaw every process, from RESUMING to RUNNING."""
        await self._change(State.RESUMING, State.RUNNING, State.PAUSED)

    async def _change(self, meanwhile: State, done: State, failed: State) -> None:
        async with self._changing:
            if self.state is not meanwhile:  # deleted since
                return
            try:
                sandbox = self._running_sandbox()
                await (sandbox.freeze() if done is State.PAUSED else sandbox.thaw())
            except SandboxError as error:
                done = failed
                raise broken(f"The session could not be changed: {error}") from error
            finally:
                if self.state is meanwhile:
                    self.move(done)
                    self._hold_time()
        self.touch()

    def _hold_time(self) -> None:
        """Let no time pass for the session while it is paused."""
        if self.state is State.PAUSED:
            self._paused_at = self._paused_at or time.monotonic()
        elif self._paused_at is not None:
            self._created += time.monotonic() - self._paused_at
            self._paused_at = None

    async def kill(self) -> None:
        """End every process, frozen or not, and wait until they are gone."""
        async with self._changing:
            if self._door is not None:
                self._door.close()
            if self._sandbox is not None:
                await self._sandbox.close()
            self.hub.close()

    async def wait_killed(self) -> None:
        """Return when every process is gone, whatever the reason."""
        await self._running_sandbox().wait_closed()

    async def run(self, argv: list[str], **options: Any) -> Completed:
        """Run a command in the session's environment; see `Sandbox.run`."""
        environment = {**self.environment, **(options.pop("env", None) or {})}
        with self._at_work() as sandbox:
            return await sandbox.run(argv, env=environment, **options)

    async def call(
        self, operation: str, params: Mapping[str, object], content: bytes | None = None
    ) -> tuple[dict[str, Any], bytes]:
        """Do a file operation; see `Sandbox.call`."""
        with self._at_work() as sandbox:
            return await sandbox.call(operation, params, input=content)

    async def peek(self, operation: str, params: Mapping[str, object]) -> tuple[dict[str, Any], bytes]:
        """Do a file operation that is no activity of its user's."""
        return await self.unnoticed().call(operation, params)

    def unnoticed(self) -> Sandbox:
        """Return its sandbox, which runs, for what is no activity of its user's."""
        self.require_running()
        return self._running_sandbox()

    async def run_code(self, context: str, code: str, *, timeout: float, transcript: Transcript) -> None:
        """Run code in a context, which may be a language; see `Kernels.run`."""
        with self._at_work() as sandbox, self.journal.record(context, code) as entry:
            entry.follow(transcript.recent)
            await self.kernels.run(sandbox, context, code, env=self.environment, timeout=timeout, transcript=transcript)
            entry.follow(lambda _: transcript.told())
            entry.end(failed=transcript.failed, note=transcript.message)

    async def prepare_code(self, language: str) -> None:
        """Start a kernel that will be needed; this is no activity."""
        await self.kernels.prepare(self._running_sandbox(), language, self.environment)

    async def create_code_context(self, language: str, name: str | None) -> ContextFacts:
        """Make a context for code; see `Kernels.create`."""
        with self._at_work() as sandbox:
            return await self.kernels.create(sandbox, language, name, self.environment)

    async def restart_code_context(self, name: str) -> None:
        """End the kernel of a context; see `Kernels.restart`."""
        with self._at_work():
            await self.kernels.restart(name)

    async def remove_code_context(self, name: str) -> None:
        """Remove a context; see `Kernels.remove`."""
        with self._at_work():
            await self.kernels.remove(name)

    async def open_terminal(self, argv: list[str], **options: Any) -> Terminal:
        """Start a command in a terminal; see `Sandbox.open_terminal`."""
        with self._at_work() as sandbox:
            environment = {**self.environment, **(options.pop("env", None) or {})}
            return await sandbox.open_terminal(argv, env=environment, **options)

    async def connect(self, port: int) -> socket.socket:
        """Connect to a port inside; see `Sandbox.connect`."""
        with self._at_work() as sandbox:
            return await sandbox.connect(port)

    def check_running(self) -> None:
        """Raise what says that it cannot be used now, if so; count as activity if not."""
        with self.at_work():
            pass

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Count as at work until the end of the block.

        Raises:
            AgentBayError: It cannot be used now.
        """
        with self._at_work():
            yield

    async def glance(self) -> Usage:
        """Measure what its processes use, which is no activity of its user's."""
        return await self._running_sandbox().usage()

    def processes(self) -> list[Running]:
        """Describe its processes, which is no activity of its user's."""
        return self._running_sandbox().running()

    async def usage(self) -> Usage:
        """Measure what its processes use."""
        with self._at_work() as sandbox:
            return await sandbox.usage()

    def require_running(self) -> None:
        """Raise what says that it cannot be used now, if so."""
        if self.state is not State.RUNNING:
            raise wrong_state(self.state.value, State.RUNNING.value) if self.known else session_not_found()

    @contextmanager
    def _at_work(self) -> Iterator[Sandbox]:
        self.require_running()
        self._busy += 1
        try:
            yield self._running_sandbox()
        except (FileOperationFailed, NotGiven):
            raise
        except SandboxGone as gone:
            raise session_not_found() from gone
        except SandboxError as error:
            raise broken(f"The sandbox failed: {error}") from error
        finally:
            self._busy -= 1
            self.touch()

    def _running_sandbox(self) -> Sandbox:
        assert self._sandbox is not None  # as long as it is being made, nobody knows its id
        return self._sandbox

    def touch(self) -> None:
        """Count as activity."""
        self._active = time.monotonic()

    def remaining(self) -> float | None:
        """Return the seconds until it is to be released; it is not idle while it works, nor older while paused."""
        now = time.monotonic()
        idle = 0.0 if self._busy or self.state is not State.RUNNING else now - self._active
        return self.lifetime.remaining(age=(self._paused_at or now) - self._created, idle=idle)
