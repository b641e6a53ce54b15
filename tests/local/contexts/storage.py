"""The storage of contexts of a runtime under test: its disk, or a bucket."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import httpx
import obstore
from moto.server import ThreadedMotoServer
from obstore.store import S3Store

from agentbay.local.contexts import keys
from agentbay.local.contexts.manifest import Manifest, ManifestFile

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "the-bucket-user", "AWS_SECRET_ACCESS_KEY": "the-bucket-secret"}
BUCKET = "contexts-of-tests"


class Storage(Protocol):
    """A storage, also accessible without the runtime.

    Attributes:
        state_dir: The state directory of the runtime.
        mounts: Whether its contexts can be mounted.
        options: Its options of `agentbay local`.
        environment: Its environment variables.
    """

    state_dir: Path
    supports_mounts: bool
    options: list[str]
    environment: dict[str, str]

    def expiry_times(self, context: str) -> dict[str, float]:
        """Return when files expire, in seconds since 1970, by key."""

    def expire(self, context: str, key: str) -> None:
        """Set the expiry time of a file to the past."""


class DiskStorage:
    """The state directory of the runtime."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir, self._db = state_dir, state_dir / "contexts" / "contexts.db"
        self.supports_mounts, self.environment = True, dict[str, str]()
        self.options = ["--state-dir", str(state_dir)]

    def expiry_times(self, context: str) -> dict[str, float]:
        with closing(sqlite3.connect(self._db)) as db:
            rows = db.execute("SELECT key, expires FROM objects WHERE context = ?", (context,)).fetchall()
        return {keys.decode(key): expires for key, expires in rows}

    def expire(self, context: str, key: str) -> None:
        with closing(sqlite3.connect(self._db)) as db, db:
            db.execute("UPDATE objects SET expires = 1 WHERE context = ? AND key = ?", (context, keys.encode(key)))


@dataclass(frozen=True)
class ObjectStoreServer:
    """An object store that speaks S3, with a bucket."""

    moto: ThreadedMotoServer
    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.moto.stop()

    def store(self, prefix: str | None = None) -> S3Store:
        """Return a client of the bucket."""
        return S3Store(
            BUCKET, prefix=prefix, endpoint=self.endpoint, region="us-east-1", client_options={"allow_http": True},
            access_key_id="other", secret_access_key="other",
        )  # fmt: skip

    def url(self, prefix: str) -> str:
        """Return the value of `--context-store`."""
        return f"s3://{BUCKET}/{prefix}?endpoint={self.endpoint}&region=us-east-1"


class BucketStorage:
    """A prefix of a bucket."""

    def __init__(self, server: ObjectStoreServer, prefix: str, state_dir: Path) -> None:
        self.state_dir, self.objects = state_dir, server.store(prefix)
        self.supports_mounts, self.environment = False, {**CREDENTIALS, "NO_PROXY": "127.0.0.1"}
        self.options = ["--state-dir", str(state_dir), "--context-store", server.url(prefix)]

    def manifest(self, context: str) -> Manifest:
        return Manifest.from_bytes(bytes(obstore.get(self.objects, f"contexts/{context}/manifest").bytes()))

    def expiry_times(self, context: str) -> dict[str, float]:
        manifest = self.manifest(context)
        files = {f"/{entry.path}" for entry in manifest.list_below("/") if entry.kind == "file"}
        return {key: due for key in files if (due := manifest.file(key).expires) is not None}

    def expire(self, context: str, key: str) -> None:
        manifest = self.manifest(context)
        old = manifest.file(key)
        manifest.apply_step(
            ["put", key, "it", 1.0, False], {"it": ManifestFile(old.blob, old.size, old.mode, old.mtime_ns)}
        )
        manifest.unreferenced.pop(old.blob, None)
        obstore.put(self.objects, f"contexts/{context}/manifest", manifest.to_bytes())


class _Atomic:
    """Serialises conditional writes, which moto does not check atomically, unlike S3."""

    def __init__(self, application: Any) -> None:
        self._application, self._lock = application, Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        conditional = environ.keys() & {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"} and environ["REQUEST_METHOD"] == "PUT"
        with self._lock if conditional else nullcontext():
            return self._application(environ, start_response)


@contextmanager
def running_object_store(port: int = 0) -> Iterator[ObjectStoreServer]:
    """Run an object store on the loopback. All in one process share objects."""
    moto = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    moto.start()
    assert moto._server
    moto._server.app = _Atomic(moto._server.app)
    try:
        server = ObjectStoreServer(moto, moto.get_host_and_port()[1])
        httpx.put(f"{server.endpoint}/{BUCKET}", trust_env=False).raise_for_status()
        yield server
    finally:
        moto.stop()
