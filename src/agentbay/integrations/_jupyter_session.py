"""The session of a Jupyter kernel, and ports that lead to it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import json
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from agentbay import AsyncPtyHandle, AsyncSession, CreateSessionParams
from agentbay.errors import AgentBayError
from agentbay.integrations import _jupyter_relay as relay, open_async_session

_T = TypeVar("_T")
_START_SECONDS = 60.0
_LOST = -9  # the exit code of a kernel whose own did not arrive


class KernelSession:
    """A session with a kernel, and ports that lead to the kernel's sockets.

    Call every method but `run` and `end` through `run`, which executes it in an event loop of this object: the caller's
    loop may exist for one call only.
    """

    def __init__(self, image: str) -> None:
        self._image, self._loop = image, asyncio.new_event_loop()
        threading.Thread(target=self._serve, daemon=True).start()
        self.exit_code: int | None = None
        self.log = ""  # what the kernel that ended last wrote last
        self._exit_stack, self._count = contextlib.AsyncExitStack(), 0
        self._running, self._servers = asyncio.Event(), list[asyncio.Server]()
        self._connections: set[asyncio.Task[None]] = set()
        self._starting: asyncio.Task[Any] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._session: AsyncSession | None = None
        self._carrier: relay.Carrier

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run one of the other methods."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def end(self) -> None:
        """Delete the session, close the client, and end the event loop."""
        try:
            await self.run(self._close())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _serve(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    async def _open(self) -> AsyncSession:
        params = CreateSessionParams(image_id=self._image or None)
        self._session = await self._exit_stack.enter_async_context(open_async_session(params))
        for channel in range(len(relay.CHANNELS)):
            accept = functools.partial(self._accept, channel)
            self._servers.append(await asyncio.start_server(accept, "127.0.0.1", 0))
        return self._session

    @property
    def ports(self) -> list[int]:
        """The ports, in the order of the channels."""
        return [server.sockets[0].getsockname()[1] for server in self._servers]

    async def start(self, order: dict[str, Any]) -> None:
        """Start a kernel, after one that has ended.

        Raises:
            RuntimeError: The session has no Python that can start it.
        """
        self._starting = asyncio.current_task()
        session = self._session or await self._open()
        program = ["python3", "-c", inspect.getsource(relay)]
        terminal = await session.pty.create(argv=program, echo=False)
        self.exit_code, self._carrier = None, relay.Carrier(terminal.send_input)
        self._reading = asyncio.create_task(self._read(terminal, json.dumps(order).encode()))
        ready = asyncio.create_task(self._running.wait())
        await asyncio.wait([ready, self._reading], timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            if not self._reading.done():
                text = f"python3 of the session said nothing for {_START_SECONDS:g} s."
                raise RuntimeError(f"{text} Start the kernel again, or see what `python3 -V` does in a session.")
            raise RuntimeError(f"python3 of the session ended with code {terminal.exit_code}: {self.log}")

    async def wait(self) -> None:
        """Wait for the end of the kernel."""
        if self._reading:
            await asyncio.wait([self._reading])

    async def signal(self, number: int) -> None:
        """Send a signal to the kernel and its processes."""
        if self.exit_code is None:
            await self._carrier.send(relay.SIGNAL, number)

    async def _close(self) -> None:
        if self._starting:  # it may still have a session to delete
            self._starting.cancel()
            await asyncio.wait([self._starting])
        for server in self._servers:
            server.close()
        self._disconnect()
        if self._reading:
            self._reading.cancel()
        await self._exit_stack.aclose()

    def _accept(self, channel: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(channel, reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    def _disconnect(self) -> None:
        for task in self._connections:
            task.cancel()

    async def _carry(self, channel: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(AgentBayError):  # the kernel has ended
            await self._running.wait()
            self._count += 1
            self._carrier.add(number := self._count)
            await self._carrier.carry(channel, number, reader, writer)

    async def _read(self, terminal: AsyncPtyHandle, order: bytes) -> None:
        code, received = _LOST, b""
        try:
            async for received in terminal:
                for kind, number, content in self._carrier.feed(received):
                    if kind == relay.READY:
                        await self._carrier.send(relay.START, 0, order)
                        self._running.set()
                    elif kind == relay.EXIT:
                        code, self.log = number, content.decode(errors="replace")
                    else:
                        self._carrier.deliver(number, content)
        except (AgentBayError, relay.NoFrame) as error:
            self.log = f"{error} {received!r:.200}"
        finally:
            self._running.clear()
            self._disconnect()  # clients connect again, and then to the next kernel
            self.exit_code = code
