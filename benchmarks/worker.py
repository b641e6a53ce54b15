"""Run one measurement of one client: `worker.py CLIENT SCENARIO URL`, which prints JSON.

It runs in whichever environment has the client. The official package and ours have the same interface, so both are
driven by the same lines.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

CLIENT, SCENARIO, URL = sys.argv[1:4]
LIFECYCLES, CALLS = 32, 3
QUERY = {"Format": "json", "Version": "2025-05-06"}


def sdk(asynchronous):
    """Return a client of the installed SDK."""
    import warnings

    warnings.simplefilter("ignore")
    import agentbay

    kind = agentbay.AsyncAgentBay if asynchronous else agentbay.AgentBay
    if CLIENT != "official":
        return kind("akm-x", agentbay.Config(endpoint=URL))
    bay = kind("akm-x", cfg=agentbay.Config(endpoint=urlsplit(URL).netloc, timeout_ms=60000))
    if URL.startswith("http:"):
        bay.client._protocol = "http"  # it has no public way
    return bay


class AsyncRaw:
    """The SDK's calls, made with httpx alone."""

    def __init__(self):
        import httpx

        limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
        self.http = httpx.AsyncClient(base_url=URL, limits=limits, timeout=60)

    async def call(self, action, **form):
        form = {"Authorization": "Bearer akm-x", **form}
        return (await self.http.post("/", params={"Action": action, **QUERY}, data=form)).json()

    async def tool(self, session):
        reply = await self.call("CallMcpTool", SessionId=session, Name="shell", Args='{"command": "ls"}')
        return json.loads(reply["Data"]["content"][0]["text"])["stdout"]

    async def create(self):
        return (await self.call("CreateMcpSession"))["Data"]["SessionId"]

    async def delete(self, session):
        await self.call("DeleteSessionAsync", SessionId=session)
        assert not (await self.call("GetSessionDetail", SessionId=session))["Success"]


class AsyncSdk:
    """An SDK's asynchronous client."""

    def __init__(self):
        self.bay = sdk(True)

    async def tool(self, session):
        result = await session.command.execute_command("ls")
        assert result.success, result.error_message
        return result.output

    async def create(self):
        result = await self.bay.create()
        assert result.success, result.error_message
        return result.session

    async def delete(self, session):
        result = await session.delete()
        assert result.success, result.error_message


class Raw:
    """The SDK's calls, made with httpx alone."""

    def __init__(self):
        import httpx

        limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
        self.http = httpx.Client(base_url=URL, limits=limits, timeout=60)

    def call(self, action, **form):
        form = {"Authorization": "Bearer akm-x", **form}
        return self.http.post("/", params={"Action": action, **QUERY}, data=form).json()

    def tool(self, session):
        reply = self.call("CallMcpTool", SessionId=session, Name="shell", Args='{"command": "ls"}')
        return json.loads(reply["Data"]["content"][0]["text"])["stdout"]

    def create(self):
        return self.call("CreateMcpSession")["Data"]["SessionId"]

    def delete(self, session):
        self.call("DeleteSessionAsync", SessionId=session)
        assert not self.call("GetSessionDetail", SessionId=session)["Success"]


class Sdk:
    """An SDK's synchronous client."""

    def __init__(self):
        self.bay = sdk(False)

    def tool(self, session):
        result = session.command.execute_command("ls")
        assert result.success, result.error_message
        return result.output

    def create(self):
        result = self.bay.create()
        assert result.success, result.error_message
        return result.session

    def delete(self, session):
        result = session.delete()
        assert result.success, result.error_message


async def calls_async(tasks, calls):
    """Return microseconds of CPU per concurrent tool call, and calls a second."""
    client = AsyncRaw() if CLIENT == "httpx" else AsyncSdk()
    session = await client.create()

    async def work(left):
        for _ in left:
            await client.tool(session)

    for count in (max(calls // 5, tasks), calls):  # the first is to warm up
        left, cpu, began = iter(range(count)), time.process_time(), time.perf_counter()
        await asyncio.gather(*(work(left) for _ in range(tasks)))
    taken = time.perf_counter() - began
    return {"cpu_us": (time.process_time() - cpu) / calls * 1e6, "per_s": calls / taken}


def calls_sync(calls):
    """Return microseconds of CPU per sequential tool call."""
    client = Raw() if CLIENT == "httpx" else Sdk()
    session = client.create()
    for count in (calls // 5, calls):
        cpu = time.process_time()
        for _ in range(count):
            client.tool(session)
    return {"cpu_us": (time.process_time() - cpu) / calls * 1e6}


def life(client):
    """Create a session, call tools, and delete it."""
    session = client.create()
    for _ in range(CALLS):
        client.tool(session)
    client.delete(session)


async def life_async(client):
    """Create a session, call tools, and delete it."""
    session = await client.create()
    for _ in range(CALLS):
        await client.tool(session)
    await client.delete(session)


async def fanout_async():
    """Return seconds for all lifecycles at once, in tasks."""
    client = AsyncRaw() if CLIENT == "httpx" else AsyncSdk()
    began = time.perf_counter()
    await asyncio.gather(*(life_async(client) for _ in range(LIFECYCLES)))
    return {"s": time.perf_counter() - began}


def fanout(threads):
    """Return seconds for all lifecycles, sequential or in threads."""
    client = Raw() if CLIENT == "httpx" else Sdk()
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda _: life(client), range(LIFECYCLES)):
            pass
    return {"s": time.perf_counter() - began}


def memory():
    """Return megabytes for 1,000 session objects, or their ids without an SDK."""
    client = Raw() if CLIENT == "httpx" else Sdk()
    kept = [client.create() for _ in range(20)]
    gc.collect()
    before = resident()
    kept += [client.create() for _ in range(1000)]
    gc.collect()
    return {"mb": resident() - before, "sessions": len(kept)}


def resident():
    """Return the resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096 / 1e6


SCENARIOS = {
    "sync one by one": lambda: calls_sync(300),
    "async one by one": lambda: asyncio.run(calls_async(1, 100 if CLIENT == "official" else 300)),
    "async 50 at once": lambda: asyncio.run(calls_async(50, 250 if CLIENT == "official" else 1000)),
    "fan-out, one after the other": lambda: fanout(1),
    "fan-out, 32 threads": lambda: fanout(LIFECYCLES),
    "fan-out, async": lambda: asyncio.run(fanout_async()),
    "1,000 sessions": memory,
}

if __name__ == "__main__":
    print(json.dumps(SCENARIOS[SCENARIO]()))
