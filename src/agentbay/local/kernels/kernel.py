"""One kernel, as the service sees it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Mapping
from typing import Any

from agentbay.local.kernels.connection import BadFrame, KernelConnection
from agentbay.local.kernels.execution_output import ExecutionOutput
from agentbay.local.sandbox.service.manager import Sandbox, SandboxGone

_INTERRUPT_GRACE_SECONDS = 3.0  # seconds between an interrupt that is to end a piece of code and the kill
_SANDBOX_EXIT_WAIT_SECONDS = 0.05  # seconds between the news of two deaths
_EARLY_LIMIT = 1 << 20  # bytes kept of what is written while no code runs
_START_TIMEOUT_SECONDS = 60.0  # seconds to start


class KernelFailed(Exception):
    """A kernel could not be started."""


class Kernel:
    """A process that runs one piece of code after the other; `alive` until it has died.

    Code may do to its process what it wants, its socket included: nothing that a kernel says is trusted beyond its
    own output.

    Args:
        obeys_frames: Whether it is interrupted by a frame rather than by a signal.
    """

    def __init__(self, sandbox: Sandbox, *, obeys_frames: bool = False) -> None:
        self._sandbox, self._interrupt_by_frame = sandbox, obeys_frames
        self._loop = asyncio.get_running_loop()
        self.connection = KernelConnection(self._on_frame, self._on_output, self._on_protocol_error)
        self._pid = 0
        self._killed_because = ""
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._execution: _Execution | None = None
        self._idle_output: list[tuple[str, bytes]] = []

    @property
    def alive(self) -> bool:
        """Whether it can run code."""
        return not self._ended.done()

    async def wait_until_ready(self, ended: asyncio.Future[int]) -> None:
        """Return when it waits for code.

        Args:
            ended: Gets the exit code of its process.

        Raises:
            KernelFailed: It died, or did not come up.
        """
        ended.add_done_callback(self._on_exit)
        if not await self._sandbox.ends_within(self._ready, _START_TIMEOUT_SECONDS):
            raise KernelFailed("it did not start in time")
        self._ready.result()

    async def execute(self, code: str, env: Mapping[str, str], timeout: float, output: ExecutionOutput) -> None:
        """Run a piece of code; how it ends is in the output.

        Args:
            timeout: Seconds until it is interrupted, those not counted for which the sandbox is frozen.

        Raises:
            SandboxGone: The sandbox ended first.
        """
        cell, kills = _Execution(output, self._loop), self._sandbox.watchdog.kill_counts()
        self._execution = cell
        output.start_clock()
        self._deliver_idle_output()
        self.connection.send({"code": code, "env": dict(env)})
        if not self.alive:
            cell.end(None)
        try:
            if not await self._sandbox.ends_within(cell.ended_or_aborted, timeout):
                output.timed_out = True
            if not cell.ended.done():
                await self._stop(cell)
            count = cell.ended.result()
        finally:
            self._execution = None
        if not self.alive:
            await self._raise_if_sandbox_gone()
        if output.timed_out:
            output.set_error("TimeoutError", self._timeout_text(timeout))
        elif not self.alive:
            why = self._sandbox.watchdog.kill_message(kills).decode().strip().removeprefix("agentbay: ")
            fate = f"{self._describe_exit()} ({why})" if why else self._describe_exit()
            output.set_error("KernelDied", f"{fate}; what was defined is lost, the next call gets a new kernel")
        output.finish(count)

    def interrupt(self) -> bool:
        """Interrupt what runs, and only that; False if nothing does."""
        if self._execution is None or not self.alive:
            return False
        if self._interrupt_by_frame:
            self.connection.send({"interrupt": True})
        elif self._execution.begun:
            self._sandbox.signal(self._pid, signal.SIGINT)
        else:  # a signal may overtake the code itself, and would then be for nobody
            self._execution.interrupt_on_start = True
        return True

    def abort_execution(self) -> None:
        """End what runs, by an interrupt or else by a kill: nobody waits for it."""
        if self._execution is not None and not self._execution.ended_or_aborted.done():
            self._execution.ended_or_aborted.set_result(None)

    def kill(self, because: str = "") -> None:
        """Kill it and its processes; the code that runs is told why."""
        if self._pid and self.alive:
            self._killed_because = because
            self._sandbox.signal(self._pid, signal.SIGKILL)

    async def kill_and_wait(self, because: str) -> None:
        """Kill it, and wait until it is dead."""
        self.kill(because)
        await self._sandbox.ends_within(self._ended, _INTERRUPT_GRACE_SECONDS)

    async def _stop(self, cell: _Execution) -> None:
        self.interrupt()
        if not await self._sandbox.ends_within(cell.ended, _INTERRUPT_GRACE_SECONDS):
            self.kill()
            await cell.ended

    async def _raise_if_sandbox_gone(self) -> None:
        """Raise SandboxGone if it was not the kernel alone that died; the news of the two come in any order."""
        if self._ended.result() == 128 + signal.SIGKILL and not self._killed_because:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SANDBOX_EXIT_WAIT_SECONDS):
                    await self._sandbox.wait_closed()
        if not self._sandbox.alive:
            raise SandboxGone("the sandbox ended while this ran")

    def _timeout_text(self, timeout: float) -> str:
        if self.alive:
            return f"the code ran longer than {timeout:g} s and was interrupted; what was defined is kept"
        return f"the code ran longer than {timeout:g} s and could not be interrupted; its kernel was killed"

    def _describe_exit(self) -> str:
        if self._killed_because:
            return self._killed_because
        code = self._ended.result()
        if code <= 128:
            return f"the kernel exited with {code}"
        number = code - 128
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        return f"the kernel was killed by {name}" + (", perhaps for want of memory" if number == signal.SIGKILL else "")

    def _on_output(self, stream: str, data: bytes) -> None:
        if self._execution is not None:
            self._execution.output.add_output(stream, data)
        elif sum(len(chunk) for _, chunk in self._idle_output) < _EARLY_LIMIT:
            self._idle_output.append((stream, data))

    def _deliver_idle_output(self) -> None:
        """What threads and processes of earlier code wrote since belongs to the next one that asks."""
        self.connection.read_pending_output()
        for stream, data in self._idle_output:
            self._on_output(stream, data)
        self._idle_output.clear()

    def _on_frame(self, frame: dict[str, Any]) -> None:
        if not self._ready.done():
            if frame.get("event") == "ready":
                self._pid = frame.get("pid", 0)
                self._ready.set_result(None)
            else:
                _fail_future(self._ready, KernelFailed(str(frame.get("message"))))
            return
        if self._execution is None:
            return
        output = self._execution.output
        match frame:
            case {"event": "result", "data": dict(data)}:
                main, display, update = frame.get("main"), frame.get("display"), frame.get("update")
                identity = display if isinstance(display, str) else None
                output.add_display(data, main=main is True, display=identity, update=update is True)
            case {"event": "begin"}:
                self._execution.begun = True
                if self._execution.interrupt_on_start:
                    self.interrupt()
            case {"event": "clear"}:
                output.clear()
            case {"event": "error", "name": str(name), "value": str(value), "traceback": str(traceback)}:
                output.set_error(name, value, traceback)
            case {"event": "done"}:
                count = frame.get("count")
                self._execution.end(count if isinstance(count, int) else None)
            case _:
                raise BadFrame

    def _on_protocol_error(self) -> None:
        self.kill("the code wrote to the socket of its own kernel, which was killed")

    def _on_exit(self, ended: asyncio.Future[int]) -> None:
        self.connection.read_pending_output()
        self.connection.close()
        error = ended.exception()
        if error is None:
            self._ended.set_result(ended.result())
        else:
            _fail_future(self._ended, error)
        _fail_future(self._ready, error or KernelFailed(self._describe_exit()))
        if self._execution is not None:
            if error is not None:
                _fail_future(self._execution.ended, error)
            self._execution.end(None)


def _fail_future(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # taken note of, whoever waits


class _Execution:
    """A piece of code that runs: `turn` is done when it ended or nobody waits for it, `ended` when it ended.

    Attributes:
        begun: Whether its kernel has begun with it, so that a signal reaches it.
        unwanted: Whether it is to be interrupted as soon as it has begun.
    """

    def __init__(self, output: ExecutionOutput, loop: asyncio.AbstractEventLoop) -> None:
        self.output = output
        self.begun = self.interrupt_on_start = False
        self.ended_or_aborted: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[int | None] = loop.create_future()

    def end(self, count: int | None) -> None:
        """Note that it ended."""
        if not self.ended.done():
            self.ended.set_result(count)
        if not self.ended_or_aborted.done():
            self.ended_or_aborted.set_result(None)
