"""Read the texts of the object storage tools."""

from __future__ import annotations

from .._wire.tools import ToolReply
from ..errors import OssError
from .redaction import redact
from .reply import Reply


def read_oss_init(reply: Reply[ToolReply], secrets: tuple[str, ...]) -> str:
    """Return the text of the tool that takes credentials.

    Raises:
        OssError: If the tool failed, or its text is empty or reports a failure.
    """
    text = read_oss_text(reply, "Failed to initialize OSS environment", *secrets)
    if not text:
        raise OssError("Failed to initialize OSS environment", request_id=reply.request_id)
    if "failed" in text.lower():
        message = f"OSS environment initialization failed: {redact(text, *secrets)}"
        raise OssError(message, request_id=reply.request_id)
    return text


def read_oss_text(reply: Reply[ToolReply], failure: str, *secrets: str) -> str:
    """Return the text of a tool that succeeded.

    Raises:
        OssError: If it failed, with its text, or with `failure` if it gives none.
    """
    tool = reply.data_or_raise()
    if tool.is_error:
        raise OssError(redact(tool.text, *secrets) or failure, request_id=reply.request_id)
    return tool.text
