"""Images in files: OCI archives, those of Docker, and root file systems.

A folder arrives as an archive of it, so an OCI layout is the same as an OCI archive.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

from agentbay.local.images.digests import digest_digits, sha256_digest
from agentbay.local.images.errors import DamagedImage, ImageError
from agentbay.local.images.image_config import ImageConfig
from agentbay.local.images.importing import (
    MAX_DOCUMENT_BYTES,
    Importer,
    PackedImage,
    find_manifest,
    parse_document,
)
from agentbay.local.images.layer_source import LayerSource, compression_of
from agentbay.local.images.layer_writer import LayerLimits, check_free_space
from agentbay.local.images.store import Image
from agentbay.local.images.tar_reader import TarReader

_MAX_PROBED_ENTRIES = 100_000  # of an archive of an image, whose files are few
_MAX_NAME_CHARACTERS = 300  # of one
_OCI_INDEX, _DOCKER_MANIFEST = "index.json", "manifest.json"
_MAX_LEADING_ENTRIES = 3  # one of the first entries of an image's archive must be a part of an image
_IMAGE_PART = re.compile(r"blobs|index\.json|manifest\.json|oci-layout|repositories|[0-9a-f]{64}(\.json)?")
_T = TypeVar("_T")


def import_archive(path: Path, name: str, source: str, importer: Importer) -> Image:
    """Import an image from a file.

    Args:
        path: A tar archive, compressed or not.
        name: The name that it gets.

    Raises:
        ImageError: It cannot be used.
    """
    if not path.stat().st_size:
        raise ImageError("The file is empty, and no tar archive.")
    try:
        if not _is_packed_image(path):
            return _import(path, name, source, importer)
        # Its parts are read out of order, which a compressed file does not allow.
        unpacked = path.with_suffix(".unpacked")
        try:
            _decompress(path, unpacked)
            return _import(unpacked, name, source, importer)
        finally:
            unpacked.unlink(missing_ok=True)
    except OSError as error:
        raise ImageError(f"The image cannot be kept: {error.strerror or error}.") from error


def _import(path: Path, name: str, source: str, importer: Importer) -> Image:
    members = _find_members(path)
    if members is None:
        with open(path, "rb") as file:
            return importer.add_root(file, ImageConfig(), name, source)
    archive = _Archive(path, members)
    packed = _open_oci(archive) if _OCI_INDEX in members else _open_docker(archive)
    return importer.add(packed, name, source)


class _Archive:
    """A tar archive whose members are read by their places."""

    def __init__(self, path: Path, members: dict[str, tuple[int, int]]) -> None:
        self._path, self._members = path, members

    def read(self, name: str) -> bytes:
        size = self._place(name)[1]
        if size > MAX_DOCUMENT_BYTES:
            raise DamagedImage(f"{name!r:.200} in the archive has {size} bytes; {MAX_DOCUMENT_BYTES} are allowed.")
        with self.open(name) as file:
            return file.read()

    def read_blob(self, descriptor: dict[str, Any]) -> bytes:
        content = self.read(blob_name(descriptor))
        if sha256_digest(content) != descriptor["digest"]:
            raise DamagedImage(f"A file in the archive does not have its digest, {descriptor['digest']:.80}.")
        return content

    def open(self, name: str) -> IO[bytes]:
        start, size = self._place(name)
        return FilePart(self._path, start, size)  # type: ignore[return-value]

    def _place(self, name: str) -> tuple[int, int]:
        try:
            return self._members[name.removeprefix("./")]
        except KeyError:
            raise DamagedImage(f"The archive lacks {name!r:.200}, which its manifest names.") from None


class FilePart:
    """A part of a file, as a file of its own for reading."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - closed by `close`
        self._start, self._size, self._position = start, size, 0

    def __enter__(self) -> FilePart:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        left = self._size - self._position
        content = os.pread(self._file.fileno(), min(left, size) if size >= 0 else left, self._start + self._position)
        self._position += len(content)
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (self._position if whence == os.SEEK_CUR else 0)
        return self._position


def _find_members(path: Path) -> dict[str, tuple[int, int]] | None:
    """Return the places of the files of an image in an archive."""
    with open(path, "rb") as file:
        if compression_of(file):
            return None
        members: dict[str, tuple[int, int]] = {}
        reader = TarReader(file.read)
        for entry in reader:
            if len(entry.name) <= _MAX_NAME_CHARACTERS:
                members[entry.name.removeprefix("./")] = (file.tell(), entry.size)
            if len(members) > _MAX_PROBED_ENTRIES or entry.name.removeprefix("./").startswith(("etc/", "usr/")):
                return None
            file.seek(entry.size, os.SEEK_CUR)
            reader.skip()
    return members if _OCI_INDEX in members or _DOCKER_MANIFEST in members else None


def _is_packed_image(path: Path) -> bool:
    """Return whether a file is a compressed archive of an image."""
    with open(path, "rb") as file:
        if not compression_of(file):
            return False
        reader = TarReader(LayerSource(file, lambda _: None).read)
        names = (entry.name.removeprefix("./").rstrip("/") for entry in islice(reader, _MAX_LEADING_ENTRIES))
        return any(_IMAGE_PART.fullmatch(name) for name in names)


def _decompress(path: Path, target: Path) -> None:
    with open(path, "rb") as file, open(target, "xb") as writer:
        source = LayerSource(file, lambda _: None)
        while piece := source.read(1 << 20):
            writer.write(piece)
            check_free_space(str(target), LayerLimits().min_free_bytes)


def blob_name(descriptor: object) -> str:
    """Return the path of a blob in an OCI layout.

    Raises:
        DamagedImage: The descriptor is malformed.
    """
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    return f"blobs/sha256/{digest_digits(digest)}"


def _open_oci(archive: _Archive) -> PackedImage:
    document = find_manifest(parse_document(archive.read(_OCI_INDEX), "index"), archive.read_blob)
    layers = layer_descriptors(document)
    return PackedImage(
        archive.read_blob(document["config"]), lambda number: archive.open(blob_name(_nth(layers, number)))
    )


def layer_descriptors(manifest: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """Return the descriptors of a manifest's layers, the lowest first.

    Raises:
        DamagedImage: It has none.
    """
    layers = manifest.get("layers")
    if not isinstance(layers, list) or not isinstance(manifest.get("config"), dict):
        raise DamagedImage("The image's manifest does not list its layers; images of before 2016 have none.")
    for descriptor in [manifest["config"], *layers]:
        blob_name(descriptor)
    return layers


def _open_docker(archive: _Archive) -> PackedImage:
    content = archive.read(_DOCKER_MANIFEST)
    manifest = parse_document(b'{"images":' + content + b"}", "manifest")["images"]
    if not isinstance(manifest, list) or len(manifest) != 1:
        count = len(manifest) if isinstance(manifest, list) else 0
        raise ImageError(f"The archive holds {count} images: save one at a time.")
    try:
        config, layers = str(manifest[0]["Config"]), [str(layer) for layer in manifest[0]["Layers"]]
    except (KeyError, TypeError) as error:
        raise DamagedImage("The archive's manifest.json is malformed.") from error
    return PackedImage(archive.read(config), lambda number: archive.open(_nth(layers, number)))


def _nth(layers: Sequence[_T], number: int) -> _T:
    if number >= len(layers):
        raise DamagedImage("The image's configuration lists more layers than its manifest.")
    return layers[number]
