"""Object storage with credentials, through the optional library `obstore`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from agentbay._lazy_attrs import define, field
from agentbay.local.outbound.destinations import TransferFailed

_URL_LIFETIME = timedelta(hours=1)  # time for a transfer to begin
_BUCKET = re.compile(r"[A-Za-z0-9][\w.-]{1,62}", re.ASCII)


class ObstoreMissing(Exception):
    """The library obstore is not installed."""


@define(frozen=True, slots=False)
class OssClient:
    """The storage credentials of a session, as `oss_env_init` got them."""

    access_key_id: str = field(repr=False)
    access_key_secret: str = field(repr=False)
    security_token: str = field(repr=False)
    endpoint: str
    region: str

    async def sign(self, method: str, bucket: str, key: str) -> str:
        """Return a URL by which an object can be read or written without credentials.

        obstore only signs it. It would resolve the host by itself to send a request, to whatever address, after the
        check of the destination (DNS rebinding).

        Raises:
            TransferFailed: The bucket, key or endpoint cannot be used.
            ObstoreMissing: obstore is not installed.
        """
        obstore, store = self._open(bucket, key)
        try:
            return str(await obstore.sign_async(store, method, key, _URL_LIFETIME))
        except obstore.exceptions.BaseError as error:
            raise TransferFailed(str(error).splitlines()[0][:300]) from error

    def endpoint_url(self) -> str:
        """Return the URL of the given endpoint, or of the region."""
        if not self.endpoint and not self.region:
            raise TransferFailed("oss_env_init was given neither an endpoint nor a region")
        endpoint = self.endpoint or f"oss-{self.region.removeprefix('oss-')}.aliyuncs.com"
        return endpoint if "://" in endpoint else f"https://{endpoint}"

    @property
    def host(self) -> str:
        """The host of the endpoint, perhaps without that of the bucket."""
        return urlsplit(self.endpoint_url()).hostname or ""

    def _open(self, bucket: str, key: str) -> tuple[Any, Any]:
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
            _ = url.port  # raises ValueError for what is no port
        except ValueError as error:
            raise TransferFailed(f"the endpoint {self.endpoint!r:.80} cannot be used: {error}") from None
        host = url.hostname or ""
        # Virtual-hosted style makes the bucket a subdomain, which an address or a bare name such as localhost has not.
        by_name = "." in host and not host.replace(".", "").isdigit()
        options: dict[str, Any] = {
            "endpoint": f"{url.scheme}://{bucket}.{url.netloc}" if by_name else f"{url.scheme}://{url.netloc}",
            "region": self.region or "oss",
            "access_key_id": self.access_key_id,
            "secret_access_key": self.access_key_secret,
            "virtual_hosted_style_request": by_name,
            "client_options": {"allow_http": url.scheme == "http"},
        }
        if self.security_token:  # long-term keys have none
            options["session_token"] = self.security_token
        store = S3Store(bucket, **options)
        return obstore, store


def describe_http_error(status: object, body: str) -> str:
    """Return the error of a storage on one line, such as `HTTP 404 NoSuchKey`."""
    code = re.search(r"<Code>([\w.]+)</Code>", body)
    return f"HTTP {status}{' ' + code[1] if code else ''}"
