"""The files of a session of a scripted service."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from agentbay import AsyncAgentBay, AsyncFileSystem, AsyncSession, Config
from tests.scripted import Service


@asynccontextmanager
async def client_of(service: Service) -> AsyncIterator[tuple[AsyncFileSystem, Callable[[], tuple[str, Any]]]]:
    """Yield the files, and a function that returns the last tool call."""

    def sent() -> tuple[str, Any]:
        fields = service.requests[-1].fields
        return fields["Name"], json.loads(fields["Args"])

    async with AsyncAgentBay("akm-EXAMPLE", Config(endpoint=service.url), max_retries=0) as bay:
        yield AsyncSession(bay, "session-x").file_system, sent
