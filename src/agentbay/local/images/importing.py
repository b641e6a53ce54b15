"""Unpacking images into the store: what all sources have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import IO, Any

import attrs

from agentbay.local.images import image_config
from agentbay.local.images.digests import sha256_digest
from agentbay.local.images.errors import DamagedImage, ImageError, LimitExceeded
from agentbay.local.images.image_config import ImageConfig
from agentbay.local.images.layer_source import LayerSource
from agentbay.local.images.layer_writer import LayerLimits, LayerStats, LayerWriter, check_free_space
from agentbay.local.images.store import MAX_LAYERS, Image, ImageStore, Layer, chain_id

MAX_DOCUMENT_BYTES = 8 << 20  # of a manifest or a configuration
_MAX_INDEXES = 4  # nested in each other
Progress = Callable[[int], None]


@attrs.frozen
class PackedImage:
    """An image before it is unpacked.

    Attributes:
        document: Its configuration, as the original bytes.
        open_layer: Opens a layer by its number, the lowest is 0.
    """

    document: bytes
    open_layer: Callable[[int], AbstractContextManager[IO[bytes]]]


class Importer:
    """Unpacks images into a store.

    Args:
        progress: Called with the number of each piece of packed bytes; it may raise to give up.
    """

    def __init__(
        self, store: ImageStore, progress: Progress = lambda _: None, limits: LayerLimits | None = None
    ) -> None:
        self._store, self._progress, self._limits = store, progress, limits or LayerLimits()

    def add(self, packed: PackedImage, name: str, source: str, digest: str = "") -> Image:
        """Unpack the layers that are missing, and record the image.

        Raises:
            ImageError: It cannot be used.
        """
        document = parse_document(packed.document, "configuration")
        config, diffs = image_config.read_config(document), image_config.diff_ids(document)
        if not 0 < len(diffs) <= MAX_LAYERS:
            raise LimitExceeded(f"The image has {len(diffs)} layers; 1 to {MAX_LAYERS} are allowed.")
        chains: list[str] = []
        for diff_id in diffs:
            chains.append(chain_id(chains[-1] if chains else "", diff_id))
        with self._store.keep(chains):
            for number, diff_id in enumerate(diffs):
                if self._store.find_layer(chains[number]) is None:
                    with packed.open_layer(number) as file:
                        self._add_layer(file, chains[: number + 1], diff_id)
            identity = sha256_digest(packed.document)
            return self.record(identity, config, chains, name, source, digest)

    def add_root(self, file: IO[bytes], config: ImageConfig, name: str, source: str) -> Image:
        """Unpack a whole root file system as an image of one layer."""
        with self._store.new_directory() as directory:
            digest, stats = self._unpack(file, str(directory), [])
            chain = chain_id("", digest)
            with self._store.keep([chain]):
                self._store.add_layer(
                    Layer(chain=chain, size=stats.size, entries=stats.entries, devices=stats.devices), directory
                )
                return self.record(identify(config, [chain]), config, [chain], name, source)

    def record(
        self, identity: str, config: ImageConfig, chains: Sequence[str], name: str, source: str, digest: str = ""
    ) -> Image:
        """Record an image whose layers are in the store."""
        paths = self._store.layer_paths(chains)
        image = Image(
            id=identity,
            config=config,
            user=image_config.find_user(config, paths),
            programs=image_config.find_programs(config, paths),
            layers=list(chains),
            size=0,
            source=source,
        )
        return self._store.add(image, name, digest)

    def _add_layer(self, file: IO[bytes], chains: Sequence[str], diff_id: str) -> None:
        lowers = self._store.layer_paths(chains[:-1])[::-1]
        with self._store.new_directory() as directory:
            digest, stats = self._unpack(file, str(directory), lowers)
            if digest != diff_id:
                raise DamagedImage(f"A layer has the digest {digest}, and the image says {diff_id:.80}.")
            self._store.add_layer(
                Layer(chain=chains[-1], size=stats.size, entries=stats.entries, devices=stats.devices), directory
            )

    def _unpack(self, file: IO[bytes], directory: str, lowers: Sequence[str]) -> tuple[str, LayerStats]:
        writer = LayerWriter(directory, lowers, self._store.owner, self._limits)
        source = LayerSource(file, self._progress)
        try:
            check_free_space(directory, self._limits.min_free_bytes)
            writer.unpack(source)
        except ImageError:
            raise
        except OSError as error:
            raise ImageError(f"A layer cannot be unpacked: {error.strerror or error}.") from error
        return source.finish(), writer.stats


def identify(config: ImageConfig, chains: Sequence[str]) -> str:
    """Return the id of an image that came without a configuration of its own."""
    text = json.dumps([attrs.asdict(config), list(chains)], sort_keys=True)
    return sha256_digest(text.encode())


def parse_document(content: bytes, what: str) -> dict[str, Any]:
    """Parse a manifest or a configuration.

    Raises:
        DamagedImage: It is no JSON object.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedImage(f"The image's {what} is no JSON: {error}.") from error
    if not isinstance(document, dict):
        raise DamagedImage(f"The image's {what} is no JSON object.")
    return dict(document)


def find_manifest(document: dict[str, Any], read: Callable[[dict[str, Any]], bytes]) -> dict[str, Any]:
    """Return the manifest for this machine, from a manifest or an index.

    Args:
        read: Reads what a descriptor names.

    Raises:
        ImageError: There is none.
    """
    for _ in range(_MAX_INDEXES):
        if "manifests" not in document:
            return document
        document = parse_document(read(_choose_platform(document)), "manifest")
    if "manifests" in document:
        raise DamagedImage(f"The image's indexes are nested in each other more than {_MAX_INDEXES} times.")
    return document


def _choose_platform(index: dict[str, Any]) -> dict[str, Any]:
    """Return the descriptor of an index that fits this machine.

    Raises:
        ImageError: None does.
    """
    manifests = index.get("manifests")
    if not isinstance(manifests, list) or not all(isinstance(item, dict) for item in manifests):
        raise DamagedImage("The image's index does not list its manifests.")
    platforms = [(item.get("platform") or {}, item) for item in manifests]
    if not all(isinstance(platform, dict) for platform, _ in platforms):
        raise DamagedImage("The image's index does not say for which machines its manifests are.")
    architecture = image_config.machine_architecture()
    for platform, item in platforms:
        if (platform.get("os", "linux"), platform.get("architecture", architecture)) == ("linux", architecture):
            return dict(item)
    offered = ", ".join(f"{found.get('os', '?')}/{found.get('architecture', '?')}" for found, _ in platforms)
    raise ImageError(f"The image is not for linux/{architecture}, only for {offered or 'nothing'}.")
