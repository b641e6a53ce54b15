# What `__init__.py` loads lazily, for type checkers.

from ._async.agent import AsyncAgent as AsyncAgent
from ._async.agent_task import AsyncTaskExecution as AsyncTaskExecution
from ._async.beta import AsyncBetaNetwork as AsyncBetaNetwork
from ._async.browser import AsyncBrowser as AsyncBrowser
from ._async.browser_operator import AsyncBrowserOperator as AsyncBrowserOperator
from ._async.client import AsyncAgentBay as AsyncAgentBay
from ._async.code import AsyncCode as AsyncCode, AsyncCodeStream as AsyncCodeStream
from ._async.command import AsyncCommand as AsyncCommand
from ._async.computer import AsyncComputer as AsyncComputer
from ._async.context import AsyncContextService as AsyncContextService
from ._async.context_manager import AsyncContextManager as AsyncContextManager
from ._async.env import AsyncEnv as AsyncEnv
from ._async.extensions import AsyncExtensionsService as AsyncExtensionsService
from ._async.file_transfer import AsyncFileTransfer as AsyncFileTransfer
from ._async.filesystem import AsyncFileSystem as AsyncFileSystem
from ._async.fingerprint_generator import AsyncBrowserFingerprintGenerator as AsyncBrowserFingerprintGenerator
from ._async.git import AsyncGit as AsyncGit
from ._async.images import AsyncImages as AsyncImages
from ._async.mobile import AsyncMobile as AsyncMobile
from ._async.mobile_simulate import AsyncMobileSimulateService as AsyncMobileSimulateService
from ._async.oss import AsyncOss as AsyncOss
from ._async.process import AsyncOutput as AsyncOutput, AsyncProcess as AsyncProcess
from ._async.pty import AsyncPty as AsyncPty
from ._async.pty_handle import AsyncPtyHandle as AsyncPtyHandle
from ._async.session import AsyncSession as AsyncSession
from ._async.watch import AsyncWatch as AsyncWatch
from ._display import progress as progress
from ._logging import AgentBayLogger as AgentBayLogger, get_logger as get_logger
from ._sync.agent import Agent as Agent
from ._sync.agent_task import TaskExecution as TaskExecution
from ._sync.beta import BetaNetwork as BetaNetwork
from ._sync.browser import Browser as Browser
from ._sync.browser_operator import BrowserOperator as BrowserOperator
from ._sync.client import AgentBay as AgentBay
from ._sync.code import Code as Code, CodeStream as CodeStream
from ._sync.command import Command as Command
from ._sync.computer import Computer as Computer
from ._sync.context import ContextService as ContextService
from ._sync.context_manager import ContextManager as ContextManager
from ._sync.env import Env as Env
from ._sync.extensions import ExtensionsService as ExtensionsService
from ._sync.file_transfer import FileTransfer as FileTransfer
from ._sync.filesystem import FileSystem as FileSystem
from ._sync.fingerprint_generator import BrowserFingerprintGenerator as BrowserFingerprintGenerator
from ._sync.git import Git as Git
from ._sync.images import Images as Images
from ._sync.mobile import Mobile as Mobile
from ._sync.mobile_simulate import MobileSimulateService as MobileSimulateService
from ._sync.oss import Oss as Oss
from ._sync.process import Output as Output, Process as Process
from ._sync.pty import Pty as Pty
from ._sync.pty_handle import PtyHandle as PtyHandle
from ._sync.session import Session as Session
from ._sync.watch import Watch as Watch
from ._version import __version__ as __version__
from .config import Config as Config
from .errors import (
    AgentBayError as AgentBayError,
    AgentError as AgentError,
    APIError as APIError,
    AuthenticationError as AuthenticationError,
    BlockingCallWarning as BlockingCallWarning,
    BrowserError as BrowserError,
    ClearanceTimeoutError as ClearanceTimeoutError,
    ClientClosedError as ClientClosedError,
    CodeError as CodeError,
    CodeTimeoutError as CodeTimeoutError,
    CommandError as CommandError,
    CommandTimeoutError as CommandTimeoutError,
    ConfigurationError as ConfigurationError,
    ConflictError as ConflictError,
    ConnectionFailed as ConnectionFailed,
    ConnectionLost as ConnectionLost,
    ConnectionPoolFull as ConnectionPoolFull,
    DeadlineExceeded as DeadlineExceeded,
    FileError as FileError,
    GitAuthError as GitAuthError,
    GitConflictError as GitConflictError,
    GitError as GitError,
    GitNotARepoError as GitNotARepoError,
    GitNotFoundError as GitNotFoundError,
    GitRejectedError as GitRejectedError,
    GitTimeoutError as GitTimeoutError,
    ImageBuildError as ImageBuildError,
    InvalidArgumentError as InvalidArgumentError,
    InvalidRequestError as InvalidRequestError,
    NotFoundError as NotFoundError,
    NotSupportedError as NotSupportedError,
    OssError as OssError,
    PathExistsError as PathExistsError,
    PathIsDirectoryError as PathIsDirectoryError,
    PathNotDirectoryError as PathNotDirectoryError,
    PathNotFoundError as PathNotFoundError,
    PathPermissionError as PathPermissionError,
    PermissionDeniedError as PermissionDeniedError,
    PtyError as PtyError,
    PtyNotConnectedError as PtyNotConnectedError,
    PtySessionNotFoundError as PtySessionNotFoundError,
    QuotaExceededError as QuotaExceededError,
    RateLimitError as RateLimitError,
    ReplyError as ReplyError,
    ServerError as ServerError,
    ServiceUnavailableError as ServiceUnavailableError,
    SessionError as SessionError,
    SessionNotFoundError as SessionNotFoundError,
    ToolError as ToolError,
    TransportError as TransportError,
    WaitTimeoutError as WaitTimeoutError,
    WsCancelledError as WsCancelledError,
)
from .models.agent import (
    AgentEvent as AgentEvent,
    ExecutionResult as ExecutionResult,
    QueryResult as QueryResult,
)
from .models.base import (
    ApiResponse as ApiResponse,
    BaseResult as BaseResult,
    BoolResult as BoolResult,
    OperationResult as OperationResult,
)
from .models.beta import (
    NetworkResult as NetworkResult,
    NetworkStatusResult as NetworkStatusResult,
    SkillInfo as SkillInfo,
    SkillsMetadataResult as SkillsMetadataResult,
)
from .models.browser import (
    BrowserContext as BrowserContext,
    BrowserFingerprintContext as BrowserFingerprintContext,
    BrowserSyncMode as BrowserSyncMode,
    ExtensionOption as ExtensionOption,
)
from .models.browser_operator import (
    ActOptions as ActOptions,
    ActResult as ActResult,
    ExtractOptions as ExtractOptions,
    ObserveOptions as ObserveOptions,
    ObserveResult as ObserveResult,
)
from .models.browser_option import (
    BrowserFingerprint as BrowserFingerprint,
    BrowserNotifyMessage as BrowserNotifyMessage,
    BrowserOption as BrowserOption,
    BrowserProxy as BrowserProxy,
    BrowserScreen as BrowserScreen,
    BrowserViewport as BrowserViewport,
)
from .models.code import (
    CodeCleared as CodeCleared,
    CodeContext as CodeContext,
    CodeEnded as CodeEnded,
    CodeEvent as CodeEvent,
    CodeExecutionResult as CodeExecutionResult,
    CodeFailed as CodeFailed,
    CodeShown as CodeShown,
    CodeStderr as CodeStderr,
    CodeStdout as CodeStdout,
    EnhancedCodeExecutionResult as EnhancedCodeExecutionResult,
    ExecutionError as ExecutionError,
    ExecutionLogs as ExecutionLogs,
)
from .models.command import CommandResult as CommandResult
from .models.computer import (
    AppOperationResult as AppOperationResult,
    AppProcess as AppProcess,
    InstalledApp as InstalledApp,
    InstalledAppListResult as InstalledAppListResult,
    MouseButton as MouseButton,
    ProcessListResult as ProcessListResult,
    ScreenshotMode as ScreenshotMode,
    ScreenshotResult as ScreenshotResult,
    ScrollDirection as ScrollDirection,
    Window as Window,
    WindowInfoResult as WindowInfoResult,
    WindowListResult as WindowListResult,
)
from .models.context import (
    BetaContextMount as BetaContextMount,
    BetaContextMountAccessMode as BetaContextMountAccessMode,
    BetaContextMountStrategy as BetaContextMountStrategy,
    BWList as BWList,
    ContextStatusData as ContextStatusData,
    ContextSync as ContextSync,
    DeletePolicy as DeletePolicy,
    DownloadPolicy as DownloadPolicy,
    DownloadStrategy as DownloadStrategy,
    ExtractPolicy as ExtractPolicy,
    Lifecycle as Lifecycle,
    MappingPolicy as MappingPolicy,
    RecyclePolicy as RecyclePolicy,
    SyncPolicy as SyncPolicy,
    UploadMode as UploadMode,
    UploadPolicy as UploadPolicy,
    UploadStrategy as UploadStrategy,
    WhiteList as WhiteList,
)
from .models.context_results import (
    ClearContextResult as ClearContextResult,
    Context as Context,
    ContextBinding as ContextBinding,
    ContextBindingsResult as ContextBindingsResult,
    ContextBindResult as ContextBindResult,
    ContextFileEntry as ContextFileEntry,
    ContextFileListResult as ContextFileListResult,
    ContextInfoResult as ContextInfoResult,
    ContextListParams as ContextListParams,
    ContextListResult as ContextListResult,
    ContextResult as ContextResult,
    ContextSyncResult as ContextSyncResult,
    ContextTransfer as ContextTransfer,
    FileUrlResult as FileUrlResult,
)
from .models.env import EnvResult as EnvResult
from .models.extension import Extension as Extension
from .models.filesystem import (
    BinaryFileContentResult as BinaryFileContentResult,
    DirectoryEntry as DirectoryEntry,
    DirectoryListResult as DirectoryListResult,
    EditResult as EditResult,
    FileChangeEvent as FileChangeEvent,
    FileChangeResult as FileChangeResult,
    FileContentResult as FileContentResult,
    FileInfoResult as FileInfoResult,
    FileSearchResult as FileSearchResult,
    MultipleFileContentResult as MultipleFileContentResult,
)
from .models.fingerprint import FingerprintFormat as FingerprintFormat
from .models.git import (
    GitBranchInfo as GitBranchInfo,
    GitBranchListResult as GitBranchListResult,
    GitCloneResult as GitCloneResult,
    GitCommitResult as GitCommitResult,
    GitDiffFile as GitDiffFile,
    GitDiffResult as GitDiffResult,
    GitFetchResult as GitFetchResult,
    GitFileStatus as GitFileStatus,
    GitInitResult as GitInitResult,
    GitLogEntry as GitLogEntry,
    GitLogResult as GitLogResult,
    GitPushResult as GitPushResult,
    GitRefUpdate as GitRefUpdate,
    GitStatusResult as GitStatusResult,
)
from .models.image import ImageInfo as ImageInfo
from .models.image_recipe import Image as Image
from .models.key_codes import KeyCode as KeyCode
from .models.local_options import LocalOptions as LocalOptions
from .models.mobile import (
    AdbUrlResult as AdbUrlResult,
    AppManagerRule as AppManagerRule,
    ExtraConfigs as ExtraConfigs,
    MobileExtraConfig as MobileExtraConfig,
    MobileSimulateConfig as MobileSimulateConfig,
    MobileSimulateMode as MobileSimulateMode,
    MobileSimulateUploadResult as MobileSimulateUploadResult,
    UIElementListResult as UIElementListResult,
)
from .models.oss import (
    OSSClientResult as OSSClientResult,
    OSSDownloadResult as OSSDownloadResult,
    OSSUploadResult as OSSUploadResult,
)
from .models.params import (
    CreateSessionParams as CreateSessionParams,
    LifecyclePolicy as LifecyclePolicy,
    ListSessionParams as ListSessionParams,
)
from .models.pty import PtySession as PtySession
from .models.session import (
    DeleteResult as DeleteResult,
    GetSessionData as GetSessionData,
    GetSessionResult as GetSessionResult,
    SessionInfo as SessionInfo,
    SessionListResult as SessionListResult,
    SessionMetrics as SessionMetrics,
    SessionMetricsResult as SessionMetricsResult,
    SessionPauseResult as SessionPauseResult,
    SessionResult as SessionResult,
    SessionResumeResult as SessionResumeResult,
    SessionStatus as SessionStatus,
    SessionStatusResult as SessionStatusResult,
)
from .models.tools import (
    McpTool as McpTool,
    McpToolResult as McpToolResult,
    McpToolsResult as McpToolsResult,
)
from .models.transfer import DownloadResult as DownloadResult, UploadResult as UploadResult
from .models.tree import TreeProgress as TreeProgress, TreeReport as TreeReport

__all__: list[str]
