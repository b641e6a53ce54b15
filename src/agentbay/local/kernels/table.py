"""The kernels of one session: one for each language, made when it is first needed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from agentbay.local.kernels import languages
from agentbay.local.kernels.kernel import Kernel, KernelFailed
from agentbay.local.kernels.languages import NotInstalled, Starter
from agentbay.local.kernels.transcript import Transcript
from agentbay.local.sandbox.host import Sandbox, SandboxError


class Kernels:
    """Runs code in the kernel of its language, one piece after the other. The session's end is theirs too.

    Args:
        starters: How kernels are started where not in the usual way, by language.
    """

    def __init__(self, **starters: Starter) -> None:
        self._slots = {language: _Slot(starter) for language, starter in {**languages.STARTERS, **starters}.items()}
        self._running: set[asyncio.Task[None]] = set()

    async def run(
        self,
        sandbox: Sandbox,
        language: str,
        code: str,
        *,
        env: Mapping[str, str],
        timeout: float,
        transcript: Transcript,
    ) -> None:
        """Run code; how it ends is in the transcript. If nobody waits any more, it is stopped.

        Raises:
            SandboxGone: The sandbox ended first.
        """
        slot = self._slots[language]
        task = asyncio.create_task(slot.run(sandbox, code, env, timeout, transcript))
        self._running.add(task)
        task.add_done_callback(self._forget)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            slot.give_up(task)
            raise

    async def prepare(self, sandbox: Sandbox, language: str) -> None:
        """Start the kernel of a language before it is needed; if that fails, the first call will say why."""
        await self._slots[language].prepare(sandbox)

    def interrupt(self, language: str) -> bool:
        """Interrupt the code that runs in a language, and keep its kernel; False if none runs."""
        return self._slots[language].interrupt()

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # taken note of, whoever waited


class _Slot:
    """The place of one language's kernel."""

    def __init__(self, starter: Starter) -> None:
        self._starter = starter
        self._turn = asyncio.Lock()
        self._owner: asyncio.Task[None] | None = None
        self._kernel: Kernel | None = None

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
            if self._kernel is None or not self._kernel.alive:
                self._kernel = await self._starter(sandbox)
            await self._kernel.execute(code, env, timeout, transcript)
        except NotInstalled as lack:
            transcript.fail(NotInstalled.code, str(lack))
        except KernelFailed as failure:
            transcript.fail("KernelFailed", f"no kernel could be started: {failure}")
        finally:
            self._owner = None
            self._turn.release()

    async def prepare(self, sandbox: Sandbox) -> None:
        async with self._turn:
            with contextlib.suppress(NotInstalled, KernelFailed, SandboxError):
                self._kernel = self._kernel or await self._starter(sandbox)

    def give_up(self, task: asyncio.Task[None]) -> None:
        if self._owner is not task:
            task.cancel()
        elif self._kernel is not None:
            self._kernel.give_up()

    def interrupt(self) -> bool:
        return self._kernel is not None and self._kernel.interrupt()
