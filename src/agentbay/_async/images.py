"""The images of a local runtime."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .._arguments import checked_arguments
from .._concurrency import async_invoke, async_run_blocking, async_sleep
from .._handles import Handle
from .._local_files import LocalSource
from .._local_images import BuildSource, archive_name, pack_folder
from .._transport.deadline import Deadline, time_limit
from .._transport.images import explain_build, explain_missing_action, job_error, to_image
from .._transport.poll import LAST_POLL_SECONDS, poll_delays
from .._transport.presigned import IDLE_TIMEOUT_SECONDS
from .._wire import images as wire
from ..errors import AgentBayError, WaitTimeoutError
from ..models.image import ImageInfo, ImageProgressCallback
from ..models.image_recipe import Image
from .callbacks import invoke_callback
from .presigned import TransferSettings, send_file
from .waiting import clean_up

if TYPE_CHECKING:
    from .client import AsyncAgentBay
    from .transport import AsyncTransport

_FIRST_POLL_SECONDS, _POLL_FACTOR, _MAX_POLL_SECONDS = 0.05, 1.5, 1.0
_MAX_OUTPUT_POLL_SECONDS = 0.25  # while the output is followed
_CANCEL_SECONDS = 10.0  # that the end of a build may delay the caller's interrupt
_INSTEAD = "On the cloud, make an image in its console, and give the id of that as image_id of a session."


ImageList = list[ImageInfo]  # the class has a method `list`


@checked_arguments()
class AsyncImages(Handle):
    """Pull, import, build, list and remove the images of a local runtime.

    `CreateSessionParams(image_id=NAME)` starts a session on one. All methods raise what goes wrong, and
    `NotSupportedError` on a service without such images.
    """

    _instead = "Make a new client there."

    def __init__(self, agent_bay: AsyncAgentBay) -> None:
        self._agent_bay = agent_bay

    async def pull(
        self,
        reference: str,
        *,
        name: str | None = None,
        progress: ImageProgressCallback | None = None,
        timeout: float | None = 3600.0,
    ) -> ImageInfo:
        """Pull an image from a registry into the store of the runtime.

        The runtime uses the credentials that Docker and Podman keep for its user. Layers that are in the store already
        are not transferred, and a transfer that broke off resumes.

        Args:
            reference: Such as `registry.example/team/app:1.2`, or with `@sha256:...` for one exact version.
            name: Its name in the store; None is the reference.
            progress: Called with the bytes transferred so far, and the total.
            timeout: Seconds to wait; None waits without limit. After a timeout the runtime still completes the pull.

        Raises:
            NotSupportedError: If the service has no such images.
            ServiceUnavailableError: If the registry refuses, or cannot be reached.
            InvalidRequestError: If the image cannot be used here.
            WaitTimeoutError: If it takes longer.

        Wire: PullImage, DescribeImageJob
        """
        deadline = _deadline(timeout)
        with explain_missing_action("images to pull", _INSTEAD):
            reply = await self._transport.call(wire.PullImage(reference=reference, name=name), self._step(deadline))
        return await self._wait(reply.data_or_raise(), reference, progress, deadline)

    async def import_file(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        progress: ImageProgressCallback | None = None,
        timeout: float | None = 3600.0,
    ) -> ImageInfo:
        """Send an image from this machine to the runtime.

        Args:
            path: What `docker save` or `podman save` wrote, an OCI archive or an OCI layout, or a root file system, as
                an archive (tar, perhaps compressed) or a folder.
            name: Its name in the store; None is made of the file's name.
            progress: Called with the bytes transferred so far, and the total.
            timeout: Seconds to wait; None waits without limit.

        Raises:
            NotSupportedError: If the service has no such images.
            FileError: If the file cannot be read.
            InvalidRequestError: If it is no image that can be used here.
            WaitTimeoutError: If it takes longer.

        Wire: ImportImage, DescribeImageJob
        """
        deadline, local = _deadline(timeout), Path(path)
        with explain_missing_action("images to import", _INSTEAD):
            action = wire.ImportImage(name=name or archive_name(local), source=local.name)
            job = (await self._transport.call(action, self._step(deadline))).data_or_raise()
        if await async_run_blocking(local.is_dir):
            with tempfile.TemporaryDirectory(prefix="agentbay-image-") as directory:
                archive = Path(directory) / "image.tar"
                await async_run_blocking(pack_folder, local, archive)
                await self._send(job, archive, progress, deadline)
        else:
            await self._send(job, local, progress, deadline)
        return await self._wait(job, str(local), None, deadline)

    async def build(
        self,
        dockerfile: str | os.PathLike[str] | Image,
        context: str | os.PathLike[str] | None = None,
        *,
        name: str | None = None,
        build_args: Mapping[str, str] | None = None,
        policy_id: str | None = None,
        network: Sequence[str] | None = None,
        target: str | None = None,
        on_output: Callable[[str], object] | None = None,
        timeout: float | None = 3600.0,
    ) -> ImageInfo:
        """Build an image from a Dockerfile, or from an `Image` described in Python.

        Each RUN runs in a sandbox of its own. A step that was done before, on the same layers and with the same files,
        is not done again. If the call is cancelled or interrupted, the build ends.

        Args:
            dockerfile: Path of a Dockerfile, its text if it has several lines, or an `Image`.
            context: Folder on this machine that COPY and ADD take files from; `.dockerignore` in it leaves some out.
                None is the folder of the Dockerfile, and none for a text or an `Image`.
            name: Its name in the store; without one it can be used by its id, until `prune`.
            build_args: Values for ARG.
            policy_id: The network of the commands: "none", "proxy" or "host"; None is that of sessions.
            network: Hosts that the commands may reach, as for a session.
            target: The stage that becomes the image, by name or number; None is the last one.
            on_output: Called with what the steps print, piece by piece.
            timeout: Seconds to wait; None waits without limit. The runtime ends a build that nobody waits for.

        Raises:
            ImageBuildError: If a step fails, or the Dockerfile has something that cannot be built; names the line.
            InvalidRequestError: If its base image cannot be used here.
            ServiceUnavailableError: If the base image must be pulled, and its registry refuses or cannot be reached.
            NotSupportedError: If the service has no such images.
            FileError: If a file cannot be read.
            WaitTimeoutError: If it takes longer.

        Wire: BuildImage, DescribeImageJob, CancelImageBuild
        """
        deadline = _deadline(timeout)
        source = await async_run_blocking(BuildSource, dockerfile, context)
        arguments = dict(build_args) if build_args else None
        action = wire.BuildImage(
            dockerfile=source.text,
            name=name,
            arguments=arguments,
            policy_id=policy_id,
            network=None if network is None else [*network],
            target=target,
        )
        with explain_missing_action("images to build", _INSTEAD), explain_build():
            job = (await self._transport.call(action, self._step(deadline))).data_or_raise()
        try:
            with tempfile.TemporaryDirectory(prefix="agentbay-build-") as directory:
                archive = Path(directory) / "context.tar"
                await async_run_blocking(source.pack, archive)
                await self._send(job, archive, None, deadline)
            return await self._follow(job, on_output, deadline)
        except BaseException:
            await clean_up(lambda: self._cancel_build(job))  # nobody waits for it any more
            raise

    async def list(self, *, timeout: float | None = None) -> ImageList:
        """List the images of the runtime, the newest first.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            NotSupportedError: If the service has no such images.

        Wire: ListImages
        """
        with time_limit(timeout):
            with explain_missing_action("list of images", _INSTEAD):
                reply = await self._transport.call(wire.ListImages())
            return [to_image(found) for found in reply.data or ()]

    async def get(self, name: str, *, timeout: float | None = None) -> ImageInfo:
        """Return an image by a name or its id.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            NotFoundError: If there is none; the message lists those that there are.
            NotSupportedError: If the service has no such images.

        Wire: GetImage
        """
        with time_limit(timeout), explain_missing_action("images of your own", _INSTEAD):
            return to_image((await self._transport.call(wire.GetImage(image=name))).data_or_raise())

    async def remove(self, name: str, *, timeout: float | None = None) -> ImageInfo:
        """Remove a name and, with its last one, the image.

        Sessions that run it go on.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Returns:
            The image as it was.

        Raises:
            NotFoundError: If there is none.
            NotSupportedError: If the service has no such images.

        Wire: RemoveImage
        """
        with time_limit(timeout), explain_missing_action("images of your own", _INSTEAD):
            return to_image((await self._transport.call(wire.RemoveImage(image=name))).data_or_raise())

    async def prune(self, *, timeout: float | None = None) -> ImageList:
        """Remove the images that have no name left.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Returns:
            Those that were removed.

        Raises:
            NotSupportedError: If the service has no such images.

        Wire: PruneImages
        """
        with time_limit(timeout):
            with explain_missing_action("images of your own", _INSTEAD):
                reply = await self._transport.call(wire.PruneImages())
            return [to_image(found) for found in reply.data or ()]

    @property
    def _transport(self) -> AsyncTransport:
        return self._agent_bay.client

    async def _send(
        self, job: wire.ImageJobData, archive: Path, progress: ImageProgressCallback | None, deadline: Deadline
    ) -> None:
        source = await async_run_blocking(LocalSource, archive)
        report = None if progress is None else lambda sent: progress(sent, source.size)
        settings = TransferSettings(self._transport, deadline, IDLE_TIMEOUT_SECONDS, progress=report)
        try:
            await send_file(settings, job.upload_url, source, f"upload of {archive.name}")
        except AgentBayError:
            # The answer to the upload may have been lost. Then the runtime has the archive, and takes no second one.
            found = await self._describe(job, deadline)
            if found.upload_url or found.state == "failed":
                raise
        finally:
            source.close()

    def _step(self, deadline: Deadline) -> Deadline:
        return deadline.capped(self._transport.timeout, at_least=LAST_POLL_SECONDS)

    async def _describe(
        self, job: wire.ImageJobData, deadline: Deadline, output_from: int | None = None
    ) -> wire.ImageJobData:
        action = wire.DescribeImageJob(job_id=job.job_id, output_from=output_from)
        return (await self._transport.call(action, self._step(deadline))).data_or_raise()

    async def _cancel_build(self, job: wire.ImageJobData) -> None:
        with suppress(AgentBayError):  # what happened before is what the caller must know
            await self._transport.call(wire.CancelImageBuild(job_id=job.job_id), Deadline(_CANCEL_SECONDS))

    async def _follow(
        self, job: wire.ImageJobData, on_output: Callable[[str], object] | None, deadline: Deadline
    ) -> ImageInfo:
        """Pass on the output of a build, and return its image."""
        output: list[str] = []
        delays = poll_delays(deadline, first=_FIRST_POLL_SECONDS, factor=_POLL_FACTOR, cap=_MAX_OUTPUT_POLL_SECONDS)
        for delay in delays:
            await async_sleep(delay)
            job = await self._describe(job, deadline, job.output_end)
            while job.output:
                output.append(job.output)
                if on_output is not None:
                    await invoke_callback(on_output, job.output)
                job = await self._describe(job, deadline, job.output_end)
            if job.image is not None:
                return to_image(job.image)
            if job.state == "failed":
                with explain_build("".join(output)):
                    raise job_error(job)
        raise WaitTimeoutError(f"The image is not there after {deadline.seconds:g} s; the build is ended.")

    async def _wait(
        self, job: wire.ImageJobData, what: str, progress: ImageProgressCallback | None, deadline: Deadline
    ) -> ImageInfo:
        """Wait until a job has ended, and return its image."""
        for delay in poll_delays(deadline, first=_FIRST_POLL_SECONDS, factor=_POLL_FACTOR, cap=_MAX_POLL_SECONDS):
            await async_sleep(delay)
            job = await self._describe(job, deadline)
            if progress is not None:
                await async_invoke(progress, job.done, job.total)
            if job.image is not None:
                return to_image(job.image)
            if job.state == "failed":
                raise job_error(job)
        raise WaitTimeoutError(f"{what} is not there after {deadline.seconds:g} s; the runtime goes on.")


def _deadline(timeout: float | None) -> Deadline:
    return Deadline(math.inf if timeout is None else timeout)
