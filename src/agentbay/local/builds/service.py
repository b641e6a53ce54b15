"""The builds of a runtime, which run as jobs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from agentbay.local.api_errors import internal_error
from agentbay.local.builds.build import Build, BuildRequest
from agentbay.local.builds.dockerfile import parse_dockerfile
from agentbay.local.builds.run_step import CommandRunner
from agentbay.local.images.errors import BuildFailed, Cancelled, ImageError, unusable_image
from agentbay.local.images.job_output import JobOutput
from agentbay.local.images.service import ImageService, Job
from agentbay.local.images.store import Image
from agentbay.local.network.egress_policy import EgressRule
from agentbay.local.network.provider import NetworkProvider
from agentbay.local.sandbox.service.manager import Limits, NetworkMode, SandboxManager
from agentbay.local.state_dir import StateDirectory

_logger = logging.getLogger(__name__)

_MAX_BUILDS = 4  # at a time; the others wait
_ABANDONED_SECONDS = 120.0  # since the last query of a client; then a build is cancelled
_CHECK_SECONDS = 5.0


class BuildService:
    """Builds images.

    Args:
        limits: The limits of the sandboxes in which commands run.
    """

    def __init__(
        self,
        images: ImageService,
        sandboxes: SandboxManager,
        networks: NetworkProvider,
        state_dir: StateDirectory,
        limits: Limits,
    ) -> None:
        self._images, self._sandboxes, self._networks = images, sandboxes, networks
        self._state_dir, self._limits = state_dir, limits
        self._slots = asyncio.Semaphore(_MAX_BUILDS)
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by the ids of their jobs

    async def start(
        self,
        text: str,
        name: str,
        target: str,
        arguments: Mapping[str, str],
        network: NetworkMode,
        allowed: Sequence[EgressRule] | None,
    ) -> Job:
        """Make a job that starts to build when the files have arrived.

        Args:
            text: The Dockerfile.
            name: The name of the image, "" for none.
            target: The last stage to build, "" for all that there are.
            arguments: Values for ARG.
            network: The network mode of its commands.
            allowed: The hosts that they may reach; None is all that the runtime allows.

        Raises:
            InvalidRequestError: The Dockerfile or the name is malformed.
        """
        try:
            dockerfile = await asyncio.to_thread(parse_dockerfile, text)
            if target:
                dockerfile = dockerfile.up_to(target)
        except ImageError as error:
            raise unusable_image(error) from error
        request = BuildRequest(
            dockerfile=dockerfile, name=self._images.check_name(name) if name else "", arguments=arguments
        )
        runner = CommandRunner(
            self._sandboxes, self._networks, self._state_dir, self._images.store, self._limits, network, allowed
        )

        output = JobOutput()

        def begin(job: Job, archive: Path) -> None:
            build = Build(self._images, runner, request, archive, output)
            task = self._tasks[job.id] = asyncio.get_running_loop().create_task(self._run(job, build, archive))
            task.add_done_callback(lambda _: self._tasks.pop(job.id))

        job = self._images.expect_archive(begin)
        job.output = output
        return job

    async def cancel(self, job: Job) -> None:
        """End a build, and keep the steps that are done."""
        job.upload_token = ""  # its files are not taken any more
        if task := self._tasks.get(job.id):
            task.cancel()
            await asyncio.wait({task})
        elif job.output is not None and job.state == "running":
            job.error = unusable_image(Cancelled("The build was ended."))

    async def close(self) -> None:
        """End all builds, and keep the steps that are done."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, job: Job, build: Build, archive: Path) -> None:
        try:
            async with self._slots:
                job.image = await self._watch(job, asyncio.create_task(build.run()))
        except asyncio.CancelledError:
            job.error = unusable_image(Cancelled("The build was ended."))
        except ImageError as error:
            job.error = unusable_image(error)
        except Exception:  # a build that never ends would be waited for
            _logger.exception("a build failed")
            job.error = internal_error("The image could not be built; the log of the runtime says why.")
        finally:
            await asyncio.to_thread(archive.unlink, True)

    async def _watch(self, job: Job, building: asyncio.Task[Image]) -> Image:
        """Wait for a build, and cancel it when no client asks for it."""
        try:
            while not building.done():
                await asyncio.wait({building}, timeout=_CHECK_SECONDS)
                if time.monotonic() - job.asked > _ABANDONED_SECONDS:
                    raise BuildFailed("The build was ended: nobody has asked for it any more.")
            return building.result()
        finally:
            if not building.done():
                building.cancel()
                await asyncio.wait({building})
