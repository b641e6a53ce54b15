"""The ways by which a client's requests can reach a service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx

from agentbay import AsyncAgentBay, Config
from tests.cutting import CuttingProxy

WAYS = ("the own pool", "http_client", "proxy")


@asynccontextmanager
async def client_by(way: str, bay: AsyncAgentBay) -> AsyncIterator[AsyncAgentBay]:
    """Yield another client of a private runtime, whose requests take one of the `WAYS`."""
    assert (await bay.list()).success  # from then on the runtime has an address
    key, url = bay.client.settings.api_key, bay.client.settings.url
    port = urlsplit(url).port
    assert port is not None
    async with httpx.AsyncClient(trust_env=False) as mine:
        with CuttingProxy(port, []) as proxy:
            async with AsyncAgentBay(
                key,
                Config(endpoint=url),
                http_client=mine if way == "http_client" else None,
                proxy=f"http://127.0.0.1:{proxy.port}" if way == "proxy" else None,
            ) as other:
                yield other
