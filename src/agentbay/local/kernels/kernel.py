"""One kernel, as the service sees it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Mapping
from typing import Any

from agentbay.local.kernels.link import BadFrame, Link
from agentbay.local.kernels.transcript import Transcript
from agentbay.local.sandbox.host import Sandbox, SandboxGone

_GRACE = 3.0  # seconds between an interrupt that is to end a piece of code and the kill
_NEWS = 0.05  # seconds between the news of two deaths
_EARLY_LIMIT = 1 << 20  # bytes kept of what is written while no code runs
_BIRTH = 60.0  # seconds to start


class KernelFailed(Exception):
    """A kernel could not be started."""


class Kernel:
    """A process that runs one piece of code after the other; `alive` until it has died.

    Code may do to its process what it wants, its socket included: nothing that a kernel says is trusted beyond its
    own transcript.

    Args:
        obeys_frames: Whether it is interrupted by a frame rather than by a signal.
    """

    def __init__(self, sandbox: Sandbox, *, obeys_frames: bool = False) -> None:
        self._sandbox, self._obeys_frames = sandbox, obeys_frames
        self._loop = asyncio.get_running_loop()
        self.link = Link(self._on_frame, self._on_output, self._on_nonsense)
        self._pid = 0
        self._killed_because = ""
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._cell: _Cell | None = None
        self._early: list[tuple[str, bytes]] = []

    @property
    def alive(self) -> bool:
        """Whether it can run code."""
        return not self._ended.done()

    async def born(self, ended: asyncio.Future[int]) -> None:
        """Return when it waits for code.

        Args:
            ended: Gets the exit code of its process.

        Raises:
            KernelFailed: It died, or did not come up.
        """
        ended.add_done_callback(self._on_end)
        if not await self._sandbox.ends_within(self._ready, _BIRTH):
            raise KernelFailed("it did not start in time")
        self._ready.result()

    async def execute(self, code: str, env: Mapping[str, str], timeout: float, transcript: Transcript) -> None:
        """Run a piece of code; how it ends is in the transcript.

        Args:
            timeout: Seconds until it is interrupted, those not counted for which the sandbox is frozen.

        Raises:
            SandboxGone: The sandbox ended first.
        """
        cell, kills = _Cell(transcript, self._loop), self._sandbox.guard.kills()
        self._cell = cell
        transcript.begin()
        self._hand_on_early_output()
        self.link.send({"code": code, "env": dict(env)})
        if not self.alive:
            cell.end(None)
        try:
            if not await self._sandbox.ends_within(cell.turn, timeout):
                transcript.timed_out = True
            if not cell.ended.done():
                await self._stop(cell)
            count = cell.ended.result()
        finally:
            self._cell = None
        if not self.alive:
            await self._check_sandbox()
        if transcript.timed_out:
            transcript.fail("TimeoutError", self._timeout_text(timeout))
        elif not self.alive:
            why = self._sandbox.guard.explain(kills).decode().strip().removeprefix("agentbay: ")
            fate = f"{self._fate()} ({why})" if why else self._fate()
            transcript.fail("KernelDied", f"{fate}; what was defined is lost, the next call gets a new kernel")
        transcript.end(count)

    def interrupt(self) -> bool:
        """Interrupt what runs, and only that; False if nothing does."""
        if self._cell is None or not self.alive:
            return False
        if self._obeys_frames:
            self.link.send({"interrupt": True})
        elif self._cell.begun:
            self._sandbox.signal(self._pid, signal.SIGINT)
        else:  # a signal may overtake the code itself, and would then be for nobody
            self._cell.unwanted = True
        return True

    def give_up(self) -> None:
        """End what runs, by an interrupt or else by a kill: nobody waits for it."""
        if self._cell is not None and not self._cell.turn.done():
            self._cell.turn.set_result(None)

    def kill(self, because: str = "") -> None:
        """Kill it and its processes; the code that runs is told why."""
        if self._pid and self.alive:
            self._killed_because = because
            self._sandbox.signal(self._pid, signal.SIGKILL)

    async def end(self, because: str) -> None:
        """Kill it, and wait until it is dead."""
        self.kill(because)
        await self._sandbox.ends_within(self._ended, _GRACE)

    async def _stop(self, cell: _Cell) -> None:
        self.interrupt()
        if not await self._sandbox.ends_within(cell.ended, _GRACE):
            self.kill()
            await cell.ended

    async def _check_sandbox(self) -> None:
        """Raise SandboxGone if it was not the kernel alone that died; the news of the two come in any order."""
        if self._ended.result() == 128 + signal.SIGKILL and not self._killed_because:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_NEWS):
                    await self._sandbox.wait_closed()
        if not self._sandbox.alive:
            raise SandboxGone("the sandbox ended while this ran")

    def _timeout_text(self, timeout: float) -> str:
        if self.alive:
            return f"the code ran longer than {timeout:g} s and was interrupted; what was defined is kept"
        return f"the code ran longer than {timeout:g} s and could not be interrupted; its kernel was killed"

    def _fate(self) -> str:
        if self._killed_because:
            return self._killed_because
        code = self._ended.result()
        if code <= 128:
            return f"the kernel exited with {code}"
        number = code - 128
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        return f"the kernel was killed by {name}" + (", perhaps for want of memory" if number == signal.SIGKILL else "")

    def _on_output(self, stream: str, data: bytes) -> None:
        if self._cell is not None:
            self._cell.transcript.wrote(stream, data)
        elif sum(len(chunk) for _, chunk in self._early) < _EARLY_LIMIT:
            self._early.append((stream, data))

    def _hand_on_early_output(self) -> None:
        """What threads and processes of earlier code wrote since belongs to the next one that asks."""
        self.link.drain()
        for stream, data in self._early:
            self._on_output(stream, data)
        self._early.clear()

    def _on_frame(self, frame: dict[str, Any]) -> None:
        if not self._ready.done():
            if frame.get("event") == "ready":
                self._pid = frame.get("pid", 0)
                self._ready.set_result(None)
            else:
                _fail(self._ready, KernelFailed(str(frame.get("message"))))
            return
        if self._cell is None:
            return
        transcript = self._cell.transcript
        match frame:
            case {"event": "result", "data": dict(data)}:
                main, display, update = frame.get("main"), frame.get("display"), frame.get("update")
                identity = display if isinstance(display, str) else None
                transcript.showed(data, main=main is True, display=identity, update=update is True)
            case {"event": "begin"}:
                self._cell.begun = True
                if self._cell.unwanted:
                    self.interrupt()
            case {"event": "clear"}:
                transcript.clear()
            case {"event": "error", "name": str(name), "value": str(value), "traceback": str(traceback)}:
                transcript.fail(name, value, traceback)
            case {"event": "done"}:
                count = frame.get("count")
                self._cell.end(count if isinstance(count, int) else None)
            case _:
                raise BadFrame

    def _on_nonsense(self) -> None:
        self.kill("the code wrote to the socket of its own kernel, which was killed")

    def _on_end(self, ended: asyncio.Future[int]) -> None:
        self.link.drain()
        self.link.close()
        error = ended.exception()
        if error is None:
            self._ended.set_result(ended.result())
        else:
            _fail(self._ended, error)
        _fail(self._ready, error or KernelFailed(self._fate()))
        if self._cell is not None:
            if error is not None:
                _fail(self._cell.ended, error)
            self._cell.end(None)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # taken note of, whoever waits


class _Cell:
    """A piece of code that runs: `turn` is done when it ended or nobody waits for it, `ended` when it ended.

    Attributes:
        begun: Whether its kernel has begun with it, so that a signal reaches it.
        unwanted: Whether it is to be interrupted as soon as it has begun.
    """

    def __init__(self, transcript: Transcript, loop: asyncio.AbstractEventLoop) -> None:
        self.transcript = transcript
        self.begun = self.unwanted = False
        self.turn: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[int | None] = loop.create_future()

    def end(self, count: int | None) -> None:
        """Note that it ended."""
        if not self.ended.done():
            self.ended.set_result(count)
        if not self.turn.done():
            self.turn.set_result(None)
