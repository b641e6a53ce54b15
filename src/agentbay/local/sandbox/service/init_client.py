"""What process 1 of a sandbox has been asked, and who waits for the answers."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from agentbay.local.sandbox.inside import file_operations
from agentbay.local.sandbox.service.channel import Channel
from agentbay.local.sandbox.service.errors import FileOperationFailed, ResourceCreationFailed, SandboxError, SandboxGone
from agentbay.local.sandbox.shared.ipc import Message
from agentbay.local.sandbox.shared.sandbox_config import JoinInfo


class InitClient:
    """Requests by their numbers; its length is that of the ones that run.

    Args:
        wake: Called with each request: something begins to run.
    """

    def __init__(self, channel: Channel, wake: Callable[[], None]) -> None:
        self._channel, self._wake = channel, wake
        self._loop = asyncio.get_running_loop()
        self._last_id = 0
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._fd_waiters: dict[int, asyncio.Future[int]] = {}  # descriptors that are awaited
        self._join_info_waiters: dict[int, asyncio.Future[tuple[JoinInfo, list[int]]]] = {}

    def __len__(self) -> int:
        return len(self._exits)

    def start_request(self, message: Message, fds: Sequence[int] = ()) -> tuple[int, asyncio.Future[int]]:
        """Ask for something that ends with an exit code; `abandon` must follow. The descriptors are closed here."""
        number = self._send(message, fds)
        ended = self._exits[number] = self._loop.create_future()
        return number, ended

    def start_detached(self, message: Message, fds: Sequence[int]) -> asyncio.Future[int]:
        """Ask for something that nobody may wait for; return its exit code to be."""
        number, ended = self.start_request(message, fds)

        def forget(_: asyncio.Future[int]) -> None:
            del self._exits[number]
            if not ended.cancelled():
                ended.exception()  # taken note of, whoever waited

        ended.add_done_callback(forget)
        return ended

    def kill(self, number: int) -> None:
        """Kill what a request has started."""
        self._channel.send({"do": "kill", "id": number})

    def dispose(self, number: int) -> None:
        """Forget a request; kill what it started if that still runs, as after a cancellation."""
        ended = self._exits.pop(number)
        if not ended.done():
            self.kill(number)
        elif not ended.cancelled():
            ended.exception()  # taken note of, whoever waited

    def dispose_on_exit(self, number: int) -> None:
        """Forget a request when what it started has ended."""
        self._exits[number].add_done_callback(lambda _: self._exits.pop(number, None))

    async def get_join_info(self) -> tuple[JoinInfo, list[int]]:
        """Ask for what a process from outside needs to come in."""
        number = self._send({"do": "entry"})
        answer: asyncio.Future[tuple[JoinInfo, list[int]]] = self._loop.create_future()
        self._join_info_waiters[number] = answer
        try:
            return await answer
        finally:
            del self._join_info_waiters[number]

    async def receive_fd(self, number: int, fits: Callable[[int], bool]) -> int:
        """Wait for the descriptor that a request brings; the caller's from then on."""
        given: asyncio.Future[int] = self._loop.create_future()
        self._fd_waiters[number] = given
        try:
            fd = await given
        except asyncio.CancelledError:
            if given.done() and not given.cancelled() and given.exception() is None:
                os.close(given.result())
            raise
        finally:
            del self._fd_waiters[number]
        if not fits(fd):
            os.close(fd)
            raise SandboxError("the sandbox gave a descriptor of another kind")
        return fd

    def handle_message(self, message: Message, fds: list[int]) -> None:
        """Take an answer; descriptors that nobody waits for any more are closed."""
        number = message["id"]
        match message["event"]:
            case "exit":
                _resolve_future(self._exits.get(number), message["code"])
            case "entry":
                if _resolve_future(self._join_info_waiters.get(number), (message["entry"], fds)):
                    return
            case "given":
                if fds and _resolve_future(self._fd_waiters.get(number), fds[0]):
                    del fds[0]
            case "refused":
                for waiting in (self._fd_waiters.get(number), self._exits.get(number)):
                    if waiting is not None and not waiting.done():
                        waiting.set_exception(ResourceCreationFailed(message["message"]))
            case unknown:
                raise ValueError(unknown)
        for fd in fds:
            os.close(fd)

    def fail_all(self) -> None:
        """Tell all who wait that the sandbox is gone."""
        waiting: list[asyncio.Future[Any]] = [
            *self._exits.values(),
            *self._join_info_waiters.values(),
            *self._fd_waiters.values(),
        ]
        for ended in waiting:
            if not ended.done():
                ended.set_exception(SandboxGone("the sandbox ended while this ran"))

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


def parse_file_reply(content: bytearray, operation: str) -> tuple[dict[str, Any], bytes]:
    """Return the result and the payload of a file operation (see `files`), or raise what it says instead."""
    trailer = file_operations.REPLY_LENGTH.size
    if len(content) < trailer:
        raise SandboxError(f"{operation} was killed before it could answer")
    (length,) = file_operations.REPLY_LENGTH.unpack(content[-trailer:])
    end = len(content) - trailer - length
    result: dict[str, Any] = json.loads(content[end:-trailer])
    if failure := result.get("failure"):
        raise FileOperationFailed(failure["errno"], failure["strerror"], failure["path"])
    if "crash" in result:
        raise SandboxError(f"{operation} failed: {result['crash']}")
    return result, bytes(memoryview(content)[:end])
