"""Background processes by the tools that a session has for them."""

from __future__ import annotations

import base64
import math
from functools import partial
from typing import TYPE_CHECKING

from .._transport.command_line import CommandLine
from .._transport.deadline import Deadline, operation_deadline
from .._transport.processes import (
    CANCEL_SECONDS,
    REPLY_MARGIN_SECONDS,
    ProcessEntry,
    ProcessState,
    check_answer,
    read_entries,
    read_output_answer,
    read_pid_answer,
    read_sent_bytes,
)
from .._wire import process_tools as wire

if TYPE_CHECKING:
    from .._transport.reply import Reply
    from .._wire.schema import Tool
    from .._wire.tools import ToolReply
    from .session import AsyncSession

_START_SECONDS = 25.0
_INPUT_BYTES, _RAW_INPUT_BYTES = 1 << 20, 8 << 20


class AsyncProcessTools:
    """Starts and drives background processes by tools of the session."""

    long_poll_seconds = 20.0  # wait of one call for output or the end

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self._has_raw_output = session._takes_raw_calls(wire.ReadProcessOutput)
        self._has_raw_input = session._takes_raw_calls(wire.WriteProcessInput)
        self.input_bytes = _RAW_INPUT_BYTES if self._has_raw_input else _INPUT_BYTES  # in one call

    async def start(
        self, process_id: str, line: CommandLine, cwd: str | None, envs: dict[str, str] | None, label: str
    ) -> int:
        """Start a command and return its pid.

        Under the same id nothing is started twice.
        """
        call = wire.StartProcess(
            command=line.text, process_id=process_id, cwd=cwd, envs=envs, label=label, **line.tool_fields()
        )
        return read_pid_answer(await self._session._run_tool(call, deadline=operation_deadline(_START_SECONDS)))

    async def list(self) -> list[ProcessEntry]:
        """List the processes, the newest last."""
        return read_entries(await self._session._run_tool(wire.ListProcesses()))

    async def follow(self, process_id: str, stream: str, offset: int, seconds: float) -> ProcessState:
        """Wait for output beyond an offset, or for the end.

        With `stream` "" it waits for the end only.
        """
        wait_ms = math.ceil(seconds * 1000)
        if not stream:
            call: Tool = wire.WaitProcess(process_id=process_id, timeout_ms=wait_ms)
            return read_output_answer(await self._call_and_wait(call, seconds))
        ask = partial(wire.ReadProcessOutput, process_id=process_id, stream=stream, offset=offset, wait_ms=wait_ms)
        if self._has_raw_output:
            return read_output_answer(await self._call_and_wait(ask(max_bytes=wire.MAX_OUTPUT_BYTES), seconds, b""))
        return read_output_answer(await self._call_and_wait(ask(encoding="base64"), seconds))

    async def write_input(self, process_id: str, piece: bytes, deadline: Deadline) -> int:
        """Write to the input, and return how many bytes were taken in time."""
        seconds = min(max(deadline.remaining(), 0.0), self.long_poll_seconds)
        ask = partial(wire.WriteProcessInput, process_id=process_id, timeout_ms=math.ceil(seconds * 1000))
        if self._has_raw_input:
            return read_sent_bytes(await self._call_and_wait(ask(), seconds, piece))
        call = ask(data=base64.b64encode(piece).decode(), encoding="base64")
        return read_sent_bytes(await self._call_and_wait(call, seconds))

    async def close_input(self, process_id: str) -> None:
        """End the input."""
        check_answer(await self._session._run_tool(wire.WriteProcessInput(process_id=process_id, close=True)))

    async def signal(self, process_id: str, number: int) -> None:
        """Send a signal to the process group."""
        check_answer(await self._session._run_tool(wire.SignalProcess(process_id=process_id, signal=number)))

    async def remove(self, process_id: str) -> None:
        """Remove a process that has ended."""
        check_answer(await self._session._run_tool(wire.RemoveProcess(process_id=process_id)))

    async def cancel(self, process_id: str) -> None:
        """Kill and remove a process, and let none start under its id any more."""
        call = wire.RemoveProcess(process_id=process_id, kill=True)
        check_answer(await self._session._run_tool(call, timeout=CANCEL_SECONDS))

    async def _call_and_wait(self, call: Tool, seconds: float, body: bytes | None = None) -> Reply[ToolReply]:
        limit = seconds + REPLY_MARGIN_SECONDS
        return await self._session._run_tool(call, timeout=limit, extend_while_paused=True, body=body)
