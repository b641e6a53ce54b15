"""Read the answers of the code context tools."""

from __future__ import annotations

import json
import re
from typing import NoReturn

from .._wire.converter import MalformedError, structure
from .._wire.tools import CodeContextEntry, ToolReply
from ..errors import CodeError, InvalidArgumentError, NotSupportedError, ReplyError
from ..models.code import CodeContext
from .reply import Reply

# The cloud documents "Tool not found" for tools that a session lacks; other services word it differently.
_MISSING_TOOL = re.compile(
    r"tool\b.*\b(not found|not supported|does not exist)|(unknown|no such) tool|-32601", re.I | re.S
)


def require_context_name(context: CodeContext | str) -> str:
    """Return the name that is sent for a context.

    Raises:
        InvalidArgumentError: If it is neither a context nor a name.
    """
    name = context.name if isinstance(context, CodeContext) else context
    if not isinstance(name, str) or not name:
        raise InvalidArgumentError(f"A context is a CodeContext or its name, not {context!r}")
    return name


def read_context(reply: Reply[ToolReply]) -> CodeContext:
    """Return the context that was created."""
    (context,) = _read_entries(f"[{_require_text(reply)}]", reply)
    return context


def read_contexts(reply: Reply[ToolReply]) -> list[CodeContext]:
    """Return the contexts of a list."""
    return _read_entries(_require_text(reply), reply)


def raise_if_failed(reply: Reply[ToolReply]) -> None:
    """Raise the tool's refusal, if it refused.

    Raises:
        NotSupportedError: If the service has no such tool.
        CodeError: If the tool failed.
    """
    _require_text(reply)


def _require_text(reply: Reply[ToolReply]) -> str:
    tool = reply.data_or_raise()
    if tool.is_error:
        _raise_refusal(tool.text, reply.request_id)
    return tool.text


def _raise_refusal(text: str, request_id: str) -> NoReturn:
    if _MISSING_TOOL.search(text):
        raise NotSupportedError(
            f"This service has no named contexts for code: {text}",
            hint="Each session has one context for each language: use another session to keep variables apart, "
            "or the local runtime.",
            request_id=request_id,
        )
    raise CodeError(text or "The context tool reports a failure and gives no reason.", request_id=request_id)


def _read_entries(text: str, reply: Reply[ToolReply]) -> list[CodeContext]:
    try:
        entries: list[CodeContextEntry] = [structure(item, CodeContextEntry) for item in json.loads(text)]
    except (ValueError, TypeError, RecursionError, MalformedError) as error:
        raise ReplyError(f"A list of code contexts cannot be read: {error}", request_id=reply.request_id) from error
    return [CodeContext(entry.name, entry.language) for entry in entries]
