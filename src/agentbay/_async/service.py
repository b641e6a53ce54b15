"""Base class of the parts of a session, such as its commands and files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._handles import Handle
from .._transport.reply import Reply
from .._wire.tools import ToolReply
from ..errors import AgentBayError, ToolError

if TYPE_CHECKING:
    from .session import AsyncSession


class AsyncBaseService(Handle):
    """A part of a session that calls its tools, such as `session.command`.

    Attributes:
        session: The session.
    """

    _instead = "Send the session_id of its session instead, and call get(session_id) there."

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    @property
    def strict(self) -> bool:
        """Whether a failed operation raises instead of returning a failed result."""
        return self.session.strict


def text_or_raise(reply: Reply[ToolReply], kind: type[AgentBayError] = ToolError) -> str:
    """Return the text of a tool's answer.

    Raises:
        AgentBayError: Of the given kind, with the tool's text as its message, if the tool reports a failure.
    """
    tool = reply.data_or_raise()
    if tool.is_error:
        text = tool.text or "The tool reports a failure and gives no reason."
        raise kind(text, code=tool.error_code, request_id=reply.request_id)
    return tool.text
