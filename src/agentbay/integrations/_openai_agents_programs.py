"""Programs of OpenAI Agents that keep running between two calls."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from agents.sandbox.session.pty_output import collect_pty_output
from agents.sandbox.session.pty_types import (
    PTY_PROCESSES_MAX,
    PtyExecUpdate,
    allocate_pty_process_id,
    clamp_pty_yield_time_ms,
    process_id_to_prune_from_meta,
    resolve_pty_write_yield_time_ms,
)

from agentbay import AsyncProcess, AsyncPtyHandle, AsyncSession
from agentbay.errors import AgentBayError, PtyNotConnectedError

_START_YIELD_SECONDS, _WRITE_YIELD_SECONDS = 10.0, 0.25  # to wait for output if the model does not say


@dataclass
class Program:
    """A program, with its output that was not yet collected."""

    handle: AsyncPtyHandle | AsyncProcess
    chunks: deque[bytes] = field(default_factory=deque)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    exit_code: int | None = None
    last_used: float = field(default_factory=time.monotonic)
    reader: asyncio.Task[None] | None = None

    @property
    def is_done(self) -> bool:
        """Whether it has ended and all of its output is here."""
        return self.exit_code is not None

    async def read(self, timeout: float | None) -> None:
        """Read its output to the end, and kill it when its time is over."""
        try:
            async with asyncio.timeout(timeout):
                async for chunk in self._iterate():
                    self._add(chunk)
            self.exit_code = self.handle.exit_code
        except TimeoutError:
            await self.kill()
            self._add(f"[killed after {timeout:g} s]\n".encode())
        except AgentBayError as error:
            self._add(f"[its output is lost: {error}]\n".encode())
        finally:
            self.exit_code = -1 if self.exit_code is None else self.exit_code
            self.news.set()

    def _iterate(self) -> AsyncIterator[bytes]:
        return aiter(self.handle) if isinstance(self.handle, AsyncPtyHandle) else self.handle.stdout.chunks()

    def _add(self, chunk: bytes) -> None:
        self.chunks.append(chunk)
        self.news.set()

    async def kill(self) -> None:
        """Kill it, if it still runs."""
        with contextlib.suppress(AgentBayError):  # it has ended, or the session has
            await self.handle.kill()

    async def stop(self) -> None:
        """Kill it and read no more of it."""
        if not self.is_done:
            await self.kill()
        if self.reader is not None:
            self.reader.cancel()
            await asyncio.gather(self.reader, return_exceptions=True)


class Programs:
    """The programs of a sandbox, by the numbers that the framework knows them by."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self.by_number: dict[int, Program] = {}

    async def start(
        self, argv: list[str], cwd: str, envs: dict[str, str], *, tty: bool, timeout: float | None = None
    ) -> int:
        """Start a program and return its number.

        If there are more than the framework allows, the one that was unused for longest is killed.
        """
        if tty:
            program = Program(await self._session.pty.create(cwd=cwd, envs=envs, argv=argv))
        else:
            program = Program(await self._session.command.start(argv, cwd, envs, stdin=b"", merge_stderr=True))
        program.reader = asyncio.create_task(program.read(timeout))
        if len(self.by_number) >= PTY_PROCESSES_MAX:
            uses = [(number, known.last_used, known.is_done) for number, known in self.by_number.items()]
            if (oldest := process_id_to_prune_from_meta(uses)) is not None:
                await self.by_number.pop(oldest).stop()
        number = allocate_pty_process_id(set(self.by_number))
        self.by_number[number] = program
        return number

    async def write(self, number: int, text: str) -> None:
        """Type into the terminal of a program."""
        handle = self.by_number[number].handle
        if not isinstance(handle, AsyncPtyHandle):
            raise RuntimeError("stdin is not available for this process: it was started without a terminal")
        with contextlib.suppress(PtyNotConnectedError):  # it has ended, which the next output tells
            await handle.send_input(text)

    async def collect(
        self, number: int, seconds: float | None, max_tokens: int | None, typed: str | None = None
    ) -> PtyExecUpdate:
        """Wait for output, and forget a program that has ended.

        Args:
            number: The number of the program.
            seconds: Seconds to wait for more; None is the framework's usual.
            max_tokens: Most tokens of output to return.
            typed: What was typed before; None after its start.
        """
        program = self.by_number[number]
        usual = _START_YIELD_SECONDS if typed is None else _WRITE_YIELD_SECONDS
        milliseconds = int(1000 * (usual if seconds is None else seconds))
        output, tokens, is_closed = await collect_pty_output(
            output_chunks=program.chunks,
            output_lock=program.lock,
            output_notify=program.news,
            is_done=lambda: program.is_done,
            yield_time_ms=clamp_pty_yield_time_ms(milliseconds)
            if typed is None
            else resolve_pty_write_yield_time_ms(yield_time_ms=milliseconds, input_empty=not typed),
            max_output_tokens=max_tokens,
        )
        program.last_used = time.monotonic()
        if not is_closed:
            return PtyExecUpdate(number, output, None, tokens)
        self.by_number.pop(number, None)
        return PtyExecUpdate(None, output, program.exit_code, tokens)

    async def kill_all(self) -> None:
        """Kill all of them."""
        programs, self.by_number = list(self.by_number.values()), {}
        for program in programs:
            await program.stop()
