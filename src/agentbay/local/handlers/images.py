"""Actions on images."""

from __future__ import annotations

from agentbay._wire import images as wire
from agentbay.errors import NotFoundError
from agentbay.local.handlers.handler_tables import action_handler
from agentbay.local.images.blob_files import UPLOADS_PATH
from agentbay.local.images.errors import image_not_found
from agentbay.local.images.service import Job
from agentbay.local.images.store import Image, ImageStore
from agentbay.local.runtime import Runtime


@action_handler(wire.PullImage)
async def pull(runtime: Runtime, action: wire.PullImage) -> wire.ImageJobData:
    return job_data(runtime, runtime.images.start_pull(action.reference, action.name or ""))


@action_handler(wire.ImportImage)
async def import_image(runtime: Runtime, action: wire.ImportImage) -> wire.ImageJobData:
    return job_data(runtime, runtime.images.new_import(action.name, action.source or "imported"))


@action_handler(wire.BuildImage)
async def build(runtime: Runtime, action: wire.BuildImage) -> wire.ImageJobData:
    network = runtime.networks.network_for_policy(action.policy_id)
    allowed = None
    if action.network is not None:
        allowed = await runtime.networks.narrow(action.network, action.policy_id)
    name, target, arguments = action.name or "", action.target or "", action.arguments or {}
    job = await runtime.builds.start(action.dockerfile, name, target, arguments, network, allowed)
    return job_data(runtime, job)


@action_handler(wire.DescribeImageJob)
async def describe_job(runtime: Runtime, action: wire.DescribeImageJob) -> wire.ImageJobData:
    job = runtime.images.find_job(action.job_id)
    if job is None:
        raise NotFoundError(f"There is no job {action.job_id!r:.80}.", 404, code="ImageJobNotFound.Local")
    return job_data(runtime, job, action.output_from or 0)


@action_handler(wire.CancelImageBuild)
async def cancel_build(runtime: Runtime, action: wire.CancelImageBuild) -> None:
    job = runtime.images.find_job(action.job_id)
    if job is None:
        raise NotFoundError(f"There is no job {action.job_id!r:.80}.", 404, code="ImageJobNotFound.Local")
    await runtime.builds.cancel(job)


@action_handler(wire.ListImages)
async def list_images(runtime: Runtime, action: wire.ListImages) -> list[wire.ImageData]:
    store = runtime.images.store
    return [image_data(store, image) for image in await runtime.images.run_in_thread(store.images)]


@action_handler(wire.GetImage)
async def get_image(runtime: Runtime, action: wire.GetImage) -> wire.ImageData:
    store = runtime.images.store
    image = await runtime.images.run_in_thread(store.find, action.image)
    return image_data(store, image or _no_such_image(store, action.image))


@action_handler(wire.RemoveImage)
async def remove_image(runtime: Runtime, action: wire.RemoveImage) -> wire.ImageData:
    store = runtime.images.store
    image = await runtime.images.run_in_thread(store.remove, action.image)
    return image_data(store, image or _no_such_image(store, action.image))


@action_handler(wire.PruneImages)
async def prune_images(runtime: Runtime, action: wire.PruneImages) -> list[wire.ImageData]:
    store = runtime.images.store
    return [image_data(store, image) for image in await runtime.images.run_in_thread(store.prune)]


def image_data(store: ImageStore, image: Image) -> wire.ImageData:
    """Describe an image for clients."""
    config = image.config
    return wire.ImageData(
        image_id=image.id,
        names=image.names,
        digest=image.digest,
        size=image.size,
        layers=len(image.layers),
        left_out=sum(layer.devices for layer in map(store.find_layer, image.layers) if layer),
        created=image.created,
        source=image.source,
        architecture=config.architecture,
        env=config.env,
        workdir=config.workdir,
        user=config.user,
        entrypoint=config.entrypoint,
        command=config.command,
        labels=config.labels,
        shell=image.programs.shell,
        python=image.programs.python,
    )


def job_data(runtime: Runtime, job: Job, output_from: int = 0) -> wire.ImageJobData:
    """Describe a job for clients, with its output from a byte on."""
    output, end = job.output.read(output_from, is_done=job.state != "running") if job.output else ("", 0)
    upload = f"{runtime.address.http_url}{UPLOADS_PATH}{job.upload_token}" if job.upload_token else ""
    return wire.ImageJobData(
        job_id=job.id,
        state=job.state,
        done=job.done,
        total=job.total,
        upload_url=upload,
        code=job.error.code or "" if job.error else "",
        message=job.error.message if job.error else "",
        image=image_data(runtime.images.store, job.image) if job.image else None,
        output=output,
        output_end=end,
    )


def _no_such_image(store: ImageStore, name: str) -> Image:
    names = [name for image in store.images() for name in image.names]
    raise image_not_found(name, f"The runtime has {', '.join(names)}." if names else "The runtime has none yet.")
