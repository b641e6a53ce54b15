"""Code in a session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING

from .._transport.code import call_of, read_result
from .._transport.code_contexts import name_of, read_context, read_contexts, read_done
from .._transport.code_stream import Recording, interruption, request
from .._websocket import LARGEST_FRAME
from .._wire.tools import CreateCodeContext, ListCodeContexts, RemoveCodeContext, RestartCodeContext, RunCode
from ..errors import AgentBayError, CodeError, ToolError
from ..models.code import (
    CodeContext,
    CodeEnded,
    CodeEvent,
    CodeFailed,
    CodeStderr,
    CodeStdout,
    EnhancedCodeExecutionResult,
)
from .callbacks import call_back
from .door import returns
from .service import AsyncBaseService

if TYPE_CHECKING:
    from .ws_connection import AsyncStream

_MARGIN = 10.0  # how much longer than the code the answer may take, seconds
_BIRTH = 60.0  # a kernel may take to start, seconds


class AsyncCode(AsyncBaseService):
    """Run code in a session; what it defines is there for the code that comes after it, in each language apart.

    Contexts keep apart what runs in one language: `create_context` and the rest of them are the local runtime's own.
    """

    @returns(EnhancedCodeExecutionResult)
    async def run_code(
        self,
        code: str,
        language: str = "",
        timeout_s: float | None = 60,
        stream_beta: bool = False,
        on_stdout: Callable[[str], object] | None = None,
        on_stderr: Callable[[str], object] | None = None,
        on_error: Callable[[object], object] | None = None,
        *,
        context: CodeContext | str | None = None,
    ) -> EnhancedCodeExecutionResult:
        """Run a piece of code and wait for its end.

        Args:
            code: What to run, as in the cell of a notebook: the value of its last line is a result.
            language: "python", "javascript", "r" or "java" ("py", "js" and the like are understood); in the local
                runtime also "jupyter:" and the name of a kernelspec. Not given beside a context.
            timeout_s: Seconds, rounded up to whole ones, until the code is interrupted; None is the default. What
                was defined before is kept, if the code lets itself be interrupted.
            stream_beta: Call the functions below while it runs. What they raise is logged and stops nothing.
            on_stdout, on_stderr: Get each piece of output.
            on_error: Gets the error that the code meets, a dict with `code` and `message`, or the exception if it
                could not be run.
            context: The context to run it in, or its name, instead of the one of a language.

        Returns:
            What the code wrote and showed. Code that fails is an answer: `success` is False, `error` says why, and
            nothing is raised. If time ran out, `exception` is a `CodeTimeoutError`.

        Wire: CallMcpTool/run_code, or WebSocket run_code if streaming
        """
        if stream_beta:
            stream = self.stream(code, language, timeout_s, context=context)
            return await self._run_telling(stream, on_stdout, on_stderr, on_error)
        call = call_of(code, language, timeout_s, context)
        return read_result(await self.session.run_tool(call, timeout=call.timeout_s + _MARGIN))

    run = run_code
    execute = run_code

    def stream(
        self, code: str, language: str = "", timeout_s: float | None = 60, *, context: CodeContext | str | None = None
    ) -> AsyncCodeStream:
        """Run a piece of code and follow it as it runs; see `AsyncCodeStream`. Arguments are those of `run_code`.

        Raises:
            CodeError: The language is not known, or is given beside a context.
            InvalidArgumentError: The time limit is no positive number of seconds, or the context is none.

        Wire: WebSocket run_code
        """
        return AsyncCodeStream(self, call_of(code, language, timeout_s, context))

    async def create_context(self, language: str = "python", name: str | None = None) -> CodeContext:
        """Make a context, with a kernel of its own that runs when this returns.

        Args:
            language: As for `run_code`.
            name: What to call it; None gives it the language's name and a number.

        Raises:
            NotSupportedError: The service has no contexts.
            CodeError: The language is not known or not installed, or the name is taken.

        Wire: CallMcpTool/create_code_context, a tool of the local runtime's own
        """
        call = CreateCodeContext(language=call_of("", language).language or "", name=name and name_of(name))
        return read_context(await self.session.run_tool(call, timeout=_BIRTH + _MARGIN))

    async def list_contexts(self) -> list[CodeContext]:
        """List the contexts that were made, and those of languages that were used, in the order of their beginning.

        Raises:
            NotSupportedError: The service has no contexts.

        Wire: CallMcpTool/list_code_contexts, a tool of the local runtime's own
        """
        return read_contexts(await self.session.run_tool(ListCodeContexts()))

    async def restart_context(self, context: CodeContext | str) -> None:
        """Restart a context: what was defined is lost, code that runs ends, the next code gets a new kernel.

        Args:
            context: A context or its name. The name of a language is its own context.

        Raises:
            NotSupportedError: The service has no contexts.
            CodeError: There is no such context.

        Wire: CallMcpTool/restart_code_context, a tool of the local runtime's own
        """
        read_done(await self.session.run_tool(RestartCodeContext(name=name_of(context))))

    async def remove_context(self, context: CodeContext | str) -> None:
        """Remove a context; code that runs in it ends.

        Raises:
            NotSupportedError: The service has no contexts.
            CodeError: There is no such context, or it is the one of a language, which is always there.

        Wire: CallMcpTool/remove_code_context, a tool of the local runtime's own
        """
        read_done(await self.session.run_tool(RemoveCodeContext(name=name_of(context))))

    async def interrupt(self, language: str = "", *, context: CodeContext | str | None = None) -> bool:
        """Interrupt the code that runs in a context, whoever has started it; what was defined before is kept.

        Args:
            language: Means the context of a language. Python's, if nothing is given.
            context: Another context, or its name.

        Returns:
            False if nothing was running.

        Raises:
            CodeError: The language is not known, or the service cannot interrupt.
            TransportError: There is no connection, or no answer in time.

        Wire: WebSocket interrupt_code, a word of the local runtime's own
        """
        call = call_of("", language or (None if context else "python"), context=context)
        return await self._interrupt(call)

    async def _interrupt(self, call: RunCode) -> bool:
        try:
            answer = await self.session.ws.call(RunCode.server, interruption(call))
        except ToolError as error:
            raise CodeError(f"The code cannot be interrupted: {error.message}", **error.context()) from error
        result = answer.get("result")
        return isinstance(result, dict) and result.get("interrupted") is True

    async def _run_telling(
        self,
        stream: AsyncCodeStream,
        on_stdout: Callable[[str], object] | None,
        on_stderr: Callable[[str], object] | None,
        on_error: Callable[[object], object] | None,
    ) -> EnhancedCodeExecutionResult:
        try:
            async with stream:
                async for event in stream:
                    if isinstance(event, CodeStdout) and on_stdout is not None:
                        await call_back(on_stdout, event.text)
                    elif isinstance(event, CodeStderr) and on_stderr is not None:
                        await call_back(on_stderr, event.text)
                    elif isinstance(event, CodeFailed) and on_error is not None:
                        await call_back(on_error, event.raw)
        except AgentBayError as error:
            if on_error is not None:
                await call_back(on_error, error)
            raise
        return stream.result


class AsyncCodeStream:
    """A piece of code that runs: iterate over what happens; the last event is `CodeEnded`. Made by `stream()`.

    As a context manager, code that still runs at the end of the block is interrupted.
    """

    def __init__(self, owner: AsyncCode, call: RunCode) -> None:
        self._owner, self._call = owner, call
        self._stream: AsyncStream | None = None
        self._recording = Recording()
        self._result: EnhancedCodeExecutionResult | None = None

    @property
    def result(self) -> EnhancedCodeExecutionResult:
        """What the code came to, once it has ended.

        Raises:
            CodeError: It has not ended yet.
        """
        if self._result is None:
            raise CodeError("The code has not ended yet.", hint="Iterate over its events to the last one.")
        return self._result

    async def __aenter__(self) -> AsyncCodeStream:
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            await self._stream.cancel()

    async def __aiter__(self) -> AsyncIterator[CodeEvent]:
        stream = await self._begin()
        async for data in stream:
            event = self._recording.take(data)
            if event is not None:
                yield event
        if self._result is None:
            self._result = self._recording.finish(stream.end or {}, stream.id)
            yield CodeEnded(self._result)

    async def show(self) -> None:
        """Follow the code to its end, and show what happens as it happens: in a notebook's cell, or on a terminal.

        Raises:
            AgentBayError: The code could not be run. Code that fails is no fault here: see `result`.
        """
        from .._display import show

        async with self:
            async for event in self:
                show(event)

    async def interrupt(self) -> bool:
        """Interrupt the code; what was defined before is kept, and the events go on to the end. See `interrupt()`."""
        return await self._owner._interrupt(self._call)

    async def _begin(self) -> AsyncStream:
        if self._stream is None:
            wanted = request(self._call, LARGEST_FRAME)
            limit = self._call.timeout_s + _MARGIN
            self._stream = await self._owner.session.ws.stream(RunCode.server, wanted, limit)
        return self._stream
