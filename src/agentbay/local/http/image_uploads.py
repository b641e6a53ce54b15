"""The route that takes archives of images, at URLs that can be used once."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from agentbay.errors import PermissionDeniedError
from agentbay.local.api_errors import invalid_request
from agentbay.local.http.asgi import Receive, Request, Response, iter_body_blocks
from agentbay.local.images.blob_files import UPLOADS_PATH as PATH_PREFIX, upload_path
from agentbay.local.images.errors import ImageError
from agentbay.local.images.service import ImageService
from agentbay.local.sandbox.shared.fd_io import closing_fd, write_all

__all__ = ["PATH_PREFIX", "serve_image_upload"]


async def serve_image_upload(images: ImageService, request: Request, receive: Receive) -> Response:
    """Keep the archive of a job, and let the job begin.

    Raises:
        AgentBayError: The URL was used or has expired, or the disk is full.
    """
    job = images.take_upload(request.path.removeprefix(PATH_PREFIX)) if request.method == "PUT" else None
    if job is None:
        raise PermissionDeniedError("This URL takes no archive, or no more.", 403, code="Forbidden")
    request.mark_authenticated()
    target = upload_path(images.store.blobs, job.id)
    try:
        await _keep_body(images, target, receive)
    except BaseException as error:
        # The error that is on its way says more than one of the removal.
        with suppress(OSError):
            target.unlink()
        if isinstance(error, OSError | ImageError):
            reason = error.strerror if isinstance(error, OSError) else str(error)
            refusal = invalid_request(f"The archive cannot be kept: {reason}.", "InsufficientStorage")
            images.fail_upload(job, refusal)
            raise refusal from error
        images.fail_upload(job, invalid_request("The archive did not arrive whole: import it again.", "UploadAborted"))
        raise
    job.take_archive(target)
    return Response(200, b"")


async def _keep_body(images: ImageService, target: Path, receive: Receive) -> None:
    fd = await images.run_in_thread(os.open, target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with closing_fd(fd):
        async for block in iter_body_blocks(receive):
            await images.run_in_thread(_write, fd, block, target.parent)


def _write(fd: int, data: bytes, directory: Path) -> None:
    from agentbay.local.images.layer_writer import LayerLimits, check_free_space  # here, as it imports tarfile

    check_free_space(str(directory), LayerLimits().min_free_bytes)
    write_all(fd, data)
