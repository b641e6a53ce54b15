"""The exception tree.

AgentBayError
├── ConfigurationError            (also ValueError) the client cannot be set up as asked
├── InvalidArgumentError          (also ValueError) an argument was refused before anything was sent
├── ClientClosedError             (also RuntimeError) a client was used after close(); always raised
├── TransportError                no answer arrived
│   ├── ConnectionFailed          the request was never sent
│   │   └── ConnectionPoolFull    (also TimeoutError) all connections of the client were in use
│   ├── ConnectionLost            it may have been executed, the answer was lost
│   └── DeadlineExceeded          (also TimeoutError) time ran out
├── ReplyError                    an answer arrived that cannot be understood
├── APIError                      the service refused, or failed
│   ├── AuthenticationError       the key is not accepted
│   ├── PermissionDeniedError     the key may not do this
│   ├── InvalidRequestError       the request itself is at fault
│   │   └── ImageBuildError       has the output of the build
│   ├── NotFoundError             the named thing does not exist
│   │   └── SessionNotFoundError  (also SessionError)
│   ├── ConflictError             the thing is in a state that forbids it
│   ├── QuotaExceededError        a limit on the number of things is reached
│   ├── RateLimitError            too many requests; `retry_after` says how long to wait
│   └── ServerError               the service failed
│       └── ServiceUnavailableError
├── ToolError                     a tool ran in the session and reported a failure
├── NotSupportedError             the service does not offer this at all
├── SessionError
│   └── WaitTimeoutError          (also TimeoutError) the service did not finish in time
├── BrowserError, OssError, AgentError, ClearanceTimeoutError
├── FileError                     has `errno` and `path`
│   ├── PathNotFoundError         (also FileNotFoundError)
│   ├── PathPermissionError       (also PermissionError)
│   ├── PathIsDirectoryError      (also IsADirectoryError)
│   ├── PathNotDirectoryError     (also NotADirectoryError)
│   └── PathExistsError           (also FileExistsError)
├── CommandError
│   └── CommandTimeoutError       (also TimeoutError) has the output so far
├── CodeError
│   └── CodeTimeoutError          (also TimeoutError)
├── GitError
│   ├── GitAuthError, GitNotFoundError, GitConflictError, GitNotARepoError, GitRejectedError
│   └── GitTimeoutError           (also TimeoutError)
├── WsCancelledError              a stream was cancelled from this side before its end
└── PtyError
    └── PtySessionNotFoundError, PtyNotConnectedError
"""

from __future__ import annotations

import errno as system_errors
import os
from typing import Any

from ._base_error import AgentBayError as AgentBayError


class ConfigurationError(AgentBayError, ValueError):
    """The client cannot be set up.

    The key is missing, or an endpoint or option cannot be used.
    """


class InvalidArgumentError(AgentBayError, ValueError):
    """An argument was refused before anything was sent.

    The message names the argument, and the values it may have.
    """


class ClientClosedError(AgentBayError, RuntimeError):
    """A client was used after it had been closed.

    Every method raises it; no result carries it.
    """

    default_message = "This client is closed."


class TransportError(AgentBayError):
    """No answer arrived from the service."""

    retryable = True


class ConnectionFailed(TransportError):
    """The request was never sent, so it is safe to repeat it.

    The name could not be resolved, the connection was refused, or none of the pool was free in time.
    """


class ConnectionPoolFull(ConnectionFailed, TimeoutError):
    """All connections of the client were in use until the call's time was over.

    Nothing was sent. `max_connections` of the client allows more.
    """


class ConnectionLost(TransportError):
    """The connection broke after the request was sent.

    The service may have executed it or not.
    """


class DeadlineExceeded(TransportError, TimeoutError):
    """The time for the operation ran out.

    If a request was under way, the service may have executed it.
    """


class ReplyError(AgentBayError):
    """An answer arrived that cannot be understood.

    Whether the request was executed is unknown.
    """


