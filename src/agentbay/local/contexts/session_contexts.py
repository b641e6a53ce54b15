"""The contexts of one session: its bindings, mounts and transfers."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from agentbay.errors import AgentBayError
from agentbay.local.api_errors import internal_error
from agentbay.local.contexts import keys
from agentbay.local.contexts.binding_spec import BindingSpec, parse_binding_specs
from agentbay.local.contexts.errors import mount_source_not_found
from agentbay.local.contexts.sandbox_transfer import Binding, download_changes, upload_changes
from agentbay.local.contexts.service import ContextService
from agentbay.local.contexts.transfers import DOWNLOAD, UPLOAD, Transfer, TransferTable
from agentbay.local.sandbox.service.manager import BindMount, Sandbox, SandboxError, SandboxSpec
from agentbay.local.sandbox.service.mounting import MountFailed, mount_into_running
from agentbay.local.sandbox.shared.sandbox_config import CLIENT_HOME
from agentbay.models.context import SyncPolicy

_logger = logging.getLogger(__name__)

_TRANSFER_WAIT_SECONDS = 0.25  # an answer waits so long for transfers, which spares the client a second request
_INTERRUPT_TIMEOUT_SECONDS = 20.0  # for transfers under way at the end of a session, which run again after it
_FINAL_UPLOAD_TIMEOUT_SECONDS = 1800.0  # for all uploads at the end of a session
_WRITABLE_DIRECTORIES = (CLIENT_HOME, "/tmp")  # where the sandbox's user may make directories
INTERNAL_PATH = "/tmp/file-transfer"


class SessionContexts:
    """The contexts of one session."""

    def __init__(self, service: ContextService, specs: Sequence[BindingSpec]) -> None:
        self._service, self._initial_specs = service, list(specs)
        self._session = ""
        self._directory = Path()
        self._sandbox: Sandbox | None = None
        self._binds: list[BindMount] = []
        self._mounted_keys: dict[str, str] = {}  # by path
        self._bindings: dict[str, Binding] = {}
        self._has_records = False  # in the store, to be removed at the end
        self._internal_context_id = ""
        self._transfers = TransferTable()
        self._tasks: set[asyncio.Task[None]] = set()
        self._bind_lock = asyncio.Lock()
        # uploads to run again after the session's code has been killed; None while it lives
        self._interrupted: list[tuple[Binding, str, Transfer]] | None = None

    @classmethod
    async def create(cls, service: ContextService, listed: Sequence[dict[str, Any]]) -> SessionContexts:
        """Parse and check the PersistenceDataList of a new session.

        Raises:
            InvalidRequestError: It is malformed.
            NotFoundError: A context to be mounted does not exist.
        """
        specs = parse_binding_specs(listed)
        if specs:
            await service.run_in_thread(service.check_bindings, specs, ())
        return cls(service, specs)

    @property
    def is_empty(self) -> bool:
        """Whether the session is to begin without any context."""
        return not self._initial_specs

    @property
    def bindings(self) -> list[Binding]:
        """Return the bindings in the order in which they were made."""
        return list(self._bindings.values())

    async def prepare(self, session: str, directory: Path) -> list[BindMount]:
        """Return the bind mounts that the sandbox starts with."""
        self._session, self._directory = session, directory
        if self._initial_specs:
            self._binds = await self._service.run_in_thread(self._make_binds, self._initial_specs)
        for spec in self._initial_specs:
            await self._record_binding(spec)
        return self._binds

    async def start(self, sandbox: Sandbox) -> None:
        """Start the downloads, and wait for those that the policies wait for."""
        self._sandbox = sandbox
        await self._begin_downloads(self.bindings)

    async def bind(self, listed: Sequence[dict[str, Any]]) -> None:
        """Bind more contexts to the running session.

        Raises:
            ConflictError: A path is bound already.
        """
        specs = parse_binding_specs(listed)
        async with self._bind_lock:
            await self._service.run_in_thread(self._service.check_bindings, specs, self._bindings)
            for bind in await self._service.run_in_thread(self._make_binds, specs):
                await self._mount(bind)
                self._binds.append(bind)
            for spec in specs:
                await self._record_binding(spec)
        await self._begin_downloads([self._bindings[spec.path] for spec in specs])

    async def get_internal_context_id(self) -> str:
        """Return the id of the internal context for file transfers, created lazily."""
        async with self._bind_lock:
            if not self._internal_context_id:
                self._internal_context_id = (await self._service.run_in_thread(self._service.store.create_internal)).id
                self._service.session_by_internal_context[self._internal_context_id] = self._session
        return self._internal_context_id

    async def sync(self, context_id: str, path: str, task: str) -> None:
        """Start transfers of all contexts, of one, or of one path.

        Args:
            path: As the client wrote it.
            task: Upload or download.
        """
        chosen = self._select_bindings(context_id, path)
        if not chosen and (context_id or path):
            context = f"no context {context_id}" if context_id else "no context"
            at_path = f" at {path}" if path else ""
            self._transfers.begin(context_id, path, task).end(f"The session has {context}{at_path}.")
        tasks = [
            self._spawn(self._transfer(binding, only, self._transfers.begin(binding.spec.context_id, given, task)))
            for binding, only, given in chosen
        ]
        await self._wait_a_moment(tasks)

    def find_transfers(self, context_id: str | None, path: str | None, task: str | None) -> list[Transfer]:
        """Return the transfers that pass a filter.

        For a context that the session lacks, return a failed one, so that no client waits for it.
        """
        found = self._transfers.matching(context_id, path, task)
        known = {binding.spec.context_id for binding in self.bindings} | {self._internal_context_id}
        if found or not context_id or context_id in known:
            return found
        failed = Transfer(context_id, path or "", task or UPLOAD)
        failed.end(f"The session has no context {context_id}.")
        return [failed]

    async def finish(self, remake: Callable[[SandboxSpec], Awaitable[Sandbox]]) -> None:
        """Run the final uploads of the session, and release its contexts.

        Args:
            remake: Makes a sandbox for the same files, to upload from if the init process has died.
        """
        try:
            await asyncio.wait_for(self._run_final_uploads(remake), _FINAL_UPLOAD_TIMEOUT_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever it is, the session must end and release its contexts
            _logger.error("%s: its contexts are not up to date: %r", self._session, error)
        if self._has_records:
            await self._service.run_in_thread(self._service.store.unbind, self._session)
        if self._internal_context_id:
            del self._service.session_by_internal_context[self._internal_context_id]
            await self._service.run_in_thread(self._service.store.delete, self._internal_context_id)

    async def _run_final_uploads(self, remake: Callable[[SandboxSpec], Awaitable[Sandbox]]) -> None:
        due = [(binding, "") for binding in self.bindings if binding.spec.uploads_at_end]
        if self._sandbox is None or not (due or self._tasks):
            return
        self._interrupted = []
        if self._sandbox.alive:
            # Code of the session could stop the transfers under way, so it dies first, and then whatever is left. From
            # then on nothing changes any more, and an upload that was interrupted runs again.
            await self._sandbox.thaw()
            self._sandbox.kill_commands()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_INTERRUPT_TIMEOUT_SECONDS)
            self._sandbox.kill_all()
        if self._tasks:
            await asyncio.wait(self._tasks)
        again, self._interrupted = self._interrupted, None
        remade = None
        if not self._sandbox.alive:
            self._sandbox = remade = await remake(SandboxSpec(root=self._directory, binds=self._binds))
        try:
            for binding, only, transfer in again:
                await self._transfer(binding, only, transfer)
            for binding, only in due:
                transfer = self._transfers.begin(binding.spec.context_id, binding.spec.path_as_given, UPLOAD)
                await self._transfer(binding, only, transfer)
        finally:
            if remade:
                await remade.close()

    def _select_bindings(self, context_id: str, path: str) -> list[tuple[Binding, str, str]]:
        """Return what to transfer: bindings, paths below them, and paths to report."""
        if self._internal_context_id and context_id == self._internal_context_id and path:
            return [self._choose_internal(path)]
        synchronised = [binding for binding in self.bindings if not context_id or binding.spec.context_id == context_id]
        if not path:
            return [(binding, "", binding.spec.path_as_given) for binding in synchronised]
        normalized = keys.normalize(path)
        found = [(binding, keys.relative_to(normalized, binding.spec.path)) for binding in synchronised]
        return [(binding, only, path) for binding, only in found if only is not None]

    def _choose_internal(self, path: str) -> tuple[Binding, str, str]:
        folder, _, name = resolve_session_path(path).rpartition("/")
        spec = BindingSpec(self._internal_context_id, path, folder or "/", SyncPolicy(), "", folder or "/")
        return Binding(spec, 0.0), name, path

    def _make_binds(self, specs: Sequence[BindingSpec]) -> list[BindMount]:
        """Return bind mounts of contexts, and of directories that the user cannot make."""
        found: list[BindMount] = []
        for spec in specs:
            if spec.mount:
                found.append(self._make_mount_bind(spec))
            elif not any(keys.relative_to(spec.path, own) is not None for own in _WRITABLE_DIRECTORIES):
                source = self._directory / "paths" / str(len(list(self._directory.glob("paths/*"))))
                source.mkdir(parents=True)
                os.chown(source, *self._service.owner)
                found.append(BindMount(str(source), spec.path))
        return found

    def _make_mount_bind(self, spec: BindingSpec) -> BindMount:
        assert spec.mount is not None
        store, folder = self._service.store, spec.mount.source
        with store.lock_for_mount(spec.context_id, spec.path) as (tree, key):
            # a source path is relative to the mounted directory, or the absolute path of an upload
            candidates = [keys.join(key, folder), "/" + folder] if folder else [key]
            if folder and not any(map(tree.has_directory, candidates)):
                raise mount_source_not_found(folder)
            mounted = next(filter(tree.has_directory, candidates), key)
            source = tree.make_directory(mounted)
            self._mounted_keys[spec.path] = mounted
        return BindMount(str(source), spec.path, spec.mount.read_only, nofollow_root=str(tree.top))

    async def _record_binding(self, spec: BindingSpec) -> None:
        self._has_records, shown = True, self._mounted_keys.get(spec.path)
        bound_at = await self._service.run_in_thread(
            self._service.store.bind, self._session, spec.context_id, spec.path, shown
        )
        self._bindings[spec.path] = Binding(spec, bound_at)

    async def _mount(self, bind: BindMount) -> None:
        assert self._sandbox is not None
        try:
            await mount_into_running(self._sandbox, bind)
        except MountFailed as error:
            raise internal_error(str(error)) from error

    async def _begin_downloads(self, bindings: Sequence[Binding]) -> None:
        later: list[asyncio.Task[None]] = []
        now: list[asyncio.Task[None]] = []
        for binding in bindings:
            spec = binding.spec
            if spec.mount:
                continue
            transfer = self._transfers.begin(spec.context_id, spec.path_as_given, DOWNLOAD)
            if not spec.downloads_at_start and await self._service.run_in_thread(self._service.exists, spec.context_id):
                transfer.end()  # clients wait for a status, also of a download that is switched off
                continue
            (later if spec.downloads_async else now).append(self._spawn(self._transfer(binding, "", transfer)))
        if now:
            await asyncio.wait(now)
        await self._wait_a_moment(later)

    async def _wait_a_moment(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        if tasks:
            await asyncio.wait(tasks, timeout=_TRANSFER_WAIT_SECONDS)

    async def _transfer(self, binding: Binding, only: str, transfer: Transfer) -> None:
        message: str | None = "The runtime stopped the transfer."
        try:
            if not binding.spec.mount:  # a mount shows the context itself
                # Two transfers at once would both start from the same baseline, and one of the new ones would be lost.
                async with binding.lock:
                    assert self._sandbox is not None
                    copy = upload_changes if transfer.task == UPLOAD else download_changes
                    await copy(self._service, self._sandbox, binding, only)
            message = ""
        except (AgentBayError, OSError, SandboxError) as error:
            message = str(error) or repr(error)
            # without the message, because it names files, and a session can put anything into their names
            _logger.warning("%s: %s of %s: %s", self._session, transfer.task, transfer.context_id, type(error).__name__)
            if self._interrupted is not None and transfer.task == UPLOAD:
                self._interrupted.append((binding, only, transfer))
                message = None
        except Exception:  # a transfer that never ends would be waited for
            _logger.exception("%s: %s of %s failed", self._session, transfer.task, transfer.context_id)
            message = "The local runtime failed; its log says why."
            raise
        finally:  # without a status the client would wait for ever
            if message is not None:
                transfer.end(message)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def resolve_session_path(path: str) -> str:
    """Resolve a path as file tools take it, absolute or relative to home."""
    if path == "~" or path.startswith("~/"):
        path = path[2:]
    return keys.normalize(path if path.startswith("/") else f"{CLIENT_HOME}/{path}")
