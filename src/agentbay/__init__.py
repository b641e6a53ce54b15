"""AgentBay sandbox sessions, synchronous and asynchronous, on the cloud or on this machine.

Everything public is here by name, and loaded when it is first asked for: importing the package costs next to nothing,
and leaves no handler, file, thread or socket. `__init__.pyi` says the same to type checkers.
"""

from importlib import import_module

_HOMES = {
    "_async.client": "AsyncAgentBay",
    "_async.command": "AsyncCommand",
    "_async.env": "AsyncEnv",
    "_async.filesystem": "AsyncFileSystem",
    "_async.git": "AsyncGit",
    "_async.oss": "AsyncOss",
    "_async.session": "AsyncSession",
    "_sync.client": "AgentBay",
    "_sync.command": "Command",
    "_sync.env": "Env",
    "_sync.filesystem": "FileSystem",
    "_sync.git": "Git",
    "_sync.oss": "Oss",
    "_sync.session": "Session",
    "_version": "__version__",
    "config": "Config",
    "errors": (
        "AgentBayError AgentError APIError AuthenticationError BrowserError ClearanceTimeoutError "
        "ClientClosedError CommandError CommandTimeoutError ConfigurationError ConflictError ConnectionFailed "
        "ConnectionLost DeadlineExceeded FileError GitAuthError GitConflictError GitError GitNotARepoError "
        "GitNotFoundError GitRejectedError GitTimeoutError InvalidArgumentError InvalidRequestError "
        "NotFoundError OssError PermissionDeniedError PtyError PtyNotConnectedError PtySessionNotFoundError "
        "RateLimitError ReplyError ServerError ServiceUnavailableError SessionError SessionNotFoundError "
        "ToolError TransportError"
    ),
    "models.base": "ApiResponse BaseResult BoolResult OperationResult",
    "models.browser": "BrowserContext BrowserFingerprintContext BrowserSyncMode ExtensionOption",
    "models.command": "CommandResult",
    "models.context": (
        "BetaContextMount BetaContextMountAccessMode BetaContextMountStrategy BWList ContextStatusData "
        "ContextSync DeletePolicy DownloadPolicy DownloadStrategy ExtractPolicy Lifecycle MappingPolicy "
        "RecyclePolicy SyncPolicy UploadMode UploadPolicy UploadStrategy WhiteList"
    ),
    "models.env": "EnvResult",
    "models.filesystem": "BinaryFileContentResult DirectoryEntry DirectoryListResult FileContentResult FileInfoResult",
    "models.git": (
        "GitBranchInfo GitBranchListResult GitCloneResult GitCommitResult GitDiffFile GitDiffResult GitFetchResult "
        "GitFileStatus GitInitResult GitLogEntry GitLogResult GitPushResult GitRefUpdate GitStatusResult"
    ),
    "models.mobile": "AppManagerRule ExtraConfigs MobileExtraConfig MobileSimulateConfig MobileSimulateMode",
    "models.oss": "OSSClientResult OSSDownloadResult OSSUploadResult",
    "models.params": "CreateSessionParams LifecyclePolicy ListSessionParams",
    "models.session": (
        "DeleteResult GetSessionData GetSessionResult SessionInfo SessionListResult SessionMetrics "
        "SessionMetricsResult SessionPauseResult SessionResult SessionResumeResult SessionStatus "
        "SessionStatusResult"
    ),
    "models.tools": "McpTool McpToolResult McpToolsResult",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]  # the stub says it statically


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOME[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
