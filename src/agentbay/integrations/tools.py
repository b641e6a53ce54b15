"""The tools that the adapters give to agents, as plain functions with described parameters."""

# Without "from __future__ import annotations": not every framework can resolve names of annotations.

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Annotated, Any

from pydantic import Field

from agentbay import AsyncSession, CommandResult, DirectoryEntry, EnhancedCodeExecutionResult, Session
from agentbay.errors import AgentBayError, CodeTimeoutError, CommandTimeoutError

_MAX_TEXT = 50_000  # characters of one answer; more would fill a model's context
_Path = Annotated[str, Field(description="Path in the sandbox; a relative one starts at the home directory.")]
_Command = Annotated[str, Field(description="Line for the shell of the sandbox, such as: ls -la")]
_Code = Annotated[str, Field(description="Python code; its variables stay for later calls.")]
_Content = Annotated[str, Field(description="The whole text of the file.")]
_Seconds = Annotated[int, Field(description="Seconds after which it is killed.")]


def tools_of(session: Session | AsyncSession) -> list[Callable[..., Any]]:
    """Return functions that work in a session, or coroutine functions if it is asynchronous.

    They are run_command, run_python, read_file, write_file and list_directory. Each returns text for a model, and
    raises `AgentBayError` for what the session refuses.
    """
    tools = AsyncTools(session) if isinstance(session, AsyncSession) else Tools(session)
    return [tools.run_command, tools.run_python, tools.read_file, tools.write_file, tools.list_directory]


class Tools:
    """Tools in a session."""

    def __init__(self, session: Session) -> None:
        self._session = session.with_options(strict=False)

    def run_command(self, command: _Command, timeout_seconds: _Seconds = 120) -> str:
        """Run a shell command in the sandbox and return its output and exit code."""
        return _describe_command(self._session.command.run(command, timeout=timeout_seconds), timeout_seconds)

    def run_python(self, code: _Code, timeout_seconds: _Seconds = 120) -> str:
        """Run Python code in the sandbox and return what it printed and its value."""
        return _describe_code(self._session.code.run(code, "python", timeout=timeout_seconds))

    def read_file(self, path: _Path) -> str:
        """Read a text file of the sandbox."""
        return _shorten(self._session.file_system.read_file(path).unwrap().content)

    def write_file(self, path: _Path, content: _Content) -> str:
        """Write a text file in the sandbox, which replaces what is there."""
        self._session.file_system.write_file(path, content).unwrap()
        return f"Written {path}."

    def list_directory(self, path: _Path = ".") -> str:
        """List a directory of the sandbox."""
        return _describe_entries(self._session.file_system.list_directory(path).unwrap().entries)


class AsyncTools:
    """Tools in an asynchronous session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session.with_options(strict=False)

    async def run_command(self, command: _Command, timeout_seconds: _Seconds = 120) -> str:
        """Run a shell command in the sandbox and return its output and exit code."""
        return _describe_command(await self._session.command.run(command, timeout=timeout_seconds), timeout_seconds)

    async def run_python(self, code: _Code, timeout_seconds: _Seconds = 120) -> str:
        """Run Python code in the sandbox and return what it printed and its value."""
        return _describe_code(await self._session.code.run(code, "python", timeout=timeout_seconds))

    async def read_file(self, path: _Path) -> str:
        """Read a text file of the sandbox."""
        return _shorten((await self._session.file_system.read_file(path)).unwrap().content)

    async def write_file(self, path: _Path, content: _Content) -> str:
        """Write a text file in the sandbox, which replaces what is there."""
        (await self._session.file_system.write_file(path, content)).unwrap()
        return f"Written {path}."

    async def list_directory(self, path: _Path = ".") -> str:
        """List a directory of the sandbox."""
        return _describe_entries((await self._session.file_system.list_directory(path)).unwrap().entries)


def with_error(tool: Callable[..., Any], error_class: type[Exception]) -> Callable[..., Any]:
    """Return a tool that raises the framework's own error.

    The framework gives its message to the model.
    """
    if iscoroutinefunction(tool):

        @wraps(tool)
        async def call_async(*args: Any, **kwargs: Any) -> str:
            try:
                return str(await tool(*args, **kwargs))
            except AgentBayError as error:
                raise error_class(str(error)) from error

        return call_async

    @wraps(tool)
    def call(*args: Any, **kwargs: Any) -> str:
        try:
            return str(tool(*args, **kwargs))
        except AgentBayError as error:
            raise error_class(str(error)) from error

    return call


def _shorten(text: str) -> str:
    if len(text) <= _MAX_TEXT:
        return text
    half = _MAX_TEXT // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out here ...]\n{text[-half:]}"


def _describe_command(result: CommandResult, seconds: int) -> str:
    if isinstance(late := result.exception, CommandTimeoutError):
        return f"{_shorten(late.stdout + late.stderr)}\n[killed after {seconds} s]".lstrip("\n")
    result.unwrap()
    return f"{_shorten(result.output)}\n[exit code {result.exit_code}]".lstrip("\n")


def _describe_code(result: EnhancedCodeExecutionResult) -> str:
    late = isinstance(result.exception, CodeTimeoutError)
    if not late:
        result.unwrap()
    shown = [item.text or item.markdown or f"[{' '.join(item.formats())}]" for item in result.results]
    failure = (not late and result.error.traceback) or result.error_message if result.error else ""
    return _shorten("\n".join(part for part in ("".join(result.logs.stdout), *shown, failure) if part)) or "No output."


def _describe_entries(entries: list[DirectoryEntry]) -> str:
    return _shorten("\n".join(f"{each.name}/" if each.is_directory else each.name for each in entries)) or "Empty."
