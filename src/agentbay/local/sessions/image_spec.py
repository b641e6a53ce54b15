"""Apply an image or a snapshot to the specification of a sandbox."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from agentbay.local.images.errors import ImageError
from agentbay.local.images.image_config import DEFAULT_PATH
from agentbay.local.images.store import Image, ImageStore
from agentbay.local.sandbox.service.manager import BindMount, ImageRoot, SandboxSpec
from agentbay.local.sandbox.service.writable_directories import WritableDirectory
from agentbay.local.sandbox.shared.sandbox_config import PYTHON_PREFIX

_CERTIFICATES = f"{PYTHON_PREFIX}/certificates"  # where sessions on images see them


def apply_image(spec: SandboxSpec, image: Image, store: ImageStore, ipython_copy: Path | None) -> SandboxSpec:
    """Return a specification with the root, user and variables of an image.

    Args:
        ipython_copy: The folder of IPython for the image's own Python, or None.
    """
    from agentbay.local.kernels.ipython_copy import IPYTHON_COPY_PATH  # it imports importlib.metadata

    config, user, programs = image.config, image.user, image.programs
    path = config.env.get("PATH") or DEFAULT_PATH
    if not programs.python:
        path = f"{path}:{PYTHON_PREFIX}/bin"
    root = ImageRoot(
        store.layer_paths(image.layers),
        directories=[path for path, _ in spec.writable],
        python=programs.python,
        has_shell=bool(programs.shell),
    )
    ipython = [BindMount(str(ipython_copy), IPYTHON_COPY_PATH, read_only=True)] if ipython_copy else []
    env, certificates = _certificates(spec.env)
    return replace(
        spec,
        image=root,
        user=user.name,
        uid=user.uid,
        gid=user.gid,
        directory=spec.directory or image.directory or config.workdir,
        writable=(),  # the whole root of an image is writable
        env={**config.env, "HOME": user.home, "PATH": path, **env},
        binds=[*spec.binds, *certificates, *ipython],
    )


def apply_snapshot(spec: SandboxSpec, image: Image, store: ImageStore) -> SandboxSpec:
    """Return a specification whose own directories start from those of a snapshot.

    They are mounted as layers, not copied.
    """
    return replace(
        spec,
        layers=store.layer_paths(image.layers),
        directory=spec.directory or image.directory,
        writable=_writable(spec, image),
    )


def restore_directories(spec: SandboxSpec, image: Image, store: ImageStore) -> SandboxSpec:
    """Copy the directories of a snapshot into those of a new session.

    Raises:
        ImageError: The disk is full, or there are several layers.
    """
    if len(image.layers) != 1:
        raise ImageError("This snapshot of a fork needs overlays of layers, which this machine does not offer.")
    from agentbay.local.images.tree_copy import TreeCopy  # it imports tarfile, and most sessions copy nothing

    TreeCopy(store.owner).copy(store.layer_path(image.layers[0]), os.fspath(spec.root))
    return replace(spec, directory=spec.directory or image.directory, writable=_writable(spec, image))


def _writable(spec: SandboxSpec, image: Image) -> list[WritableDirectory]:
    writable = dict(image.writable) | dict(spec.writable)
    return [WritableDirectory(path, is_overlay) for path, is_overlay in writable.items()]


def _certificates(env: Mapping[str, str]) -> tuple[dict[str, str], list[BindMount]]:
    """Return the environment and mounts that show this machine's CA certificates in a session.

    They get paths of their own, since a package in the image may overwrite its certificate files.
    """
    changed, binds = dict(env), dict[str, BindMount]()
    for name, value in env.items():
        if not value.startswith("/"):
            continue
        if os.path.isfile(value):
            changed[name] = f"{_CERTIFICATES}/{os.path.basename(value)}"
            binds[value] = BindMount(os.path.realpath(value), changed[name], read_only=True)
        else:  # a directory, which may be missing in the image
            del changed[name]
    return changed, list(binds.values())
