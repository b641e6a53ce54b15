"""The tools of a session, by the service or by its own link."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._arguments import checked_arguments
from .._concurrency import AsyncCallable
from .._transport.deadline import NO_TIMEOUTS, Deadline, Timeouts, time_limit
from .._transport.tools import make_direct_call, read_metrics, takes_raw_calls, to_mcp_tools, tool_arguments
from .._wire.key_names import normalize_arguments
from .._wire.schema import Tool
from .._wire.tools import CallMcpTool, GetMetrics, ListMcpTools, ToolReply
from ..errors import ConflictError, ReplyError, SessionNotFoundError, ToolError
from ..models.session import SessionMetricsResult
from ..models.tools import McpTool, McpToolResult, McpToolsResult
from .error_boundary import folded
from .session_mcp_servers import AsyncSessionMcpServers
from .waiting import PauseExtension

if TYPE_CHECKING:
    from .._transport.reply import Reply
    from .._transport.request import HttpRequest
    from .client import AsyncAgentBay
    from .transport import AsyncTransport


@checked_arguments()
class AsyncSessionTools(AsyncSessionMcpServers):
    """Call tools in a session."""

    agent_bay: AsyncAgentBay
    session_id: str
    image_id: str
    token: str
    link_url: str
    mcpTools: list[McpTool]  # noqa: N815 - the name of the published package

    @property
    def strict(self) -> bool:
        """Whether a failed operation raises instead of returning a failed result."""
        return self.agent_bay.strict

    @property
    def timeout(self) -> float:
        """Seconds that an operation without a time limit of its own may take."""
        return self.agent_bay.timeout

    async def list_mcp_tools(self, image_id: str | None = None, *, timeout: float | None = None) -> McpToolsResult:
        """List the tools that an image offers.

        Args:
            image_id: The image; None is the session's own, or "linux_latest" if unknown. With None, the tools of
                mounted MCP servers are listed too.
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            APIError: If the service refuses.

        Wire: ListMcpTools
        """
        with time_limit(timeout):
            reply = await self._transport.call(ListMcpTools(image_id=image_id or self.image_id or "linux_latest"))
            mounted = self._mcp_mounts.tools() if image_id is None else []
            tools = [*to_mcp_tools(reply.data or []), *mounted]
            return McpToolsResult(request_id=reply.request_id, tools=tools, success=True)

    @folded(McpToolResult)
    async def call_mcp_tool(
        self,
        tool_name: str,
        args: dict[str, Any],
        read_timeout: int | None = None,
        connect_timeout: int | None = None,
        auto_gen_session: bool = False,
        *,
        timeout: float | None = None,
    ) -> McpToolResult:
        """Call a tool inside the session, or one of a mounted server.

        Args:
            tool_name: The tool.
            args: Its arguments, as JSON can carry them.
            read_timeout: Milliseconds to wait for the answer; None is the client's time limit.
            connect_timeout: Milliseconds to wait for a connection; None is the client's time limit.
            auto_gen_session: Passed to the service as it is.
            timeout: Seconds the whole call may take; None is the sum of the two limits above.

        Returns:
            The tool's text in `data`. A failed result if the tool reports a failure, with the tool's own text.

        Wire: CallMcpTool, or callTool at the session's own link
        """
        timeouts = Timeouts(*(None if limit is None else limit / 1000 for limit in (connect_timeout, read_timeout)))
        # The two limits bound single waits. Their sum bounds the call, so that its retries cannot add up beyond it.
        deadline = Deadline(timeouts.total_seconds(self.timeout) if timeout is None else timeout)
        request_id, action = "", CallMcpTool.spec.name
        if (mounted := self._mcp_mounts.find(tool_name)) is not None:
            tool = await self._call_mounted_tool(mounted, tool_name, args, deadline.remaining())
        else:
            reply = await self._send_tool(tool_name, args, deadline, timeouts, auto_gen_session)
            tool, request_id, action = reply.data_or_raise(), reply.request_id, reply.action
        if tool.is_error:
            raise ToolError(tool.text, action=action, request_id=request_id)
        content = [item if isinstance(item, dict) else {"type": "text", "text": str(item)} for item in tool.content]
        return McpToolResult(
            request_id=request_id,
            success=True,
            data=tool.text,
            content=content,
            structured_content=tool.structured_content,
        )

    @folded(SessionMetricsResult)
    async def get_metrics(
        self,
        read_timeout: int | None = None,
        connect_timeout: int | None = None,
        *,
        timeout: float | None = None,
    ) -> SessionMetricsResult:
        """Measure the session's load.

        Args:
            read_timeout: Milliseconds to wait for the answer; None is the client's time limit.
            connect_timeout: Milliseconds to wait for a connection; None is the client's time limit.
            timeout: Seconds the whole call may take; None is the sum of the two limits above.

        Wire: CallMcpTool/get_metrics
        """
        result = (
            await self.call_mcp_tool(GetMetrics.tool, {}, read_timeout, connect_timeout, timeout=timeout)
        ).unwrap()
        raw, metrics = read_metrics(result.data)
        return SessionMetricsResult(request_id=result.request_id, success=True, metrics=metrics, raw=raw)

    async def _run_tool(
        self,
        tool: Tool,
        *,
        timeout: float | None = None,
        deadline: Deadline | None = None,
        extend_while_paused: bool = False,
        body: bytes | None = None,
    ) -> Reply[ToolReply]:
        """Call a tool of this package's own, for the session's services.

        Args:
            tool: The tool and its arguments.
            timeout: Seconds it may take; None is the client's time limit.
            deadline: When it must have ended, instead of `timeout`.
            extend_while_paused: Whether the time for which the session is paused does not count.
            body: Raw bytes to send, or b"" if the tool only returns raw bytes; needs `_takes_raw_calls`. None makes an
                ordinary call.
        """
        deadline = deadline or Deadline(timeout or self.timeout)
        extend = PauseExtension(self._transport, self.session_id, deadline).extend if extend_while_paused else None
        args = tool_arguments(tool)
        return await self._send_tool(tool.tool, args, deadline, NO_TIMEOUTS, extend=extend, body=body)

    def _takes_raw_calls(self, tool: type[Tool]) -> bool:
        """Whether the session's own link takes or sends a tool's bytes as they are."""
        return bool(self.link_url and self.token) and takes_raw_calls(self.mcpTools, tool)

    def _raw_request(self, tool: Tool, size: int = 0) -> HttpRequest:
        """Return the request of a raw call with streamed bytes or answer."""
        from .._transport.request import make_raw_request  # with the first call, so that the import stays light

        call = make_direct_call(tool.tool, tool_arguments(tool), tool.server, self.token)
        return make_raw_request(self.link_url, call, b"", size)

    async def _send_tool(
        self,
        name: str,
        args: dict[str, Any],
        deadline: Deadline,
        timeouts: Timeouts,
        auto_gen_session: bool = False,
        extend: AsyncCallable[float] | None = None,
        body: bytes | None = None,
    ) -> Reply[ToolReply]:
        args = normalize_arguments(name, args)
        # The session's own link needs the name of the server that has the tool, so a tool whose server is not known
        # goes through the service, which finds it.
        server = next((tool.server for tool in self.mcpTools if tool.name == name), "")
        if self.link_url and self.token and server:
            call = make_direct_call(name, args, server, self.token)
            try:
                return await self._transport.call_direct(self.link_url, call, deadline, timeouts, extend, body)
            except (ConflictError, SessionNotFoundError) as error:
                error.hint = (await self._transport.ask_for_hint(self.session_id)).text or error.hint
                raise
        action = CallMcpTool(
            session_id=self.session_id, name=name, args=args, server=server, auto_gen_session=auto_gen_session
        )
        reply = await self._transport.call(action, deadline, timeouts, extend)
        if reply.data is None:
            raise ReplyError("Empty response data", action=reply.action, request_id=reply.request_id)
        return reply

    @property
    def _transport(self) -> AsyncTransport:
        return self.agent_bay.client
