"""The kernels of one session.

Each lives in a code context. Every language has a context of its own name, whose kernel starts when it is first used.
A session can create more contexts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Mapping
from typing import NamedTuple

from agentbay.local.kernels import languages
from agentbay.local.kernels.byte_budget import ByteBudget
from agentbay.local.kernels.execution_output import ExecutionOutput
from agentbay.local.kernels.kernel import Kernel, KernelFailed
from agentbay.local.kernels.languages import KernelFactory, LanguageNotInstalled
from agentbay.local.sandbox.service.manager import Sandbox, SandboxError

_MAX_CONTEXTS = 100
_MAX_NAME_CHARS = 100


class CodeRequestRejected(Exception):
    """A request about code or contexts is refused, for the reason in the message."""


class CodeContextInfo(NamedTuple):
    """The name and the language of a code context."""

    name: str
    language: str


class KernelManager:
    """Runs code in contexts, one execution at a time in each.

    Kernels end with the sandbox of the session.

    Args:
        factories: Replacements for the usual factories, by language.
    """

    def __init__(self, **factories: KernelFactory) -> None:
        self._factories = factories
        self._budget = ByteBudget()
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
        """Run code in a context, and collect its output and its error.

        If the caller is cancelled, the code is interrupted or killed.

        Args:
            timeout: Seconds for the code, and for those before it in the same context.

        Raises:
            CodeRequestRejected: There is no such context.
            SandboxGone: The sandbox ended first.
        """
        slot = self._find(name)
        # A task of its own: a cancelled caller must not stop the exchange with the kernel in the middle.
        task = asyncio.create_task(slot.run(sandbox, code, env, timeout, output))
        self._running.add(task)
        task.add_done_callback(self._on_task_done)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            slot.abort(task)
            raise

    async def prestart(self, sandbox: Sandbox, name: str, env: Mapping[str, str]) -> None:
        """Start a kernel ahead of need.

        A failure is ignored here, and reported by the first execution.
        """
        with contextlib.suppress(LanguageNotInstalled, KernelFailed, SandboxError):
            await self._find(name).prestart(sandbox, env)

    def interrupt(self, name: str) -> bool:
        """Interrupt the running code of a context, or return False if none runs.

        The kernel stays.

        Raises:
            CodeRequestRejected: There is no such context.
        """
        return self._find(name).interrupt()

    async def create(
        self, sandbox: Sandbox, language: str, name: str | None, env: Mapping[str, str]
    ) -> CodeContextInfo:
        """Create a context and start its kernel.

        Raises:
            CodeRequestRejected: The name is taken, there are too many contexts, or the kernel could not be started.
            SandboxGone: The sandbox ended first.
        """
        name = name or self._free_name(language)
        if len(name) > _MAX_NAME_CHARS:
            raise CodeRequestRejected(f"The name of a context has {_MAX_NAME_CHARS} characters at most.")
        if name in self._slots or languages.is_known(name):
            raise CodeRequestRejected(f"There is a context {name!r} already.")
        if len(self._slots) >= _MAX_CONTEXTS:
            raise CodeRequestRejected(f"A session has {_MAX_CONTEXTS} contexts at most. Remove one.")
        slot = self._slots[name] = _KernelSlot(language, self._factory(language), self._budget)
        try:
            await slot.prestart(sandbox, env)
        except BaseException as error:
            # While the kernel started, it may have been removed, and its name been given to another.
            if self._slots.get(name) is slot:
                del self._slots[name]
            await slot.end("its context could not be created")
            if isinstance(error, (KernelFailed, LanguageNotInstalled)):
                raise CodeRequestRejected(f"The context cannot be made: {error}") from error
            raise
        return CodeContextInfo(name, language)

    def list(self) -> list[CodeContextInfo]:
        """Return all contexts, in the order of their creation or first use."""
        return [CodeContextInfo(name, slot.language) for name, slot in self._slots.items()]

    async def restart(self, name: str) -> None:
        """Kill the kernel of a context.

        The next code starts a new one.

        Raises:
            CodeRequestRejected: There is no such context.
        """
        await self._find(name).restart("its context was restarted")

    async def remove(self, name: str) -> None:
        """Remove a context and kill its kernel.

        Raises:
            CodeRequestRejected: There is no such context, or it is the one of a language.
        """
        if languages.is_known(name):
            raise CodeRequestRejected(f"The context {name!r} is always there. Restart it to get a new kernel.")
        slot = self._find(name)
        del self._slots[name]
        await slot.end("its context was removed")

    def _find(self, name: str) -> _KernelSlot:
        if name not in self._slots:
            if not languages.is_known(name):
                raise CodeRequestRejected(f"There is no context {name!r:.80}.")
            self._slots[name] = _KernelSlot(name, self._factory(name), self._budget)
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
            task.exception()  # retrieved, so that asyncio does not log it


class _KernelSlot:
    """A code context, which holds one kernel at a time."""

    def __init__(self, language: str, factory: KernelFactory, budget: ByteBudget) -> None:
        self.language = language
        self._factory, self._budget = factory, budget
        self._lock = asyncio.Lock()
        self._running_task: asyncio.Task[None] | None = None
        self._kernel: Kernel | None = None
        self._removal_reason = ""  # of a removed context

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
        except LanguageNotInstalled as error:
            output.set_error(LanguageNotInstalled.code, str(error))
        except KernelFailed as error:
            output.set_error("KernelFailed", f"no kernel could be started: {error}")
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
        if self._kernel is not None:
            await self._kernel.kill_and_wait(because, has_successor=False)

    def abort(self, task: asyncio.Task[None]) -> None:
        if self._running_task is not task or self._kernel is None or not self._kernel.alive:
            task.cancel()  # it waits for other code, or for a kernel
        else:
            self._kernel.abort_execution()

    def interrupt(self) -> bool:
        return self._kernel is not None and self._kernel.interrupt()

    async def _ensure_kernel(self, sandbox: Sandbox, env: Mapping[str, str]) -> Kernel:
        if self._kernel is None or not self._kernel.alive:
            self._kernel = await self._factory(sandbox, env, self._budget)
        if self._removal_reason:  # it was removed while this waited for the lock, or for the kernel
            await self._kernel.kill_and_wait(self._removal_reason, has_successor=False)
            raise KernelFailed(self._removal_reason)
        return self._kernel
