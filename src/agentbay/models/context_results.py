"""Contexts, the files in them, and the results of operations on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._arguments import checked_arguments
from .._lazy_attrs import define, field
from .base import BaseResult, IterableResult, OperationResult, list_or_empty
from .context import ContextStatusData


@define(slots=False)
class Context:
    """A named store of files that outlives sessions.

    Attributes:
        id: Its id, which sessions refer to.
        name: Its name, unique in the account.
        created_at, last_used_at: ISO 8601, UTC; None if unknown.
    """

    id: str
    name: str
    created_at: str | None = None
    last_used_at: str | None = None

    def _repr_html_(self) -> str:
        """Return the HTML that a notebook shows."""
        from .. import _html

        known = {"name": self.name, "id": self.id, "created": self.created_at, "last used": self.last_used_at}
        return _html.fact_table("Context", known)


@checked_arguments()
@define(slots=False)
class ContextListParams:
    """Which page of contexts to list.

    Attributes:
        max_results: Page size; None is 10.
        next_token: Cursor of the page; None is the first.
        session_id: Only contexts of this session; None is all.
    """

    max_results: int | None = None
    next_token: str | None = None
    session_id: str | None = None


@define(slots=False)
class ContextResult(BaseResult):
    """Outcome of finding or creating a context.

    Attributes:
        context_id: Its id; "" on failure.
        context: The context; None on failure.
    """

    context_id: str = ""
    context: Context | None = None
    error_message: str = ""

    def _success_html(self) -> str | None:
        return self.context._repr_html_() if self.context is not None else None

    def unwrap(self) -> FoundContextResult:
        """Return the result, whose `context` is then set.

        Raises:
            AgentBayError: `exception`, if the operation failed.
        """
        return super().unwrap()  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


# What `unwrap()` returns is the result itself. This type tells type checkers that its context is not None.
if TYPE_CHECKING:

    class FoundContextResult(ContextResult):
        """A `ContextResult` whose `context` is set."""

        context: Context  # pyright: ignore[reportIncompatibleVariableOverride]

else:
    FoundContextResult = ContextResult


@define(slots=False)
class ContextListResult(BaseResult, IterableResult[Context]):
    """One page of contexts.

    Attributes:
        contexts: The contexts, in the order of the service.
        next_token: Cursor of the next page; None or "" on the last.
        max_results: Page size that was used.
        total_count: Number of contexts on all pages.
    """

    _LIST_FIELD = "contexts"

    contexts: list[Context] = field(default=None, converter=list_or_empty)
    next_token: str | None = None
    max_results: int | None = None
    total_count: int | None = None
    error_message: str = ""

    def _success_html(self) -> str | None:
        from .. import _html

        rows = [(item.name, item.id, item.created_at, item.last_used_at) for item in self.contexts]
        return _html.table(("name", "id", "created", "last used"), rows, _html.page_count(len(rows), self.total_count))


@define(slots=False)
class ContextFileEntry:
    """A file or folder of a context.

    Attributes:
        file_id: Id that the service gave it.
        file_name: Its name in its folder.
        file_path: Its path in the session, or a key of the storage, as the service sends it.
        file_type: "FOLDER" for a folder.
        gmt_create, gmt_modified: ISO 8601, UTC.
        size: Bytes.
        status: "ready" once it can be read.
    """

    file_id: str
    file_name: str
    file_path: str
    file_type: str | None = None
    gmt_create: str | None = None
    gmt_modified: str | None = None
    size: int | None = None
    status: str | None = None

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return (self.file_type or "").upper() in ("FOLDER", "DIRECTORY", "DIR")


@define(slots=False)
class ContextFileListResult(BaseResult, IterableResult[ContextFileEntry]):
    """One page of the files in a folder of a context.

    Attributes:
        entries: Files and folders, in the order of the service.
        count: Number of entries on all pages; None if unknown.
        next_token: Cursor of the next page; None or "" on the last.
        error_message: What went wrong, or "". Keyword only.
    """

    _LIST_FIELD = "entries"

    entries: list[ContextFileEntry] = field(default=None, converter=list_or_empty)
    count: int | None = None
    next_token: str | None = None
    error_message: str = field(default="", kw_only=True)

    def _success_html(self) -> str | None:
        from .. import _html

        rows = [
            (f"{item.file_name}/", "", item.gmt_modified)
            if item.is_folder
            else (item.file_name, _html.format_size(item.size or 0), item.gmt_modified)
            for item in self.entries
        ]
        return _html.table(("name", "size", "modified"), rows, _html.page_count(len(rows), self.count))


@define(slots=False)
class FileUrlResult(BaseResult):
    """A presigned URL for one file of a context.

    Attributes:
        url: The URL. Everyone who has it can use it, so `repr` leaves it out.
        expire_time: When it expires, as the service sends it: seconds from now, or since the epoch. Usually an hour.
    """

    url: str = field(default="", repr=False)
    expire_time: int | None = None
    error_message: str = ""


@define(slots=False)
class ClearContextResult(OperationResult):
    """State of clearing a context.

    Attributes:
        status: "clearing" while it goes on, "available" when it is done, or another state.
        context_id: Id of the context.
    """

    error_message: str = ""
    status: str | None = None
    context_id: str | None = None
    data: Any = field(default=None, kw_only=True)
    code: str = field(default="", kw_only=True)
    message: str = field(default="", kw_only=True)
    http_status_code: int = field(default=0, kw_only=True)


@define(slots=False)
class ContextInfoResult(BaseResult, IterableResult[ContextStatusData]):
    """The running and finished transfers between contexts and a session."""

    _LIST_FIELD = "context_status_data"

    success: bool = True
    context_status_data: list[ContextStatusData] = field(default=None, converter=list_or_empty)
    error_message: str = ""

    def _success_html(self) -> str | None:
        from .. import _html

        rows = [(item.path, item.task_type, item.status, item.error_message) for item in self.context_status_data]
        return _html.table(("path", "transfer", "state", "error"), rows)


@define(slots=False)
class ContextSyncResult(BaseResult):
    """Outcome of copying between contexts and a session."""


@define(slots=False)
class ContextBindResult(BaseResult):
    """Outcome of binding contexts to a running session."""


@define(slots=False)
class ContextBinding:
    """A context that is bound to a session.

    Attributes:
        context_id, context_name: Which context.
        path: Its path in the session.
        policy: Its sync policy, JSON.
        bind_time: When it was bound, as the service sends it.
    """

    context_id: str = ""
    context_name: str = ""
    path: str = ""
    policy: str = ""
    bind_time: str = ""


@define(slots=False)
class ContextBindingsResult(BaseResult, IterableResult[ContextBinding]):
    """The contexts that are bound to a session."""

    _LIST_FIELD = "bindings"

    bindings: list[ContextBinding] = field(default=None, converter=list_or_empty)
    error_message: str = ""

    def _success_html(self) -> str | None:
        from .. import _html

        rows = [(item.path, item.context_name, item.context_id, item.bind_time) for item in self.bindings]
        return _html.table(("path", "context", "id", "since"), rows)


@define(frozen=True)
class ContextTransfer:
    """The files copied between this machine and a context.

    Attributes:
        files: Paths in the context, sorted.
        size: Their size in bytes, all together.
    """

    files: tuple[str, ...]
    size: int
