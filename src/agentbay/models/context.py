"""Parameters that say which contexts a session synchronises or mounts, and how."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any

from attrs import Attribute

from .._arguments import checked_arguments, refusal
from .._lazy_attrs import define, field

_WILDCARD_CHARACTERS = frozenset("*?[]")


class UploadStrategy(str, Enum):
    """When changed files are uploaded to the context."""

    UPLOAD_BEFORE_RESOURCE_RELEASE = "UploadBeforeResourceRelease"


class DownloadStrategy(str, Enum):
    """When files are downloaded into the session."""

    DOWNLOAD_ASYNC = "DownloadAsync"


class UploadMode(str, Enum):
    """Whether the context keeps single files or one archive."""

    FILE = "File"
    ARCHIVE = "Archive"


class Lifecycle(str, Enum):
    """How long uploaded files are kept."""

    LIFECYCLE_1DAY = "Lifecycle_1Day"
    LIFECYCLE_3DAYS = "Lifecycle_3Days"
    LIFECYCLE_5DAYS = "Lifecycle_5Days"
    LIFECYCLE_10DAYS = "Lifecycle_10Days"
    LIFECYCLE_15DAYS = "Lifecycle_15Days"
    LIFECYCLE_30DAYS = "Lifecycle_30Days"
    LIFECYCLE_90DAYS = "Lifecycle_90Days"
    LIFECYCLE_180DAYS = "Lifecycle_180Days"
    LIFECYCLE_360DAYS = "Lifecycle_360Days"
    LIFECYCLE_FOREVER = "Lifecycle_Forever"


class BetaContextMountAccessMode(str, Enum):
    """What a session may do with a mounted context."""

    READ_WRITE = "readWrite"
    READ_ONLY = "readOnly"


class BetaContextMountStrategy(str, Enum):
    """Storage class of a mount."""

    STANDARD = "standard"
    PERFORMANCE = "performance"


def _make_enum_validator(kind: type[Enum]) -> Any:
    def check(owner: object, attribute: Attribute[Any], value: object) -> None:
        if not isinstance(value, kind):
            valid = ", ".join(member.value for member in kind)
            raise ValueError(f"Invalid {attribute.name} value: {value}. Valid values are: {valid} (of {kind.__name__})")

    return check


def _refuse_wildcards(name: str, path: str, way_out: str) -> None:
    if path.strip() and _WILDCARD_CHARACTERS & set(path):
        raise ValueError(f"Wildcard patterns are not supported in {name}. Got: {path}. {way_out}")


_ABSOLUTE_PATH = re.compile(r"/|[A-Za-z]:[/\\]")  # of Linux, or of Windows


def _check_absolute(name: str, path: str) -> None:
    if not _ABSOLUTE_PATH.match(path):
        raise refusal(name, "absolute, such as '/home/wuying/data'", path)


@checked_arguments()
@define(slots=False)
class UploadPolicy:
    """Which changes are uploaded to the context, and how.

    Attributes:
        auto_upload: Whether to upload when the session ends.
        upload_strategy: When to upload.
        upload_mode: Whether to upload single files or one archive.
        archive_exclude_paths: Paths, relative to the synchronised one, that Archive mode keeps as single files.
    """

    auto_upload: bool = True
    upload_strategy: UploadStrategy = UploadStrategy.UPLOAD_BEFORE_RESOURCE_RELEASE
    upload_mode: UploadMode = field(default=UploadMode.FILE, validator=_make_enum_validator(UploadMode))
    archive_exclude_paths: list[str] = field(factory=list)

    @classmethod
    def default(cls) -> UploadPolicy:
        """Return the default policy."""
        return cls()


@checked_arguments()
@define(slots=False)
class DownloadPolicy:
    """Which files are downloaded into the session.

    Attributes:
        auto_download: Whether to download when the session starts.
        download_strategy: When to download.
    """

    auto_download: bool = True
    download_strategy: DownloadStrategy = DownloadStrategy.DOWNLOAD_ASYNC

    @classmethod
    def default(cls) -> DownloadPolicy:
        """Return the default policy."""
        return cls()


@checked_arguments()
@define(slots=False)
class DeletePolicy:
    """Whether files deleted in the session are deleted in the context too (`sync_local_file`)."""

    sync_local_file: bool = True

    @classmethod
    def default(cls) -> DeletePolicy:
        """Return the default policy."""
        return cls()


@checked_arguments()
@define(slots=False)
class ExtractPolicy:
    """What happens to archives that are downloaded.

    Attributes:
        extract: Whether to unpack them.
        delete_src_file: Whether to delete the archive afterwards.
        extract_current_folder: Whether to unpack beside the archive, not into a folder named after it.
    """

    extract: bool = True
    delete_src_file: bool = True
    extract_current_folder: bool = field(default=False, metadata={"wire": "extractToCurrentFolder"})

    @classmethod
    def default(cls) -> ExtractPolicy:
        """Return the default policy."""
        return cls()


@checked_arguments()
@define(slots=False)
class RecyclePolicy:
    """How long uploaded files are kept.

    Attributes:
        lifecycle: The period, counted from the upload.
        paths: Paths it holds for, relative to the synchronised one; `[""]` is all.
    """

    lifecycle: Lifecycle = field(default=Lifecycle.LIFECYCLE_FOREVER, validator=_make_enum_validator(Lifecycle))
    paths: list[str] = field(factory=lambda: [""])

    def __attrs_post_init__(self) -> None:
        for path in self.paths:
            _refuse_wildcards("recycle policy paths", path, "Please use exact directory paths instead.")

    @classmethod
    def default(cls) -> RecyclePolicy:
        """Return the default policy."""
        return cls()


@checked_arguments()
@define(slots=False)
class WhiteList:
    """A path to synchronise, and what to exclude from it.

    Attributes:
        path: A folder or file, relative to the path of the context ("" is everything); a regular expression if
            `is_path_regex`.
        exclude_paths: Relative to `path`; regular expressions if `is_exclude_regex`.
        is_path_regex, is_exclude_regex: Whether these are regular expressions.
    """

    path: str = ""
    exclude_paths: list[str] = field(factory=list)
    is_path_regex: bool = False
    is_exclude_regex: bool = False

    def __attrs_post_init__(self) -> None:
        if not self.is_path_regex:
            way_out = "Please use exact directory paths or set is_path_regex=True for regex matching."
            _refuse_wildcards("path when is_path_regex=False", self.path, way_out)
        if not self.is_exclude_regex:
            for path in self.exclude_paths:
                way_out = "Please use exact directory paths or set is_exclude_regex=True for regex matching."
                _refuse_wildcards("exclude_paths when is_exclude_regex=False", path, way_out)


@checked_arguments()
@define(slots=False)
class BWList:
    """The white lists of a policy.

    An empty list includes everything.
    """

    white_lists: list[WhiteList] = field(factory=list)


@checked_arguments()
@define(slots=False)
class MappingPolicy:
    """The path that the same data has on another system."""

    path: str = ""

    @classmethod
    def default(cls) -> MappingPolicy:
        """Return the default policy."""
        return cls()


@checked_arguments()
@define(slots=False)
class SyncPolicy:
    """How one path is synchronised with a context.

    None parts get their defaults.
    """

    upload_policy: UploadPolicy | None = None
    download_policy: DownloadPolicy | None = None
    delete_policy: DeletePolicy | None = None
    extract_policy: ExtractPolicy | None = None
    recycle_policy: RecyclePolicy | None = None
    bw_list: BWList | None = None
    mapping_policy: MappingPolicy | None = None

    def __attrs_post_init__(self) -> None:
        self.upload_policy = self.upload_policy or UploadPolicy()
        self.download_policy = self.download_policy or DownloadPolicy()
        self.delete_policy = self.delete_policy or DeletePolicy()
        self.extract_policy = self.extract_policy or ExtractPolicy()
        self.recycle_policy = self.recycle_policy or RecyclePolicy()
        self.bw_list = self.bw_list or BWList([WhiteList()])

    @classmethod
    def default(cls) -> SyncPolicy:
        """Return the default policy."""
        return cls()


@checked_arguments(path=_check_absolute)
@define(slots=False)
class ContextSync:
    """Copy a context into a session at its start, and back at its end.

    Attributes:
        context_id: Id of the context.
        path: Absolute path in the session.
        policy: What is copied and when; None is the default of the service.
        beta_wait_for_completion: Whether `create()` waits for the first copy; None is True.
    """

    context_id: str
    path: str
    policy: SyncPolicy | None = None
    beta_wait_for_completion: bool | None = None

    @classmethod
    def new(
        cls,
        context_id: str,
        path: str,
        policy: SyncPolicy | None = None,
        beta_wait_for_completion: bool | None = None,
    ) -> ContextSync:
        """Return a `ContextSync`.

        The same as calling the class.
        """
        return cls(context_id, path, policy, beta_wait_for_completion)

    def with_policy(self, policy: SyncPolicy) -> ContextSync:
        """Set the policy and return the same object."""
        self.policy = policy
        return self


@checked_arguments(path=_check_absolute)
@define(slots=False)
class BetaContextMount:
    """Mount a context at a path of the session.

    Writes reach the context at once.

    Attributes:
        context_id: Id of the context.
        path: Absolute path in the session.
        access_mode: Whether the session may write.
        strategy: Storage class.
        source_path: Subfolder of the context to mount; "" is all of it.
    """

    context_id: str
    path: str
    access_mode: BetaContextMountAccessMode = BetaContextMountAccessMode.READ_WRITE
    strategy: BetaContextMountStrategy = BetaContextMountStrategy.STANDARD
    source_path: str = ""

    @classmethod
    def new(
        cls,
        context_id: str,
        path: str,
        access_mode: BetaContextMountAccessMode | None = None,
        strategy: BetaContextMountStrategy | None = None,
        source_path: str | None = None,
    ) -> BetaContextMount:
        """Return a `BetaContextMount`.

        None arguments get their defaults.
        """
        return cls(
            context_id,
            path,
            access_mode or BetaContextMountAccessMode.READ_WRITE,
            strategy or BetaContextMountStrategy.STANDARD,
            source_path or "",
        )

    def with_access_mode(self, access_mode: BetaContextMountAccessMode) -> BetaContextMount:
        """Set the access mode and return the same object."""
        self.access_mode = access_mode
        return self

    def with_strategy(self, strategy: BetaContextMountStrategy) -> BetaContextMount:
        """Set the storage strategy and return the same object."""
        self.strategy = strategy
        return self

    def with_source_path(self, source_path: str) -> BetaContextMount:
        """Set the subfolder and return the same object."""
        self.source_path = source_path
        return self


@define(slots=False)
class ContextStatusData:
    """State of one transfer between a context and a session.

    Times are seconds since the epoch, 0 if unknown.
    """

    context_id: str = ""
    path: str = ""
    error_message: str = ""
    status: str = ""
    start_time: int = 0
    finish_time: int = 0
    task_type: str = ""
