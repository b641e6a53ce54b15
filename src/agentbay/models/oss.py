"""Results of object storage operations."""

from __future__ import annotations

from typing import Any

from .._lazy_attrs import define, field
from .base import BaseResult, redacted_repr


def _none_to_dict(text: Any) -> Any:
    return {} if text is None else text


@define(slots=False)
class OSSClientResult(BaseResult):
    """Outcome of giving credentials to a session.

    Attributes:
        client_config: Text of the tool; {} on failure.
    """

    client_config: Any = field(default=None, converter=_none_to_dict, repr=False)
    error_message: str = ""


@define(slots=False)
class OSSUploadResult(BaseResult):
    """Outcome of an upload.

    `content` is the text of the tool.
    """

    content: str = field(default="", repr=redacted_repr)
    error_message: str = ""


@define(slots=False)
class OSSDownloadResult(BaseResult):
    """Outcome of a download.

    `content` is the text of the tool.
    """

    content: str = field(default="", repr=redacted_repr)
    error_message: str = ""
