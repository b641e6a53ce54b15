"""Layers with what sandboxes need in an image, made once.

That is some thirty directories and files: mount points, its Python environment, files of /etc. A busy disk takes a
millisecond for each. So after the first session on an image, a sandbox in which nothing runs makes them once more, and
what it has made becomes a layer, which further sessions have below what they write.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import replace
from pathlib import Path

import attrs

from agentbay.local.images.store import MAX_LAYERS, Image, ImageStore
from agentbay.local.sandbox.service.manager import SandboxError, SandboxManager, SandboxSpec
from agentbay.local.sandbox.shared.sandbox_config import IMAGE_DIRECTORY, UPPER_DIRECTORY
from agentbay.local.state_dir import StateDirectory, remove_tree

_logger = logging.getLogger(__name__)


class MountPoints:
    """Makes an image's mount-point layer once, and adds it to new sessions."""

    def __init__(self, sandboxes: SandboxManager, state_dir: StateDirectory, store: ImageStore) -> None:
        self._sandboxes, self._state_dir, self._store = sandboxes, state_dir, store

    def add_to(self, image: Image) -> Image:
        """Return an image with its layer on top, if it has one."""
        chain = self._store.mount_points(image.id)
        return attrs.evolve(image, layers=[*image.layers, chain]) if chain else image

    def claim(self, image: Image) -> bool:
        """Claim the making of an image's layer, and return whether that succeeded.

        Only the first call for an image succeeds.
        """
        is_stored = image.created > 0  # unlike that of a fork, which begins with what its session has
        is_known = self._store.mount_points(image.id) is not None
        if not is_stored or image.base or is_known or len(image.layers) + 1 >= MAX_LAYERS:
            return False
        self._store.set_mount_points(image.id, "")
        return True

    async def make(self, image: Image, spec: SandboxSpec) -> None:
        """Make the layer of an image.

        Args:
            spec: Of a sandbox on the image, without what only one session has.
        """
        directory = self._state_dir.new_session(self._state_dir.unused_name())
        try:
            sandbox = await self._sandboxes.create(replace(spec, root=directory))
            try:
                await sandbox.environment()  # its answer comes when all is there
            finally:
                await sandbox.close()
            await asyncio.to_thread(self._keep, image, directory / IMAGE_DIRECTORY / UPPER_DIRECTORY)
        except (OSError, SandboxError) as error:
            _logger.info("each session on %s makes its mount points: %s", image.id, error)
        finally:
            await asyncio.to_thread(remove_tree, self._state_dir.move_to_trash(directory))

    def _keep(self, image: Image, made: Path) -> None:
        if not any(made.iterdir()):  # a snapshot of a session on an image has all
            return
        chain = f"sha256:{secrets.token_hex(32)}"
        with self._store.keep([chain]):
            made.rename(self._store.adopt(chain))
            self._store.set_mount_points(image.id, chain)
