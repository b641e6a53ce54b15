"""Running code in a session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING

from .._arguments import checked_arguments
from .._handles import Handle
from .._transport.code import make_run_code, read_code_result
from .._transport.code_contexts import raise_if_failed, read_context, read_contexts, require_context_name
from .._transport.code_stream import CodeEventCollector, make_interrupt_request, make_run_request
from .._transport.deadline import operation_deadline, time_limit
from .._wire.frames import MAX_FRAME_BYTES
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
from .callbacks import invoke_callback
from .error_boundary import folded
from .service import AsyncBaseService

if TYPE_CHECKING:
    from .ws_connection import AsyncWsStream

_CODE_REPLY_MARGIN_SECONDS = 10.0  # that the answer may take longer than the code
_KERNEL_START_SECONDS = 60.0  # that a kernel may take to start


@checked_arguments()
class AsyncCode(AsyncBaseService):
    """Run code in the kernels of a session, one for each language.

    Code that runs later sees what earlier code of the same language defined. Contexts separate code of one language:
    `create_context` and the other methods for contexts exist on the local runtime only.
    """

    @folded(EnhancedCodeExecutionResult)
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
        timeout: float | None = None,
    ) -> EnhancedCodeExecutionResult:
        """Run a piece of code and wait for its end.

        Args:
            code: What to run, as in the cell of a notebook: the value of its last line is a result.
            language: "python", "javascript", "r" or "java" ("py", "js" and the like are understood); in the local
                runtime also "jupyter:" and the name of a kernelspec. Not given beside a context.
            timeout_s: Seconds, rounded up to whole ones, until the code is interrupted; None is the default. What
                was defined before is kept, if the code lets itself be interrupted.
            stream_beta: Call the functions below while it runs; what they raise is logged.
            on_stdout, on_stderr: Get each piece of output.
            on_error: Gets the error that the code meets, a dict with `code` and `message`, or the exception if it
                could not be run.
            context: The context to run it in, or its name, instead of the one of a language.
            timeout: The same; takes precedence over `timeout_s`.

        Returns:
            What the code wrote and showed. Code that fails is an answer: `success` is False, `error` says why, and
            nothing is raised. If time ran out, `exception` is a `CodeTimeoutError`.

        Wire: CallMcpTool/run_code, or WebSocket run_code if streaming
        """
        timeout_s = timeout_s if timeout is None else timeout
        if stream_beta:
            stream = self.stream(code, language, timeout_s, context=context)
            return await self._run_with_callbacks(stream, on_stdout, on_stderr, on_error)
        call = make_run_code(code, language, timeout_s, context)
        return read_code_result(
            await self.session._run_tool(
                call, timeout=call.timeout_s + _CODE_REPLY_MARGIN_SECONDS, extend_while_paused=True
            )
        )

    run = run_code
    execute = run_code

    def stream(
        self,
        code: str,
        language: str = "",
        timeout_s: float | None = 60,
        *,
        context: CodeContext | str | None = None,
        timeout: float | None = None,
    ) -> AsyncCodeStream:
        """Run a piece of code and follow its events as it runs.

        See `AsyncCodeStream`. The arguments are those of `run_code`, `timeout` too.

        Raises:
            CodeError: There is neither a language nor a context, or both.
            InvalidArgumentError: The time limit is no positive number of seconds, or the context is neither a
                `CodeContext` nor a name.

        Wire: WebSocket run_code
        """
        limit = timeout_s if timeout is None else timeout
        return AsyncCodeStream(self, make_run_code(code, language, limit, context))

    async def create_context(
        self, language: str = "python", name: str | None = None, *, timeout: float | None = None
    ) -> CodeContext:
        """Create a context with a running kernel of its own.

        Args:
            language: As for `run_code`.
            name: What to call it; None gives it the language's name and a number.
            timeout: Seconds it may take; None is 70.

        Raises:
            NotSupportedError: The service has no contexts.
            CodeError: The language is not known or not installed, or the name is taken.

        Wire: CallMcpTool/create_code_context, a tool of the local runtime's own
        """
        with time_limit(timeout):
            call = CreateCodeContext(
                language=make_run_code("", language).language or "", name=name and require_context_name(name)
            )
            return read_context(
                await self.session._run_tool(
                    call, deadline=operation_deadline(_KERNEL_START_SECONDS + _CODE_REPLY_MARGIN_SECONDS)
                )
            )

    async def list_contexts(self, *, timeout: float | None = None) -> list[CodeContext]:
        """List contexts that were created or used, in the order they began.

        The context of a language is listed once it was used.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            NotSupportedError: The service has no contexts.

        Wire: CallMcpTool/list_code_contexts, a tool of the local runtime's own
        """
        with time_limit(timeout):
            return read_contexts(await self.session._run_tool(ListCodeContexts()))

    async def restart_context(self, context: CodeContext | str, *, timeout: float | None = None) -> None:
        """Restart a context, which loses all that was defined in it.

        Code that runs in it ends; the next code gets a new kernel.

        Args:
            context: A context or its name. The name of a language is its own context.
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            NotSupportedError: The service has no contexts.
            CodeError: There is no such context.

        Wire: CallMcpTool/restart_code_context, a tool of the local runtime's own
        """
        with time_limit(timeout):
            raise_if_failed(await self.session._run_tool(RestartCodeContext(name=require_context_name(context))))

    async def remove_context(self, context: CodeContext | str, *, timeout: float | None = None) -> None:
        """Remove a context and end the code that runs in it.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            NotSupportedError: The service has no contexts.
            CodeError: There is no such context, or it is the one of a language, which is always there.

        Wire: CallMcpTool/remove_code_context, a tool of the local runtime's own
        """
        with time_limit(timeout):
            raise_if_failed(await self.session._run_tool(RemoveCodeContext(name=require_context_name(context))))

    async def interrupt(
        self, language: str = "", *, context: CodeContext | str | None = None, timeout: float | None = None
    ) -> bool:
        """Interrupt the code that runs in a context.

        It does not matter which client started it. What was defined before is kept.

        Args:
            language: Means the context of a language. Python's, if nothing is given.
            context: Another context, or its name.
            timeout: Seconds it may take; None is 30.

        Returns:
            False if nothing was running.

        Raises:
            CodeError: The language is not known, or the service cannot interrupt.
            TransportError: There is no connection, or no answer in time.

        Wire: WebSocket interrupt_code, a method of the local runtime's own
        """
        with time_limit(timeout):
            call = make_run_code("", language or (None if context else "python"), context=context)
            return await self._interrupt(call)

    async def _interrupt(self, call: RunCode) -> bool:
        try:
            answer = await self.session.ws.call(RunCode.server, make_interrupt_request(call))
        except ToolError as error:
            raise CodeError(f"The code cannot be interrupted: {error.message}", **error.context()) from error
        result = answer.get("result")
        return isinstance(result, dict) and result.get("interrupted") is True

    async def _run_with_callbacks(
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
                        await invoke_callback(on_stdout, event.text)
                    elif isinstance(event, CodeStderr) and on_stderr is not None:
                        await invoke_callback(on_stderr, event.text)
                    elif isinstance(event, CodeFailed) and on_error is not None:
                        await invoke_callback(on_error, event.raw)
        except AgentBayError as error:
            if on_error is not None:
                await invoke_callback(on_error, error)
            raise
        return stream.result


class AsyncCodeStream(Handle):
    """A running piece of code, as an iterator of its events.

    The last event is `CodeEnded`. Made by `stream()`. As a context manager, it interrupts code that still runs at the
    end of the block.
    """

    _instead = "Send its result when it has ended."

    def __init__(self, owner: AsyncCode, call: RunCode) -> None:
        self._code, self._call = owner, call
        self._stream: AsyncWsStream | None = None
        self._collector = CodeEventCollector()
        self._result: EnhancedCodeExecutionResult | None = None

    @property
    def result(self) -> EnhancedCodeExecutionResult:
        """The result of the code, once it has ended.

        Raises:
            CodeError: The code has not ended yet.
        """
        if self._result is None:
            raise CodeError("The code has not ended yet.", hint="Iterate over its events to the last one.")
        return self._result

    async def __aenter__(self) -> AsyncCodeStream:
        await self._open_stream()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            await self._stream.cancel()

    async def __aiter__(self) -> AsyncIterator[CodeEvent]:
        stream = await self._open_stream()
        async for data in stream:
            event = self._collector.add_event(data)
            if event is not None:
                yield event
        if self._result is None:
            self._result = self._collector.make_result(stream.end or {}, stream.id)
            yield CodeEnded(self._result)

    async def show(self) -> None:
        """Follow the code to its end and display its events.

        They appear in the notebook's cell, or on the terminal.

        Raises:
            AgentBayError: The code could not be run. Code that fails raises nothing here: see `result`.
        """
        from .._display import show_code_event

        stream = await self._open_stream()
        async with self:
            async for event in self:
                show_code_event(event, stream.id)

    async def interrupt(self) -> bool:
        """Interrupt the code.

        What was defined before is kept, and the events go on to the end. See `AsyncCode.interrupt()`.
        """
        return await self._code._interrupt(self._call)

    async def _open_stream(self) -> AsyncWsStream:
        # Both `async with` and iterating open it, and the code must run only once.
        if self._stream is None:
            wanted = make_run_request(self._call, MAX_FRAME_BYTES)
            limit = self._call.timeout_s + _CODE_REPLY_MARGIN_SECONDS
            self._stream = await self._code.session.ws.stream(RunCode.server, wanted, limit)
        return self._stream
