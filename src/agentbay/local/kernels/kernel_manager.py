"""The kernels of one session, each in a context: one for each language, made when it is first needed, and others."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Mapping
from typing import NamedTuple

from agentbay.local.kernels import languages
from agentbay.local.kernels.execution_output import ExecutionOutput
from agentbay.local.kernels.kernel import Kernel, KernelFailed
from agentbay.local.kernels.languages import KernelFactory, LanguageNotInstalled
from agentbay.local.sandbox.service.manager import Sandbox, SandboxError

_MAX_CONTEXTS = 100
_LONGEST_NAME = 100


class CodeRequestRejected(Exception):
    """Code cannot be run as asked, or a context not be made or removed; says why."""


class CodeContextInfo(NamedTuple):
    """What is told of a context."""

    name: str
    language: str


class KernelManager:
    """Runs code in contexts, in each one piece after the other. The session's end is theirs too.

    The context of a language carries its name, and is there without being made.

    Args:
        starters: How kernels are started where not in the usual way, by language.
    """

    def __init__(self, **starters: KernelFactory) -> None:
        self._factories = starters
        self._slots: dict[str, _KernelSlot] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def run(
        self,
        sandbox: Sandbox,
        name: str,
        code: str,
        *,
        env: Mapping[str, str],
        timeout: float,
        output: ExecutionOutput,
    ) -> None:
        """Run code in a context; how it ends is in the output. If nobody waits any more, it is stopped.

        Raises:
            CodeRefused: There is no such context.
            SandboxGone: The sandbox ended first.
        """
        context = self._find(name)
        task = asyncio.create_task(context.run(sandbox, code, env, timeout, output))
        self._running.add(task)
        task.add_done_callback(self._on_task_done)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            context.abort(task)
            raise

    async def prestart(self, sandbox: Sandbox, name: str, env: Mapping[str, str]) -> None:
        """Start a kernel before it is needed; if that fails, the first call will say why."""
        with contextlib.suppress(LanguageNotInstalled, KernelFailed, SandboxError):
            await self._find(name).prestart(sandbox, env)

    def interrupt(self, name: str) -> bool:
        """Interrupt the code that runs in a context, and keep its kernel; False if none runs.

        Raises:
            CodeRefused: There is no such context.
        """
        return self._find(name).interrupt()

    async def create(
        self, sandbox: Sandbox, language: str, name: str | None, env: Mapping[str, str]
    ) -> CodeContextInfo:
        """Make a context, with its kernel running.

        Raises:
            CodeRefused: Its name is taken, there are too many, or its kernel cannot be started; it is not made.
            SandboxGone: The sandbox ended first.
        """
        name = name or self._free_name(language)
        if len(name) > _LONGEST_NAME:
            raise CodeRequestRejected(f"The name of a context has {_LONGEST_NAME} characters at most.")
        if name in self._slots or languages.is_known(name):
            raise CodeRequestRejected(f"There is a context {name!r} already.")
        if len(self._slots) >= _MAX_CONTEXTS:
            raise CodeRequestRejected(f"A session has {_MAX_CONTEXTS} contexts at most. Remove one.")
        context = self._slots[name] = _KernelSlot(language, self._factory(language))
        try:
            await context.prestart(sandbox, env)
        except BaseException as error:
            if self._slots.get(name) is context:
                del self._slots[name]
            await context.end("its context was given up")
            if isinstance(error, (KernelFailed, LanguageNotInstalled)):
                raise CodeRequestRejected(f"The context cannot be made: {error}") from error
            raise
        return CodeContextInfo(name, language)

    def list(self) -> list[CodeContextInfo]:
        """Tell which contexts there are, in the order in which they were made or first used."""
        return [CodeContextInfo(name, context.language) for name, context in self._slots.items()]

    async def restart(self, name: str) -> None:
        """End a context's kernel; the next code gets a new one.

        Raises:
            CodeRefused: There is no such context.
        """
        await self._find(name).restart("its context was restarted")

    async def remove(self, name: str) -> None:
        """Remove a context, and end its kernel.

        Raises:
            CodeRefused: There is no such context, or it is the one of a language.
        """
        if languages.is_known(name):
            raise CodeRequestRejected(f"The context {name!r} is always there. Restart it to get a new kernel.")
        context = self._find(name)
        del self._slots[name]
        await context.end("its context was removed")

    def _find(self, name: str) -> _KernelSlot:
        if name not in self._slots:
            if not languages.is_known(name):
                raise CodeRequestRejected(f"There is no context {name!r:.80}.")
            self._slots[name] = _KernelSlot(name, self._factory(name))
        return self._slots[name]

    def _free_name(self, language: str) -> str:
        short = language.rpartition(":")[2]
        names = (f"{short}-{number}" for number in itertools.count(1))
        return next(name for name in names if name not in self._slots)

    def _factory(self, language: str) -> KernelFactory:
        return self._factories.get(language) or languages.get_factory(language)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # taken note of, whoever waited


class _KernelSlot:
    """The place of one kernel."""

    def __init__(self, language: str, starter: KernelFactory) -> None:
        self.language = language
        self._factory = starter
        self._lock = asyncio.Lock()
        self._running_task: asyncio.Task[None] | None = None
        self._kernel: Kernel | None = None
        self._removal_reason = ""  # why

    async def run(
        self, sandbox: Sandbox, code: str, env: Mapping[str, str], timeout: float, output: ExecutionOutput
    ) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._lock.acquire()
        except TimeoutError:
            output.timed_out = True
            output.set_error("TimeoutError", f"earlier code was still running after {timeout:g} s; this was not begun")
            return
        try:
            self._running_task = asyncio.current_task()
            kernel = await self._ensure_kernel(sandbox, env)
            await kernel.execute(code, env, timeout, output)
        except LanguageNotInstalled as lack:
            output.set_error(LanguageNotInstalled.code, str(lack))
        except KernelFailed as failure:
            output.set_error("KernelFailed", f"no kernel could be started: {failure}")
        finally:
            self._running_task = None
            self._lock.release()

    async def prestart(self, sandbox: Sandbox, env: Mapping[str, str]) -> None:
        async with self._lock:
            await self._ensure_kernel(sandbox, env)

    async def restart(self, because: str) -> None:
        if self._kernel is not None:
            await self._kernel.kill_and_wait(because)

    async def end(self, because: str) -> None:
        self._removal_reason = because
        await self.restart(because)

    def abort(self, task: asyncio.Task[None]) -> None:
        if self._running_task is not task:
            task.cancel()
        elif self._kernel is not None:
            self._kernel.abort_execution()

    def interrupt(self) -> bool:
        return self._kernel is not None and self._kernel.interrupt()

    async def _ensure_kernel(self, sandbox: Sandbox, env: Mapping[str, str]) -> Kernel:
        if self._kernel is None or not self._kernel.alive:
            self._kernel = await self._factory(sandbox, env)
        if self._removal_reason:  # while this waited for its turn, or for the kernel
            await self._kernel.kill_and_wait(self._removal_reason)
            raise KernelFailed(self._removal_reason)
        return self._kernel
