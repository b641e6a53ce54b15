"""Object storage with credentials, by way of the library `obstore`, which is an extra."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen

from agentbay.local.egress import Refused, choose

_BLOCK = 4 << 20


class NoLibrary(Exception):
    """What this needs is not installed."""


@frozen
class Storage:
    """Credentials of a session, as `oss_env_init` got them, and the place they are for."""

    access_key_id: str = field(repr=False)
    access_key_secret: str = field(repr=False)
    security_token: str = field(repr=False)
    endpoint: str
    region: str

    async def put(self, bucket: str, key: str, blocks: AsyncIterator[bytes]) -> None:
        """Write an object.

        Raises:
            Refused: It could not be done.
            NoLibrary: obstore is not installed.
        """
        obstore, store = await self._open(bucket)
        try:
            async with obstore.open_writer_async(store, key) as writer:
                async for block in blocks:
                    await writer.write(block)
        except (obstore.exceptions.BaseError, OSError) as error:  # its writers raise OSError
            raise Refused(_told(error)) from error

    async def get(self, bucket: str, key: str) -> AsyncGenerator[bytes, None]:
        """Read an object, block by block.

        Raises:
            Refused: It could not be done.
            NoLibrary: obstore is not installed.
        """
        obstore, store = await self._open(bucket)
        try:
            found = await obstore.get_async(store, key)
            async for block in found.stream(min_chunk_size=_BLOCK):
                yield bytes(block)
        except (obstore.exceptions.BaseError, OSError) as error:  # its writers raise OSError
            raise Refused(_told(error)) from error

    def url(self) -> str:
        """Return where the storage is."""
        if not self.endpoint and not self.region:
            raise Refused("oss_env_init was given neither an endpoint nor a region")
        place = self.endpoint or f"oss-{self.region.removeprefix('oss-')}.aliyuncs.com"
        return place if "://" in place else f"https://{place}"

    async def _open(self, bucket: str) -> tuple[Any, Any]:
        try:
            import obstore
            from obstore.store import S3Store
        except ImportError as error:
            raise NoLibrary(
                'the local runtime needs obstore for storage with credentials: pip install "agentbay-sdk[objectstore]"'
            ) from error
        url = urlsplit(self.url())
        port = url.port or (80 if url.scheme == "http" else 443)
        host = url.hostname or ""
        await choose(host, port)  # a name that changes its meaning in between is not caught here
        by_name = "." in host and not host.replace(".", "").isdigit()  # then a bucket is a host below it
        store = S3Store(
            bucket,
            endpoint=f"{url.scheme}://{bucket}.{url.netloc}" if by_name else f"{url.scheme}://{url.netloc}",
            region=self.region or "oss",
            access_key_id=self.access_key_id,
            secret_access_key=self.access_key_secret,
            token=self.security_token or None,
            virtual_hosted_style_request=by_name,
            client_options={"allow_http": url.scheme == "http"},
            retry_config={"max_retries": 2},
        )
        return obstore, store


def _told(error: Exception) -> str:
    return str(error).splitlines()[0][:300]
