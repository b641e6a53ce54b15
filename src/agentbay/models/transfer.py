"""Results of moving files between this machine and a session."""

from __future__ import annotations

from attrs import define, field

from .base import BaseResult


@define(slots=False)
class UploadResult(BaseResult):
    """Outcome of sending a file into a session. What was not reached is None, or 0 for bytes.

    Attributes:
        request_id_upload_url, request_id_sync: Request ids of the two calls.
        http_status: Of the storage's answer.
        etag: The storage's checksum of what it took.
        bytes_sent: Size of the file.
        path: Where it is in the session.
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
    """Outcome of fetching a file from a session. What was not reached is None, or 0 for bytes.

    Attributes:
        request_id_download_url, request_id_sync: Request ids of the two calls.
        http_status: Of the storage's answer.
        bytes_received: Size of the file.
        path: Where it is in the session.
        local_path: Where it is on this machine.
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
