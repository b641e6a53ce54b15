"""Inspect: the sandbox environment `sandbox="agentbay"`."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, ClassVar, Literal, overload

from agentbay import AsyncSession, CreateSessionParams
from agentbay.errors import CommandTimeoutError
from agentbay.integrations import make_async_client, missing

try:
    from inspect_ai.util import (
        ExecResult,
        OutputLimitExceededError,
        SandboxConnection,
        SandboxEnvironment,
        SandboxEnvironmentLimits,
        SandboxUserUnsupportedError,
        sandboxenv,
    )

    from agentbay.integrations._inspect_image import TaskImages
except ImportError as error:
    raise missing("inspect", error) from error

_NO_LIMIT_SECONDS = 24 * 3600


@sandboxenv(name="agentbay")
class AgentBaySandboxEnvironment(SandboxEnvironment):
    """A session for each sample, on the image that its configuration names or describes."""

    _images: ClassVar[TaskImages | None] = None  # of one run, as Inspect has no two at a time

    def __init__(self, session: AsyncSession, exit_stack: AsyncExitStack) -> None:
        super().__init__()
        self.session, self._exit_stack = session, exit_stack

    @classmethod
    def config_files(cls) -> list[str]:
        """Return which files beside a task are its configuration."""
        return ["compose.yaml", "Dockerfile"]

    @classmethod
    async def task_init(cls, task_name: str, config: Any) -> None:
        """Build the image of a task, before its samples."""
        cls._images = cls._images or TaskImages(make_async_client())
        await cls._images.find(config)

    @classmethod
    async def sample_init(cls, task_name: str, config: Any, metadata: dict[str, str]) -> dict[str, SandboxEnvironment]:
        """Create the session of a sample."""
        images = cls._images = cls._images or TaskImages(make_async_client())
        params = CreateSessionParams(image_id=await images.find(config), labels={"framework": "inspect"})
        session = await (stack := AsyncExitStack()).enter_async_context(images.bay.session(params))
        return {"default": cls(session, stack)}

    @classmethod
    async def sample_cleanup(
        cls, task_name: str, config: Any, environments: dict[str, SandboxEnvironment], interrupted: bool
    ) -> None:
        """Delete the session of a sample."""
        for environment in environments.values():
            await environment.as_type(cls)._exit_stack.aclose()

    @classmethod
    async def task_cleanup(cls, task_name: str, config: Any, cleanup: bool) -> None:
        """Close the client and its private runtime, when all has ended."""
        images, cls._images = cls._images, None
        if images is not None:
            await images.bay.aclose()

    async def exec(
        self,
        cmd: list[str],
        input: str | bytes | None = None,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,
        timeout_retry: bool = True,
        concurrency: bool = True,
    ) -> ExecResult[str]:
        """Run a command as `SandboxEnvironment.exec` describes it."""
        if user not in (None, "wuying", "1000"):
            raise SandboxUserUnsupportedError(f"Sessions run commands as their own user only, not as {user!r}.")
        stdin, limit = b"" if input is None else input, timeout or _NO_LIMIT_SECONDS
        result = await self.session.command.run(cmd, None, cwd, env, stdin=stdin, timeout=limit)
        if isinstance(result.exception, CommandTimeoutError):
            raise TimeoutError(f"The command took longer than {timeout} s.")
        result.unwrap()
        if result.exit_code == 126 and "Permission denied" in result.stderr:  # as a shell that cannot start it says
            raise PermissionError(result.stderr.strip())
        most = SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE
        if result.truncated or max(len(result.stdout_bytes), len(result.stderr_bytes)) > most:
            shown = result.stdout_bytes[:most].decode(errors="replace")
            raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE_STR, shown)
        return ExecResult(result.success, result.exit_code, result.stdout, result.stderr)

    async def write_file(self, file: str, contents: str | bytes) -> None:
        """Write a file, and make its directories."""
        (await self.session.file_system.write_file(file, contents)).unwrap()

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...
    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...
    async def read_file(self, file: str, text: bool = True) -> str | bytes:
        """Read a file."""
        files = self.session.file_system
        if (await files.get_file_info(file)).unwrap().size > SandboxEnvironmentLimits.MAX_READ_FILE_SIZE:
            raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, None)
        content = (await files.read_file(file, format="bytes")).unwrap().content
        return content.decode() if text else content

    async def connection(self, *, user: str | None = None) -> SandboxConnection:
        """Return how to open a terminal in the session."""
        return SandboxConnection(type="agentbay", command=f"agentbay session attach {self.session.session_id}")
