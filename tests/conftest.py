"""Fixtures and settings for all tests."""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import HealthCheck, settings

# On a busy machine an example may take any time; and a run that fails fails again.
settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


def pytest_collection_finish() -> None:
    """Leave what lasts, ten thousand tests and their modules, out of every later garbage collection."""
    gc.freeze()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def official() -> str:
    """A Python that has the official client."""
    python = os.environ.get("AGENTBAY_OFFICIAL_PYTHON")
    if not python:
        reason = "AGENTBAY_OFFICIAL_PYTHON names no interpreter that has the official client; scripts/test makes one"
        assert not os.environ.get("AGENTBAY_REQUIRE_ALL"), reason
        pytest.skip(reason)
    return python


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("API_KEY", "REGION_ID", "ENDPOINT", "TIMEOUT_MS"):
        monkeypatch.delenv(f"AGENTBAY_{name}", raising=False)
