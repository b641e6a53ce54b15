"""The layers that the steps of a build make.

A layer is named by what it comes from: the layers below, the step and all that the step depends on. So a step whose
layer is in the store need not be done again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from agentbay.local.images.digests import sha256_digest
from agentbay.local.images.errors import ImageError
from agentbay.local.images.layer_writer import EntrySource, LayerLimits, LayerStats, LayerWriter, check_free_space
from agentbay.local.images.store import ImageStore, Layer
from agentbay.local.images.tar_reader import TarEntry
from agentbay.local.images.tree_copy import TreeCopy
from agentbay.local.sandbox.shared import dirfd
from agentbay.local.sandbox.shared.sandbox_config import PYTHON_PREFIX

_SESSION_FILES = ("hostname", "hosts", "resolv.conf")  # in /etc; each session has its own


def step_chain(chains: Sequence[str], *inputs: object) -> str:
    """Return the chain id of the layer that a step makes."""
    below = chains[-1] if chains else ""
    return sha256_digest(json.dumps(["build", below, *inputs], sort_keys=True).encode())


def write_layer(store: ImageStore, chains: Sequence[str], chain: str, sources: Sequence[EntrySource]) -> None:
    """Make a layer of files on top of others.

    Raises:
        ImageError: They cannot be written.
    """
    lowers = store.layer_paths(chains)[::-1]
    with _new_layer(store) as directory:
        writer = LayerWriter(str(directory), lowers, store.owner)
        writer.write(_Joined(sources))
        _add(store, chain, writer.stats, directory)


def keep_changes(store: ImageStore, upper: Path, chain: str) -> None:
    """Make a layer of what a command has changed.

    Args:
        upper: The directory that took the changes, whose processes have ended.

    Raises:
        ImageError: They cannot be copied.
    """
    copying = TreeCopy(store.owner)
    _remove_session_files(upper)
    with _new_layer(store) as directory:
        copying.copy(str(upper), str(directory))
        _add(store, chain, copying.stats, directory)


class NewDirectory:
    """One directory, as the entry of a layer."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __iter__(self) -> Iterator[TarEntry]:
        yield TarEntry(self._path, "directory", 0o755, 0, time.time(), "")

    def pieces(self) -> Iterator[bytes]:
        """Read its content, of which there is none."""
        return iter(())


class _Joined:
    """Several sources, one after the other."""

    def __init__(self, sources: Sequence[EntrySource]) -> None:
        self._sources = sources
        self._current: EntrySource | None = None

    def __iter__(self) -> Iterator[TarEntry]:
        for source in self._sources:
            self._current = source
            yield from source

    def pieces(self) -> Iterator[bytes]:
        assert self._current is not None
        return self._current.pieces()


@contextmanager
def _new_layer(store: ImageStore) -> Iterator[Path]:
    try:
        with store.new_directory() as directory:
            check_free_space(str(directory), LayerLimits().min_free_bytes)
            yield directory
    except OSError as error:
        raise ImageError(f"A layer cannot be written: {error.strerror or error}.") from error


def _add(store: ImageStore, chain: str, stats: LayerStats, directory: Path) -> None:
    store.add_layer(Layer(chain=chain, size=stats.size, entries=stats.entries, devices=stats.devices), directory)


def _remove_session_files(upper: Path) -> None:
    """Remove what each session gets anew, and no image should hold.

    The command may have put links there, none of which is followed.
    """
    *python_place, python_name = PYTHON_PREFIX.strip("/").split("/")
    found = [*((("etc",), name) for name in _SESSION_FILES), (tuple(python_place), python_name)]
    with dirfd.open_path(str(upper)) as top:
        for parts, name in found:
            with suppress(OSError), dirfd.open_directory(top, parts) as above:  # there may be no such directory
                dirfd.remove(name, above)
