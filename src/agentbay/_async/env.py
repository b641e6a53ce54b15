"""Environment variables of a session."""

from __future__ import annotations

from collections.abc import Sequence

from .._arguments import checked_arguments
from .._transport.deadline import time_limit
from .._transport.env import check_keys, make_variables, read_variables
from .._wire.schema import Tool
from .._wire.tools import GetEnv, SetEnv
from ..models.base import BoolResult
from ..models.env import EnvResult
from ..models.tools import McpTool
from .error_boundary import folded
from .service import AsyncBaseService, text_or_raise


@checked_arguments(envs=None, keys=None)
class AsyncEnv(AsyncBaseService):
    """Environment variables of a session, valid until it ends."""

    @folded(BoolResult, data=False)
    async def set(self, envs: dict[str, str], *, timeout: float | None = None) -> BoolResult:
        """Set variables for commands and code that start from now on.

        Variables that are not named stay as they are.

        Args:
            envs: At least one, by name.
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            ValueError: If there is none, or anything in it is not a string.

        Wire: CallMcpTool/set_env
        """
        with time_limit(timeout):
            wanted = make_variables(envs)
            self._register_tools()
            reply = await self.session._run_tool(SetEnv(envs=wanted))
            text_or_raise(reply)
            return BoolResult(request_id=reply.request_id, success=True, data=True)

    @folded(EnvResult)
    async def get(self, keys: Sequence[str] | None = None, *, timeout: float | None = None) -> EnvResult:
        """Return variables by name, without those that are not set.

        Args:
            keys: The names; None or empty is all.
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            ValueError: If anything in it is not a string, or it is one itself.

        Wire: CallMcpTool/get_env
        """
        with time_limit(timeout):
            wanted = check_keys(keys)
            self._register_tools()
            reply = await self.session._run_tool(GetEnv(keys=wanted))
            envs = read_variables(text_or_raise(reply), reply.request_id)
            return EnvResult(request_id=reply.request_id, success=True, envs=envs)

    def _register_tools(self) -> None:
        # Sessions offer these two but do not list them; once their server is known, calls use the direct link.
        tools: tuple[type[Tool], ...] = (SetEnv, GetEnv)
        known = {tool.name for tool in self.session.mcpTools}
        self.session.mcpTools += [McpTool(kind.tool, kind.server) for kind in tools if kind.tool not in known]
