"""Running the command of a RUN in a sandbox of its own."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agentbay.local.builds import layers
from agentbay.local.builds.dockerfile import Instruction
from agentbay.local.builds.stage import StageState
from agentbay.local.images import image_config
from agentbay.local.images.errors import ImageError
from agentbay.local.images.image_config import DEFAULT_PATH, ImageConfig
from agentbay.local.images.job_output import JobOutput
from agentbay.local.images.store import Image, ImageStore
from agentbay.local.network.egress_policy import EgressRule
from agentbay.local.network.provider import NetworkProvider
from agentbay.local.sandbox.service.manager import (
    Limits,
    NetworkMode,
    Sandbox,
    SandboxError,
    SandboxManager,
    SandboxSpec,
)
from agentbay.local.sandbox.service.pipe_reader import OutputCollector, drain_after_exit
from agentbay.local.sandbox.shared.sandbox_config import IMAGE_DIRECTORY, UPPER_DIRECTORY
from agentbay.local.sessions.image_spec import apply_image
from agentbay.local.state_dir import StateDirectory, remove_tree

_NO_PYTHON = "python3"  # a sandbox without Python would be given the runtime's, which is no part of the image
_MAX_SCRIPT_BYTES = 128 << 10  # Linux, MAX_ARG_STRLEN


class CommandRunner:
    """Runs commands in sandboxes on an image, and keeps what they change as layers.

    Args:
        network: The network mode of the sandboxes.
        allowed: The hosts that they may reach; None is all that the runtime allows.
    """

    def __init__(
        self,
        sandboxes: SandboxManager,
        networks: NetworkProvider,
        state_dir: StateDirectory,
        store: ImageStore,
        limits: Limits,
        network: NetworkMode,
        allowed: Sequence[EgressRule] | None,
    ) -> None:
        self._sandboxes, self._networks, self._state_dir = sandboxes, networks, state_dir
        self._store, self._limits, self._allowed = store, limits, allowed
        self._network: NetworkMode = network

    async def run(
        self,
        instruction: Instruction,
        state: StageState,
        argv: Sequence[str],
        chain: str,
        output: JobOutput,
    ) -> None:
        """Run a command to its end.

        Args:
            chain: The chain id of the layer that it makes.

        Raises:
            ImageError: It failed, or what it changed cannot be kept.
        """
        self._check(instruction, state.chains, argv)
        directory = self._state_dir.new_session(f"build-{secrets.token_hex(8)}")
        try:
            sandbox = await self._create(directory, state.config, state.chains)
            refused: list[str] = []
            try:
                code = await self._execute(sandbox, argv, state, output, refused)
            except SandboxError as error:
                raise instruction.error(f"its sandbox ended: {error}") from error
            except ValueError as error:  # such as a program without a name, or a NUL
                raise instruction.error(str(error)) from error
            finally:
                await sandbox.close()
            if code:
                hosts = f"; the network policy of the runtime refused {', '.join(refused)}" if refused else ""
                raise instruction.error(f"the command ended with exit code {code}{hosts}")
            upper = directory / IMAGE_DIRECTORY / UPPER_DIRECTORY
            await asyncio.to_thread(layers.keep_changes, self._store, upper, chain)
        finally:
            await asyncio.shield(asyncio.to_thread(remove_tree, self._state_dir.move_to_trash(directory)))

    def _check(self, instruction: Instruction, chains: Sequence[str], argv: Sequence[str]) -> None:
        if not chains:
            raise instruction.error("the image has no files yet, so no program could run")
        if self._sandboxes.isolation != "namespaces":
            raise instruction.error("this runtime has no namespaces, in which alone an image can be run")
        if any(len(word.encode("utf-8", "surrogateescape")) >= _MAX_SCRIPT_BYTES for word in argv):
            raise instruction.error("the command is longer than Linux allows: copy it as a script, and run that")

    async def _create(self, directory: Path, config: ImageConfig, chains: Sequence[str]) -> Sandbox:
        env = await self._networks.package_client_environment(self._network)
        image = await asyncio.to_thread(self._describe, config, chains)
        spec = SandboxSpec(
            root=directory, limits=self._limits, network=self._network, env=env, directory=config.workdir or "/"
        )
        spec = apply_image(spec, image, self._store, None)
        assert spec.image is not None
        root = replace(spec.image, python=image.programs.python or _NO_PYTHON)
        path = config.env.get("PATH") or DEFAULT_PATH
        try:
            return await self._sandboxes.create(replace(spec, image=root, env={**spec.env, "PATH": path}))
        except SandboxError as error:
            raise ImageError(f"Its sandbox could not be made: {error}.") from error

    def _describe(self, config: ImageConfig, chains: Sequence[str]) -> Image:
        paths = self._store.layer_paths(chains)
        user, programs = image_config.find_user(config, paths), image_config.find_programs(config, paths)
        return Image(id="", config=config, user=user, programs=programs, layers=list(chains), size=0, source="")

    async def _execute(
        self,
        sandbox: Sandbox,
        argv: Sequence[str],
        state: StageState,
        output: JobOutput,
        refused: list[str],
    ) -> int:
        """Run a command, and add the hosts that were refused to it."""
        listener = sandbox.take_proxy_listener()
        proxy = self._networks.start_proxy(listener, self._allowed) if listener else None
        began, kills = time.monotonic(), sandbox.watchdog.kill_counts()
        reader = OutputCollector(0, output.write)
        try:
            fds = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), reader.write_fd, os.dup(reader.write_fd)]
            env = {name: value for name, value in state.arguments.items() if name not in state.config.env}
            code = await sandbox.start_command(argv, fds, env=env)
            await drain_after_exit(reader)
        finally:
            reader.close()
            output.write(sandbox.watchdog.kill_message(kills))
            if proxy is not None:
                refused += proxy.refused_since(began)
                proxy.close()
        return code
