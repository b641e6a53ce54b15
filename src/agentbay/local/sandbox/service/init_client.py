"""Requests to process 1 of a sandbox, and the futures of their answers."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from typing import Any

from agentbay.local.large_json_decoder import load_json
from agentbay.local.sandbox.service.channel import Channel
from agentbay.local.sandbox.service.errors import (
    DirectoryNotEntered,
    FileOperationFailed,
    ResourceCreationFailed,
    SandboxError,
    SandboxGone,
)
from agentbay.local.sandbox.service.futures import retrieve_exception
from agentbay.local.sandbox.service.reply_check import check_reply
from agentbay.local.sandbox.shared.file_protocol import REPLY_LENGTH, FileRequest, ReplyT
from agentbay.local.sandbox.shared.ipc import Message
from agentbay.local.sandbox.shared.sandbox_config import NAMESPACES

_MAX_REPLY_VALUES = 50_000_000  # more than a sandbox has files


class InitClient:
    """Client of process 1.

    `len()` counts the running requests.

    Args:
        wake: Called with each request, since something begins to run.
    """

    def __init__(self, channel: Channel, wake: Callable[[], None]) -> None:
        self._channel, self._wake = channel, wake
        self._loop = asyncio.get_running_loop()
        self._last_id = 0
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._fd_waiters: dict[int, asyncio.Future[int]] = {}
        self._pid_waiters: dict[int, asyncio.Future[int]] = {}
        self._join_info_waiters: dict[int, asyncio.Future[tuple[dict[str, str], list[int]]]] = {}

    def __len__(self) -> int:
        return len(self._exits)

    def start_request(self, message: Message, fds: Sequence[int] = ()) -> tuple[int, asyncio.Future[int]]:
        """Send a request that ends with an exit code.

        `dispose` must follow. The descriptors are closed here.
        """
        number = self._send(message, fds)
        ended = self._exits[number] = self._loop.create_future()
        return number, ended

    def start_detached(self, message: Message, fds: Sequence[int]) -> asyncio.Future[int]:
        """Send a request and return the future of its exit code.

        It need not be awaited.
        """
        number, ended = self.start_request(message, fds)

        def forget(_: asyncio.Future[int]) -> None:
            if ended.cancelled():
                self.kill(number)
            del self._exits[number]
            retrieve_exception(ended)

        ended.add_done_callback(forget)
        return ended

    def kill(self, number: int) -> None:
        """Kill what a request has started."""
        self._channel.send({"do": "kill", "id": number})

    def signal(self, number: int, signal_number: int) -> None:
        """Send a signal to the process group of what a request has started."""
        self._channel.send({"do": "signal", "id": number, "number": signal_number})

    def dispose(self, number: int) -> None:
        """Forget a request.

        Kill what it started if that still runs, as after a cancellation.
        """
        ended = self._exits.pop(number)
        if not ended.done():
            self.kill(number)
        else:
            retrieve_exception(ended)

    def dispose_on_exit(self, number: int) -> None:
        """Forget a request when what it started has ended."""
        self._exits[number].add_done_callback(lambda _: self._exits.pop(number, None))

    async def get_join_info(self) -> tuple[dict[str, str], list[int]]:
        """Ask for the environment and the namespaces of the sandbox."""
        number = self._send({"do": "get_join_info"})
        answer: asyncio.Future[tuple[dict[str, str], list[int]]] = self._loop.create_future()
        self._join_info_waiters[number] = answer
        try:
            return await answer
        finally:
            del self._join_info_waiters[number]

    async def receive_fd(self, number: int, is_expected: Callable[[int], bool]) -> int:
        """Wait for the descriptor that answers a request.

        The caller owns it.
        """
        received: asyncio.Future[int] = self._loop.create_future()
        self._fd_waiters[number] = received
        try:
            fd = await received
        except asyncio.CancelledError:
            # It may have arrived in the same turn of the loop as the cancellation, and would leak.
            if received.done() and not received.cancelled() and received.exception() is None:
                os.close(received.result())
            raise
        finally:
            del self._fd_waiters[number]
        if not is_expected(fd):
            os.close(fd)
            raise SandboxError("the sandbox sent a descriptor of another kind")
        return fd

    async def receive_pid(self, number: int) -> int:
        """Wait for the pid, inside, of the command that a request starts."""
        started: asyncio.Future[int] = self._loop.create_future()
        self._pid_waiters[number] = started
        try:
            return await started
        finally:
            del self._pid_waiters[number]

    def handle_message(self, message: Message, fds: list[int]) -> None:
        """Resolve the future of an answer.

        Descriptors that nobody waits for any more are closed.
        """
        match message:
            case {"event": "exit", "id": int(number), "code": int(code)} if -256 < code < 256:
                _resolve_future(self._exits.get(number), code)
            case {"event": "started", "id": int(number), "pid": int(pid)}:
                _resolve_future(self._pid_waiters.get(number), pid)
            case {"event": "join_info", "id": int(number), "environment": dict(environment)}:
                answer = {str(name): str(value) for name, value in environment.items()}, fds
                if len(fds) == len(NAMESPACES) and _resolve_future(self._join_info_waiters.get(number), answer):
                    return
            case {"event": "descriptor", "id": int(number)}:
                if fds and _resolve_future(self._fd_waiters.get(number), fds[0]):
                    del fds[0]
            case {"event": "refused", "id": int(number)}:
                self.refuse(number, str(message["message"]))
            case {"event": "directory_not_entered", "id": int(number), "errno": int(code)}:
                self._fail(number, DirectoryNotEntered(code, str(message["message"]), str(message["path"])))
            case _:
                raise ValueError(str(message.get("event"))[:100])
        for fd in fds:
            os.close(fd)

    def fail_all(self) -> None:
        """Fail every future that waits with SandboxGone."""
        waiting: list[asyncio.Future[Any]] = [
            *self._exits.values(),
            *self._join_info_waiters.values(),
            *self._fd_waiters.values(),
            *self._pid_waiters.values(),
        ]
        for future in waiting:
            if not future.done():
                future.set_exception(SandboxGone("the sandbox ended while this ran"))

    def refuse(self, number: int, reason: str) -> None:
        """Fail the futures of a request with ResourceCreationFailed."""
        self._fail(number, ResourceCreationFailed(reason))

    def _fail(self, number: int, error: SandboxError) -> None:
        waiting: list[asyncio.Future[Any] | None] = [
            self._fd_waiters.get(number),
            self._pid_waiters.get(number),
            self._exits.get(number),
            self._join_info_waiters.get(number),
        ]
        for future in waiting:
            if future is not None and not future.done():
                future.set_exception(error)

    def _send(self, message: Message, fds: Sequence[int] = ()) -> int:
        self._last_id += 1
        self._channel.send({**message, "id": self._last_id}, fds)
        self._wake()
        return self._last_id


def _resolve_future(waiting: asyncio.Future[Any] | None, value: object) -> bool:
    if waiting is None or waiting.done():
        return False
    waiting.set_result(value)
    return True


def parse_file_reply(content: bytearray, request: FileRequest[ReplyT]) -> tuple[ReplyT, bytearray]:
    """Return the reply of a file operation, and the content without it.

    Raises:
        FileOperationFailed: The operation failed with an OSError, or was killed.
        SandboxError: It failed otherwise.
    """
    name, trailer = type(request).__name__, REPLY_LENGTH.size
    if len(content) < trailer:
        reason = "It was killed before it could answer, by the memory limit or a program of the session"
        raise FileOperationFailed(errno.EINTR, reason, vars(request).get("path", ""))
    (length,) = REPLY_LENGTH.unpack(content[-trailer:])
    end = len(content) - trailer - length
    try:
        fields: dict[str, Any] = load_json(content[max(end, 0) : -trailer], _MAX_REPLY_VALUES)
        if failure := fields.get("failure"):
            raise FileOperationFailed(int(failure["errno"]), str(failure["strerror"]), str(failure["path"]))
        if crash := fields.get("crash"):
            raise SandboxError(f"{name} failed: {crash!r:.1000}")
        check_reply(request.reply_class, fields)
        reply = request.parse_reply(fields)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise SandboxError(f"{name} sent an answer that cannot be read") from error
    del content[max(end, 0) :]
    return reply, content
