"""Harbor: an environment whose tasks run in sessions."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from agentbay import AsyncSession, CreateSessionParams
from agentbay.errors import CommandTimeoutError
from agentbay.integrations import make_async_client, missing

try:
    from harbor.environments.base import BaseEnvironment, ExecResult
    from harbor.environments.capabilities import EnvironmentCapabilities, EnvironmentResourceCapabilities
    from harbor.environments.options import EnvironmentOptions

    from agentbay.integrations._harbor_files import NO_LIMIT_SECONDS, SessionFiles
except ImportError as error:
    raise missing("harbor", error) from error


class AgentBayOptions(EnvironmentOptions):
    """The options that `--environment-kwarg` can set."""

    image: str = ""


class AgentBayEnvironment(SessionFiles, BaseEnvironment):
    """A session for each trial, where commands run as its one user.

    It needs the local runtime. Its image is the option `image`, or `docker_image` of the task, or built from the
    Dockerfile of the task.
    """

    options_model = AgentBayOptions
    session: AsyncSession  # between `start` and `stop`

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._exit_stack = AsyncExitStack()

    @staticmethod
    def type() -> str:
        """Return the name of this kind of environment."""
        return "agentbay"

    @property
    def capabilities(self) -> EnvironmentCapabilities:
        """What a session can do beside running commands."""
        return EnvironmentCapabilities(
            disable_internet=True,
            network_allowlist=True,
            network_allowlist_hostnames=True,
            network_allowlist_wildcard_hostnames=True,
        )

    @classmethod
    def resource_capabilities(cls) -> EnvironmentResourceCapabilities:
        """Return that a task cannot set resource limits, since the runtime does."""
        return EnvironmentResourceCapabilities(fractional_cpus=True)

    def _validate_definition(self) -> None:
        self._image = (self.options and self.options.image) or self.task_env_config.docker_image
        if self._host_mounts:
            raise ValueError("Sessions cannot mount directories of this machine; leave `mounts` out.")
        if (self.environment_dir / "docker-compose.yaml").exists():
            raise ValueError("Sessions run one image, not the services of docker-compose.yaml.")
        self._dockerfile = self.environment_dir / "Dockerfile"
        if not self._image and not self._dockerfile.exists():
            raise ValueError("There is no Dockerfile; or name an image by `docker_image` or the option `image`.")

    async def start(self, force_build: bool) -> None:
        """Create the session, on an image that is built if it has to be.

        Steps of a build that were done before are never done again.
        """
        bay = await self._exit_stack.enter_async_context(make_async_client())
        image = self._image or (await bay.images.build(self._dockerfile)).image_id
        params = CreateSessionParams(
            image_id=image,
            labels={"framework": "harbor"},
            envs=self._startup_env(),
            cwd=self.task_env_config.workdir,
            network=None if self._network_is_public else self.network_policy.allowed_hosts,
            writable=["/"],  # tasks expect /logs, /tests and /solution
        )
        self.session = await self._exit_stack.enter_async_context(bay.session(params))
        await self.ensure_dirs(self._mount_targets(writable_only=True))
        await self._upload_environment_dir_after_start()

    async def stop(self, delete: bool) -> None:
        """Delete the session and close the client, unless they are to be kept."""
        if delete:
            await self._exit_stack.aclose()

    async def exec(
        self,
        command: str,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        timeout_sec: int | None = None,
        user: str | int | None = None,
    ) -> ExecResult:
        """Run a command as `BaseEnvironment.exec` describes it."""
        if (asked := self._resolve_user(user)) not in (None, 0, "0", "root"):
            raise ValueError(f"Sessions run commands as their one user, not as {asked!r}.")
        limit = timeout_sec or NO_LIMIT_SECONDS
        result = await self.session.command.run(command, None, cwd, self._merge_env(env), timeout=limit)
        if isinstance(result.exception, CommandTimeoutError):
            raise RuntimeError(f"Command timed out after {timeout_sec} seconds")
        result.unwrap()  # a command that could not run at all
        return ExecResult(stdout=result.stdout, stderr=result.stderr, return_code=result.exit_code)
