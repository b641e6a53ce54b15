"""AutoGen: run the code blocks of agents in a session."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from agentbay import AsyncSession, CreateSessionParams
from agentbay.errors import CommandTimeoutError
from agentbay.integrations import missing, open_async_session

try:
    from autogen_core import CancellationToken, Component
    from autogen_core.code_executor import CodeBlock, CodeExecutor, CodeResult
    from pydantic import BaseModel
except ImportError as error:
    raise missing("autogen", error) from error

# The program that runs a file of each language, and the ending of its name.
_PROGRAMS = {
    **dict.fromkeys(("python", "py"), ("python3", "py")),
    **dict.fromkeys(("bash", "shell", "sh"), ("bash", "sh")),
    **dict.fromkeys(("javascript", "js"), ("node", "js")),
    "r": ("Rscript", "r"),
}
_TIMEOUT_STATUS = 124  # that of the program `timeout`


class AgentBayExecutorConfig(BaseModel):
    """The configuration that a saved component keeps."""

    timeout: int = 60
    image: str = ""


class AgentBayCodeExecutor(CodeExecutor, Component[AgentBayExecutorConfig]):
    """Runs code blocks as programs in a session of its own.

    `start` makes the session, and `stop` deletes it.

    Args:
        timeout: Seconds that one code block may run.
        image: Image of the session; "" is the default.
    """

    component_config_schema = AgentBayExecutorConfig
    component_provider_override = "agentbay.integrations.autogen.AgentBayCodeExecutor"

    def __init__(self, timeout: int = 60, image: str = "") -> None:
        self._timeout, self._image = timeout, image
        self._exit_stack = AsyncExitStack()
        self._session: AsyncSession | None = None

    @property
    def session(self) -> AsyncSession:
        """The session, between `start` and `stop`."""
        if self._session is None:
            raise RuntimeError("The executor is not running: use `async with`, or call start().")
        return self._session

    async def start(self) -> None:
        """Create the session."""
        if self._session is None:
            opening = open_async_session(CreateSessionParams(image_id=self._image or None))
            self._session = await self._exit_stack.enter_async_context(opening)

    async def stop(self) -> None:
        """Delete the session, and close the client."""
        self._session = None
        await self._exit_stack.aclose()

    async def restart(self) -> None:
        """Go on in a new, empty session."""
        await self.stop()
        await self.start()

    async def execute_code_blocks(
        self, code_blocks: list[CodeBlock], cancellation_token: CancellationToken
    ) -> CodeResult:
        """Run code blocks one after the other, up to the first that fails."""
        output, code = "", 0
        for block in code_blocks:
            running = asyncio.ensure_future(self._run(block))
            cancellation_token.link_future(running)
            code, text = await running
            output += text
            if code:
                break
        return CodeResult(exit_code=code, output=output)

    async def _run(self, block: CodeBlock) -> tuple[int, str]:
        if (language := block.language.lower()) not in _PROGRAMS:
            return 1, f"Unknown language {block.language!r}; there are {', '.join(_PROGRAMS)}.\n"
        program, ending = _PROGRAMS[language]
        name = f"tmp_code_{abs(hash(block.code)):x}.{ending}"
        (await self.session.file_system.write_file(name, block.code)).unwrap()
        result = await self.session.command.run(f"{program} {name} 2>&1", timeout=self._timeout)
        if isinstance(result.exception, CommandTimeoutError):
            return _TIMEOUT_STATUS, f"{result.exception.stdout}\nTimeout after {self._timeout} s.\n"
        result.unwrap()
        return result.exit_code, result.output

    def _to_config(self) -> AgentBayExecutorConfig:
        return AgentBayExecutorConfig(timeout=self._timeout, image=self._image)

    @classmethod
    def _from_config(cls, config: AgentBayExecutorConfig) -> AgentBayCodeExecutor:
        return cls(config.timeout, config.image)
