"""What an image means for the sandbox of a session."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from agentbay.local.images.image_config import DEFAULT_PATH
from agentbay.local.images.store import Image, ImageStore
from agentbay.local.kernels.given_ipython import GIVEN_PATH, make_given_ipython
from agentbay.local.sandbox.service.manager import BindMount, ImageRoot, SandboxSpec
from agentbay.local.sandbox.shared.sandbox_config import PYTHON_PREFIX


def apply_image(spec: SandboxSpec, image: Image, store: ImageStore, caches: Path) -> SandboxSpec:
    """Return a specification with the root, user and variables of an image.

    Args:
        caches: Keeps what images are given.
    """
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
    return replace(
        spec,
        image=root,
        user=user.name,
        uid=user.uid,
        gid=user.gid,
        directory=spec.directory or config.workdir,
        writable=(),  # all of it is
        env={**config.env, "HOME": user.home, "PATH": path, **spec.env},
        binds=[*spec.binds, *_binds_of_certificates(spec.env), *_binds_of_ipython(image, caches)],
    )


def _binds_of_certificates(env: Mapping[str, str]) -> list[BindMount]:
    """Return mounts of files of authorities that this machine's variables name."""
    return [
        BindMount(os.path.realpath(path), path, read_only=True)
        for path in dict.fromkeys(env.values())
        if path.startswith("/") and os.path.isfile(path)
    ]


def _binds_of_ipython(image: Image, caches: Path) -> list[BindMount]:
    given = make_given_ipython(caches) if image.programs.python else None
    return [BindMount(str(given), GIVEN_PATH, read_only=True)] if given else []
