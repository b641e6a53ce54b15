"""Object storage with credentials: which host the service connects to."""

from __future__ import annotations

import pytest

from agentbay.local.outbound.destinations import TransferFailed
from agentbay.local.outbound.fetch import stream_request
from agentbay.local.outbound.storage import OssClient

pytest.importorskip("obstore")


async def test_signing_connects_nowhere() -> None:
    """The library only signs: no host is resolved behind the check of addresses (DNS rebinding)."""
    url = await OssClient("id", "the-secret", "", "https://nowhere.invalid", "r").sign("GET", "bucket", "a key")
    assert url.startswith("https://bucket.nowhere.invalid/a%20key?")
    assert "the-secret" not in url


async def test_signed_urls_are_checked() -> None:
    """A signed URL of an address that is not public is refused where the connection is made."""
    url = await OssClient("id", "secret", "", "http://127.0.0.1:9", "r").sign("PUT", "bucket", "key")
    with pytest.raises(TransferFailed, match="not a public address"):
        async with stream_request("PUT", url, {}, allowed_as="other.example"):
            pass
