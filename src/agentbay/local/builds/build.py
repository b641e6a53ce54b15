"""One build: the stages of a Dockerfile, step by step."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

import attrs

from agentbay.local.builds import layers
from agentbay.local.builds.context_files import BuildContext, FileSource
from agentbay.local.builds.copying import CopyStep
from agentbay.local.builds.dockerfile import Dockerfile, Instruction, Stage
from agentbay.local.builds.image_files import ImageFiles
from agentbay.local.builds.run_step import CommandRunner
from agentbay.local.builds.stage import (
    SETTINGS,
    StageState,
    collect_settings,
    expand_heredoc,
    expand_word,
    needed_stages,
)
from agentbay.local.images import image_config
from agentbay.local.images.errors import BuildFailed, ImageError
from agentbay.local.images.image_config import ImageConfig
from agentbay.local.images.importing import Importer, identify
from agentbay.local.images.job_output import JobOutput
from agentbay.local.images.layer_writer import EntrySource
from agentbay.local.images.merged_view import MergedView
from agentbay.local.images.service import ImageService
from agentbay.local.images.store import MAX_LAYERS, Image, ImageStore
from agentbay.local.sessions.images import IMAGES

_EMPTY = "scratch"


@attrs.frozen(kw_only=True)
class BuildRequest:
    """What is to be built.

    Attributes:
        name: The name of the image, "" for none.
        arguments: Values for ARG.
    """

    dockerfile: Dockerfile
    name: str
    arguments: Mapping[str, str]


class Build:
    """Builds one image.

    Args:
        archive: The files that the client sent.
    """

    def __init__(
        self, images: ImageService, runner: CommandRunner, request: BuildRequest, archive: Path, output: JobOutput
    ) -> None:
        self._images, self._store, self._runner = images, images.store, runner
        self._request, self._archive, self._output = request, archive, output
        self._context: BuildContext | None = None
        self._kept: list[str] = []
        self._finished: dict[str, StageState] = {}
        self._cancelled = False
        self._number = self._steps = 0

    async def run(self) -> Image:
        """Build the image.

        Raises:
            ImageError: It cannot be built.
        """
        state: StageState | None = None
        try:
            self._context = await asyncio.to_thread(BuildContext, self._archive)
            given = await asyncio.to_thread(self._global_arguments)
            stages = self._request.dockerfile.stages
            needed = await asyncio.to_thread(needed_stages, stages, given)
            self._steps = sum(1 + len(stages[number].instructions) for number in needed)
            for number in needed:
                stage = stages[number]
                state = await self._start_stage(stage, given)
                await self._build_stage(stage, state, given)
                self._finished |= {str(number): state, **({stage.name: state} if stage.name else {})}
                if stage is not stages[-1]:
                    await self._record(state, "", "a stage of a build")
            assert state is not None
            if not state.chains:
                raise BuildFailed("The image has no files: its last stage copies nothing, and is from scratch.")
            return await self._record(state, self._request.name, "a build")
        except BaseException:
            self._cancelled = True
            if state is not None and len(state.chains) > state.base_layers:
                # Recorded without a name: the next build reuses its layers, and `prune` removes it.
                await asyncio.shield(self._record(state, "", "a build that failed"))
            raise
        finally:
            await asyncio.to_thread(self._store.release, self._kept)

    def _global_arguments(self) -> dict[str, str]:
        values: dict[str, str] = {}
        for instruction in self._request.dockerfile.arguments:
            values |= self._read_arguments(instruction, values, {})
            collect_settings(instruction, values.items())  # all of them together
        return values

    def _read_arguments(
        self, instruction: Instruction, variables: Mapping[str, str], inherited: Mapping[str, str]
    ) -> dict[str, str]:
        return collect_settings(instruction, self._arguments(instruction, dict(variables), inherited))

    def _arguments(
        self, instruction: Instruction, known: dict[str, str], inherited: Mapping[str, str]
    ) -> Iterator[tuple[str, str]]:
        given = self._request.arguments
        for word in instruction.words():
            name, equals, default = word.partition("=")
            if name in given:
                known[name] = given[name]
            elif equals:
                known[name] = expand_word(instruction, default, known)
            elif name in inherited:
                known[name] = inherited[name]
            else:
                continue
            yield name, known[name]

    async def _start_stage(self, stage: Stage, given: Mapping[str, str]) -> StageState:
        start = stage.start
        self._say_step(start)
        platform = expand_word(start, start.flags.get("platform", ""), given)
        if platform and platform != f"linux/{image_config.machine_architecture()}":
            raise start.error(
                f"this machine builds for linux/{image_config.machine_architecture()}, not {platform:.40}"
            )
        reference = expand_word(start, stage.image, given)
        if finished := self._finished.get(reference.lower()):
            return StageState(finished.config, list(finished.chains), base_layers=len(finished.chains))
        if reference == _EMPTY:
            return StageState(ImageConfig(env={"PATH": image_config.DEFAULT_PATH}), [])
        image = await self._find_image(start, reference)
        return StageState(image.config, list(image.layers), base_layers=len(image.layers))

    async def _find_image(self, start: Instruction, reference: str) -> Image:
        if reference in IMAGES:
            raise start.error(f"{reference} is the programs of this machine, on which no image can be built")
        image = self._store.find(reference)
        if image is None:
            self._say(f"pulling {reference}")
            try:
                image = await asyncio.to_thread(self._images.pull, reference, self._check_cancelled)
            except ImageError as error:
                reason = str(error).rstrip(".")
                raise type(error)(f"Line {start.line}: {reference:.200} is not in the store. {reason}.") from error
        if image.base:
            raise start.error(
                f"{reference:.200} is a snapshot of a session without an image, on which none can be built"
            )
        self._keep(image.layers)
        return image

    async def _find_origin(self, instruction: Instruction) -> tuple[list[str], str]:
        """Return the layers from which `COPY --from` takes files, and what they are."""
        reference = instruction.flags["from"]
        if finished := self._finished.get(reference.lower()):
            return finished.chains, f"the stage {reference}"
        return (await self._find_image(instruction, reference)).layers, f"the image {reference}"

    async def _build_stage(self, stage: Stage, state: StageState, given: Mapping[str, str]) -> None:
        for instruction in stage.instructions:
            self._say_step(instruction)
            if instruction.name == "ARG" or instruction.name in SETTINGS:
                await asyncio.to_thread(self._change_settings, instruction, state, given)
            elif instruction.name == "WORKDIR":
                await self._set_directory(instruction, state)
            elif instruction.name in ("ADD", "COPY"):
                await self._copy(instruction, state)
            elif instruction.name == "RUN":
                await self._run(instruction, state)
            else:
                self._say(f"{instruction.name} means nothing for a session")

    def _change_settings(self, instruction: Instruction, state: StageState, given: Mapping[str, str]) -> None:
        if instruction.name == "ARG":
            state.arguments |= self._read_arguments(instruction, state.variables, given)
        else:
            SETTINGS[instruction.name](instruction, state)
        state.check_size(instruction)

    async def _set_directory(self, instruction: Instruction, state: StageState) -> None:
        path = state.expand(instruction, instruction.text)
        directory = posixpath.normpath(posixpath.join("/", state.config.workdir, path))
        state.set_config(workdir=directory)
        missing = await asyncio.to_thread(self._missing_directory, state, directory)
        if missing:
            chain = layers.step_chain(state.chains, "WORKDIR", directory)
            sources: list[EntrySource] = [layers.NewDirectory(missing)]
            await self._add_layer(instruction, state, chain, partial(layers.write_layer, sources=sources))

    def _missing_directory(self, state: StageState, directory: str) -> str:
        """Return the path of a directory if it has to be made, else ""."""
        with closing(MergedView(self._store.layer_paths(state.chains)[::-1])) as view:
            place = view.real_directory(tuple(filter(None, directory.split("/"))))
            found = view.find(place) if place else None
        return "" if not place or (found is not None and found.kind == "directory") else "/".join(place)

    async def _copy(self, instruction: Instruction, state: StageState) -> None:
        if instruction.flags.get("chown"):
            self._say("--chown means nothing here: all files belong to the one user of a session")
        if "from" in instruction.flags:
            await self._copy_from(instruction, state)
            return
        assert self._context is not None
        step = await asyncio.to_thread(self._plan_copy, instruction, state, self._context)
        chain = layers.step_chain(state.chains, "COPY", await asyncio.to_thread(step.digest))
        sources: list[EntrySource] = [step.files, *step.archives]
        await self._add_layer(instruction, state, chain, partial(layers.write_layer, sources=sources))

    async def _copy_from(self, instruction: Instruction, state: StageState) -> None:
        chains, name = await self._find_origin(instruction)
        # The layers stand for their files: nothing has to be read to know that nothing has changed.
        inputs = (chains[-1:], self._words(instruction, state), state.config.workdir, instruction.flags.get("chmod"))
        chain = layers.step_chain(state.chains, "COPY --from", *inputs)

        def write(store: ImageStore, below: list[str], made: str) -> None:
            with closing(ImageFiles(store.layer_paths(chains), name)) as origin:
                step = self._plan_copy(instruction, state, origin)
                layers.write_layer(store, below, made, [step.files, *step.archives])

        await self._add_layer(instruction, state, chain, write)

    def _plan_copy(self, instruction: Instruction, state: StageState, origin: FileSource) -> CopyStep:
        contents = {
            heredoc.word: expand_heredoc(instruction, heredoc, state.variables) for heredoc in instruction.heredocs
        }
        words = self._words(instruction, state)
        with closing(MergedView(self._store.layer_paths(state.chains)[::-1])) as view:
            return CopyStep(instruction, words, contents, origin, state.config.workdir, view)

    def _words(self, instruction: Instruction, state: StageState) -> list[str]:
        if given := instruction.exec_form():
            return given
        heredocs = {heredoc.word for heredoc in instruction.heredocs}
        return [word if word in heredocs else state.expand(instruction, word) for word in instruction.words()]

    async def _run(self, instruction: Instruction, state: StageState) -> None:
        argv = instruction.exec_form() or [*state.shell, _script(instruction)]
        config = state.config
        inputs = (argv, sorted(state.variables.items()), config.workdir, config.user)
        chain = layers.step_chain(state.chains, "RUN", *inputs)

        async def make() -> None:
            await self._runner.run(instruction, state, argv, chain, self._output)

        await self._make_layer(instruction, state, chain, make)

    async def _add_layer(
        self, instruction: Instruction, state: StageState, chain: str, write: Callable[..., None]
    ) -> None:
        async def make() -> None:
            await asyncio.to_thread(write, self._store, state.chains, chain)

        await self._make_layer(instruction, state, chain, make)

    async def _make_layer(
        self, instruction: Instruction, state: StageState, chain: str, make: Callable[[], Awaitable[None]]
    ) -> None:
        if len(state.chains) >= MAX_LAYERS:
            raise instruction.error(f"an image has at most {MAX_LAYERS} layers: join steps by &&")
        self._keep([chain])
        if self._store.find_layer(chain) is None:
            try:
                await make()
            except BuildFailed:
                raise
            except ImageError as error:
                raise type(error)(f"Line {instruction.line}: {instruction.name}: {error}") from error
        else:
            self._say("unchanged: taken from the store")
        state.chains.append(chain)

    async def _record(self, state: StageState, name: str, source: str) -> Image:
        importer = Importer(self._store)
        identity = identify(state.config, state.chains)
        return await asyncio.to_thread(importer.record, identity, state.config, state.chains, name, source)

    def _keep(self, chains: list[str]) -> None:
        self._store.acquire(chains)
        self._kept += chains

    def _check_cancelled(self, _: int) -> None:
        if self._cancelled:
            raise ImageError("The build was ended.")

    def _say_step(self, instruction: Instruction) -> None:
        self._number += 1
        self._output.write(f"[{self._number}/{self._steps}] {instruction!s:.500}\n".encode("utf-8", "replace"))

    def _say(self, text: str) -> None:
        self._output.write(f"      {text}\n".encode("utf-8", "replace"))


def _script(instruction: Instruction) -> str:
    """Return the text that the shell runs, with its here-documents."""
    if [heredoc.word for heredoc in instruction.heredocs] == [instruction.text]:
        return instruction.heredocs[0].content  # it is the whole script
    parts = [instruction.text, *(f"{heredoc.content}{heredoc.delimiter}" for heredoc in instruction.heredocs)]
    return "\n".join(parts)
