"""One session: its state machine, and the sandbox that it is."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentbay._wire.sessions import SessionDetail
from agentbay.local.api_errors import internal_error, session_not_found, wrong_state
from agentbay.local.ids import make_id
from agentbay.local.kernels.execution_output import ExecutionOutput
from agentbay.local.kernels.kernel_manager import CodeContextInfo, KernelManager
from agentbay.local.outbound.storage import OssClient
from agentbay.local.sandbox.service.manager import (
    Completed,
    FileOperationFailed,
    ResourceCreationFailed,
    ResourceUsage,
    RunningProcess,
    Sandbox,
    SandboxError,
    SandboxGone,
    Terminal,
)
from agentbay.local.sessions.history import CommandHistory
from agentbay.local.sessions.hub import WebSocketHub
from agentbay.local.sessions.lifetime import Lifetime
from agentbay.local.sessions.watching.file_changes import FileChangeTracker

if TYPE_CHECKING:
    from agentbay.local.contexts.session_contexts import SessionContexts
    from agentbay.local.network.proxy import EgressProxy


class SessionState(str, Enum):
    """Where a session stands; the values are those of the wire."""

    CREATING = "CREATING"
    RUNNING = "RUNNING"
    PAUSING = "PAUSING"
    PAUSED = "PAUSED"
    RESUMING = "RESUMING"
    DELETING = "DELETING"
    FINISH = "FINISH"


_ALLOWED_PREDECESSORS: dict[SessionState, frozenset[SessionState]] = {
    SessionState.RUNNING: frozenset(
        {SessionState.CREATING, SessionState.RESUMING, SessionState.PAUSING}
    ),  # the last when a pause fails
    SessionState.PAUSING: frozenset({SessionState.RUNNING}),
    SessionState.PAUSED: frozenset({SessionState.PAUSING, SessionState.RESUMING}),  # the last when a resumption fails
    SessionState.RESUMING: frozenset({SessionState.PAUSED}),
    SessionState.DELETING: frozenset(SessionState) - {SessionState.DELETING, SessionState.FINISH},
    SessionState.FINISH: frozenset({SessionState.DELETING}),
}


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
        kernels: KernelManager | None = None,
    ) -> None:
        self.creation_number = 0  # given when it is ready: the order in which clients see sessions
        self.directory, self.session_id, self.image_id = directory, session_id, image_id
        self.labels = dict(labels)
        self.lifetime = lifetime
        self.policy_id, self.region_id, self.end_reason = policy_id, region_id, ""
        self.app_instance_id, self.resource_id = make_id("ai-", 17), make_id("p-", 17)
        self.token = secrets.token_urlsafe(32)
        self.link_secret = secrets.token_bytes(32)  # signs what leads to a port of it, and to its page
        self.state = SessionState.CREATING
        self.last_cpu_sample = (
            time.monotonic(),
            0.0,
        )  # when the processor time was last asked for, and how much it was
        self.kernels = kernels or KernelManager()
        self.environment: dict[str, str] = {}  # set by its user, for all that is started from then on
        self.file_changes = FileChangeTracker()
        self.history = CommandHistory()
        self.oss_client: OssClient | None = None
        self.hub = WebSocketHub()
        self.contexts: SessionContexts | None = None
        self._sandbox: Sandbox | None = None
        self._egress_proxy: EgressProxy | None = None
        self._transition_lock = asyncio.Lock()
        self.created_at = time.time()
        self._created = self._last_activity = time.monotonic()
        self._paused_at: float | None = None
        self._active_operations = 0

    @property
    def is_usable(self) -> bool:
        """Whether clients may still use it."""
        return self.state not in (SessionState.CREATING, SessionState.DELETING, SessionState.FINISH)

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

    def transition_to(self, state: SessionState) -> None:
        """Change the state.

        Raises:
            ConflictError: It cannot become that from what it is.
        """
        before = _ALLOWED_PREDECESSORS[state]
        if self.state not in before:
            needed = " or ".join(sorted(possible.value for possible in before))
            raise wrong_state(self.state.value, needed)
        self.state = state

    def start(self, sandbox: Sandbox, egress_proxy: EgressProxy | None = None) -> None:
        """Begin to run; `door` is its way to the network, closed with it."""
        self._sandbox, self._egress_proxy = sandbox, egress_proxy
        self.transition_to(SessionState.RUNNING)

    async def pause(self) -> None:
        """Freeze every process, from PAUSING to PAUSED."""
        await self._run_transition(SessionState.PAUSING, SessionState.PAUSED, SessionState.RUNNING)

    async def resume(self) -> None:
        """Thaw every process, from RESUMING to RUNNING."""
        await self._run_transition(SessionState.RESUMING, SessionState.RUNNING, SessionState.PAUSED)

    async def _run_transition(self, meanwhile: SessionState, done: SessionState, failed: SessionState) -> None:
        async with self._transition_lock:
            if self.state is not meanwhile:  # deleted since
                return
            try:
                sandbox = self._started_sandbox()
                await (sandbox.freeze() if done is SessionState.PAUSED else sandbox.thaw())
            except SandboxError as error:
                done = failed
                raise internal_error(f"The session could not be changed: {error}") from error
            finally:
                if self.state is meanwhile:
                    self.transition_to(done)
                    self._stop_clock_while_paused()
        self.touch()

    def _stop_clock_while_paused(self) -> None:
        """Let no time pass for the session while it is paused."""
        if self.state is SessionState.PAUSED:
            self._paused_at = self._paused_at or time.monotonic()
        elif self._paused_at is not None:
            self._created += time.monotonic() - self._paused_at
            self._paused_at = None

    async def kill(self) -> None:
        """End every process, frozen or not, and wait until they are gone."""
        async with self._transition_lock:
            if self._egress_proxy is not None:
                self._egress_proxy.close()
            if self._sandbox is not None:
                await self._sandbox.close()
            self.hub.close()

    async def wait_killed(self) -> None:
        """Return when every process is gone, whatever the reason."""
        await self._started_sandbox().wait_closed()

    async def run(self, argv: list[str], **options: Any) -> Completed:
        """Run a command in the session's environment; see `Sandbox.run`."""
        environment = {**self.environment, **(options.pop("env", None) or {})}
        with self._sandbox_operation() as sandbox:
            return await sandbox.run(argv, env=environment, **options)

    async def call(
        self, operation: str, params: Mapping[str, object], content: bytes | None = None
    ) -> tuple[dict[str, Any], bytes]:
        """Do a file operation; see `Sandbox.call`."""
        with self._sandbox_operation() as sandbox:
            return await sandbox.run_file_operation(operation, params, input=content)

    async def call_without_activity(self, operation: str, params: Mapping[str, object]) -> tuple[dict[str, Any], bytes]:
        """Do a file operation that is no activity of its user's."""
        return await self.running_sandbox().run_file_operation(operation, params)

    def running_sandbox(self) -> Sandbox:
        """Return its sandbox, which runs, for what is no activity of its user's."""
        self.require_running()
        return self._started_sandbox()

    async def run_code(self, context: str, code: str, *, timeout: float, transcript: ExecutionOutput) -> None:
        """Run code in a context, which may be a language; see `Kernels.run`."""
        with self._sandbox_operation() as sandbox, self.history.record(context, code) as entry:
            entry.set_output_source(transcript.tail)
            await self.kernels.run(sandbox, context, code, env=self.environment, timeout=timeout, transcript=transcript)
            entry.set_output_source(lambda _: transcript.plain_text())
            entry.set_result(failed=transcript.failed, note=transcript.error_line)

    async def prepare_code(self, language: str) -> None:
        """Start a kernel that will be needed; this is no activity."""
        await self.kernels.prestart(self._started_sandbox(), language, self.environment)

    async def create_code_context(self, language: str, name: str | None) -> CodeContextInfo:
        """Make a context for code; see `Kernels.create`."""
        with self._sandbox_operation() as sandbox:
            return await self.kernels.create(sandbox, language, name, self.environment)

    async def restart_code_context(self, name: str) -> None:
        """End the kernel of a context; see `Kernels.restart`."""
        with self._sandbox_operation():
            await self.kernels.restart(name)

    async def remove_code_context(self, name: str) -> None:
        """Remove a context; see `Kernels.remove`."""
        with self._sandbox_operation():
            await self.kernels.remove(name)

    async def open_terminal(self, argv: list[str], **options: Any) -> Terminal:
        """Start a command in a terminal; see `Sandbox.open_terminal`."""
        with self._sandbox_operation() as sandbox:
            environment = {**self.environment, **(options.pop("env", None) or {})}
            return await sandbox.open_terminal(argv, env=environment, **options)

    async def connect(self, port: int) -> socket.socket:
        """Connect to a port inside; see `Sandbox.connect`."""
        with self._sandbox_operation() as sandbox:
            return await sandbox.connect(port)

    def require_running_and_touch(self) -> None:
        """Raise what says that it cannot be used now, if so; count as activity if not."""
        with self.operation():
            pass

    @contextmanager
    def operation(self) -> Iterator[None]:
        """Count as at work until the end of the block.

        Raises:
            AgentBayError: It cannot be used now.
        """
        with self._sandbox_operation():
            yield

    async def usage_without_activity(self) -> ResourceUsage:
        """Measure what its processes use, which is no activity of its user's."""
        return await self._started_sandbox().usage()

    def processes(self) -> list[RunningProcess]:
        """Describe its processes, which is no activity of its user's."""
        return self._started_sandbox().list_processes()

    async def usage(self) -> ResourceUsage:
        """Measure what its processes use."""
        with self._sandbox_operation() as sandbox:
            return await sandbox.usage()

    def require_running(self) -> None:
        """Raise what says that it cannot be used now, if so."""
        if self.state is not SessionState.RUNNING:
            raise wrong_state(self.state.value, SessionState.RUNNING.value) if self.is_usable else session_not_found()

    @contextmanager
    def _sandbox_operation(self) -> Iterator[Sandbox]:
        self.require_running()
        self._active_operations += 1
        try:
            yield self._started_sandbox()
        except (FileOperationFailed, ResourceCreationFailed):
            raise
        except SandboxGone as gone:
            raise session_not_found() from gone
        except SandboxError as error:
            raise internal_error(f"The sandbox failed: {error}") from error
        finally:
            self._active_operations -= 1
            self.touch()

    def _started_sandbox(self) -> Sandbox:
        assert self._sandbox is not None  # as long as it is being made, nobody knows its id
        return self._sandbox

    def touch(self) -> None:
        """Count as activity."""
        self._last_activity = time.monotonic()

    def seconds_until_release(self) -> float | None:
        """Return the seconds until it is to be released; it is not idle while it works, nor older while paused."""
        now = time.monotonic()
        idle = 0.0 if self._active_operations or self.state is not SessionState.RUNNING else now - self._last_activity
        return self.lifetime.seconds_remaining(age=(self._paused_at or now) - self._created, idle=idle)
