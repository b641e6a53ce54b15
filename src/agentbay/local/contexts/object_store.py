"""The client of an object store (S3 or OSS), a thin layer over `obstore`."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from agentbay._lazy_attrs import define
from agentbay.errors import AgentBayError, ConfigurationError
from agentbay.local.contexts.errors import bucket_failed

MAX_CONCURRENT_REQUESTS = 32
_READ_AHEAD_BYTES = 4 << 20  # the size of a range request
_RETRY_CONFIG = {"max_retries": 4, "retry_timeout": timedelta(seconds=30)}
_SETTINGS = ("endpoint", "region", "virtual_hosted_style_request", "conditional_put")
_URL_FORMAT = "s3://BUCKET/PREFIX?endpoint=https://..., or oss://BUCKET/PREFIX?endpoint=https://oss-REGION.aliyuncs.com"
# the variables that Alibaba Cloud's own tools read, and their names in obstore
_OSS_CREDENTIAL_VARIABLES = {
    "ALIBABA_CLOUD_ACCESS_KEY_ID": "access_key_id",
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "secret_access_key",
    "ALIBABA_CLOUD_SECURITY_TOKEN": "session_token",
}


class VersionConflict(Exception):
    """A conditional put lost the race against another one (compare-and-swap)."""


@define(frozen=True, slots=False)
class StoredObject:
    """An object with its content.

    Attributes:
        version: The ETag.
    """

    body: bytes
    version: str


@define(frozen=True, slots=False)
class ObjectSummary:
    """An object in a listing.

    Attributes:
        version: The ETag.
        last_modified: Seconds since 1970.
    """

    path: str
    version: str
    last_modified: float


class ObjectStoreClient:
    """The objects below a prefix of a bucket."""

    def __init__(self, store: Any, *, conditional_put: bool = True) -> None:
        """Wrap a store of obstore.

        Args:
            conditional_put: Whether the service knows conditional puts (If-Match, If-None-Match).
        """
        import obstore

        self._api: Any = obstore  # an optional extra, which type checkers run without
        self._store, self._conditional_put = store, conditional_put

    def get(self, path: str) -> StoredObject:
        """Get an object.

        Raises:
            FileNotFoundError: There is none.
        """
        with _translate_errors():
            answer = self._api.get(self._store, path)
            return StoredObject(bytes(answer.bytes()), answer.meta["e_tag"] or "")

    def get_if_changed(self, path: str, version: str) -> StoredObject | None:
        """Get an object, or None if it still has a version (If-None-Match)."""
        from obstore.exceptions import NotModifiedError

        with _translate_errors():
            try:
                answer = self._api.get(self._store, path, options={"if_none_match": version})
            except NotModifiedError:
                return None
            return StoredObject(bytes(answer.bytes()), answer.meta["e_tag"] or "")

    def get_range(self, path: str, start: int, length: int) -> bytes:
        with _translate_errors():
            return bytes(self._api.get_range(self._store, path, start=start, length=length))

    def open(self, path: str, size: int) -> io.BufferedReader:
        """Open an immutable object for seekable reading by range requests."""
        return io.BufferedReader(_ObjectReader(self, path, size), _READ_AHEAD_BYTES)

    def put_if_version(self, path: str, body: bytes, *, version: str) -> str:
        """Put an object conditionally (compare-and-swap), and return its version.

        Args:
            version: The version to replace, or "" if there must be no object.

        Raises:
            VersionConflict: The object has another version.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        if not self._conditional_put:
            # Not atomic: without conditional puts, a bucket is safe with a single runtime only.
            self._compare(path, version)
        mode = ({"e_tag": version} if version else "create") if self._conditional_put else "overwrite"
        with _translate_errors():
            try:
                return str(self._api.put(self._store, path, body, mode=mode, use_multipart=False)["e_tag"])
            except (AlreadyExistsError, PreconditionError) as error:
                raise VersionConflict from error

    def _compare(self, path: str, version: str) -> None:
        try:
            found = self.get(path).version
        except FileNotFoundError:
            found = ""
        if found != version:
            raise VersionConflict

    def put_file(self, path: str, file: Path) -> None:
        """Upload a file, a large one as a multipart upload."""
        with _translate_errors():
            self._api.put(self._store, path, file)

    def list(self, top: str) -> Iterator[ObjectSummary]:
        """List the objects below a prefix that ends with a slash."""
        with _translate_errors():
            for page in self._api.list(self._store, top):
                for one in page:
                    yield ObjectSummary(one["path"], one["e_tag"] or "", one["last_modified"].timestamp())

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects. Idempotent."""
        with _translate_errors():
            if paths:
                self._api.delete(self._store, list(paths))


class _ObjectReader(io.RawIOBase):
    """A raw file over range requests."""

    def __init__(self, object_store: ObjectStoreClient, path: str, size: int) -> None:
        super().__init__()
        self._object_store, self._path, self._size, self._position = object_store, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._position)
        if length <= 0:
            return 0
        data = self._object_store.get_range(self._path, self._position, length)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def connect(url: str, environment: Mapping[str, str]) -> ObjectStoreClient:
    """Connect to a bucket. Credentials come from the environment alone.

    Raises:
        ConfigurationError: The URL is malformed, obstore is missing, or the bucket cannot be reached.
    """
    settings = parse_bucket_url(url, environment)
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store
    except ImportError as error:
        raise ConfigurationError(
            "A bucket needs obstore.", hint='pip install "agentbay-sdk[objectstore]", or leave --context-store out.'
        ) from error
    conditional_put = settings.pop("conditional_put", "etag") != "disabled"
    plain = str(settings.get("endpoint", "")).startswith("http:")
    try:
        make: Any = S3Store
        client = ObjectStoreClient(
            make(**settings, client_options={"allow_http": plain}, retry_config=_RETRY_CONFIG),
            conditional_put=conditional_put,
        )
        # A first request, so that a wrong endpoint or credential stops the start instead of the first session.
        next(client.list("names/"), None)
    except (BaseError, AgentBayError, ValueError, OSError) as error:
        raise _unusable(explain(error)) from error
    return client


def parse_bucket_url(url: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Parse the URL of a bucket to the settings of obstore.

    Raises:
        ConfigurationError: It is malformed, or holds credentials.
    """
    try:
        parts = urlsplit(url)
        given = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
        port = parts.port
    except ValueError:
        raise _malformed("it cannot be read") from None
    if parts.scheme not in ("s3", "oss") or not parts.hostname or port or parts.fragment:
        raise _malformed(f"it must be {_URL_FORMAT}")
    # Credentials in the URL are refused too: a command line can be read by every user of the machine.
    unknown = sorted(given.keys() - set(_SETTINGS)) or ["a user"] * ("@" in parts.netloc)
    if unknown:
        raise _malformed(
            f"it has {', '.join(unknown)}; known are {', '.join(_SETTINGS)}, and credentials come from the environment"
        )
    settings: dict[str, Any] = {"bucket": parts.hostname, "prefix": parts.path.strip("/") or None, **given}
    if parts.scheme == "oss":
        settings |= _oss_settings(parts.hostname, given, environment)
    return settings


