"""Object storage with credentials, through the optional library `obstore`."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen

from agentbay.local.outbound.destinations import TransferFailed, resolve_destination

_BLOCK_BYTES = 4 << 20  # read at a time
_BUCKET = re.compile(r"[A-Za-z0-9][\w.-]{1,62}", re.ASCII)


class ObstoreMissing(Exception):
    """The library obstore is not installed."""


@frozen
class OssClient:
    """The storage credentials of a session, as `oss_env_init` got them."""

    access_key_id: str = field(repr=False)
    access_key_secret: str = field(repr=False)
    security_token: str = field(repr=False)
    endpoint: str
    region: str

    async def put(self, bucket: str, key: str, blocks: AsyncIterator[bytes]) -> None:
        """Write an object atomically.

        Raises:
            TransferFailed: The destination was refused, or the request failed.
            ObstoreMissing: obstore is not installed.
        """
        obstore, store = await self._open(bucket, key)
        try:
            async with obstore.open_writer_async(store, key) as writer:
                async for block in blocks:
                    await writer.write(block)
        except (obstore.exceptions.BaseError, OSError) as error:  # its writers raise OSError
            raise TransferFailed(_error_message(error)) from error

    async def get(self, bucket: str, key: str) -> AsyncGenerator[bytes, None]:
        """Read an object, block by block.

        Raises:
            TransferFailed: The destination was refused, or the request failed.
            ObstoreMissing: obstore is not installed.
        """
        obstore, store = await self._open(bucket, key)
        try:
            found = await obstore.get_async(store, key)
            async for block in found.stream(min_chunk_size=_BLOCK_BYTES):
                yield bytes(block)
        except (obstore.exceptions.BaseError, OSError) as error:  # its writers raise OSError
            raise TransferFailed(_error_message(error)) from error

    def endpoint_url(self) -> str:
        """Return the URL of the given endpoint, or of the region."""
        if not self.endpoint and not self.region:
            raise TransferFailed("oss_env_init was given neither an endpoint nor a region")
        endpoint = self.endpoint or f"oss-{self.region.removeprefix('oss-')}.aliyuncs.com"
        return endpoint if "://" in endpoint else f"https://{endpoint}"

    async def _open(self, bucket: str, key: str) -> tuple[Any, Any]:
        try:
            import obstore
            from obstore.store import S3Store
        except ImportError as error:
            raise ObstoreMissing(
                'the local runtime needs obstore for storage with credentials: pip install "agentbay-sdk[objectstore]"'
            ) from error
        if not key:
            raise TransferFailed("the name of the object must not be empty")
        if not _BUCKET.fullmatch(bucket):
            raise TransferFailed(f"{bucket!r:.80} cannot be the name of a bucket")
        try:
            url = urlsplit(self.endpoint_url())
            port = url.port or (80 if url.scheme == "http" else 443)
        except ValueError as error:
            raise TransferFailed(f"the endpoint {self.endpoint!r:.80} cannot be used: {error}") from None
        host = url.hostname or ""
        # Virtual-hosted style makes the bucket a subdomain, which an address or a bare name such as localhost has not.
        by_name = "." in host and not host.replace(".", "").isdigit()
        # obstore resolves the name again: DNS rebinding between the two is not caught here
        await resolve_destination(host, port, bucket=bucket if by_name else "")
        options: dict[str, Any] = {
            "endpoint": f"{url.scheme}://{bucket}.{url.netloc}" if by_name else f"{url.scheme}://{url.netloc}",
            "region": self.region or "oss",
            "access_key_id": self.access_key_id,
            "secret_access_key": self.access_key_secret,
            "virtual_hosted_style_request": by_name,
            "client_options": {"allow_http": url.scheme == "http"},
            "retry_config": {"max_retries": 2},
        }
        if self.security_token:  # long-term keys have none
            options["session_token"] = self.security_token
        store = S3Store(bucket, **options)
        return obstore, store


def describe_http_error(status: object, body: str) -> str:
    """Return the error of a storage on one line, such as `HTTP 404 NoSuchKey`."""
    code = re.search(r"<Code>([\w.]+)</Code>", body)
    return f"HTTP {status}{' ' + code[1] if code else ''}"


def _error_message(error: Exception) -> str:
    text = str(error)
    status = re.search(r"status code: (\d{3})", text)
    return describe_http_error(status[1], text) if status else text.splitlines()[0][:300]
