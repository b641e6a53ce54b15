"""Adapters for agent frameworks: `agentbay.integrations.NAME`, where NAME is also the extra to install."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentbay import AgentBay, AsyncAgentBay, AsyncSession, CreateSessionParams, Session

__all__ = ["make_async_client", "make_client", "missing", "open_async_session", "open_session"]


def make_client() -> AgentBay:
    """Make a client of the service that the environment names.

    Without AGENTBAY_API_KEY it is a private runtime on this machine.
    """
    from agentbay import AgentBay

    return AgentBay() if os.environ.get("AGENTBAY_API_KEY") else AgentBay.local()


def make_async_client() -> AsyncAgentBay:
    """Make an asynchronous client, as `make_client` does."""
    from agentbay import AsyncAgentBay

    return AsyncAgentBay() if os.environ.get("AGENTBAY_API_KEY") else AsyncAgentBay.local()


@contextmanager
def open_session(params: CreateSessionParams | None = None) -> Iterator[Session]:
    """Make a session and its client, and end both with the block.

    Nothing is left if the session cannot be made, or if the caller is interrupted meanwhile.
    """
    with make_client() as bay, bay.session(params) as session:
        yield session


@asynccontextmanager
async def open_async_session(params: CreateSessionParams | None = None) -> AsyncIterator[AsyncSession]:
    """Make an asynchronous session, as `open_session` does."""
    async with make_async_client() as bay, bay.session(params) as session:
        yield session


def missing(extra: str, error: ImportError) -> ImportError:
    """Return the error for a framework that cannot be imported, with what to install."""
    text = f'agentbay.integrations.{extra} cannot import its framework ({error}): pip install "agentbay-sdk[{extra}]"'
    return ImportError(text, name=error.name)
