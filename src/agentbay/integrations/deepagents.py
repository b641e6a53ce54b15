"""deepagents: a session as the backend of an agent's files and commands."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

from typing import NoReturn

from agentbay import AsyncSession, BaseResult, BinaryFileContentResult, BoolResult, CommandResult, Session
from agentbay.errors import CommandTimeoutError
from agentbay.integrations import missing

try:
    from deepagents.backends.protocol import ExecuteResponse, FileDownloadResponse, FileUploadResponse
    from deepagents.backends.sandbox import BaseSandbox
except ImportError as error:
    raise missing("deepagents", error) from error

_DEFAULT_SECONDS = 30 * 60
_TIMEOUT_STATUS = 124  # that of the program `timeout`
_ERROR_NAMES: dict[type[Exception], str] = {
    FileNotFoundError: "file_not_found",
    IsADirectoryError: "is_directory",
    NotADirectoryError: "invalid_path",
    PermissionError: "permission_denied",
}


class AgentBaySandbox(BaseSandbox):
    """A backend that works in a session: `create_deep_agent(backend=AgentBaySandbox(session), ...)`.

    Its asynchronous methods use threads; in an asynchronous program `AsyncAgentBaySandbox` needs none.
    """

    def __init__(self, session: Session) -> None:
        self._session = session.with_options(strict=False)

    @property
    def id(self) -> str:
        """The id of the session."""
        return self._session.session_id

    def execute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        """Run a command for at most `timeout` seconds, where 0 is no limit."""
        return _response(self._session.command.run(command, _milliseconds(timeout), merge_stderr=True))

    def upload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        """Write files, and make their directories."""
        write = self._session.file_system.write_file
        return [_uploaded(path, write(path, data) if _is_absolute(path) else None) for path, data in files]

    def download_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        """Read files."""
        read = self._session.file_system.read_file
        return [_downloaded(path, read(path, format="bytes") if _is_absolute(path) else None) for path in paths]


class AsyncAgentBaySandbox(BaseSandbox):
    """The same for an `AsyncSession`.

    Only the asynchronous methods work.
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session.with_options(strict=False)

    @property
    def id(self) -> str:
        """The id of the session."""
        return self._session.session_id

    async def aexecute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        """Run a command for at most `timeout` seconds, where 0 is no limit."""
        return _response(await self._session.command.run(command, _milliseconds(timeout), merge_stderr=True))

    async def aupload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        """Write files, and make their directories."""
        write = self._session.file_system.write_file
        return [_uploaded(path, await write(path, data) if _is_absolute(path) else None) for path, data in files]

    async def adownload_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        """Read files."""
        read = self._session.file_system.read_file
        return [_downloaded(path, await read(path, format="bytes") if _is_absolute(path) else None) for path in paths]

    def execute(self, command: str, *, timeout: int | None = None) -> NoReturn:
        """Refuse: an asynchronous session has no blocking calls."""
        raise NotImplementedError("Use aexecute, or AgentBaySandbox with a Session.")

    upload_files = download_files = execute


def _milliseconds(seconds: int | None) -> float:
    return 1000.0 * (24 * 3600 if seconds == 0 else seconds or _DEFAULT_SECONDS)


def _response(result: CommandResult) -> ExecuteResponse:
    if isinstance(result.exception, CommandTimeoutError):
        return ExecuteResponse(output=f"{result.exception.stdout}\n{result.exception}", exit_code=_TIMEOUT_STATUS)
    result.unwrap()
    return ExecuteResponse(output=result.output, exit_code=result.exit_code, truncated=result.truncated)


def _is_absolute(path: str) -> bool:
    return path.startswith("/")


def _uploaded(path: str, result: BoolResult | None) -> FileUploadResponse:
    return FileUploadResponse(path=path, error=_error(result))


def _downloaded(path: str, result: BinaryFileContentResult | None) -> FileDownloadResponse:
    return FileDownloadResponse(path=path, content=result.content if result else None, error=_error(result))


def _error(result: BaseResult | None) -> str | None:
    if result is None:  # the path is relative
        return "invalid_path"
    if (error := result.exception) is None:
        return None
    return next((name for kind, name in _ERROR_NAMES.items() if isinstance(error, kind)), str(error))
