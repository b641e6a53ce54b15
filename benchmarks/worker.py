"""Run one measurement of one client: `worker.py CLIENT SCENARIO URL`, which prints JSON.

It runs in whichever environment has the client. The official package and ours have the same interface, so both are
driven by the same lines. "bare" is the least that Python can do: an asyncio protocol or a socket that writes bytes made
in advance and looks for the end of the answer.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import ssl
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode, urlsplit

CLIENT, SCENARIO, URL = sys.argv[1:4]
PLACE = urlsplit(URL)
LIFECYCLES, CALLS = 32, 3
CONNECTIONS = 1000  # as many as a scenario has calls at once
QUERY = {"Format": "json", "Version": "2025-05-06"}


def sdk(asynchronous):
    """Return a client of the installed SDK."""
    import warnings

    warnings.simplefilter("ignore")
    import agentbay

    kind = agentbay.AsyncAgentBay if asynchronous else agentbay.AgentBay
    if CLIENT != "official":
        return kind("akm-x", agentbay.Config(endpoint=URL), max_connections=CONNECTIONS)
    bay = kind("akm-x", cfg=agentbay.Config(endpoint=PLACE.netloc, timeout_ms=60000))
    if URL.startswith("http:"):
        bay.client._protocol = "http"  # it has no public way
    return bay


class AsyncRaw:
    """The SDK's calls, made with httpx alone."""

    def __init__(self):
        import httpx

        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
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


class AsyncAiohttp(AsyncRaw):
    """The same with aiohttp."""

    def __init__(self):
        import aiohttp

        limits = aiohttp.TCPConnector(limit=CONNECTIONS, ssl=tls() or False)
        self.http = aiohttp.ClientSession(URL, connector=limits)

    async def call(self, action, **form):
        form = {"Authorization": "Bearer akm-x", **form}
        async with self.http.post("/", params={"Action": action, **QUERY}, data=form) as reply:
            return await reply.json()


def tls():
    """Return how to encrypt, or None for plain HTTP."""
    return ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"]) if PLACE.scheme == "https" else None


def encoded(action, form):
    """Return the bytes of a request."""
    body = urlencode({"Authorization": "Bearer akm-x", **form}).encode()
    head = f"POST /?{urlencode({'Action': action, **QUERY})} HTTP/1.1\r\nHost: {PLACE.netloc}\r\n"
    kind = "Content-Type: application/x-www-form-urlencoded\r\n"
    return f"{head}{kind}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Answer:
    """The bytes of an answer, until they are complete."""

    def __init__(self):
        self.parts, self.left = [], None

    def add(self, data):
        """Add bytes, and return whether these were the last."""
        if self.left is None:
            head, _, data = data.partition(b"\r\n\r\n")  # of this service, a head comes whole
            self.left = int(head.rpartition(b"Content-Length: ")[2].split(b"\r\n")[0])
        self.parts.append(data)
        self.left -= len(data)
        return self.left == 0

    def value(self):
        return json.loads(b"".join(self.parts))


class BareProtocol(asyncio.Protocol):
    """A connection that waits for one answer at a time."""

    def connection_made(self, transport):
        self.transport = transport

    def ask(self, data):
        self.answer, self.done = Answer(), asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return self.done

    def data_received(self, data):
        if self.answer.add(data):
            self.done.set_result(None)


class AsyncBare(AsyncRaw):
    """The same with asyncio alone."""

    def __init__(self):
        self.idle, self.tls = [], tls()

    async def call(self, action, **form):
        if not self.idle:
            loop = asyncio.get_running_loop()
            connection = (await loop.create_connection(BareProtocol, PLACE.hostname, PLACE.port, ssl=self.tls))[1]
        else:
            connection = self.idle.pop()
        await connection.ask(encoded(action, form))
        self.idle.append(connection)
        return connection.answer.value()


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

        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
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


class Bare(Raw):
    """The same with a socket for each thread."""

    def __init__(self):
        self.threads, self.tls = threading.local(), tls()

    def connection(self):
        if not hasattr(self.threads, "connection"):
            plain = socket.create_connection((PLACE.hostname, PLACE.port))
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.threads.connection = self.tls.wrap_socket(plain, server_hostname=PLACE.hostname) if self.tls else plain
        return self.threads.connection

    def call(self, action, **form):
        connection, answer = self.connection(), Answer()
        connection.sendall(encoded(action, form))
        while not answer.add(connection.recv(1 << 18)):
            pass
        return answer.value()


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
    client = ASYNC.get(CLIENT, AsyncSdk)()
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
    client = SYNC.get(CLIENT, Sdk)()
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
    client = ASYNC.get(CLIENT, AsyncSdk)()
    began = time.perf_counter()
    await asyncio.gather(*(life_async(client) for _ in range(LIFECYCLES)))
    return {"s": time.perf_counter() - began}


def fanout(threads):
    """Return seconds for all lifecycles, sequential or in threads."""
    client = SYNC.get(CLIENT, Sdk)()
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda _: life(client), range(LIFECYCLES)):
            pass
    return {"s": time.perf_counter() - began}


def memory():
    """Return megabytes for 1,000 session objects, or their ids without an SDK."""
    client = SYNC.get(CLIENT, Sdk)()
    kept = [client.create() for _ in range(20)]
    gc.collect()
    before = resident()
    kept += [client.create() for _ in range(1000)]
    gc.collect()
    return {"mb": resident() - before, "sessions": len(kept)}


def resident():
    """Return the resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096 / 1e6


SYNC = {"httpx": Raw, "bare": Bare}
ASYNC = {"httpx": AsyncRaw, "aiohttp": AsyncAiohttp, "bare": AsyncBare}
SLOW = CLIENT == "official"  # 16 ms for each asynchronous call
SCENARIOS = {
    "sync one by one": lambda: calls_sync(300),
    "async one by one": lambda: asyncio.run(calls_async(1, 100 if SLOW else 300)),
    "async 50 at once": lambda: asyncio.run(calls_async(50, 250 if SLOW else 1000)),
    "async 200 at once": lambda: asyncio.run(calls_async(200, 1000)),
    "async 1,000 at once": lambda: asyncio.run(calls_async(1000, 1000 if CLIENT == "httpx" else 3000)),
    "sync 1 MiB result": lambda: calls_sync(50),
    "async 1 MiB result": lambda: asyncio.run(calls_async(1, 50)),
    "fan-out, one after the other": lambda: fanout(1),
    "fan-out, 32 threads": lambda: fanout(LIFECYCLES),
    "fan-out, async": lambda: asyncio.run(fanout_async()),
    "1,000 sessions": memory,
}

if __name__ == "__main__":
    print(json.dumps(SCENARIOS[SCENARIO]()))
