"""Actions on contexts and on the files in them."""

from __future__ import annotations

from .schema import Action, action, pascal_payload, wire_field


@pascal_payload
class ContextData:
    """Data of GetContext, and an item of ListContexts."""

    id: str = ""
    name: str = ""
    state: str = ""
    create_time: str = ""
    last_used_time: str = ""
    os_type: str = ""


@action("GetContext", idempotent=True)
class GetContext(Action[ContextData]):
    """Find a context by its name or id, or create one of that name."""

    allow_create: bool = False
    name: str | None = None
    context_id: str | None = None
    login_region_id: str | None = None


@action("ListContexts", idempotent=True)
class ListContexts(Action[list[ContextData]]):
    """List contexts, a page at a time."""

    max_results: int = 10
    next_token: str | None = None
    session_id: str | None = None
    context_type: str | None = None


@action("ModifyContext", idempotent=True)
class ModifyContext(Action[None]):
    """Rename a context."""

    id: str
    name: str


@action("DeleteContext", idempotent=True, not_found_is_success=True)
class DeleteContext(Action[None]):
    """Delete a context and its files."""

    id: str


@action("ClearContext", idempotent=True, missing_success_is_success=True)
class ClearContext(Action[None]):
    """Begin to delete the files of a context."""

    id: str


@pascal_payload
class PresignedUrl:
    """Data of GetContextFileUploadUrl and GetContextFileDownloadUrl."""

    url: str = wire_field(default="", repr=False)
    expire_time: int | None = None


@action("GetContextFileUploadUrl", idempotent=True)
class GetContextFileUploadUrl(Action[PresignedUrl]):
    """Create a presigned URL that takes a file of a context with PUT."""

    context_id: str
    file_path: str


@action("GetContextFileDownloadUrl", idempotent=True)
class GetContextFileDownloadUrl(Action[PresignedUrl]):
    """Create a presigned URL that returns a file of a context to GET."""

    context_id: str
    file_path: str


@action("DeleteContextFile", idempotent=True, not_found_is_success=True)
class DeleteContextFile(Action[None]):
    """Delete a file of a context."""

    context_id: str
    file_path: str


@pascal_payload
class ContextFileData:
    """An item of DescribeContextFiles."""

    file_id: str = ""
    file_name: str = ""
    file_path: str = ""
    file_type: str | None = None
    gmt_create: str | None = None
    gmt_modified: str | None = None
    size: int | None = None
    status: str | None = None


@action("DescribeContextFiles", idempotent=True, query=("MaxResults", "NextToken"))
class DescribeContextFiles(Action[list[ContextFileData]]):
    """List a folder of a context, a page at a time.

    A page is named by its number and size, or by a token.
    """

    context_id: str
    parent_folder_path: str
    page_number: int | None = None
    page_size: int | None = None
    max_results: int | None = None
    next_token: str | None = None
