"""The store of images: unpacked layers, and the images that use them.

A layer is unpacked aside, and renamed into its place when it is whole; then a row says that it is there. So whatever
is killed leaves at most a directory that no row knows, which the next start removes. A layer's directory is named by
its chain id (OCI image specification): the digest of its own content and of all below it, since what an archive means
may depend on those.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from agentbay._lazy_attrs import define, field
from agentbay.local import database
from agentbay.local.images.blob_files import remove_downloads, remove_uploads
from agentbay.local.images.digests import sha256_digest
from agentbay.local.images.image_config import ImageConfig, ImagePrograms, ImageUser
from agentbay.local.sandbox.shared.fd_io import closing_fd
from agentbay.local.state_dir import StateDirectory, remove_tree, spread_directories

MAX_LAYERS = 127  # of an image, as Docker allows
_SCHEMA_VERSION = 1
_TABLES = """
CREATE TABLE layers (
    chain TEXT PRIMARY KEY,
    size INTEGER NOT NULL,              -- bytes of its files
    entries INTEGER NOT NULL,
    devices INTEGER NOT NULL            -- that were left out
);
CREATE TABLE images (
    id TEXT PRIMARY KEY,                -- digest of its configuration
    number INTEGER NOT NULL,
    facts TEXT NOT NULL,                -- JSON, see `Image`
    created REAL NOT NULL               -- seconds since 1970
);
CREATE TABLE names (
    name TEXT PRIMARY KEY,
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    digest TEXT NOT NULL                -- of the manifest in the registry, "" if it came from elsewhere
);
"""
_libc = ctypes.CDLL(None, use_errno=True)


@define(frozen=True, slots=False, kw_only=True)
class Image:
    """An image in the store.

    Attributes:
        layers: The chain ids of its layers, the lowest first.
        size: Bytes of all its files.
        source: Where it came from, for people.
        created: When it was stored, in seconds since 1970; 0 before.
        base: Of a snapshot of this machine's programs, the published name; its one layer holds the directories that a
            session writes. "" for a whole root file system.
        writable: Of such a snapshot, the further directories that can be written.
        directory: Where its commands start, instead of what `config` says.
    """

    id: str
    config: ImageConfig
    user: ImageUser
    programs: ImagePrograms
    layers: list[str]
    size: int
    source: str
    created: float = 0.0
    names: list[str] = field(factory=list)
    digest: str = ""
    base: str = ""
    writable: list[tuple[str, bool]] = field(factory=list)
    directory: str = ""


@define(frozen=True, slots=False, kw_only=True)
class Layer:
    """A layer in the store."""

    chain: str
    size: int
    entries: int
    devices: int = 0


def chain_id(below: str, diff_id: str) -> str:
    """Return the chain id of a layer on top of others."""
    return diff_id if not below else sha256_digest(f"{below} {diff_id}".encode())


class ImageStore:
    """Images of one runtime, safe for threads.

    Args:
        owner: Who owns the files of sandboxes; None means this process's user.
    """

    def __init__(self, state_dir: StateDirectory, owner: tuple[int, int] | None) -> None:
        self.owner, self._state_dir = owner, state_dir
        self._durable = not state_dir.temporary
        root = state_dir.path / "images"
        self._layers, self._work, self.blobs = root / "layers", root / "work", root / "blobs"
        for directory in (root, self._layers, self._work, self.blobs):
            directory.mkdir(mode=0o700, exist_ok=True)
        spread_directories(self._work)
        self._db = database.open_database(
            root / "images.db", _TABLES, _SCHEMA_VERSION, synchronous="FULL" if self._durable else "OFF"
        )
        self._lock = threading.RLock()
        self._in_use: Counter[str] = Counter()  # chain ids of layers that sessions and transfers need
        self._adopted: set[str] = set()  # chain ids of layers that are in no row
        self._mount_points: dict[str, str] = {}  # by image id: see `set_mount_points`
        self._remover = ThreadPoolExecutor(1, "images-remover")
        self._remove_strays()

    def close(self) -> None:
        """Remove layers that no image has, and close the database."""
        self._mount_points.clear()
        self._remove_unused()
        self._remover.shutdown()
        with self._lock:
            self._db.close()

    def images(self) -> list[Image]:
        """Return all images, the newest first."""
        with self._lock:
            rows = self._db.execute("SELECT id, facts, created FROM images ORDER BY number DESC").fetchall()
            return [self._load(*row) for row in rows]

    def find(self, name: str) -> Image | None:
        """Find an image by a name or an id.

        The tag `latest` may be left out, and 8 digits of an id are enough.
        """
        with self._lock:
            for candidate in (name, f"{name}:latest"):
                row = self._db.execute(
                    "SELECT id, facts, created FROM images JOIN names ON image = id WHERE name = ?", (candidate,)
                ).fetchone()
                if row:
                    return self._load(*row)
            digits = name.removeprefix("sha256:").lower()
            if len(digits) < 8 or not set(digits) <= set("0123456789abcdef"):
                return None
            query = "SELECT id, facts, created FROM images WHERE id LIKE ?"
            rows = self._db.execute(query, (f"sha256:{digits}%",)).fetchall()
            return self._load(*rows[0]) if len(rows) == 1 else None

    def add(self, image: Image, name: str, digest: str = "") -> Image:
        """Record an image whose layers are there, and give it a name.

        The name "" gives it none.
        """
        facts = json.dumps(
            {
                "config": attrs.asdict(image.config),
                "user": attrs.asdict(image.user),
                "programs": attrs.asdict(image.programs),
                "layers": image.layers,
                "source": image.source,
                "base": image.base,
                "writable": image.writable,
                "directory": image.directory,
            }
        )
        with self._transaction():
            (number,) = self._db.execute("SELECT COALESCE(MAX(number), 0) + 1 FROM images").fetchone()
            self._db.execute("INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?)", (image.id, number, facts, time.time()))
            if name:
                self._db.execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", (name, image.id, digest))
        found = self.find(image.id)
        assert found is not None
        return found

    def remove(self, name: str) -> Image | None:
        """Remove a name and, with its last one, the image.

        By its id, an image goes with all its names.
        Sessions that run it keep its layers until they end.
        """
        with self._lock:
            image = self.find(name)
            if image is None:
                return None
            name = name if name in image.names else f"{name}:latest"
            with self._transaction():
                self._db.execute("DELETE FROM names WHERE name = ?", (name,))
                if name not in image.names or len(image.names) == 1:
                    self._db.execute("DELETE FROM images WHERE id = ?", (image.id,))
            self._remove_unused()
            return image

    def prune(self) -> list[Image]:
        """Remove the images that have no name left, and what interrupted transfers have left."""
        with self._lock:
            removed = [image for image in self.images() if not image.names]
            with self._transaction():
                self._db.executemany("DELETE FROM images WHERE id = ?", [(image.id,) for image in removed])
            self._remove_unused()
            remove_downloads(self.blobs)
            return removed

    def layer_path(self, chain: str) -> str:
        """Return the directory of a layer."""
        return str(self._layers / chain.removeprefix("sha256:"))

    def layer_paths(self, chains: Sequence[str]) -> list[str]:
        """Return the directories of layers."""
        return [self.layer_path(chain) for chain in chains]

    def find_layer(self, chain: str) -> Layer | None:
        """Return a layer that is whole, or None."""
        with self._lock:
            row = self._db.execute("SELECT * FROM layers WHERE chain = ?", (chain,)).fetchone()
        return Layer(chain=row[0], size=row[1], entries=row[2], devices=row[3]) if row else None

    @contextmanager
    def keep(self, chains: Sequence[str]) -> Iterator[None]:
        """Keep layers during the block, whoever removes images."""
        self.acquire(chains)
        try:
            yield
        finally:
            self.release(chains)

    def acquire(self, chains: Sequence[str]) -> None:
        """Keep layers until `release`."""
        with self._lock:
            self._in_use.update(chains)

    def release(self, chains: Sequence[str]) -> None:
        """Release layers, and remove in the background those that nothing uses."""
        with self._lock:
            self._in_use.subtract(chains)
            self._in_use += Counter()
            if not set(chains) <= set(self._in_use):
                self._remover.submit(self._remove_unused)

    @contextmanager
    def new_directory(self) -> Iterator[Path]:
        """Make a directory to unpack into, for the block."""
        directory = self._make_directory(self._work / secrets.token_hex(8))
        try:
            yield directory
        finally:
            if directory.exists():
                remove_tree(self._state_dir.move_to_trash(directory))

    def _make_directory(self, directory: Path) -> Path:
        directory.mkdir(mode=0o755)
        os.chmod(directory, 0o755)
        if self.owner:
            os.chown(directory, *self.owner)
        return directory

    def add_layer(self, layer: Layer, directory: Path) -> None:
        """Move an unpacked layer to its place, unless it is there already."""
        if self._durable:
            self._flush(directory)
        with self._lock:
            if self.find_layer(layer.chain):
                return
            target = Path(self.layer_path(layer.chain))
            directory.rename(target)
            with self._transaction():
                self._db.execute(
                    "INSERT INTO layers VALUES (?, ?, ?, ?)", (layer.chain, layer.size, layer.entries, layer.devices)
                )

    def adopt(self, chain: str) -> Path:
        """Return the empty directory of a new layer for sessions.

        It has no row, so the next start of the runtime removes it. It must be in use, or it is removed at once.
        """
        with self._lock:
            self._adopted.add(chain)
            return self._make_directory(Path(self.layer_path(chain)))

    def mount_points(self, image_id: str) -> str | None:
        """Return what `set_mount_points` was told about an image, or None."""
        return self._mount_points.get(image_id)

    def set_mount_points(self, image_id: str, chain: str) -> None:
        """Keep an adopted layer as long as an image is there.

        The chain id "" notes that it has none.
        """
        with self._lock:
            self._mount_points[image_id] = chain

    def keep_adopted(self, chains: Sequence[str], measure: Callable[[str], tuple[int, int]]) -> None:
        """Record adopted layers, so that images can have them.

        Args:
            measure: Returns the bytes and the number of files below a directory.
        """
        for chain in chains:
            if chain in self._adopted:
                path = self.layer_path(chain)
                size, entries = measure(path)
                if self._durable:
                    self._flush(Path(path))
                with self._transaction():
                    self._db.execute("INSERT OR IGNORE INTO layers VALUES (?, ?, ?, 0)", (chain, size, entries))
                    self._adopted.discard(chain)

    def _flush(self, directory: Path) -> None:
        with closing_fd(os.open(directory, os.O_RDONLY | os.O_DIRECTORY)) as fd:
            _libc.syncfs(fd)

    def _remove_unused(self) -> None:
        with self._lock, suppress(RuntimeError):  # after `close`, the next start of the runtime removes the trash
            for trash in self._trash_unused():
                self._remover.submit(remove_tree, trash)

    def _trash_unused(self) -> list[Path]:
        """Move layers that nothing uses to the trash, and return their places."""
        trash = []
        images = self.images()
        self._mount_points = {one.id: self._mount_points[one.id] for one in images if one.id in self._mount_points}
        used = {chain for image in images for chain in image.layers} | set(self._in_use)
        used.update(self._mount_points.values())
        for (chain,) in self._db.execute("SELECT chain FROM layers").fetchall():
            if chain not in used:
                with self._transaction():
                    self._db.execute("DELETE FROM layers WHERE chain = ?", (chain,))
                trash.append(self._state_dir.move_to_trash(Path(self.layer_path(chain))))
        for chain in self._adopted - used:
            self._adopted.discard(chain)
            trash.append(self._state_dir.move_to_trash(Path(self.layer_path(chain))))
        return trash

    def _remove_strays(self) -> None:
        """Remove what a killed runtime has left incomplete."""
        remove_uploads(self.blobs)
        known = {chain.removeprefix("sha256:") for (chain,) in self._db.execute("SELECT chain FROM layers")}
        for directory in [*self._work.iterdir(), *self._layers.iterdir()]:
            if directory.parent == self._work or directory.name not in known:
                self._state_dir.move_to_trash(directory)
        present = {directory.name for directory in self._layers.iterdir()}
        for chain in known - present:  # somebody has removed it
            self._db.execute("DELETE FROM layers WHERE chain = ?", (f"sha256:{chain}",))
        for image in self.images():
            if not {chain.removeprefix("sha256:") for chain in image.layers} <= present:
                self._db.execute("DELETE FROM images WHERE id = ?", (image.id,))
        self._trash_unused()  # the start of the runtime removes what is in the trash

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _load(self, image_id: str, text: str, created: float) -> Image:
        facts = json.loads(text)
        names = self._db.execute("SELECT name, digest FROM names WHERE image = ? ORDER BY name", (image_id,)).fetchall()
        sizes = dict(self._db.execute("SELECT chain, size FROM layers").fetchall())
        return Image(
            id=image_id,
            config=ImageConfig(**facts["config"]),
            user=ImageUser(**facts["user"]),
            programs=ImagePrograms(**facts["programs"]),
            layers=facts["layers"],
            size=sum(sizes.get(chain, 0) for chain in facts["layers"]),
            source=facts["source"],
            base=facts["base"],
            writable=[(path, is_overlay) for path, is_overlay in facts["writable"]],
            directory=facts["directory"],
            created=created,
            names=[name for name, _ in names],
            digest=next((digest for _, digest in names if digest), ""),
        )
