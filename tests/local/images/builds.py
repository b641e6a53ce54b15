"""Images made of a few files, as tests need them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

BUSYBOX = shutil.which("busybox")
needs_busybox = pytest.mark.skipif(BUSYBOX is None, reason="no busybox; scripts/test says how to get it")
APPLETS = ("cat", "chmod", "dd", "env", "id", "ls", "mkdir", "mv", "pwd", "rm", "sh", "sleep", "touch", "true", "wc")
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())

Member = tuple[str, Mapping[str, Any], bytes]


def member(name: str, content: bytes = b"", **facts: Any) -> Member:
    return name, facts, content


def directory(name: str, mode: int = 0o755) -> Member:
    return member(name, type=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> Member:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> Member:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def tar(*members: Member) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, facts, content in members:
            info = tarfile.TarInfo(name)
            info.mode = 0o644
            for key, value in facts.items():
                setattr(info, key, value)
            if info.isreg():
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def busybox_layer(*more: Member, applets: Iterable[str] = ()) -> bytes:
    """A layer with a shell and some programs, and further ones of busybox."""
    assert BUSYBOX is not None
    links = [symlink(f"bin/{name}", "busybox") for name in (*APPLETS, *applets)]
    return tar(
        directory("bin"),
        member("bin/busybox", Path(BUSYBOX).read_bytes(), mode=0o755),
        *links,
        directory("etc"),
        member("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:4711:4712:app:/home/app:/bin/sh\n"),
        directory("tmp", 0o1777),
        *more,
    )


def host_programs(*programs: str) -> list[Member]:
    """Programs of this machine, with the libraries that they need, where these are."""
    found: dict[str, str] = {}
    for program in programs:
        path = shutil.which(program)
        assert path is not None, program
        found[f"usr/bin/{program}"] = path
        listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
        found |= {library.lstrip("/"): library for library in re.findall(r"/[^ )]+(?= \(0x)", listed)}
    return [member(name, Path(path).read_bytes(), mode=0o755) for name, path in found.items()]


def names(place: Path) -> list[str]:
    """The names in a directory, in order."""
    return sorted(path.name for path in place.iterdir())


class Built:
    """An image in the form that registries and archives have."""

    def __init__(self, layers: Iterable[bytes], config: Mapping[str, Any] | None = None, **facts: Any) -> None:
        unpacked = list(layers)
        self.layers = [gzip.compress(layer, 1) for layer in unpacked]
        document = {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": dict(config or {}),
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in unpacked]},
            **facts,
        }
        self.config = json.dumps(document).encode()

    def manifest(self) -> dict[str, Any]:
        return {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor(self.config, "application/vnd.oci.image.config.v1+json"),
            "layers": [_descriptor(layer, "application/vnd.oci.image.layer.v1.tar+gzip") for layer in self.layers],
        }

    def blobs(self) -> dict[str, bytes]:
        return {digest(blob): blob for blob in [self.config, *self.layers]}

    def oci_archive(self) -> bytes:
        manifest = json.dumps(self.manifest()).encode()
        index = {"schemaVersion": 2, "manifests": [_descriptor(manifest, "application/vnd.oci.image.manifest.v1+json")]}
        blobs = {**self.blobs(), digest(manifest): manifest}
        return tar(
            member("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
            member("index.json", json.dumps(index).encode()),
            *(member(f"blobs/sha256/{name.removeprefix('sha256:')}", blob) for name, blob in blobs.items()),
        )

    def docker_archive(self) -> bytes:
        names = [f"{number}/layer.tar" for number in range(len(self.layers))]
        manifest = [{"Config": "config.json", "RepoTags": ["a:1"], "Layers": names}]
        layers = [member(name, gzip.decompress(layer)) for name, layer in zip(names, self.layers, strict=True)]
        return tar(*layers, member("config.json", self.config), member("manifest.json", json.dumps(manifest).encode()))


def _descriptor(content: bytes, kind: str) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest(content), "size": len(content)}
