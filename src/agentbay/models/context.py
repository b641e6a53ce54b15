"""How a session uses contexts: what is synchronised or mounted where, and by which policy."""

from __future__ import annotations

from enum import Enum
from typing import Any

from attrs import Attribute, define, field

_WILDCARD_CHARACTERS = frozenset("*?[]")


class UploadStrategy(str, Enum):
    """When changed files go up to the context."""

    UPLOAD_BEFORE_RESOURCE_RELEASE = "UploadBeforeResourceRelease"


class DownloadStrategy(str, Enum):
    """When files come down into the session."""

    DOWNLOAD_ASYNC = "DownloadAsync"


class UploadMode(str, Enum):
    """Whether files are kept one by one or as one archive."""

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
    """The kind of storage behind a mount."""

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


@define(slots=False)
class UploadPolicy:
    """Which changes go up to the context, and how.

    Attributes:
        auto_upload: Upload when the session ends.
        upload_strategy: When to upload.
        upload_mode: File by file, or as one archive.
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


@define(slots=False)
class DownloadPolicy:
    """Which files come down into the session; `auto_download` does so when it starts."""

    auto_download: bool = True
    download_strategy: DownloadStrategy = DownloadStrategy.DOWNLOAD_ASYNC

    @classmethod
    def default(cls) -> DownloadPolicy:
        """Return the default policy."""
        return cls()


@define(slots=False)
class DeletePolicy:
    """Whether a file deleted in the session is deleted in the context too (`sync_local_file`)."""

    sync_local_file: bool = True

    @classmethod
    def default(cls) -> DeletePolicy:
        """Return the default policy."""
        return cls()


@define(slots=False)
class ExtractPolicy:
    """What happens to archives that come down: extract, delete the archive, extract beside it."""

    extract: bool = True
    delete_src_file: bool = True
    extract_current_folder: bool = field(default=False, metadata={"wire": "extractToCurrentFolder"})

    @classmethod
    def default(cls) -> ExtractPolicy:
        """Return the default policy."""
        return cls()


@define(slots=False)
class RecyclePolicy:
    """How long uploaded files are kept; `paths` are relative to the synchronised one, `[""]` means all."""

    lifecycle: Lifecycle = field(default=Lifecycle.LIFECYCLE_FOREVER, validator=_make_enum_validator(Lifecycle))
    paths: list[str] = field(factory=lambda: [""])

    def __attrs_post_init__(self) -> None:
        for path in self.paths:
            _refuse_wildcards("recycle policy paths", path, "Please use exact directory paths instead.")

    @classmethod
    def default(cls) -> RecyclePolicy:
        """Return the default policy."""
        return cls()


@define(slots=False)
class WhiteList:
    """A path to synchronise, relative to the context's mount path ("" is everything), and what to leave out of it.

    Attributes:
        path: A folder or file, or a regular expression if `is_path_regex`.
        exclude_paths: Relative to `path`; regular expressions if `is_exclude_regex`.
        is_path_regex, is_exclude_regex: How to read the two.
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


@define(slots=False)
class BWList:
    """The white lists of a policy; an empty list means everything."""

    white_lists: list[WhiteList] = field(factory=list)


@define(slots=False)
class MappingPolicy:
    """Where data made on another system was: `path` there stands for this sync's path here."""

    path: str = ""

    @classmethod
    def default(cls) -> MappingPolicy:
        """Return the default policy."""
        return cls()


@define(slots=False)
class SyncPolicy:
    """How one path is synchronised with a context. Parts that are not given get their defaults."""

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


@define(slots=False)
class ContextSync:
    """Copy a context to a path when the session starts, and back when it ends.

    Attributes:
        context_id: The context.
        path: Absolute path in the session.
        policy: What is copied and when; None leaves it to the service.
        beta_wait_for_completion: Whether `create()` waits for the first copy; None means yes.
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
        """Make a `ContextSync`; the same as calling the class."""
        return cls(context_id, path, policy, beta_wait_for_completion)

    def with_policy(self, policy: SyncPolicy) -> ContextSync:
        """Set the policy and return the same object."""
        self.policy = policy
        return self


@define(slots=False)
class BetaContextMount:
    """Show a context at a path of the session, live: what is written there is in the context at once.

    Attributes:
        context_id: The context.
        path: Absolute path in the session.
        access_mode: Read and write, or read only.
        strategy: The kind of storage.
        source_path: Subfolder of the context to show, "" for all of it.
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
        """Make a `BetaContextMount`; None stands for the default."""
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
    """State of one transfer between a context and a session. Times are epoch seconds, 0 if not told."""

    context_id: str = ""
    path: str = ""
    error_message: str = ""
    status: str = ""
    start_time: int = 0
    finish_time: int = 0
    task_type: str = ""