def _oss_settings(bucket: str, given: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    # OSS speaks S3 with virtual hosted requests only, and its credentials have other names.
    endpoint = urlsplit(given.get("endpoint", ""))
    if not endpoint.hostname:
        raise _malformed(f"an oss URL needs an endpoint: {_URL_FORMAT}")
    mine = {ours: environment[theirs] for theirs, ours in _OSS_CREDENTIAL_VARIABLES.items() if environment.get(theirs)}
    hosted = f"{endpoint.scheme}://{bucket}.{endpoint.netloc}"
    region = given.get("region") or endpoint.hostname.split(".")[0]
    return {"endpoint": hosted, "virtual_hosted_style_request": "true", "region": region, **mine}


def _malformed(why: str) -> ConfigurationError:
    return ConfigurationError(f"The URL of --context-store cannot be used: {why}.")


def _unusable(why: str) -> ConfigurationError:
    hint = "Is the endpoint right, does the bucket exist, and are credentials in the environment?"
    return ConfigurationError(f"The bucket of --context-store cannot be used: {why}.", hint=hint)


@contextmanager
def _translate_errors() -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except BaseError as error:
        raise bucket_failed(explain(error)) from error


def explain(error: Exception) -> str:
    """Return an error in one line, without the request that answers quote."""
    text = str(error)
    code = re.search(r"<Code>(\w+)</Code>", text)
    line = re.split(r": <|\n|Debug source", text, maxsplit=1)[0].strip().removesuffix(".")
    return f"{line} ({code[1]})" if code else line
