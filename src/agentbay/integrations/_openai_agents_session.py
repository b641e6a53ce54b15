"""A session as a sandbox of OpenAI Agents."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import contextlib
import io
import uuid
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from agents.sandbox.errors import (
    ConfigurationError,
    ErrorCode,
    ExecNonZeroError,
    ExecTimeoutError,
    ExecTransportError,
    ExposedPortUnavailableError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
    WorkspaceRootNotFoundError,
    WorkspaceStartError,
    WorkspaceWriteTypeError,
)
from agents.sandbox.files import FileEntry
from agents.sandbox.manifest import Manifest
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.mount_lifecycle import with_ephemeral_mounts_removed
from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.sandbox.session.runtime_helpers import RESOLVE_WORKSPACE_PATH_HELPER, RuntimeHelperScript
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.types import ExecResult, ExposedPortEndpoint, User
from agents.sandbox.util.parse_utils import parse_ls_la
from agents.sandbox.util.tar_utils import UnsafeTarMemberError, validate_tar_bytes
from agents.sandbox.workspace_paths import sandbox_path_str

from agentbay import AsyncAgentBay, AsyncSession, CommandResult, CreateSessionParams, SessionResult
from agentbay._concurrency import async_shield
from agentbay.errors import AgentBayError, CommandTimeoutError, NotFoundError
from agentbay.integrations._openai_agents_programs import Programs

_NO_LIMIT_SECONDS = 24 * 3600
# In a session of the local runtime, /workspace is another name of the home.
_WRITABLE_ANYWAY = (PurePosixPath("/workspace"), PurePosixPath("/home/wuying"), PurePosixPath("/tmp"))
_EXISTS_STATUS = 17
# With -C the shell itself refuses a file that has appeared since.
_WRITE_NEW_FILE = f'if [ -e "$0" ] || [ -L "$0" ]; then exit {_EXISTS_STATUS}; fi; set -C; cat >"$0"'


class AgentBaySandboxClientOptions(BaseSandboxClientOptions):
    """Options of a new session.

    `network` and `writable` need the local runtime. With `pause_on_exit` the session is paused and not deleted at the
    end, so that it can be resumed with its processes.
    """

    type: Literal["agentbay"] = "agentbay"
    image: str = ""
    network: tuple[str, ...] | None = None
    writable: tuple[str, ...] = ()
    pause_on_exit: bool = False
    exposed_ports: tuple[int, ...] = ()

    def session_params(self, manifest: Manifest) -> CreateSessionParams:
        """Return the parameters of a session for a manifest."""
        if manifest.users or manifest.groups:
            text = "A session has one user: leave `users` and `groups` out of the manifest."
            raise ConfigurationError(text, ErrorCode.SANDBOX_CONFIG_INVALID, "start", {})
        root = PurePosixPath(manifest.root)
        needs_root = not any(root.is_relative_to(place) for place in _WRITABLE_ANYWAY)
        return CreateSessionParams(
            image_id=self.image or None,
            labels={"framework": "openai-agents"},
            network=None if self.network is None else list(self.network),
            writable=[*self.writable, *([str(root)] if needs_root else [])],
        )


class AgentBaySandboxSessionState(SandboxSessionState):
    """How to find the session again, or to make another one like it."""

    type: Literal["agentbay"] = "agentbay"
    sandbox_id: str = ""
    options: AgentBaySandboxClientOptions = AgentBaySandboxClientOptions()


async def make_session(bay: AsyncAgentBay, params: CreateSessionParams) -> AsyncSession:
    """Create a session, or none if the caller is cancelled.

    Such a caller would never learn its id.
    """

    async def delete(made: SessionResult[AsyncSession]) -> None:
        if made.session is not None:
            await made.session.delete()

    return (await async_shield(lambda: bay.create(params), delete)).unwrap().session


class AgentBaySandboxSession(BaseSandboxSession):
    """A sandbox whose workspace is a directory of a session.

    Attributes:
        session: The session itself, for what the framework does not offer.
    """

    def __init__(self, state: Any, session: AsyncSession) -> None:
        self.state, self.session = state, session
        self._programs = Programs(session)

    async def delete(self) -> None:
        """Delete the session, if it is still there."""
        deleted = await self.session.delete()
        if not isinstance(deleted.exception, NotFoundError):
            deleted.unwrap()

    async def running(self) -> bool:
        """Return whether the session can run commands."""
        try:
            return (await self.session.get_status()).unwrap().status == "RUNNING"
        except AgentBayError:
            # A session that cannot be asked cannot run commands either.
            return False

    async def _prepare_backend_workspace(self) -> None:
        root = self._workspace_root_path()
        try:
            (await self.session.file_system.create_directory(root.as_posix())).unwrap()
        except AgentBayError as error:
            raise WorkspaceStartError(
                path=root, message=f"Cannot make the workspace {root}: {error}", cause=error
            ) from error

    async def _after_start_failed(self) -> None:
        if not self._workspace_state_preserved_on_start():  # nobody would delete it
            with contextlib.suppress(AgentBayError):
                await self.delete()

    async def _shutdown_backend(self) -> None:
        if self.state.options.pause_on_exit:
            (await self.session.pause()).unwrap()
        else:
            await self.delete()

    # ── Commands ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _prepare_exec_command(
        self, *command: str | Path, shell: bool | list[str], user: str | User | None
    ) -> list[str]:
        if user is not None:
            name = user if isinstance(user, str) else user.name
            raise ConfigurationError(
                message=f"A session has one user, and runs nothing as {name!r}: leave `user` out.",
                error_code=ErrorCode.SANDBOX_CONFIG_INVALID,
                op="exec",
                context={"user": name},
            )
        return super()._prepare_exec_command(*command, shell=shell, user=None)

    async def _exec_internal(self, *command: str | Path, timeout: float | None = None) -> ExecResult:
        done = await self._run([str(part) for part in command], timeout)
        return ExecResult(stdout=done.stdout_bytes, stderr=done.stderr_bytes, exit_code=done.exit_code)

    async def _run(self, argv: list[str], timeout: float | None = None, stdin: bytes | None = None) -> CommandResult:
        root = self._workspace_root_path()
        limit = _NO_LIMIT_SECONDS if timeout is None else timeout
        envs = await self.state.manifest.environment.resolve()
        done = await self.session.command.run(argv, None, root.as_posix(), envs, stdin=stdin, timeout=limit)
        if isinstance(done.exception, CommandTimeoutError):
            raise ExecTimeoutError(command=argv, timeout_s=timeout, cause=done.exception) from done.exception
        if isinstance(done.exception, FileNotFoundError):
            raise WorkspaceRootNotFoundError(path=root, cause=done.exception) from done.exception
        if done.exception is not None and done.exit_code == -1:
            raise ExecTransportError(
                command=argv, message=str(done.exception), cause=done.exception
            ) from done.exception
        return done

    def supports_pty(self) -> bool:
        """Return True: programs can keep running between two calls."""
        return True

    async def pty_exec_start(
        self,
        *command: str | Path,
        timeout: float | None = None,
        shell: bool | list[str] = True,
        user: str | User | None = None,
        tty: bool = False,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        """Start a program, and wait for its end or for output."""
        argv = self._prepare_exec_command(*command, shell=shell, user=user)
        envs = await self.state.manifest.environment.resolve()
        try:
            root = self._workspace_root_path().as_posix()
            number = await self._programs.start(argv, root, envs, tty=tty, timeout=timeout)
        except AgentBayError as error:
            raise ExecTransportError(command=argv, message=str(error), cause=error) from error
        return await self._programs.collect(number, yield_time_s, max_output_tokens)

    async def pty_write_stdin(
        self,
        *,
        session_id: int,
        chars: str,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        """Type into the terminal of a program, and wait for more output."""
        self._resolve_pty_session_entry(pty_processes=self._programs.by_number, session_id=session_id)
        if chars:
            await self._programs.write(session_id, chars)
        return await self._programs.collect(session_id, yield_time_s, max_output_tokens, typed=chars)

    async def pty_terminate_all(self) -> None:
        """Kill all programs that `pty_exec_start` started."""
        await self._programs.kill_all()

    async def _resolve_exposed_port(self, port: int) -> ExposedPortEndpoint:
        detail = "a link of a session has a path, which an endpoint cannot express; use get_link() of the session"
        raise ExposedPortUnavailableError(
            port=port,
            exposed_ports=self.state.exposed_ports,
            reason="backend_unavailable",
            context={"backend": "agentbay", "detail": detail},
        )

    # ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _validate_path_access(self, path: Path | str, *, for_write: bool = False) -> Path:
        return await self._validate_remote_path_access(path, for_write=for_write)

    def _runtime_helpers(self) -> tuple[RuntimeHelperScript, ...]:
        return (RESOLVE_WORKSPACE_PATH_HELPER,)

    def _current_runtime_helper_cache_key(self) -> object:
        return self.state.sandbox_id

    async def ls(self, path: Path | str, *, user: str | User | None = None) -> list[FileEntry]:
        """List a directory."""
        root = self._workspace_root_path()
        if self.normalize_path(path) != root:
            return await super().ls(path, user=user)
        # On the local runtime /workspace is a link to the home, and without a slash `ls` would list the link.
        argv = ("ls", "-la", "--", f"{root.as_posix()}/")
        done = await self.exec(*argv, shell=False, user=user)
        if not done.ok():
            raise ExecNonZeroError(done, command=argv)
        return parse_ls_la(done.stdout.decode(errors="replace"), base=root.as_posix())

    async def read(self, path: Path, *, user: str | User | None = None) -> io.IOBase:
        """Read a file of the workspace."""
        if user is not None:
            await self._check_read_with_exec(path, user=user)
        target = sandbox_path_str(await self._validate_path_access(path))
        try:
            found = (await self.session.file_system.read_file(target, format="bytes")).unwrap()
        except FileNotFoundError as error:
            raise WorkspaceReadNotFoundError(path=path, cause=error) from error
        except AgentBayError as error:
            raise WorkspaceArchiveReadError(path=path, cause=error) from error
        return io.BytesIO(found.content)

    async def write(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        """Write a file of the workspace, and make its directories."""
        if user is not None:
            await self._check_write_with_exec(path, user=user)
        content = _read_all(path, data)
        target = await self._validate_path_access(path, for_write=True)
        try:
            (await self.session.file_system.write_file(sandbox_path_str(target), content)).unwrap()
        except AgentBayError as error:
            raise WorkspaceArchiveWriteError(path=target, cause=error) from error

    async def _write_new_file(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        target = await self._validate_path_access(path, for_write=True)
        await self.mkdir(target.parent, parents=True, user=user)
        argv = ["sh", "-c", _WRITE_NEW_FILE, sandbox_path_str(target)]
        done = await self._run(argv, stdin=_read_all(path, data))
        if done.exit_code == _EXISTS_STATUS:
            raise FileExistsError(str(target))
        if done.exit_code != 0:
            raise WorkspaceArchiveWriteError(path=target, context={"stderr": done.stderr})

    async def persist_workspace(self) -> io.IOBase:
        """Pack the workspace, without what is mounted and what shall not outlive the session."""
        return await with_ephemeral_mounts_removed(
            self,
            self._pack,
            error_path=self._workspace_root_path(),
            error_cls=WorkspaceArchiveReadError,
            operation_error_context_key="pack_error_before_remount_corruption",
        )

    async def _pack(self) -> io.IOBase:
        root, archive = self._workspace_root_path(), f"/tmp/.workspace-{uuid.uuid4().hex}.tar"
        skipped = [f"--exclude=./{path.as_posix()}" for path in sorted(self._persist_workspace_skip_relpaths())]
        try:
            (await self._run(["tar", *skipped, "-C", root.as_posix(), "-cf", archive, "."])).check()
            packed = (await self.session.file_system.read_file(archive, format="bytes")).unwrap()
        except AgentBayError as error:
            raise WorkspaceArchiveReadError(path=root, cause=error) from error
        finally:
            await self.session.file_system.delete_file(archive)
        return io.BytesIO(packed.content)

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        """Unpack what `persist_workspace` has packed."""
        root = self._workspace_root_path()
        packed = _read_all(root, data)
        try:
            validate_tar_bytes(packed, allow_external_symlink_targets=False)
        except UnsafeTarMemberError as error:
            context = {"reason": "unsafe_or_invalid_tar", "member": error.member, "detail": str(error)}
            raise WorkspaceArchiveWriteError(path=root, context=context, cause=error) from error
        await with_ephemeral_mounts_removed(
            self,
            lambda: self._unpack(packed),
            error_path=root,
            error_cls=WorkspaceArchiveWriteError,
            operation_error_context_key="unpack_error_before_remount_corruption",
        )

    async def _unpack(self, packed: bytes) -> None:
        root = self._workspace_root_path()
        try:
            # -o: a session has one user, so owners cannot be kept
            (await self._run(["tar", "-xof", "-", "-C", root.as_posix()], stdin=packed)).check()
        except AgentBayError as error:
            raise WorkspaceArchiveWriteError(path=root, cause=error) from error


def _read_all(path: Path, data: io.IOBase) -> bytes:
    content = data.read()
    if isinstance(content, str):
        return content.encode()
    if not isinstance(content, bytes | bytearray):
        raise WorkspaceWriteTypeError(path=path, actual_type=type(content).__name__)
    return bytes(content)
