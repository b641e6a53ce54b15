"""Code in a session."""

from __future__ import annotations

from .._transport.code import language_of, read_result, unsupported
from .._wire.tools import RunCode
from ..models.code import EnhancedCodeExecutionResult
from .door import returns
from .service import AsyncBaseService

_MARGIN = 10.0  # how much longer than the code the answer may take, seconds


class AsyncCode(AsyncBaseService):
    """Run code in a session; what it defines is there for the code that comes after it, in each language apart."""

    @returns(EnhancedCodeExecutionResult)
    async def run_code(self, code: str, language: str, timeout_s: int = 60) -> EnhancedCodeExecutionResult:
        """Run a piece of code and wait for its end.

        Args:
            code: What to run, as in the cell of a notebook: the value of its last line is a result.
            language: "python", "javascript", "r" or "java" ("py", "js" and the like are understood).
            timeout_s: Seconds until the code is interrupted. What was defined before is kept, if the code lets itself
                be interrupted.

        Returns:
            What the code wrote and showed. Code that fails is an answer: `success` is False, `error` says why, and
            nothing is raised. If time ran out, `exception` is a `CodeTimeoutError`.

        Wire: CallMcpTool/run_code
        """
        name = language_of(language)
        if name is None:
            raise unsupported(language)
        call = RunCode(code=code, language=name, timeout_s=timeout_s)
        return read_result(await self.session.run_tool(call, timeout=timeout_s + _MARGIN))

    run = run_code
    execute = run_code
