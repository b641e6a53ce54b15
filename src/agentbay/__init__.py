"""AgentBay sandbox sessions, synchronous and asynchronous, on the cloud or on this machine.

All public names are here and are imported lazily, at their first use. So importing the package is fast and creates no
handler, file, thread or socket. `build_sync.py` writes the same names into `__init__.pyi`, for type checkers.
"""

import os
from importlib import import_module

_EXPORTS_BY_MODULE = {
    "_async.agent": "AsyncAgent",
    "_async.agent_task": "AsyncTaskExecution",
    "_async.beta": "AsyncBetaNetwork",
    "_async.browser": "AsyncBrowser",
    "_async.browser_operator": "AsyncBrowserOperator",
    "_async.client": "AsyncAgentBay",
    "_async.code": "AsyncCode AsyncCodeStream",
    "_async.command": "AsyncCommand",
    "_async.computer": "AsyncComputer",
    "_async.env": "AsyncEnv",
    "_async.context": "AsyncContextService",
    "_async.context_manager": "AsyncContextManager",
    "_async.extensions": "AsyncExtensionsService",
    "_async.file_transfer": "AsyncFileTransfer",
    "_async.filesystem": "AsyncFileSystem",
    "_async.fingerprint_generator": "AsyncBrowserFingerprintGenerator",
    "_async.git": "AsyncGit",
    "_async.images": "AsyncImages",
    "_async.mobile": "AsyncMobile",
    "_async.mobile_simulate": "AsyncMobileSimulateService",
    "_async.oss": "AsyncOss",
    "_async.process": "AsyncOutput AsyncProcess",
    "_async.pty": "AsyncPty",
    "_async.pty_handle": "AsyncPtyHandle",
    "_async.session": "AsyncSession",
    "_async.watch": "AsyncWatch",
    "_display": "progress",
    "_logging": "AgentBayLogger get_logger",
    "_version": "__version__",
    "config": "Config",
    "errors": (
        "AgentBayError AgentError APIError AuthenticationError BlockingCallWarning BrowserError ClearanceTimeoutError "
        "ClientClosedError CodeError CodeTimeoutError CommandError CommandTimeoutError ConfigurationError "
        "ConflictError ConnectionFailed ConnectionLost ConnectionPoolFull DeadlineExceeded FileError GitAuthError "
        "GitConflictError GitError GitNotARepoError GitNotFoundError GitRejectedError GitTimeoutError ImageBuildError "
        "InvalidArgumentError InvalidRequestError NotFoundError NotSupportedError OssError PathExistsError "
        "PathIsDirectoryError PathNotDirectoryError PathNotFoundError PathPermissionError PermissionDeniedError "
        "PtyError PtyNotConnectedError PtySessionNotFoundError QuotaExceededError RateLimitError ReplyError "
        "ServerError ServiceUnavailableError SessionError SessionNotFoundError ToolError TransportError "
        "WaitTimeoutError WsCancelledError"
    ),
    "models.agent": "AgentEvent ExecutionResult QueryResult",
    "models.base": "ApiResponse BaseResult BoolResult OperationResult",
    "models.browser": "BrowserContext BrowserFingerprintContext BrowserSyncMode ExtensionOption",
    "models.beta": "NetworkResult NetworkStatusResult SkillInfo SkillsMetadataResult",
    "models.browser_operator": "ActOptions ActResult ExtractOptions ObserveOptions ObserveResult",
    "models.browser_option": (
        "BrowserFingerprint BrowserNotifyMessage BrowserOption BrowserProxy BrowserScreen BrowserViewport"
    ),
    "models.code": (
        "CodeCleared CodeContext CodeEnded CodeEvent CodeExecutionResult CodeFailed CodeShown CodeStderr CodeStdout "
        "EnhancedCodeExecutionResult ExecutionError ExecutionLogs"
    ),
    "models.command": "CommandResult",
    "models.computer": (
        "AppOperationResult AppProcess InstalledApp InstalledAppListResult MouseButton ProcessListResult "
        "ScreenshotMode ScreenshotResult ScrollDirection Window WindowInfoResult WindowListResult"
    ),
    "models.context": (
        "BetaContextMount BetaContextMountAccessMode BetaContextMountStrategy BWList ContextStatusData "
        "ContextSync DeletePolicy DownloadPolicy DownloadStrategy ExtractPolicy Lifecycle MappingPolicy "
        "RecyclePolicy SyncPolicy UploadMode UploadPolicy UploadStrategy WhiteList"
    ),
    "models.env": "EnvResult",
    "models.context_results": (
        "ClearContextResult Context ContextBinding ContextBindingsResult ContextBindResult ContextFileEntry "
        "ContextFileListResult ContextInfoResult ContextListParams ContextListResult ContextResult "
        "ContextSyncResult ContextTransfer FileUrlResult"
    ),
    "models.extension": "Extension",
    "models.filesystem": (
        "BinaryFileContentResult DirectoryEntry DirectoryListResult EditResult FileChangeEvent FileChangeResult "
        "FileContentResult FileInfoResult FileSearchResult MultipleFileContentResult"
    ),
    "models.fingerprint": "FingerprintFormat",
    "models.git": (
        "GitBranchInfo GitBranchListResult GitCloneResult GitCommitResult GitDiffFile GitDiffResult GitFetchResult "
        "GitFileStatus GitInitResult GitLogEntry GitLogResult GitPushResult GitRefUpdate GitStatusResult"
    ),
    "models.image": "ImageInfo",
    "models.image_recipe": "Image",
    "models.key_codes": "KeyCode",
    "models.mobile": (
        "AdbUrlResult AppManagerRule ExtraConfigs MobileExtraConfig MobileSimulateConfig MobileSimulateMode "
        "MobileSimulateUploadResult UIElementListResult"
    ),
    "models.oss": "OSSClientResult OSSDownloadResult OSSUploadResult",
    "models.local_options": "LocalOptions",
    "models.params": "CreateSessionParams LifecyclePolicy ListSessionParams",
    "models.pty": "PtySession",
    "models.session": (
        "DeleteResult GetSessionData GetSessionResult SessionInfo SessionListResult SessionMetrics "
        "SessionMetricsResult SessionPauseResult SessionResult SessionResumeResult SessionStatus "
        "SessionStatusResult"
    ),
    "models.tools": "McpTool McpToolResult McpToolsResult",
    "models.transfer": "DownloadResult UploadResult",
    "models.tree": "TreeProgress TreeReport",
}
# The synchronous flavour has the same modules and classes.
_EXPORTS_BY_MODULE.update(
    {
        module.replace("_async.", "_sync."): names.replace("Async", "")
        for module, names in _EXPORTS_BY_MODULE.items()
        if module.startswith("_async.")
    }
)
# Where `agentbay.session_params` and further paths of older programs are found. They stay out of the way here.
__path__.append(f"{__path__[0]}/_older_paths")

_MODULE_BY_NAME = {name: module for module, names in _EXPORTS_BY_MODULE.items() for name in names.split()}

# Helpers of the official package that this one does not have, and what to use.
_OFFICIAL_HELPERS = {
    "extract_request_id": ": every result and error has `request_id`",
    "log": ": use `get_logger()`",
}

__all__ = sorted(_MODULE_BY_NAME)  # pyright: ignore[reportUnsupportedDunderAll]  # __init__.pyi has it for type checkers


if os.path.exists(f"{__path__[0]}/_async/agentbay.py"):  # noqa: PTH110  # pathlib is not loaded for this
    import_module("._installation", __name__).warn_of_mixture()


def __getattr__(name: str) -> object:
    if name not in _MODULE_BY_NAME:
        instead = _OFFICIAL_HELPERS.get(name, "")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{instead}")
    # Kept in the module, so that the next access does not come here.
    value = globals()[name] = getattr(import_module(f".{_MODULE_BY_NAME[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
