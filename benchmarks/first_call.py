"""Make one call, and print the milliseconds of processor time since the process began.

    first_call.py CLIENT FLAVOUR URL

Only what the client itself imports is imported.
"""

from __future__ import annotations

import sys
import time

CLIENT, FLAVOUR, URL = sys.argv[1:4]
QUERY = {"Action": "GetSession", "Format": "json", "Version": "2025-05-06"}
FORM = {"Authorization": "Bearer akm-x", "SessionId": "s"}


def sdk(kind):
    """Return a client of the installed SDK."""
    from agentbay import Config

    if CLIENT == "official":
        return kind("akm-x", cfg=Config(endpoint=URL.partition("://")[2], timeout_ms=60000))
    return kind("akm-x", Config(endpoint=URL))


def sync_call():
    """Make a synchronous call."""
    if CLIENT == "httpx":
        import httpx

        return httpx.Client(base_url=URL).post("/", params=QUERY, data=FORM).json()["Success"]
    from agentbay import AgentBay

    return sdk(AgentBay).get("s").success


async def async_call():
    """Make an asynchronous call."""
    if CLIENT == "aiohttp":
        import aiohttp

        async with aiohttp.ClientSession(URL) as http, http.post("/", params=QUERY, data=FORM) as reply:
            return (await reply.json())["Success"]
    if CLIENT == "httpx":
        import httpx

        return (await httpx.AsyncClient(base_url=URL).post("/", params=QUERY, data=FORM)).json()["Success"]
    from agentbay import AsyncAgentBay

    return (await sdk(AsyncAgentBay).get("s")).success


if FLAVOUR == "sync":
    assert sync_call()
else:
    import asyncio

    assert asyncio.run(async_call())
print(time.process_time() * 1000)
