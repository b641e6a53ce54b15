"""Object storage with credentials, by way of the library `obstore`, which is an extra."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen

from agentbay.local.outbound.egress import TransferFailed, resolve_public_address

_BLOCK_BYTES = 4 << 20
_BUCKET = re.compile(r"[A-Za-z0-9][\w.-]{1,62}", re.ASCII)


class ObstoreMissing(Exception):
    """What this needs is not installed."""


@frozen
class OssClient:
    """Credentials of a session, as `oss_env_init` got them, and the place they are for."""

    access_key_id: str = field(repr=False)
    access_key_secret: str = field(repr=False)
    security_token: str = field(repr=False)
    endpoint: str
    region: str

    async def put(self, bucket: str, key: str, blocks: AsyncIterator[bytes]) -> None:
        """Write an object, which is there whole or not at all.

        Raises:
            Refused: It could not be done.
            NoLibrary: obstore is not installed.
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
            Refused: It could not be done.
            NoLibrary: obstore is not installed.
        """
        obstore, store = await self._open(bucket, key)
        try:
            found = await obstore.get_async(store, key)
            async for block in found.stream(min_chunk_size=_BLOCK_BYTES):
                yield bytes(block)
        except (obstore.exceptions.BaseError, OSError) as error:  # its writers raise OSError
            raise TransferFailed(_error_message(error)) from error

    def endpoint_url(self) -> str:
        """Return where the storage is."""
        if not self.endpoint and not self.region:
            raise TransferFailed("oss_env_init was given neither an endpoint nor a region")
        place = self.endpoint or f"oss-{self.region.removeprefix('oss-')}.aliyuncs.com"
        return place if "://" in place else f"https://{place}"

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
        await resolve_public_address(host, port)  # a name that changes its meaning in between is not caught here
        by_name = "." in host and not host.replace(".", "").isdigit()  # then a bucket is a host below it
        options: dict[str, Any] = {
            "endpoint": f"{url.scheme}://{bucket}.{url.netloc}" if by_name else f"{url.scheme}://{url.netloc}",
            "region": self.region or "oss",
            "access_key_id": self.access_key_id,
            "secret_access_key": self.access_key_secret,
            "virtual_hosted_style_request": by_name,
            "client_options": {"allow_http": url.scheme == "http"},
            "retry_config": {"max_retries": 2},
        }
        if self.security_token:  # keys that last have none
            options["session_token"] = self.security_token
        store = S3Store(bucket, **options)
        return obstore, store


def describe_http_error(status: object, body: str) -> str:
    """Say what a storage says that refuses, such as `HTTP 404 NoSuchKey`."""
    code = re.search(r"<Code>([\w.]+)</Code>", body)
    return f"HTTP {status}{' ' + code[1] if code else ''}"


def _error_message(error: Exception) -> str:
    text = str(error)
    status = re.search(r"status code: (\d{3})", text)
    return describe_http_error(status[1], text) if status else text.splitlines()[0][:300]
