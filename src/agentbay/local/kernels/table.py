"""The kernels of one session, each in a context: one for each language, made when it is first needed, and others."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Mapping
from typing import NamedTuple

from agentbay.local.kernels import languages
from agentbay.local.kernels.kernel import Kernel, KernelFailed
from agentbay.local.kernels.languages import NotInstalled, Starter
from agentbay.local.kernels.transcript import Transcript
from agentbay.local.sandbox.host import Sandbox, SandboxError

_MOST_CONTEXTS = 100
_LONGEST_NAME = 100


class CodeRefused(Exception):
    """Code cannot be run as asked, or a context not be made or removed; says why."""


class ContextFacts(NamedTuple):
    """What is told of a context."""

    name: str
    language: str


class Kernels:
    """Runs code in contexts, in each one piece after the other. The session's end is theirs too.

    The context of a language carries its name, and is there without being made.

    Args:
        starters: How kernels are started where not in the usual way, by language.
    """

    def __init__(self, **starters: Starter) -> None:
        self._starters = starters
        self._contexts: dict[str, _Context] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def run(
        self,
        sandbox: Sandbox,
        name: str,
        code: str,
        *,
        env: Mapping[str, str],
        timeout: float,
        transcript: Transcript,
    ) -> None:
        """Run code in a context; how it ends is in the transcript. If nobody waits any more, it is stopped.

        Raises:
            CodeRefused: There is no such context.
            SandboxGone: The sandbox ended first.
        """
        context = self._find(name)
        task = asyncio.create_task(context.run(sandbox, code, env, timeout, transcript))
        self._running.add(task)
        task.add_done_callback(self._forget)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            context.give_up(task)
            raise

    async def prepare(self, sandbox: Sandbox, name: str, env: Mapping[str, str]) -> None:
        """Start a kernel before it is needed; if that fails, the first call will say why."""
        with contextlib.suppress(NotInstalled, KernelFailed, SandboxError):
            await self._find(name).prepare(sandbox, env)

    def interrupt(self, name: str) -> bool:
        """Interrupt the code that runs in a context, and keep its kernel; False if none runs.

        Raises:
            CodeRefused: There is no such context.
        """
        return self._find(name).interrupt()

    async def create(self, sandbox: Sandbox, language: str, name: str | None, env: Mapping[str, str]) -> ContextFacts:
        """Make a context, with its kernel running.

        Raises:
            CodeRefused: Its name is taken, there are too many, or its kernel cannot be started; it is not made.
            SandboxGone: The sandbox ended first.
        """
        name = name or self._free_name(language)
        if len(name) > _LONGEST_NAME:
            raise CodeRefused(f"The name of a context has {_LONGEST_NAME} characters at most.")
        if name in self._contexts or languages.known(name):
            raise CodeRefused(f"There is a context {name!r} already.")
        if len(self._contexts) >= _MOST_CONTEXTS:
            raise CodeRefused(f"A session has {_MOST_CONTEXTS} contexts at most. Remove one.")
        context = self._contexts[name] = _Context(language, self._starter(language))
        try:
            await context.prepare(sandbox, env)
        except BaseException as error:
            if self._contexts.get(name) is context:
                del self._contexts[name]
            await context.end("its context was given up")
            if isinstance(error, (KernelFailed, NotInstalled)):
                raise CodeRefused(f"The context cannot be made: {error}") from error
            raise
        return ContextFacts(name, language)

    def list(self) -> list[ContextFacts]:
        """Tell which contexts there are, in the order in which they were made or first used."""
        return [ContextFacts(name, context.language) for name, context in self._contexts.items()]

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
        if languages.known(name):
            raise CodeRefused(f"The context {name!r} is always there. Restart it to get a new kernel.")
        context = self._find(name)
        del self._contexts[name]
        await context.end("its context was removed")

    def _find(self, name: str) -> _Context:
        if name not in self._contexts:
            if not languages.known(name):
                raise CodeRefused(f"There is no context {name!r:.80}.")
            self._contexts[name] = _Context(name, self._starter(name))
        return self._contexts[name]

    def _free_name(self, language: str) -> str:
        short = language.rpartition(":")[2]
        names = (f"{short}-{number}" for number in itertools.count(1))
        return next(name for name in names if name not in self._contexts)

    def _starter(self, language: str) -> Starter:
        return self._starters.get(language) or languages.starter(language)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # taken note of, whoever waited


class _Context:
    """The place of one kernel."""

    def __init__(self, language: str, starter: Starter) -> None:
        self.language = language
        self._starter = starter
        self._turn = asyncio.Lock()
        self._owner: asyncio.Task[None] | None = None
        self._kernel: Kernel | None = None
        self._removed = ""  # why

    async def run(
        self, sandbox: Sandbox, code: str, env: Mapping[str, str], timeout: float, transcript: Transcript
    ) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._turn.acquire()
        except TimeoutError:
            transcript.timed_out = True
            transcript.fail("TimeoutError", f"earlier code was still running after {timeout:g} s; this was not begun")
            return
        try:
            self._owner = asyncio.current_task()
            kernel = await self._living_kernel(sandbox, env)
            await kernel.execute(code, env, timeout, transcript)
        except NotInstalled as lack:
            transcript.fail(NotInstalled.code, str(lack))
        except KernelFailed as failure:
            transcript.fail("KernelFailed", f"no kernel could be started: {failure}")
        finally:
            self._owner = None
            self._turn.release()

    async def prepare(self, sandbox: Sandbox, env: Mapping[str, str]) -> None:
        async with self._turn:
            await self._living_kernel(sandbox, env)

    async def restart(self, because: str) -> None:
        if self._kernel is not None:
            await self._kernel.end(because)

    async def end(self, because: str) -> None:
        self._removed = because
        await self.restart(because)

    def give_up(self, task: asyncio.Task[None]) -> None:
        if self._owner is not task:
            task.cancel()
        elif self._kernel is not None:
            self._kernel.give_up()

    def interrupt(self) -> bool:
        return self._kernel is not None and self._kernel.interrupt()

    async def _living_kernel(self, sandbox: Sandbox, env: Mapping[str, str]) -> Kernel:
        if self._kernel is None or not self._kernel.alive:
            self._kernel = await self._starter(sandbox, env)
        if self._removed:  # while this waited for its turn, or for the kernel
            await self._kernel.end(self._removed)
            raise KernelFailed(self._removed)
        return self._kernel
