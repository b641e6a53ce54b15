"""Reading images from a registry, by the OCI distribution protocol.

A transfer that is cut off resumes, in this pull or in the next one.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx

from agentbay.local.images.archives import layer_descriptors
from agentbay.local.images.blob_files import locked_download
from agentbay.local.images.credentials import Credentials, find_credentials
from agentbay.local.images.digests import digest_digits, sha256_digest
from agentbay.local.images.errors import DamagedImage, ImageError, LimitExceeded, PullFailed
from agentbay.local.images.image_config import diff_ids
from agentbay.local.images.importing import (
    MAX_DOCUMENT_BYTES,
    Importer,
    PackedImage,
    Progress,
    find_manifest,
    parse_document,
)
from agentbay.local.images.layer_writer import LayerLimits, check_free_space
from agentbay.local.images.reference import Reference
from agentbay.local.images.registry_transport import RegistryTransport
from agentbay.local.images.store import Image, ImageStore, chain_id

_MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_IDENTITY = {"Accept-Encoding": "identity"}  # what is unpacked while it arrives has no bound
_TIMEOUT = httpx.Timeout(60.0, connect=20.0)
_MAX_ATTEMPTS, _RETRY_SECONDS = 6, 0.5
_MAX_LAYER_BYTES = 100 << 30


class Registry:
    """A registry, for one repository.

    Args:
        progress: Called with the number of each piece of bytes that arrives; it may raise to give up.
    """

    def __init__(self, reference: Reference, progress: Progress = lambda _: None) -> None:
        self._reference, self._progress = reference, progress
        scheme = "http" if _is_loopback(reference.host) else "https"
        self._base = f"{scheme}://{reference.host}/v2/{reference.path}"
        self._credentials = find_credentials(reference.host)
        self._authorization = ""
        self._client = httpx.Client(
            timeout=_TIMEOUT, follow_redirects=True, transport=RegistryTransport(), trust_env=False
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get_manifest(self, version: str) -> tuple[bytes, str]:
        """Return a manifest or an index, and its digest.

        Raises:
            PullFailed: The registry refuses, or cannot be reached.
            DamagedImage: It is not what was asked for.
        """
        accept = {"Accept": ", ".join(_MANIFEST_TYPES)}
        with self._get(f"{self._base}/manifests/{version}", accept) as reply:
            content = _read_bounded(reply)
        digest = sha256_digest(content)
        if version.startswith("sha256:") and digest != version:
            raise DamagedImage(f"The registry sends a manifest with the digest {digest} for {version}.")
        return content, digest

    def get_document(self, descriptor: dict[str, Any]) -> bytes:
        """Return a small blob."""
        digest = f"sha256:{digest_digits(descriptor.get('digest'))}"
        with self._get(f"{self._base}/blobs/{digest}", {}) as reply:
            content = _read_bounded(reply)
        if sha256_digest(content) != digest:
            raise DamagedImage(f"The registry sends something else for {digest}.")
        return content

    def download(self, descriptor: dict[str, Any], target: Path) -> None:
        """Download a blob into a file, from where an earlier download ended.

        Raises:
            PullFailed: The registry refuses, or breaks off again and again.
            DamagedImage: The blob has another digest or size than its descriptor says.
        """
        digest, size = f"sha256:{digest_digits(descriptor.get('digest'))}", _size(descriptor)
        attempt = 0
        while True:
            had = target.stat().st_size if target.exists() else 0
            try:
                self._download_rest(digest, size, target)
                break
            except (httpx.TransportError, PullFailed) as error:
                grown = target.exists() and target.stat().st_size > had
                attempt = 1 if grown else attempt + 1
                if attempt >= _MAX_ATTEMPTS or isinstance(error, PullFailed):
                    raise PullFailed(f"{self._reference}: the transfer of a layer broke off: {_say(error)}.") from error
                time.sleep(_RETRY_SECONDS * attempt)
        if (found := _digest_of(target)) != digest:
            target.unlink()
            raise DamagedImage(f"The registry sends a layer with the digest {found} for {digest}.")

    def _download_rest(self, digest: str, size: int, target: Path) -> None:
        with open(target, "ab") as file:
            start = file.tell()
            if start >= size:
                return
            self._progress(0)
            with self._get(f"{self._base}/blobs/{digest}", {"Range": f"bytes={start}-"} if start else {}) as reply:
                if start and reply.status_code != 206:  # this registry does not support ranges
                    file.truncate(0)
                    start = 0
                self._receive(reply, file, start, size)

    def _receive(self, reply: httpx.Response, file: IO[bytes], count: int, size: int) -> None:
        # Without a size of pieces: httpx would lose what it has collected when the connection breaks.
        for piece in reply.iter_raw():
            count += len(piece)
            if count > size:
                file.truncate(0)
                raise DamagedImage(f"The registry sends more than the {size} bytes that a layer has.")
            file.write(piece)
            self._progress(len(piece))
        if count < size:
            raise httpx.RemoteProtocolError(f"{size - count} bytes are missing")

    @contextmanager
    def _get(self, url: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """Send a request, and log in if the registry asks for it."""
        for last in (False, True):
            authorization = {"Authorization": self._authorization} if self._authorization else {}
            sent = {**_IDENTITY, **headers, **authorization}
            with self._client.stream("GET", url, headers=sent) as reply:
                if reply.status_code != 401 or last:
                    self._check(reply)
                    yield reply
                    return
                challenge = reply.headers.get("www-authenticate", "")
            self._log_in(challenge)

    def _check(self, reply: httpx.Response) -> None:
        match reply.status_code:
            case 200 | 206:
                return
            case 401 | 403:
                advice = "log in there with docker login or podman login, whose credentials are used here"
                raise PullFailed(f"The registry {self._reference.host} refuses {self._reference}: {advice}.")
            case 404:
                raise PullFailed(f"The registry {self._reference.host} has no image {self._reference}.")
            case 429:
                raise PullFailed(f"The registry {self._reference.host} refuses more requests for now: try again later.")
            case status if status >= 500:
                raise httpx.RemoteProtocolError(f"status {status}")
            case status:
                raise PullFailed(f"The registry {self._reference.host} answers with status {status}.")

    def _log_in(self, challenge: str) -> None:
        scheme, _, rest = challenge.partition(" ")
        parameters = dict(_CHALLENGE.findall(rest))
        if scheme.lower() == "basic" and self._credentials:
            self._authorization = _basic(self._credentials)
        elif scheme.lower() == "bearer" and parameters.get("realm", "").startswith(("https://", "http://")):
            self._authorization = f"Bearer {self._fetch_token(parameters)}"

    def _fetch_token(self, parameters: dict[str, str]) -> str:
        realm, known = httpx.URL(parameters["realm"]), self._credentials
        if realm.scheme == "http" and not _is_loopback(realm.host):
            raise PullFailed(f"The registry {self._reference.host} asks for a login without encryption.")
        asked = {"service": parameters.get("service", ""), "scope": parameters.get("scope", "")}
        if known and known.identity_token:
            form = {
                **asked,
                "grant_type": "refresh_token",
                "refresh_token": known.identity_token,
                "client_id": "agentbay",
            }
            request = self._client.build_request("POST", realm, data=form, headers=_IDENTITY)
        else:
            headers = {"Authorization": _basic(known), **_IDENTITY} if known else _IDENTITY
            request = self._client.build_request("GET", realm, params={**dict(realm.params), **asked}, headers=headers)
        reply = self._client.send(request, stream=True)
        try:
            found = json.loads(_read_bounded(reply)) if reply.status_code == 200 else {}
            return str(found.get("token") or found["access_token"])
        except (ValueError, KeyError, AttributeError, RecursionError) as error:
            raise PullFailed(
                f"The login of the registry {self._reference.host} refuses {self._reference} "
                f"(status {reply.status_code})."
            ) from error
        finally:
            reply.close()


def pull(reference: Reference, name: str, store: ImageStore, progress: Progress, on_size: Progress) -> Image:
    """Pull an image into the store.

    Args:
        progress: Called with the number of each piece of bytes of a layer that is there; it may raise to give up.
        on_size: Called with the bytes of all layers.

    Raises:
        ImageError: It cannot be pulled.
    """
    registry = Registry(reference, progress)
    try:
        return _pull(registry, reference, name, store, progress, on_size)
    except httpx.ConnectError as error:
        raise PullFailed(f"The registry {reference.host} cannot be reached: {_say(error)}.") from error
    except httpx.HTTPError as error:
        raise PullFailed(f"The registry {reference.host} does not answer as it should: {_say(error)}.") from error
    except OSError as error:
        raise ImageError(f"The image cannot be kept: {error.strerror or error}.") from error
    finally:
        registry.close()


def _pull(
    registry: Registry, reference: Reference, name: str, store: ImageStore, progress: Progress, on_size: Progress
) -> Image:
    content, digest = registry.get_manifest(reference.version)

    def read(descriptor: dict[str, Any]) -> bytes:
        return registry.get_manifest(f"sha256:{digest_digits(descriptor.get('digest'))}")[0]

    manifest = find_manifest(parse_document(content, "manifest"), read)
    layers = layer_descriptors(manifest)
    on_size(sum(map(_size, layers)))
    document = registry.get_document(manifest["config"])

    @contextmanager
    def open_layer(number: int) -> Iterator[IO[bytes]]:
        if number >= len(layers):
            raise DamagedImage("The image's configuration lists more layers than its manifest.")
        with _blob(layers[number], store) as target:
            registry.download(layers[number], target)
            with open(target, "rb") as file:
                yield file
            target.unlink()

    _count_present(parse_document(document, "configuration"), layers, store, progress)
    importer = Importer(store)
    return importer.add(PackedImage(document, open_layer), name, str(reference), digest)


def _count_present(document: dict[str, Any], layers: Any, store: ImageStore, progress: Progress) -> None:
    """Report the layers that need no transfer."""
    chain = ""
    for descriptor, diff_id in zip(layers, diff_ids(document), strict=False):
        chain = chain_id(chain, diff_id)
        if store.find_layer(chain):
            progress(_size(descriptor))


@contextmanager
def _blob(descriptor: dict[str, Any], store: ImageStore) -> Iterator[Path]:
    """Yield the file of a blob, locked against other pulls of it."""
    check_free_space(str(store.blobs), LayerLimits().min_free_bytes + _size(descriptor))
    with locked_download(store.blobs, digest_digits(descriptor.get("digest"))) as target:
        yield target


def _size(descriptor: dict[str, Any]) -> int:
    size = descriptor.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise DamagedImage("The image's manifest has a layer without a size.")
    if size > _MAX_LAYER_BYTES:
        raise LimitExceeded(f"A layer of the image has {size >> 30} GiB; {_MAX_LAYER_BYTES >> 30} are allowed.")
    return size


def _read_bounded(reply: httpx.Response) -> bytes:
    content = bytearray()
    for piece in reply.iter_raw():
        content += piece
        if len(content) > MAX_DOCUMENT_BYTES:
            raise DamagedImage(f"The registry sends a document of more than {MAX_DOCUMENT_BYTES} bytes.")
    return bytes(content)


def _digest_of(path: Path) -> str:
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _basic(known: Credentials) -> str:
    return "Basic " + base64.b64encode(f"{known.user}:{known.password}".encode()).decode()


def _is_loopback(host: str) -> bool:
    name = re.sub(r":\d+$", "", host).strip("[]")
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _say(error: Exception) -> str:
    """Return the reason of an error of httpx, which may be empty."""
    return str(error).rstrip(".") or type(error).__name__
