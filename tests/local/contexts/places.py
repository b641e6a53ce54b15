"""Where a runtime under test keeps what contexts hold: on its disk, or in a bucket."""

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


class Place(Protocol):
    """A place, and a look into it past the runtime.

    Attributes:
        state_dir: The runtime's.
        mounts: Whether contexts there can be mounted.
        options: What `agentbay local` is told.
        environment: What it finds in its environment.
    """

    state_dir: Path
    mounts: bool
    options: list[str]
    environment: dict[str, str]

    def due(self, context: str) -> dict[str, float]:
        """When files are overdue, in seconds since 1970, by their keys."""

    def make_overdue(self, context: str, key: str) -> None:
        """Let time pass for a file."""


class OnDisk:
    """In the state directory."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir, self._db = state_dir, state_dir / "contexts" / "contexts.db"
        self.mounts, self.environment = True, dict[str, str]()
        self.options = ["--state-dir", str(state_dir)]

    def due(self, context: str) -> dict[str, float]:
        with closing(sqlite3.connect(self._db)) as db:
            rows = db.execute("SELECT key, expires FROM objects WHERE context = ?", (context,)).fetchall()
        return {keys.decode(key): expires for key, expires in rows}

    def make_overdue(self, context: str, key: str) -> None:
        with closing(sqlite3.connect(self._db)) as db, db:
            db.execute("UPDATE objects SET expires = 1 WHERE context = ? AND key = ?", (context, keys.encode(key)))


@dataclass(frozen=True)
class Server:
    """An object store that speaks S3, with a bucket."""

    moto: ThreadedMotoServer
    port: int

    @property
    def endpoint(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Be reachable no more."""
        self.moto.stop()

    def store(self, prefix: str | None = None) -> S3Store:
        """The bucket, for who looks into it past a runtime."""
        return S3Store(
            BUCKET, prefix=prefix, endpoint=self.endpoint, region="us-east-1", client_options={"allow_http": True},
            access_key_id="other", secret_access_key="other",
        )  # fmt: skip

    def url(self, prefix: str) -> str:
        """What `--context-store` is told."""
        return f"s3://{BUCKET}/{prefix}?endpoint={self.endpoint}&region=us-east-1"


class InBucket:
    """Below a prefix of a bucket."""

    def __init__(self, server: Server, prefix: str, state_dir: Path) -> None:
        self.state_dir, self.objects = state_dir, server.store(prefix)
        self.mounts, self.environment = False, {**CREDENTIALS, "NO_PROXY": "127.0.0.1"}
        self.options = ["--state-dir", str(state_dir), "--context-store", server.url(prefix)]

    def manifest(self, context: str) -> Manifest:
        return Manifest.from_bytes(bytes(obstore.get(self.objects, f"contexts/{context}/manifest").bytes()))

    def due(self, context: str) -> dict[str, float]:
        manifest = self.manifest(context)
        files = {f"/{entry.path}" for entry in manifest.list_below("/") if entry.kind == "file"}
        return {key: due for key in files if (due := manifest.file(key).expires) is not None}

    def make_overdue(self, context: str, key: str) -> None:
        manifest = self.manifest(context)
        old = manifest.file(key)
        manifest.apply_step(
            ["put", key, "it", 1.0, False], {"it": ManifestFile(old.blob, old.size, old.mode, old.mtime_ns)}
        )
        manifest.unreferenced.pop(old.blob, None)
        obstore.put(self.objects, f"contexts/{context}/manifest", manifest.to_bytes())


class _Atomic:
    """Lets conditional writes in one after the other: moto looks at the condition first, and then writes, unlike S3."""

    def __init__(self, application: Any) -> None:
        self._application, self._lock = application, Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        conditional = environ.keys() & {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"} and environ["REQUEST_METHOD"] == "PUT"
        with self._lock if conditional else nullcontext():
            return self._application(environ, start_response)


@contextmanager
def serving(port: int = 0) -> Iterator[Server]:
    """Run an object store on this machine; in one process, all of them have the same objects."""
    moto = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    moto.start()
    assert moto._server
    moto._server.app = _Atomic(moto._server.app)
    try:
        server = Server(moto, moto.get_host_and_port()[1])
        httpx.put(f"{server.endpoint}/{BUCKET}", trust_env=False).raise_for_status()
        yield server
    finally:
        moto.stop()
