"""What a call costs at concurrency: ours beside plain httpx, as a ratio in one run.

    python benchmarks/concurrency.py [calls]

A server in a process of its own takes 20 ms for each answer; N tasks share one client. The figure is CPU time of the
client's process for a call, and the connections that the server saw.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import httpx

from agentbay import AsyncAgentBay, Config

REPLY = json.dumps(
    {"RequestId": "R", "Success": True, "Code": "ok", "Data": {"SessionId": "s", "Status": "RUNNING"}}
).encode()


async def serve() -> None:
    """Answer every request after 20 ms; print the port, then count connections on standard output when asked."""
    seen = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                await asyncio.sleep(0 if b"count" in body else 0.02)
                text = str(seen).encode() if b"count" in body else REPLY
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def many(call: Callable[[], Awaitable[object]], calls: int, tasks: int) -> float:
    """Make the calls by so many tasks; return CPU microseconds a call."""
    left = iter(range(calls))

    async def work() -> None:
        for _ in left:
            await call()

    await asyncio.gather(*(work() for _ in range(tasks)))
    began = time.process_time()
    left = iter(range(calls))
    await asyncio.gather(*(work() for _ in range(tasks)))
    return (time.process_time() - began) / calls * 1e6


async def main() -> None:
    """Measure and print."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    child = subprocess.Popen(  # noqa: ASYNC220  # nothing else runs yet
        [sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    url = f"http://127.0.0.1:{child.stdout.readline().strip()}"
    form = {"Authorization": "Bearer akm-x", "SessionId": "s"}
    query = {"Action": "GetSession", "Format": "json", "Version": "2025-05-06"}
    try:
        print(f"{'tasks':>6}{'httpx µs':>12}{'ours µs':>12}{'ratio':>8}")
        for tasks in (1, 10, 50, 200):
            limits = httpx.Limits(max_connections=tasks, max_keepalive_connections=tasks)
            async with (
                httpx.AsyncClient(limits=limits, timeout=60) as client,
                AsyncAgentBay("akm-x", Config(endpoint=url)) as bay,
            ):

                async def plain(client: httpx.AsyncClient = client) -> object:
                    return (await client.post(url, params=query, data=form)).json()

                async def ours(bay: AsyncAgentBay = bay) -> object:
                    return (await bay.get("s")).unwrap()

                count = calls if tasks > 1 else calls // 10
                base, mine = await many(plain, count, tasks), await many(ours, count, tasks)
                print(f"{tasks:>6}{base:>12.0f}{mine:>12.0f}{mine / base:>8.2f}")
    finally:
        child.kill()
        child.wait()


if __name__ == "__main__":
    asyncio.run(serve() if "serve" in sys.argv[1:] else main())
