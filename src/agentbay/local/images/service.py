"""The images of a runtime: the store, and the jobs that fill it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from agentbay._lazy_attrs import define, field
from agentbay.errors import AgentBayError
from agentbay.local.api_errors import internal_error, invalid_request
from agentbay.local.images.errors import Cancelled, ImageError, unusable_image
from agentbay.local.images.reference import Reference, chosen_name, name_of, parse_reference
from agentbay.local.images.store import Image, ImageStore
from agentbay.local.state_dir import StateDirectory

if TYPE_CHECKING:
    from agentbay.local.images.importing import Progress
    from agentbay.local.images.job_output import JobOutput

_logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_MAX_THREADS = 4  # jobs at a time; the others wait
_MAX_JOBS = 1000  # that are remembered
_MAX_OUTPUT_BYTES = 64 << 20  # of builds, in all
_UPLOAD_LIFETIME_SECONDS = 3600.0


@define(slots=False)
class Job:
    """A transfer or build that runs in the background.

    Attributes:
        total: Bytes that it has to read, 0 if that is not known.
        upload_token: The secret with which a client may send the archive, once.
        take_archive: Called with the archive when it has arrived.
        output: The output of the steps of a build; None for other jobs.
        asked: When a client last asked for it, on the monotonic clock.
    """

    id: str
    done: int = 0
    total: int = 0
    image: Image | None = None
    error: AgentBayError | None = None
    upload_token: str = ""
    take_archive: Callable[[Path], None] = lambda _: None
    output: JobOutput | None = None
    begun: float = field(factory=time.monotonic)
    asked: float = field(factory=time.monotonic)

    @property
    def state(self) -> str:
        """The state: running, done or failed."""
        if self.error is not None:
            return "failed"
        return "done" if self.image is not None else "running"


class ImageService:
    """Pulls, imports and keeps images.

    Args:
        owner: Who owns the files of sandboxes.
        default_registry: For references without a host, "" if there is none.
        mirror: Asked instead of any other registry, "" if there is none.
    """

    def __init__(
        self,
        state_dir: StateDirectory,
        owner: tuple[int, int] | None,
        *,
        default_registry: str = "",
        mirror: str = "",
    ) -> None:
        self.store = ImageStore(state_dir, owner)
        self._default_registry, self._mirror = default_registry, mirror
        self._threads = ThreadPoolExecutor(_MAX_THREADS, "images")
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    def start_pull(self, text: str, name: str = "") -> Job:
        """Begin to pull an image, under the name of its reference or another one.

        Raises:
            InvalidRequestError: The reference or the name is malformed.
        """
        reference, known_as = self._parse(text, name)
        job = self._new_job()

        def set_total(size: int) -> None:
            job.total = size

        def work(progress: Progress) -> Image:
            # Here, in a thread: its libraries take long to import, and few runtimes need them.
            from agentbay.local.images import registry

            return registry.pull(reference, known_as, self.store, progress, set_total)

        self._start(job, work)
        return job

    def pull(self, text: str, progress: Progress) -> Image:
        """Pull an image in this thread.

        Raises:
            ImageError: It cannot be pulled.
        """
        from agentbay.local.images import registry  # here, as in `start_pull`

        reference = parse_reference(text, self._default_registry, self._mirror)
        return registry.pull(reference, name_of(text), self.store, progress, lambda _: None)

    def new_import(self, name: str, source: str) -> Job:
        """Make a job that waits for an archive.

        Raises:
            InvalidRequestError: The name is malformed.
        """
        known_as = self.check_name(name)
        return self.expect_archive(lambda job, archive: self._start_import(job, archive, known_as, source))

    def expect_archive(self, take: Callable[[Job, Path], None]) -> Job:
        """Make a job that waits for an archive, which `take` gets and removes."""
        job = self._new_job()
        job.take_archive = partial(take, job)
        job.upload_token = secrets.token_urlsafe(32)
        return job

    def take_upload(self, token: str) -> Job | None:
        """Return the job that waits for an archive with this token, once."""
        given = token.encode("utf-8", "surrogatepass")  # `compare_digest` takes text of ASCII only
        oldest = time.monotonic() - _UPLOAD_LIFETIME_SECONDS
        for job in self._jobs.values():
            expected = job.upload_token.encode()
            if expected and secrets.compare_digest(expected, given) and job.begun > oldest:
                job.upload_token = ""
                return job
        return None

    def fail_upload(self, job: Job, error: AgentBayError) -> None:
        """End a job whose archive has not arrived."""
        job.error = error

    def _start_import(self, job: Job, archive: Path, name: str, source: str) -> None:
        job.total = archive.stat().st_size

        def work(progress: Progress) -> Image:
            # in a thread, as above
            from agentbay.local.images import archives
            from agentbay.local.images.importing import Importer

            try:
                return archives.import_archive(archive, name, source, Importer(self.store, progress))
            finally:
                archive.unlink(missing_ok=True)

        self._start(job, work)

    def check_name(self, name: str) -> str:
        """Return the full form of a name that somebody chooses for an image.

        Raises:
            InvalidRequestError: It is malformed.
        """
        return _checked(chosen_name, name)

    def start_task(self, work: Coroutine[Any, Any, Image]) -> Job:
        """Make a job of something that runs in the event loop."""
        job = self._new_job()
        task = asyncio.get_running_loop().create_task(_finish(job, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    def find_job(self, job_id: str) -> Job | None:
        """Return a job that was begun lately."""
        if job := self._jobs.get(job_id):
            job.asked = time.monotonic()
        return job

    async def run_in_thread(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Run something that reads or changes files."""
        return await asyncio.get_running_loop().run_in_executor(None, partial(function, *arguments))

    async def close(self) -> None:
        """End all jobs, and close the store."""
        self._closing = True
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.to_thread(self._threads.shutdown, True, cancel_futures=True)
        self.store.close()

    def _parse(self, text: str, name: str) -> tuple[Reference, str]:
        reference = _checked(lambda given: parse_reference(given, self._default_registry, self._mirror), text)
        return reference, _checked(chosen_name, name) if name else _checked(name_of, text)

    def _new_job(self) -> Job:
        while len(self._jobs) >= _MAX_JOBS:
            del self._jobs[next(iter(self._jobs))]
        self._forget_outputs()
        job = Job(f"img-{secrets.token_hex(8)}")
        self._jobs[job.id] = job
        return job

    def _forget_outputs(self) -> None:
        """Forget what builds have printed that ended long ago."""
        total_bytes = 0
        for job in reversed(self._jobs.values()):
            total_bytes += job.output.size if job.output else 0
            if job.output and total_bytes > _MAX_OUTPUT_BYTES and job.state != "running":
                job.output.clear()

    def _start(self, job: Job, work: Callable[[Progress], Image]) -> None:
        def progress(count: int) -> None:
            if self._closing:
                raise Cancelled
            job.done += count

        def run() -> None:
            try:
                job.image = work(progress)
            except ImageError as error:
                job.error = unusable_image(error)
            except Exception:  # as in `_finish`
                _logger.exception("a job on images failed")
                job.error = internal_error("The image could not be made; the log of the runtime says why.")

        self._threads.submit(run)


async def _finish(job: Job, work: Coroutine[Any, Any, Image]) -> None:
    try:
        job.image = await work
    except AgentBayError as error:
        job.error = error
    except Exception:  # a job that never ends would be waited for
        _logger.exception("a job on images failed")
        job.error = internal_error("The image could not be made; the log of the runtime says why.")


def _checked(parse: Callable[[str], _T], text: str) -> _T:
    try:
        return parse(text)
    except ImageError as error:
        raise invalid_request(str(error), "InvalidImageName.Local") from error
