from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.local.images.builds import Built, digest
from tests.local.traces import PATIENCE

PROGRAM = shutil.which("docker-registry")
CONFIG = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {directory}}}}}
http: {{addr: "127.0.0.1:{port}"}}
log: {{level: error, accesslog: {{disabled: true}}}}
{auth}
"""


class Registry:
    """A real registry on loopback."""

    def __init__(self, directory: Path, auth: str = "") -> None:
        assert PROGRAM is not None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        config = directory / "config.yml"
        config.write_text(CONFIG.format(directory=directory / "blobs", port=self.port, auth=auth))
        command = [PROGRAM, "serve", str(config)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.http = httpx.Client(base_url=f"http://{self.host}", trust_env=False, timeout=60)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.http.get("/v2/")
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def push(self, name: str, tag: str, image: Built) -> str:
        """Push an image, and return the digest of its manifest."""
        import json

        for blob_digest, blob in image.blobs().items():
            place = self.http.post(f"/v2/{name}/blobs/uploads/").raise_for_status().headers["location"]
            self.http.put(f"{place}&digest={blob_digest}", content=blob).raise_for_status()
        manifest = image.manifest()
        content = json.dumps(manifest).encode()
        kind = {"Content-Type": manifest["mediaType"]}
        self.http.put(f"/v2/{name}/manifests/{tag}", content=content, headers=kind).raise_for_status()
        return digest(content)

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self._process.terminate()
        self._process.wait()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    if PROGRAM is None:
        pytest.skip("no docker-registry; scripts/test says how to get it")
    with Registry(tmp_path_factory.mktemp("registry")) as made:
        yield made
