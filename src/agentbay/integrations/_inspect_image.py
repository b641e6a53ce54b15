"""The images of Inspect tasks, by name, Dockerfile or compose file."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from inspect_ai.util import ComposeBuild, ComposeConfig, is_compose_yaml, is_dockerfile, parse_compose_yaml

from agentbay import AsyncAgentBay


class TaskImages:
    """A client, and the images of tasks, each of which it builds once."""

    def __init__(self, bay: AsyncAgentBay) -> None:
        self.bay = bay
        self._found: dict[Any, str | None] = {}  # names or ids, by configuration

    async def find(self, config: Any) -> str | None:
        """Return the name or id of an image, built if need be.

        Relative paths are those of the working directory, which is the task's while Inspect starts its sandboxes.
        """
        if config not in self._found:
            self._found[config] = await self._find(config)
        return self._found[config]

    async def _find(self, config: Any) -> str | None:
        folder = Path()
        if is_dockerfile(config):
            return (await self.bay.images.build(Path(config))).image_id
        if is_compose_yaml(config):
            folder, config = Path(config).parent, parse_compose_yaml(config)
        if isinstance(config, ComposeConfig):
            return await self._find_image_of_service(config, folder)
        return _name(config)

    async def _find_image_of_service(self, config: ComposeConfig, folder: Path) -> str | None:
        if len(config.services) != 1:
            names = ", ".join(config.services)
            raise ValueError(f"Sessions run one image, not the services {names}: keep one in the compose file.")
        [service] = config.services.values()
        if service.build is None:
            return service.image
        build = service.build if isinstance(service.build, ComposeBuild) else ComposeBuild(context=service.build)
        context = folder / (build.context or "")
        return (await self.bay.images.build(context / (build.dockerfile or "Dockerfile"), context)).image_id


def _name(config: str | None) -> str | None:
    # Inspect takes each text for a path, and makes it absolute.
    return os.path.relpath(config) if config else None
