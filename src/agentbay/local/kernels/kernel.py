"""One kernel, as the service sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Mapping
from typing import Any

from agentbay.local.kernels.byte_budget import ByteBudget
from agentbay.local.kernels.connection import BadFrame, KernelConnection
from agentbay.local.kernels.execution_output import ExecutionOutput
from agentbay.local.sandbox.service.manager import Sandbox, SandboxGone
from agentbay.local.worker_thread import run_by_size

_INTERRUPT_GRACE_SECONDS = 3.0  # between the interrupt of code whose time is up and the kill of its kernel
_SANDBOX_EXIT_WAIT_SECONDS = 0.05  # between the exit of a kernel and the news that its sandbox has ended
_START_TIMEOUT_SECONDS = 60.0
_MAX_FAILURE_CHARS = 4000  # of the reason why a kernel could not start
_PIECE_CHARACTERS = 1 << 16  # of code, encoded by one call
_LATE_DISPLAYS_LIMIT_BYTES = 1 << 20  # kept of what is displayed while no code runs


class KernelFailed(Exception):
    """A kernel could not be started."""


class Kernel:
    """A process that runs one piece of code at a time.

    Code may do to its kernel what it wants, including writing to its socket. So nothing that a kernel says is trusted
    beyond the output of the execution that runs.

    Args:
        budget: Bounds the memory of all kernels of the session.
        interrupt_by_frame: Whether it is interrupted by a frame instead of a signal.
    """

    def __init__(self, sandbox: Sandbox, budget: ByteBudget, *, interrupt_by_frame: bool = False) -> None:
        self._sandbox, self._budget, self._interrupt_by_frame = sandbox, budget, interrupt_by_frame
        self._loop = asyncio.get_running_loop()
        self.connection = KernelConnection(
            self._on_frame, self._on_output, self._on_left_out, self._on_protocol_error, budget
        )
        self._pid = 0
        self._killed_because = ""
        self._has_successor = True  # the next code of its context gets a new kernel
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._execution: _Execution | None = None
        self._late = self._collect_late()
        self._sent_environment: dict[str, str] = {}

    @property
    def alive(self) -> bool:
        """Whether it can run code."""
        return not self._ended.done()

    async def wait_until_ready(self, ended: asyncio.Future[int]) -> None:
        """Return when the kernel waits for code.

        Args:
            ended: Gets the exit code of its process.

        Raises:
            KernelFailed: It exited, or did not start in time.
        """
        ended.add_done_callback(self._on_exit)
        try:
            if not await self._sandbox.clock.ends_within(self._ready, _START_TIMEOUT_SECONDS):
                raise KernelFailed("it did not start in time")
        except BaseException:  # also when nobody waits for it any more
            self.connection.close()  # at which it exits
            raise
        self._ready.result()

    async def execute(self, code: str, env: Mapping[str, str], timeout: float, output: ExecutionOutput) -> None:
        """Run a piece of code, and collect its output and its error.

        Args:
            timeout: Seconds until it is interrupted, without those for which the sandbox is frozen.

        Raises:
            SandboxGone: The sandbox ended first.
        """
        code_json = await run_by_size(len(code), _encode_code, code)
        execution, kills = _Execution(output, self._loop), self._sandbox.watchdog.kill_counts()
        self.connection.read_pending_output()
        output.start(self._budget)
        output.begin_with(self._late)
        self._execution, self._late = execution, self._collect_late()
        self._send_code(code_json, env)
        # It may have ended before there was an execution for `_on_exit` to end.
        if not self.alive:
            execution.end(None)
        try:
            if not await self._sandbox.clock.ends_within(execution.ended_or_aborted, timeout):
                output.timed_out = True
            if not execution.ended.done():
                await self._stop(execution)
            count = execution.ended.result()
        finally:
            self._execution = None
            output.release_budget()
        if not self.alive:
            await self._raise_if_sandbox_gone()
        if output.timed_out:
            output.set_error("TimeoutError", self._timeout_text(timeout))
        elif not self.alive:
            cause = self._sandbox.watchdog.kill_message(kills).decode().strip().removeprefix("agentbay: ")
            fate = f"{self._describe_exit()} ({cause})" if cause else self._describe_exit()
            outlook = (
                "the next call gets a new kernel" if self._has_successor else "the next call needs another context"
            )
            output.set_error("KernelDied", f"{fate}; what was defined is lost, {outlook}")
        output.finish(count)

    def _send_code(self, code_json: bytes, env: Mapping[str, str]) -> None:
        """Send code with the variables that have changed.

        The others may have been changed by code, which must find them so.
        """
        changed = {name: value for name, value in env.items() if self._sent_environment.get(name) != value}
        self._sent_environment = dict(env)
        self.connection.send_bytes(b'{"code": %b, "env": %b}' % (code_json, json.dumps(changed).encode()))

    def interrupt(self) -> bool:
        """Interrupt the running code, or return False if none runs."""
        if self._execution is None or not self.alive:
            return False
        if self._interrupt_by_frame:
            self.connection.send({"interrupt": True})
        elif self._execution.begun:
            self._sandbox.signal(self._pid, signal.SIGINT)
        else:  # a signal may overtake the code itself, and would then interrupt nothing
            self._execution.interrupt_on_start = True
        return True

    def abort_execution(self) -> None:
        """Interrupt or kill the running code, since nobody waits for it."""
        if self._execution is not None and not self._execution.ended_or_aborted.done():
            self._execution.ended_or_aborted.set_result(None)

    def kill(self, because: str = "") -> None:
        """Kill the kernel and its processes.

        Args:
            because: The reason that the running code reports.
        """
        if self._pid and self.alive:
            self._killed_because = because
            self._sandbox.signal(self._pid, signal.SIGKILL)

    async def kill_and_wait(self, because: str, *, has_successor: bool = True) -> None:
        """Kill the kernel and wait for its exit.

        Args:
            because: The reason that the running code reports.
            has_successor: Whether its context stays, and gets a new kernel.
        """
        self._has_successor = has_successor
        self.kill(because)
        await self._sandbox.clock.ends_within(self._ended, _INTERRUPT_GRACE_SECONDS)

    async def _stop(self, execution: _Execution) -> None:
        self.interrupt()
        if not await self._sandbox.clock.ends_within(execution.ended, _INTERRUPT_GRACE_SECONDS):
            self.kill()
            await execution.ended

    async def _raise_if_sandbox_gone(self) -> None:
        """Raise SandboxGone if the whole sandbox has ended.

        The news of the two exits arrive in any order.
        """
        if self._ended.result() == 128 + signal.SIGKILL and not self._killed_because:
            # The kernel was killed alone, for instance by the memory limit.
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

    def _describe_failed_start(self) -> str:
        """Say how it ended and what it wrote.

        For example, a package that the session has installed may break IPython.
        """
        written = self._late.tail(_MAX_FAILURE_CHARS)[1].strip()
        return f"{self._describe_exit()}: {written}" if written else self._describe_exit()

    def _collect_late(self) -> ExecutionOutput:
        """Return an output that collects what arrives while no code runs."""
        late = ExecutionOutput(_LATE_DISPLAYS_LIMIT_BYTES)
        late.start(self._budget)
        return late

    def _on_output(self, stream: str, data: bytes) -> None:
        output = self._late if self._execution is None else self._execution.output
        output.add_output(stream, data)

    def _on_left_out(self, size: int) -> None:
        output = self._late if self._execution is None else self._execution.output
        output.add_left_out(size)

    def _on_frame(self, frame: dict[str, Any]) -> None:
        if not self._ready.done():
            self._on_first_frame(frame)
        elif self._execution is not None:
            if not self._show(self._execution.output, frame):
                self._on_execution_frame(self._execution, frame)
        else:
            self._show(self._late, frame)

    def _on_first_frame(self, frame: dict[str, Any]) -> None:
        match frame:
            case {"event": "ready", "pid": int(pid)}:
                self._pid = pid
                self._ready.set_result(None)
            case _:
                _fail_future(self._ready, KernelFailed(str(frame.get("message"))[:_MAX_FAILURE_CHARS]))

    def _show(self, output: ExecutionOutput, frame: dict[str, Any]) -> bool:
        """Take a frame about what is displayed, or return False for another one."""
        match frame:
            case {"event": "result", "data": dict(data)}:
                display, update = frame.get("display"), frame.get("update") is True
                identity = display if isinstance(display, str) else None
                output.add_display(data, main=frame.get("main") is True, display=identity, update=update)
            case {"event": "clear"}:
                output.clear(wait=frame.get("wait") is True)
            case _:
                return False
        return True

    def _on_execution_frame(self, execution: _Execution, frame: dict[str, Any]) -> None:
        match frame:
            case {"event": "begin"}:
                execution.begun = True
                if execution.interrupt_on_start:
                    self.interrupt()
            case {"event": "error", "name": str(name), "value": str(value), "traceback": str(traceback)}:
                execution.output.set_error(name, value, traceback)
            case {"event": "done"}:
                count = frame.get("count")
                execution.output.command_failed = frame.get("command_failed") is True
                execution.end(count if isinstance(count, int) else None)
            case _:
                raise BadFrame

    def _on_protocol_error(self) -> None:
        self.kill("the code wrote to the socket of its own kernel, which was killed")

    def _on_exit(self, ended: asyncio.Future[int]) -> None:
        self.connection.read_pending_output()
        self.connection.close()
        self._late.release_budget()
        error = ended.exception()
        if error is None:
            self._ended.set_result(ended.result())
        else:
            _fail_future(self._ended, error)
        _fail_future(self._ready, error or KernelFailed(self._describe_failed_start()))
        if self._execution is not None:
            if error is not None:
                _fail_future(self._execution.ended, error)
            self._execution.end(None)


def _encode_code(code: str) -> bytes:
    # Escapes, since a lone surrogate has no other form and kernels without a JSON library expect no other characters.
    pieces = (code[start : start + _PIECE_CHARACTERS] for start in range(0, len(code), _PIECE_CHARACTERS))
    return b'"%b"' % b"".join(json.dumps(piece).encode()[1:-1] for piece in pieces)


def _fail_future(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # retrieved, so that asyncio does not log it


class _Execution:
    """One execution of code.

    Attributes:
        begun: Whether the kernel has begun with it, so that a signal reaches it.
        interrupt_on_start: Whether it is to be interrupted as soon as it has begun.
        ended_or_aborted: Done when it has ended, or when nobody waits for it any more.
        ended: Gets the execution count at the end, or None.
    """

    def __init__(self, output: ExecutionOutput, loop: asyncio.AbstractEventLoop) -> None:
        self.output = output
        self.begun = self.interrupt_on_start = False
        self.ended_or_aborted: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[int | None] = loop.create_future()

    def end(self, count: int | None) -> None:
        """Record the end."""
        if not self.ended.done():
            self.ended.set_result(count)
        if not self.ended_or_aborted.done():
            self.ended_or_aborted.set_result(None)
