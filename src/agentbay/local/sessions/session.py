"""One session: its lifecycle, its sandbox, and what belongs to them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from agentbay._wire.sessions import SessionDetail, SessionPause
from agentbay.local.agent.session_agent import SessionAgent
from agentbay.local.api_errors import internal_error, session_not_found
from agentbay.local.browser.browser import SessionBrowser
from agentbay.local.desktop.desktop import SessionDesktop
from agentbay.local.ids import make_id
from agentbay.local.images.store import Image
from agentbay.local.outbound.storage import OssClient
from agentbay.local.sandbox.service.cpu_meter import CpuMeter
from agentbay.local.sandbox.service.manager import (
    FileOperationFailed,
    ResourceCreationFailed,
    Sandbox,
    SandboxError,
    SandboxGone,
    SandboxSpec,
    SharedLayer,
)
from agentbay.local.sessions.background import BackgroundProcesses
from agentbay.local.sessions.history import CommandHistory
from agentbay.local.sessions.hub import WebSocketHub
from agentbay.local.sessions.lifecycle import Lifecycle, SessionState
from agentbay.local.sessions.session_options import SandboxOptions
from agentbay.local.sessions.time_limits import TimeLimits
from agentbay.local.sessions.watching.file_changes import FileChangeTracker

if TYPE_CHECKING:
    from agentbay.local.contexts.session_contexts import SessionContexts
    from agentbay.local.kernels.execution_output import ExecutionOutput
    from agentbay.local.kernels.kernel_manager import KernelManager
    from agentbay.local.kernels.languages import KernelFactory
    from agentbay.local.network.proxy import EgressProxy


class Session:
    """A session, which the `SessionTable` creates, finds and deletes.

    Attributes:
        image: The image that it runs; None for the programs of this machine.
        layers: The chain ids of the layers that hold its files; a fork starts from them.
        kept_layers: The layers that must stay until it ends: those that were merged may still be mounted.
        is_layered: Whether the layers are mounted; otherwise what it needs of them was copied.
        shared: The layers that were written in a session and count to its disk limit.
        spec: The specification of its sandbox; None until that is made.
        options: The options of its sandbox.
        creation_number: The position in the order of creation; 0 until the session is ready.
        link_secret: Signs the tokens of the session's ports and of its dashboard.
        environment: Variables that the user has set for everything that starts from now on.
        cpu_meter: Measures the busy processors between two requests for metrics.
    """

    def __init__(
        self,
        *,
        directory: Path,
        session_id: str,
        image_id: str,
        image: Image | None = None,
        labels: Mapping[str, str],
        time_limits: TimeLimits,
        policy_id: str = "",
        region_id: str = "",
        start_python: KernelFactory | None = None,
        agent: SessionAgent | None = None,
        browser: SessionBrowser | None = None,
        desktop: SessionDesktop | None = None,
    ) -> None:
        self.lifecycle = Lifecycle(time_limits)
        self.creation_number = 0
        self.directory, self.session_id, self.image_id = directory, session_id, image_id
        self.options = SandboxOptions()
        self.image, self.layers = image, tuple(image.layers) if image else ()
        self.kept_layers = list(self.layers)
        self.is_layered, self.shared = False, tuple[SharedLayer, ...]()
        self.spec: SandboxSpec | None = None
        self.on_new_mounts: set[Callable[[], None]] = set()  # called when its files have got other mounts
        self.copy_lock = asyncio.Lock()  # one snapshot or fork at a time
        self.labels = dict(labels)
        self.policy_id, self.region_id, self.end_reason = policy_id, region_id, ""
        self.app_instance_id, self.resource_id = make_id("ai-", 17), make_id("p-", 17)
        self.token = secrets.token_urlsafe(32)
        self.link_secret = secrets.token_bytes(32)
        self.created_at = time.time()
        self.cpu_meter = CpuMeter(time.monotonic())
        self._kernel_factories = {} if start_python is None else {"python": start_python}
        self.environment: dict[str, str] = {}
        self.file_changes = FileChangeTracker()
        self.history = CommandHistory()
        self.background = BackgroundProcesses(directory, self.history)
        self.oss_client: OssClient | None = None
        self.hub = WebSocketHub()
        self.browser = browser or SessionBrowser()
        self.desktop = desktop or SessionDesktop()
        self.agent = agent or SessionAgent()
        self.contexts: SessionContexts | None = None
        self.expiry_timer: asyncio.TimerHandle | None = None
        self._sandbox: Sandbox | None = None
        self._egress_proxy: EgressProxy | None = None
        self._transition_lock = asyncio.Lock()  # freezing, thawing and killing take time, and must not overlap

    @cached_property
    def kernels(self) -> KernelManager:
        """The kernels that run its code."""
        from agentbay.local.kernels.kernel_manager import KernelManager  # most sessions run commands only

        return KernelManager(**self._kernel_factories)

    @property
    def sandbox(self) -> Sandbox:
        """The sandbox itself, also while it is frozen.

        Most callers want `using` instead: it checks the state, counts as activity and translates errors.
        """
        assert self._sandbox is not None  # nobody knows the id of a session that is still being made
        return self._sandbox

    @contextmanager
    def using(self, *, counts_as_activity: bool = True) -> Iterator[Sandbox]:
        """Return the running sandbox, and keep the session active in the block.

        Args:
            counts_as_activity: False for an observer such as the dashboard, which must not keep a session alive.

        Raises:
            ConflictError: The session is paused, or was paused meanwhile.
            SessionNotFoundError: The session has ended, or ended meanwhile.
            ServerError: The sandbox failed.
            FileOperationFailed: A file operation in the block was refused.
            ResourceCreationFailed: A terminal or a socket could not be made.
        """
        self.lifecycle.require_running()
        with self.lifecycle.active() if counts_as_activity else nullcontext():
            try:
                yield self.sandbox
            except (FileOperationFailed, ResourceCreationFailed):
                raise
            except SandboxGone as gone:
                raise session_not_found() from gone
            except SandboxError as error:
                self.lifecycle.require_running()  # a sandbox that was frozen meanwhile is a paused session
                raise internal_error(f"The sandbox failed: {error}") from error

    def start(self, sandbox: Sandbox, egress_proxy: EgressProxy | None = None) -> None:
        """Begin to run with a sandbox and, if it has one, an egress proxy."""
        self._sandbox, self._egress_proxy = sandbox, egress_proxy
        self.lifecycle.transition_to(SessionState.RUNNING)

    def refused_hosts(self, since: float) -> list[str]:
        """Return the hosts that its network refused since a time on the monotonic clock."""
        return [] if self._egress_proxy is None else self._egress_proxy.refused_since(since)

    @property
    def is_machine_based(self) -> bool:
        """Whether it runs the programs of this machine."""
        return self.image is None or bool(self.image.base)

    async def pause(self) -> None:
        """Freeze every process, from PAUSING to PAUSED."""
        await self._run_transition(SessionState.PAUSING, SessionState.PAUSED, SessionState.RUNNING)

    async def resume(self) -> None:
        """Thaw every process, from RESUMING to RUNNING."""
        await self._run_transition(SessionState.RESUMING, SessionState.RUNNING, SessionState.PAUSED)

    async def _run_transition(self, meanwhile: SessionState, done: SessionState, failed: SessionState) -> None:
        async with self._transition_lock:
            if self.lifecycle.state is not meanwhile:  # it was deleted while this waited
                return
            end = failed  # if it is interrupted, by a cancellation too
            try:
                await (self.sandbox.freeze() if done is SessionState.PAUSED else self.sandbox.thaw())
                end = done
            except (SandboxError, OSError) as error:
                raise internal_error(f"The session could not be changed: {error}") from error
            finally:
                if self.lifecycle.state is meanwhile:
                    self.lifecycle.transition_to(end)
        self.lifecycle.touch()

    async def save_browser_profile(self) -> None:
        """End the browser so that its profile has the last cookies."""
        if not self.browser.is_running:
            return
        # A sandbox that has just ended has no browser whose profile could be saved.
        with suppress(SandboxError):
            await self.sandbox.thaw()
            await self.browser.stop(self.sandbox)

    async def dispose(self) -> None:
        """Kill every process, frozen or not, and close all connections.

        All are gone when this returns.
        """
        async with self._transition_lock:
            await self.agent.close()
            if self._egress_proxy is not None:
                self._egress_proxy.close()
            if self._sandbox is not None:
                await self._sandbox.close()
            self.desktop.close()
            self.hub.close()

    async def run_code(self, context: str, code: str, *, timeout: float, output: ExecutionOutput) -> None:
        """Run code in a context, and record it in the history.

        See `KernelManager.run`.
        """
        with self.using() as sandbox, self.history.record(context, code) as entry:
            entry.set_output_source(output.tail)
            began = time.monotonic()
            await self.kernels.run(sandbox, context, code, env=self.environment, timeout=timeout, output=output)
            if output.failed or output.command_failed:
                output.set_refused_hosts(self.refused_hosts(began))
            entry.set_output_source(lambda _: output.plain_text())
            entry.set_result(failed=output.failed, note=output.error_line)

    def times(self) -> dict[str, str]:
        """Return when it was created, and when it expires if it stays idle."""
        left = self.lifecycle.seconds_until_expiry()
        return {
            "create_time": _iso_time(self.created_at),
            "expire_time": "" if left is None else _iso_time(time.time() + left),
        }

    def detail(self) -> SessionDetail:
        """Describe the session, also after its end."""
        freezes = self._sandbox.clock.recent_freezes() if self._sandbox is not None else []
        pauses = [SessionPause(began_ago=began, ended_ago=ended) for began, ended in freezes]
        return SessionDetail(
            pauses=pauses,
            status=self.lifecycle.state.value,
            image_id=self.image_id,
            app_instance_id=self.app_instance_id,
            policy_id=self.policy_id,
            region_id=self.region_id,
            end_reason=self.end_reason,
        )


def _iso_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
