"""The contexts of one session: what is where, and the copying to and fro."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentbay.errors import AgentBayError
from agentbay.local.api_errors import internal_error
from agentbay.local.contexts import keys
from agentbay.local.contexts.baseline import Baseline
from agentbay.local.contexts.binding_spec import BindingSpec, parse_binding_specs
from agentbay.local.contexts.download import Download
from agentbay.local.contexts.errors import mount_source_not_found
from agentbay.local.contexts.transfers import DOWNLOAD, UPLOAD, Transfer, TransferTable
from agentbay.local.contexts.upload import Upload
from agentbay.local.sandbox.service import zygote_process
from agentbay.local.sandbox.service.manager import BindMount, Sandbox, SandboxError, SandboxSpec
from agentbay.local.sandbox.shared import ipc
from agentbay.models.context import SyncPolicy

if TYPE_CHECKING:
    from agentbay.local.contexts.service import ContextService

_logger = logging.getLogger(__name__)

_TRANSFER_WAIT_SECONDS = (
    0.25  # seconds that an answer may wait for transfers, which spares the client a second question
)
_FINAL_UPLOAD_TIMEOUT_SECONDS = 1800.0  # seconds that a session's end may take to upload
_HOME = "/home/wuying"
_WRITABLE_DIRECTORIES = (_HOME, "/tmp")  # where the sandbox's user may make directories
INTERNAL_PATH = "/tmp/file-transfer"


@dataclass
class Binding:
    """A context at a path of the session."""

    spec: BindingSpec
    bound_at: float
    baseline: Baseline = field(default_factory=Baseline)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # its transfers come one after the other


class SessionContexts:
    """The contexts of one session; made by `Desk.admit`."""

    def __init__(self, desk: ContextService, items: Sequence[BindingSpec]) -> None:
        self._service, self._initial_specs = desk, list(items)
        self._session = ""
        self._directory = Path()
        self._sandbox: Sandbox | None = None
        self._binds: list[BindMount] = []
        self._mounted_keys: dict[str, str] = {}  # keys of what is mounted, by path
        self._bindings: dict[str, Binding] = {}
        self._has_records = False  # anything in the store
        self._internal_context_id = ""
        self._transfers = TransferTable()
        self._tasks: set[asyncio.Task[None]] = set()
        self._bind_lock = asyncio.Lock()

    @property
    def bindings(self) -> list[Binding]:
        """What is where, in the order of binding."""
        return list(self._bindings.values())

    async def prepare(self, session: str, directory: Path) -> list[BindMount]:
        """Return what the sandbox must show from its beginning."""
        self._session, self._directory = session, directory
        if self._initial_specs:
            self._binds = await self._service.run_in_thread(self._make_binds, self._initial_specs)
        for item in self._initial_specs:
            await self._record_binding(item)
        return self._binds

    async def start(self, sandbox: Sandbox) -> None:
        """Begin to download, and wait as the policies say: not at all, or, in any case, only for a moment."""
        self._sandbox = sandbox
        await self._begin_downloads(self.bindings)

    async def bind(self, listed: Sequence[dict[str, Any]]) -> None:
        """Give the running session more contexts.

        Raises:
            ConflictError: A path is taken.
        """
        items = parse_binding_specs(listed)
        async with self._bind_lock:
            self._service.check_bindings(items, taken=self._bindings)
            for bind in await self._service.run_in_thread(self._make_binds, items):
                await self._mount_in_sandbox(bind)
                self._binds.append(bind)
            for item in items:
                await self._record_binding(item)
        await self._begin_downloads([self._bindings[item.path] for item in items])

    async def get_internal_context_id(self) -> str:
        """Return the id of the session's own context for files on their way, made at the first call."""
        async with self._bind_lock:
            if not self._internal_context_id:
                self._internal_context_id = (await self._service.run_in_thread(self._service.store.create_internal)).id
                self._service.session_by_internal_context[self._internal_context_id] = self._session
        return self._internal_context_id

    async def sync(self, context_id: str, path: str, task: str) -> None:
        """Begin to copy: all, one context, or one path (given as the client wrote it)."""
        chosen = self._select_bindings(context_id, path)
        if not chosen and (context_id or path):
            what = f"no context {context_id}" if context_id else "no context"
            place = f" at {path}" if path else ""
            self._transfers.begin(context_id, path, task).end(f"The session has {what}{place}.")
        tasks = [
            self._spawn(self._transfer(binding, only, self._transfers.begin(binding.spec.context_id, given, task)))
            for binding, only, given in chosen
        ]
        await self._wait_a_moment(tasks)

    def find_transfers(self, context_id: str | None, path: str | None, task: str | None) -> list[Transfer]:
        """Return how transfers stand. A context that the session does not have has failed, so that nobody waits."""
        found = self._transfers.matching(context_id, path, task)
        known = {binding.spec.context_id for binding in self.bindings} | {self._internal_context_id}
        if found or not context_id or context_id in known:
            return found
        failed = Transfer(context_id, path or "", task or UPLOAD)
        failed.end(f"The session has no context {context_id}.")
        return [failed]

    async def finish(self, remake: Callable[[SandboxSpec], Awaitable[Sandbox]]) -> None:
        """Upload, at the session's end, what the policies say; then let go of all.

        Args:
            remake: Makes a sandbox. If the first process has died, its files are uploaded from another one.
        """
        try:
            await asyncio.wait_for(self._run_final_uploads(remake), _FINAL_UPLOAD_TIMEOUT_SECONDS)
        except (SandboxError, TimeoutError) as error:
            _logger.error("%s: its contexts are not up to date: %r", self._session, error)
        if self._has_records:
            await self._service.run_in_thread(self._service.store.unbind, self._session)
        if self._internal_context_id:
            del self._service.session_by_internal_context[self._internal_context_id]
            await self._service.run_in_thread(self._service.store.delete, self._internal_context_id)

    async def _run_final_uploads(self, remake: Callable[[SandboxSpec], Awaitable[Sandbox]]) -> None:
        due = [binding for binding in self.bindings if binding.spec.uploads_at_end]
        if self._sandbox is None or not (due or self._tasks):
            return
        if self._sandbox.alive:
            await self._sandbox.thaw()
            while self._tasks:
                await asyncio.wait(self._tasks)
            self._sandbox.kill_all()  # from now on nothing changes
        sandbox = None
        if not self._sandbox.alive:
            self._sandbox = sandbox = await remake(SandboxSpec(root=self._directory, binds=self._binds))
        for binding in due:
            transfer = self._transfers.begin(binding.spec.context_id, binding.spec.path_as_given, UPLOAD)
            await self._transfer(binding, "", transfer)
        if sandbox:
            await sandbox.close()

    def _select_bindings(self, context_id: str, path: str) -> list[tuple[Binding, str, str]]:
        """Return what is meant: bindings, each with what below it, and the path to tell it by."""
        if self._internal_context_id and context_id == self._internal_context_id and path:
            return [self._choose_internal(path)]
        synchronised = [binding for binding in self.bindings if not context_id or binding.spec.context_id == context_id]
        if not path:
            return [(binding, "", binding.spec.path_as_given) for binding in synchronised]
        place = keys.normalize(path)
        found = [(binding, keys.relative_to(place, binding.spec.path)) for binding in synchronised]
        return [(binding, only, path) for binding, only in found if only is not None]

    def _choose_internal(self, path: str) -> tuple[Binding, str, str]:
        folder, _, name = resolve_session_path(path).rpartition("/")
        item = BindingSpec(self._internal_context_id, path, folder or "/", SyncPolicy(), "", folder or "/")
        return Binding(item, 0.0), name, path

    def _make_binds(self, items: Sequence[BindingSpec]) -> list[BindMount]:
        """Return what must be shown: mounts, and directories where the session's user could make none."""
        found: list[BindMount] = []
        for item in items:
            if item.mount:
                found.append(self._make_mount_bind(item))
            elif not any(keys.relative_to(item.path, own) is not None for own in _WRITABLE_DIRECTORIES):
                source = self._directory / "paths" / str(len(list(self._directory.glob("paths/*"))))
                source.mkdir(parents=True)
                os.chown(source, *self._service.owner)
                found.append(BindMount(str(source), item.path))
        return found

    def _make_mount_bind(self, item: BindingSpec) -> BindMount:
        assert item.mount is not None
        store, wanted = self._service.store, item.mount.source
        with store.lock_for_mount(item.context_id, item.path) as (tree, key):
            # relative to the mounted folder, where an earlier mount has it, or as a path that files were uploaded to
            places = [keys.join(key, wanted), "/" + wanted] if wanted else [key]
            if wanted and not any(map(tree.has_directory, places)):
                raise mount_source_not_found(wanted)
            place = next(filter(tree.has_directory, places), key)
            source = tree.make_directory(place)
            self._mounted_keys[item.path] = place
        return BindMount(str(source), item.path, item.mount.read_only, nofollow_root=str(tree.top))

    async def _record_binding(self, item: BindingSpec) -> None:
        self._has_records, shown = True, self._mounted_keys.get(item.path)
        bound = await self._service.run_in_thread(
            self._service.store.bind, self._session, item.context_id, item.path, shown
        )
        self._bindings[item.path] = Binding(item, bound)

    async def _mount_in_sandbox(self, bind: BindMount) -> None:
        assert self._sandbox is not None
        _, fds = await self._sandbox.get_join_info()
        plan = {
            "source": bind.source,
            "target": bind.target,
            "read_only": bind.read_only,
            "nofollow_root": bind.nofollow_root,
        }
        order = {"bind": plan, "owner": zygote_process.sandbox_owner(), "namespaces": fds}
        command = zygote_process.module_command("agentbay.local.sandbox.zygote.mount_into_running", json.dumps(order))
        try:
            failure = await self._service.run_in_thread(_run_for_error, command, fds)
        finally:
            for fd in fds:
                os.close(fd)
        if failure:
            raise internal_error(f"{bind.target} could not be mounted: {failure}")

    async def _begin_downloads(self, bindings: Sequence[Binding]) -> None:
        later: list[asyncio.Task[None]] = []
        now: list[asyncio.Task[None]] = []
        for binding in bindings:
            item = binding.spec
            if item.mount:
                continue
            transfer = self._transfers.begin(item.context_id, item.path_as_given, DOWNLOAD)
            if not item.downloads_at_start and self._service.exists(item.context_id):
                transfer.end()  # nothing is to be done, and that is done
                continue
            (later if item.downloads_async else now).append(self._spawn(self._transfer(binding, "", transfer)))
        if now:
            await asyncio.wait(now)
        await self._wait_a_moment(later)

    async def _wait_a_moment(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        if tasks:
            await asyncio.wait(tasks, timeout=_TRANSFER_WAIT_SECONDS)

    async def _transfer(self, binding: Binding, only: str, transfer: Transfer) -> None:
        message = ""
        try:
            if not binding.spec.mount:  # of a mount, everything is in the context already
                async with binding.lock:
                    await (self._upload if transfer.task == UPLOAD else self._download)(binding, only)
        except (AgentBayError, OSError, SandboxError) as error:
            message = str(error) or repr(error)
            _logger.warning("%s: %s of %s failed: %s", self._session, transfer.task, transfer.path, message)
        except Exception:  # a task whose failure nobody sees would leave the client waiting for ever
            _logger.exception("%s: %s of %s failed", self._session, transfer.task, transfer.path)
            message = "The local runtime failed; its log says why."
            raise
        finally:
            transfer.end(message)

    async def _upload(self, binding: Binding, only: str) -> None:
        assert self._sandbox is not None
        item = binding.spec
        upload = await self._service.run_in_thread(Upload, self._service.store, item, binding.baseline, only)
        params = {"path": item.path, "only": only, "white_lists": item.white_lists}
        incoming, outgoing = os.pipe2(os.O_CLOEXEC)
        try:
            known = ipc.make_memfd(json.dumps(upload.known_files()).encode())
            ended = self._sandbox.start_file_operation("send tree", params, known, outgoing)
            binding.baseline = await self._service.run_in_thread(upload.run, incoming)
        finally:
            os.close(incoming)
        await asyncio.wait({ended})

    async def _download(self, binding: Binding, only: str) -> None:
        assert self._sandbox is not None
        item = binding.spec
        download = await self._service.run_in_thread(Download, self._service.store, item, only)
        incoming, outgoing = os.pipe2(os.O_CLOEXEC)
        receiving = asyncio.ensure_future(
            self._sandbox.run_file_operation_with_input("receive tree", {"path": item.path}, incoming)
        )
        try:
            await self._service.run_in_thread(partial(_write_and_close, download, outgoing))
        except BaseException:
            receiving.add_done_callback(_retrieve_exception)
            raise
        received = await receiving
        if only and not download.sent_anything:
            raise FileNotFoundError(f"The context has no file {keys.join(item.path, only)}.")
        binding.baseline = download.baseline(received, binding.baseline)
        if errors := received["errors"]:
            raise OSError("; ".join(f"{error['path']}: {error['why']}" for error in errors))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def resolve_session_path(path: str) -> str:
    """Return where a path leads that may be relative, as those of file tools may."""
    if path == "~" or path.startswith("~/"):
        path = path[2:]
    return keys.normalize(path if path.startswith("/") else f"{_HOME}/{path}")


def _run_for_error(command: Sequence[str], fds: Sequence[int]) -> str:
    """Run a program that needs descriptors; return what it complains of, "" if it has done its work."""
    done = subprocess.run(command, pass_fds=fds, env={}, capture_output=True, check=False)
    return done.stderr.decode(errors="replace").strip().rpartition("\n")[2] if done.returncode else ""


def _write_and_close(download: Download, fd: int) -> None:
    try:
        download.run(fd)
    except BrokenPipeError:  # the session says why it takes no more
        return
    finally:
        os.close(fd)


def _retrieve_exception(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()  # it was the other side that failed
