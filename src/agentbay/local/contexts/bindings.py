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
from agentbay.local.contexts import keys
from agentbay.local.contexts.baseline import Baseline
from agentbay.local.contexts.download import Download
from agentbay.local.contexts.policy import Item, read_items
from agentbay.local.contexts.refusals import no_source
from agentbay.local.contexts.transfers import DOWNLOAD, UPLOAD, Transfer, Transfers
from agentbay.local.contexts.upload import Upload
from agentbay.local.refusals import broken
from agentbay.local.sandbox import launcher, wire
from agentbay.local.sandbox.host import Bind, Sandbox, SandboxError, SandboxSpec
from agentbay.models.context import SyncPolicy

if TYPE_CHECKING:
    from agentbay.local.contexts.desk import Desk

_logger = logging.getLogger(__name__)

_PATIENCE = 0.25  # seconds that an answer may wait for transfers, which spares the client a second question
_LONGEST_END = 1800.0  # seconds that a session's end may take to upload
_HOME = "/home/wuying"
_OWN = (_HOME, "/tmp")  # where the sandbox's user may make directories
INTERNAL_PATH = "/tmp/file-transfer"


@dataclass
class Binding:
    """A context at a path of the session."""

    item: Item
    bound: float
    baseline: Baseline = field(default_factory=Baseline)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # its transfers come one after the other