class APIError(AgentBayError):
    """The service refused the request, or failed.

    Attributes:
        retry_after: Seconds that the service asks to wait before a retry, or None.
    """

    default_message = "API error"

    def __init__(
        self,
        message: str | None = None,
        status_code: int | None = None,
        *args: object,
        retry_after: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(message, *args, status_code=status_code, **kwargs)
        self.retry_after = retry_after


class AuthenticationError(APIError):
    """The API key is missing, wrong, or belongs to another region."""

    default_message = "Authentication failed"


class PermissionDeniedError(APIError):
    """The API key is valid, but may not do this."""


class InvalidRequestError(APIError):
    """A field of the request is missing, malformed or out of range."""


class ImageBuildError(InvalidRequestError):
    """An image cannot be built, because of a step or its Dockerfile.

    The message names the line.

    Attributes:
        output: What the steps have printed.
    """

    def __init__(
        self, message: str | None = None, status_code: int | None = None, *args: object, output: str = "", **kwargs: Any
    ) -> None:
        super().__init__(message, status_code, *args, **kwargs)
        self.output = output


class NotFoundError(APIError):
    """The named thing does not exist, or no longer."""


class ConflictError(APIError):
    """The named thing is in a state that forbids the operation."""


class QuotaExceededError(APIError):
    """A limit on the number of things is reached.

    Deleting one helps, waiting does not.
    """


class RateLimitError(APIError):
    """The service gets too many requests."""

    retryable = True


class ServerError(APIError):
    """The service failed.

    It may have executed the request or not.
    """

    retryable = True


class ServiceUnavailableError(ServerError):
    """The service cannot take requests now."""


class ToolError(AgentBayError):
    """A tool ran in the session and reported a failure.

    The message is the tool's own text.
    """


class NotSupportedError(AgentBayError):
    """The service does not offer this at all.

    The message says what to use instead.
    """


class SessionError(AgentBayError):
    """A session operation failed."""

    default_message = "Session error"


class SessionNotFoundError(NotFoundError, SessionError):
    """The session does not exist, or was released."""


class WaitTimeoutError(SessionError, TimeoutError):
    """The service did not finish an operation on a session in time."""


class BrowserError(AgentBayError):
    """A browser operation failed."""

    default_message = "Browser error"


class FileError(AgentBayError):
    """A file operation failed.

    Attributes:
        errno: The system's number of the error, as in Python's module `errno`, or None if not known.
        strerror: The system's words for it, or None.
        path, filename: The path at fault, as the service names it or as it was given, or None.
    """

    default_message = "File operation error"
    default_errno: int | None = None

    def __init__(
        self,
        message: str | None = None,
        *args: object,
        errno: int | None = None,
        path: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(message, *args, **kwargs)
        self.errno = self.default_errno if errno is None else errno
        self.strerror = None if self.errno is None else os.strerror(self.errno)
        self.path = self.filename = path

    def __reduce__(self) -> tuple[Any, ...]:
        make, arguments = super().__reduce__()
        outside = {name: getattr(self, name) for name in ("errno", "strerror", "filename")}
        return make, (*arguments[:-1], {**arguments[-1], **outside})


class PathNotFoundError(FileError, FileNotFoundError):
    """There is nothing at the path."""

    default_errno = system_errors.ENOENT


class PathPermissionError(FileError, PermissionError):
    """The session's user may not do this there.

    Also for what nobody can change, as on a read-only file system (`EROFS`).
    """

    default_errno = system_errors.EACCES


class PathIsDirectoryError(FileError, IsADirectoryError):
    """A directory is where a file should be."""

    default_errno = system_errors.EISDIR


class PathNotDirectoryError(FileError, NotADirectoryError):
    """Something else is where a directory should be."""

    default_errno = system_errors.ENOTDIR


class PathExistsError(FileError, FileExistsError):
    """Something is at the path already."""

    default_errno = system_errors.EEXIST


class CommandError(AgentBayError):
    """A command could not be run, or `CommandResult.check()` found a non-zero exit code."""

    default_message = "Command execution error"


class CommandTimeoutError(CommandError, TimeoutError):
    """A command was killed at its time limit.

    Attributes:
        stdout, stderr: Its output so far.
        truncated: Whether the service dropped output above its limit.
    """

    def __init__(
        self,
        message: str | None = None,
        *args: object,
        stdout: str = "",
        stderr: str = "",
        truncated: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(message, *args, **kwargs)
        self.stdout = stdout
        self.stderr = stderr
        self.truncated = truncated


class CodeError(AgentBayError):
    """Code could not be run, or `EnhancedCodeExecutionResult.check()` found that it had failed."""

    default_message = "Code execution error"


class CodeTimeoutError(CodeError, TimeoutError):
    """Code was interrupted at its time limit, or killed."""


class OssError(AgentBayError):
    """An object-storage operation failed."""

    default_message = "OSS operation error"


class AgentError(AgentBayError):
    """A natural-language agent action failed."""

    default_message = "Agent action error"


class ClearanceTimeoutError(AgentBayError):
    """A context was not cleared within the time allowed."""

    default_message = "Context clearing operation timed out"


class GitError(AgentBayError):
    """A git command failed.

    `exit_code`, `stdout` and `stderr` are those of the command, without credentials.
    """

    default_message = "Git operation error"
    default_exit_code = 1

    def __init__(
        self,
        message: str | None = None,
        exit_code: int | None = None,
        stderr: str = "",
        *args: object,
        stdout: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(message, *args, **kwargs)
        self.exit_code = self.default_exit_code if exit_code is None else exit_code
        self.stderr = stderr
        self.stdout = stdout


class GitAuthError(GitError):
    """The remote repository refused the credentials."""

    default_message = "Git authentication error"


class GitNotFoundError(GitError):
    """The git program is not installed in the session."""

    default_message = "Git not found"
    default_exit_code = 127


class GitConflictError(GitError):
    """A merge stopped at conflicting changes."""

    default_message = "Git merge conflict"


class GitNotARepoError(GitError):
    """The path is not inside a git repository."""

    default_message = "Not a git repository"
    default_exit_code = 128


class GitRejectedError(GitError):
    """The remote repository refused the push.

    It has commits that are missing here, or its rules forbid the push.
    """

    default_message = "Git push rejected"


class GitTimeoutError(GitError, TimeoutError):
    """A git command was killed at its time limit.

    `stdout` and `stderr` hold its output so far.
    """

    default_message = "Git operation timed out"
    default_exit_code = -1


class PtyError(AgentBayError):
    """A terminal operation failed."""

    default_message = "PTY operation error"


class PtySessionNotFoundError(PtyError):
    """The terminal does not exist, or has ended."""

    default_message = "PTY session not found"


class PtyNotConnectedError(PtyError):
    """The terminal handle is no longer connected."""

    default_message = "PTY handle is not connected"


class BlockingCallWarning(RuntimeWarning):
    """A blocking call stalls the event loop of its thread.

    Python shows it once for each place in a program.
    """


class WsCancelledError(AgentBayError):
    """A stream was cancelled from this side before its end."""

    default_message = "The stream was cancelled."
