"""Results of copying files between this machine and a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from .._lazy_attrs import define, field
from .base import BaseResult

ByteProgressCallback: TypeAlias = Callable[[int], object]  # is given the bytes moved so far


@define(slots=False)
class UploadResult(BaseResult):
    """Outcome of uploading a file into a session.

    Fields of steps that were not reached are None, or 0 for bytes.

    Attributes:
        request_id_upload_url, request_id_sync: Request ids of the two calls.
        http_status: HTTP status of the storage.
        etag: Checksum that the storage computed.
        bytes_sent: Size of the file, in bytes.
        path: Its path in the session.
    """

    success: bool = False
    request_id_upload_url: str | None = None
    request_id_sync: str | None = None
    http_status: int | None = None
    etag: str | None = None
    bytes_sent: int = 0
    path: str = ""
    error_message: str | None = None  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleVariableOverride]
    request_id: str = field(default="", kw_only=True)


@define(slots=False)
class DownloadResult(BaseResult):
    """Outcome of downloading a file from a session.

    Fields of steps that were not reached are None, or 0 for bytes.

    Attributes:
        request_id_download_url, request_id_sync: Request ids of the two calls.
        http_status: HTTP status of the storage.
        bytes_received: Size of the file, in bytes.
        path: Its path in the session.
        local_path: Its path on this machine.
    """

    success: bool = False
    request_id_download_url: str | None = None
    request_id_sync: str | None = None
    http_status: int | None = None
    bytes_received: int = 0
    path: str = ""
    local_path: str = ""
    error_message: str | None = None  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleVariableOverride]
    request_id: str = field(default="", kw_only=True)