class SessionContexts:
    """The contexts of one session; made by `Desk.admit`."""

    def __init__(self, desk: Desk, items: Sequence[Item]) -> None:
        self._desk, self._wanted = desk, list(items)
        self._session = ""
        self._directory = Path()
        self._sandbox: Sandbox | None = None
        self._shown: list[Bind] = []
        self._places: dict[str, str] = {}  # keys of what is mounted, by path
        self._bindings: dict[str, Binding] = {}
        self._noted = False  # anything in the store
        self._internal = ""
        self._transfers = Transfers()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()

    @property
    def bindings(self) -> list[Binding]:
        """What is where, in the order of binding."""
        return list(self._bindings.values())

    async def prepare(self, session: str, directory: Path) -> list[Bind]:
        """Return what the sandbox must show from its beginning."""
        self._session, self._directory = session, directory
        if self._wanted:
            self._shown = await self._desk.run(self._binds, self._wanted)
        for item in self._wanted:
            await self._note(item)
        return self._shown

    async def start(self, sandbox: Sandbox) -> None:
        """Begin to download, and wait as the policies say: not at all, or, in any case, only for a moment."""
        self._sandbox = sandbox
        await self._begin_downloads(self.bindings)

    async def bind(self, listed: Sequence[dict[str, Any]]) -> None:
        """Give the running session more contexts.

        Raises:
            ConflictError: A path is taken.
        """
        items = read_items(listed)
        async with self._changing:
            self._desk.check(items, taken=self._bindings)
            for bind in await self._desk.run(self._binds, items):
                await self._attach(bind)
                self._shown.append(bind)
            for item in items:
                await self._note(item)
        await self._begin_downloads([self._bindings[item.path] for item in items])

    async def internal(self) -> str:
        """Return the id of the session's own context for files on their way, made at the first call."""
        async with self._changing:
            if not self._internal:
                self._internal = (await self._desk.run(self._desk.store.make_internal)).id
                self._desk.internals[self._internal] = self._session
        return self._internal

    async def sync(self, context_id: str, path: str, task: str) -> None:
        """Begin to copy: all, one context, or one path (given as the client wrote it)."""
        chosen = self._choose(context_id, path)
        if not chosen and (context_id or path):
            what = f"no context {context_id}" if context_id else "no context"
            place = f" at {path}" if path else ""
            self._transfers.begin(context_id, path, task).end(f"The session has {what}{place}.")
        tasks = [
            self._spawn(self._transfer(binding, only, self._transfers.begin(binding.item.context_id, given, task)))
            for binding, only, given in chosen
        ]
        await self._wait_a_moment(tasks)

    def statuses(self, context_id: str | None, path: str | None, task: str | None) -> list[Transfer]:
        """Return how transfers stand. A context that the session does not have has failed, so that nobody waits."""
        found = self._transfers.matching(context_id, path, task)
        known = {binding.item.context_id for binding in self.bindings} | {self._internal}
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
            await asyncio.wait_for(self._last_uploads(remake), _LONGEST_END)
        except (SandboxError, TimeoutError) as error:
            _logger.error("%s: its contexts are not up to date: %r", self._session, error)
        if self._noted:
            await self._desk.run(self._desk.store.unbind, self._session)
        if self._internal:
            del self._desk.internals[self._internal]
            await self._desk.run(self._desk.store.delete, self._internal)

    async def _last_uploads(self, remake: Callable[[SandboxSpec], Awaitable[Sandbox]]) -> None:
        due = [binding for binding in self.bindings if binding.item.uploads]
        if self._sandbox is None or not (due or self._tasks):
            return
        if self._sandbox.alive:
            await self._sandbox.thaw()
            while self._tasks:
                await asyncio.wait(self._tasks)
            self._sandbox.kill_all()  # from now on nothing changes
        sandbox = None
        if not self._sandbox.alive:
            self._sandbox = sandbox = await remake(SandboxSpec(root=self._directory, binds=self._shown))
        for binding in due:
            transfer = self._transfers.begin(binding.item.context_id, binding.item.given, UPLOAD)
            await self._transfer(binding, "", transfer)
        if sandbox:
            await sandbox.close()

    def _choose(self, context_id: str, path: str) -> list[tuple[Binding, str, str]]:
        """Return what is meant: bindings, each with what below it, and the path to tell it by."""
        if self._internal and context_id == self._internal and path:
            return [self._choose_internal(path)]
        synchronised = [binding for binding in self.bindings if not context_id or binding.item.context_id == context_id]
        if not path:
            return [(binding, "", binding.item.given) for binding in synchronised]
        place = keys.normal(path)
        found = [(binding, keys.below(place, binding.item.path)) for binding in synchronised]
        return [(binding, only, path) for binding, only in found if only is not None]

    def _choose_internal(self, path: str) -> tuple[Binding, str, str]:
        folder, _, name = in_session(path).rpartition("/")
        item = Item(self._internal, path, folder or "/", SyncPolicy(), "", folder or "/")
        return Binding(item, 0.0), name, path

    def _binds(self, items: Sequence[Item]) -> list[Bind]:
        """Return what must be shown: mounts, and directories where the session's user could make none."""
        found: list[Bind] = []
        for item in items:
            if item.mount:
                found.append(self._mount(item))
            elif not any(keys.below(item.path, own) is not None for own in _OWN):
                source = self._directory / "paths" / str(len(list(self._directory.glob("paths/*"))))
                source.mkdir(parents=True)
                os.chown(source, *self._desk.owner)
                found.append(Bind(str(source), item.path))
        return found

    def _mount(self, item: Item) -> Bind:
        assert item.mount is not None
        store, wanted = self._desk.store, item.mount.source
        with store.mounting(item.context_id, item.path) as (tree, key):
            # relative to the mounted folder, where an earlier mount has it, or as a path that files were uploaded to
            places = [keys.join(key, wanted), "/" + wanted] if wanted else [key]
            if wanted and not any(map(tree.exists, places)):
                raise no_source(wanted)
            place = next(filter(tree.exists, places), key)
            source = tree.make_directory(place)
            self._places[item.path] = place
        return Bind(str(source), item.path, item.mount.read_only, top=str(tree.top))

    async def _note(self, item: Item) -> None:
        self._noted, shown = True, self._places.get(item.path)
        bound = await self._desk.run(self._desk.store.bind, self._session, item.context_id, item.path, shown)
        self._bindings[item.path] = Binding(item, bound)

    async def _attach(self, bind: Bind) -> None:
        assert self._sandbox is not None
        _, fds = await self._sandbox.entry()
        plan = {"source": bind.source, "target": bind.target, "read_only": bind.read_only, "top": bind.top}
        order = {"bind": plan, "owner": launcher.sandbox_owner(), "namespaces": fds}
        command = launcher.program("agentbay.local.sandbox.attach", json.dumps(order))
        try:
            failure = await self._desk.run(_complaint, command, fds)
        finally:
            for fd in fds:
                os.close(fd)
        if failure:
            raise broken(f"{bind.target} could not be mounted: {failure}")

    async def _begin_downloads(self, bindings: Sequence[Binding]) -> None:
        later: list[asyncio.Task[None]] = []
        now: list[asyncio.Task[None]] = []
        for binding in bindings:
            item = binding.item
            if item.mount:
                continue
            transfer = self._transfers.begin(item.context_id, item.given, DOWNLOAD)
            if not item.downloads and self._desk.knows(item.context_id):
                transfer.end()  # nothing is to be done, and that is done
                continue
            (later if item.downloads_later else now).append(self._spawn(self._transfer(binding, "", transfer)))
        if now:
            await asyncio.wait(now)
        await self._wait_a_moment(later)

    async def _wait_a_moment(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        if tasks:
            await asyncio.wait(tasks, timeout=_PATIENCE)

    async def _transfer(self, binding: Binding, only: str, transfer: Transfer) -> None:
        message = ""
        try:
            if not binding.item.mount:  # of a mount, everything is in the context already
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
        item = binding.item
        upload = await self._desk.run(Upload, self._desk.store, item, binding.baseline, only)
        params = {"path": item.path, "only": only, "white_lists": item.white_lists}
        incoming, outgoing = os.pipe2(os.O_CLOEXEC)
        try:
            known = wire.memory_file(json.dumps(upload.known()).encode())
            ended = self._sandbox.start_call("send tree", params, known, outgoing)
            binding.baseline = await self._desk.run(upload.run, incoming)
        finally:
            os.close(incoming)
        await asyncio.wait({ended})

    async def _download(self, binding: Binding, only: str) -> None:
        assert self._sandbox is not None
        item = binding.item
        download = await self._desk.run(Download, self._desk.store, item, only)
        incoming, outgoing = os.pipe2(os.O_CLOEXEC)
        receiving = asyncio.ensure_future(self._sandbox.call_from("receive tree", {"path": item.path}, incoming))
        try:
            await self._desk.run(partial(_write_and_close, download, outgoing))
        except BaseException:
            receiving.add_done_callback(_ignore)
            raise
        received = await receiving
        if only and not download.found:
            raise FileNotFoundError(f"The context has no file {keys.join(item.path, only)}.")
        binding.baseline = download.baseline(received, binding.baseline)
        if errors := received["errors"]:
            raise OSError("; ".join(f"{error['path']}: {error['why']}" for error in errors))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def in_session(path: str) -> str:
    """Return where a path leads that may be relative, as those of file tools may."""
    if path == "~" or path.startswith("~/"):
        path = path[2:]
    return keys.normal(path if path.startswith("/") else f"{_HOME}/{path}")


def _complaint(command: Sequence[str], fds: Sequence[int]) -> str:
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


def _ignore(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()  # it was the other side that failed
