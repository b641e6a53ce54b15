"""Code in a session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING

from .._transport.code import language_of, read_result, unsupported
from .._transport.code_stream import Recording, interruption, request
from .._websocket import LARGEST_FRAME
from .._wire.tools import RunCode
from ..errors import AgentBayError, CodeError, ToolError
from ..models.code import CodeEnded, CodeEvent, CodeFailed, CodeStderr, CodeStdout, EnhancedCodeExecutionResult
from .callbacks import call_back
from .door import returns
from .service import AsyncBaseService

if TYPE_CHECKING:
    from .ws import AsyncStream

_MARGIN = 10.0  # how much longer than the code the answer may take, seconds


class AsyncCode(AsyncBaseService):
    """Run code in a session; what it defines is there for the code that comes after it, in each language apart."""

    @returns(EnhancedCodeExecutionResult)
    async def run_code(
        self,
        code: str,
        language: str,
        timeout_s: int = 60,
        stream_beta: bool = False,
        on_stdout: Callable[[str], object] | None = None,
        on_stderr: Callable[[str], object] | None = None,
        on_error: Callable[[object], object] | None = None,
    ) -> EnhancedCodeExecutionResult:
        """Run a piece of code and wait for its end.

        Args:
            code: What to run, as in the cell of a notebook: the value of its last line is a result.
            language: "python", "javascript", "r" or "java" ("py", "js" and the like are understood).
            timeout_s: Seconds until the code is interrupted. What was defined before is kept, if the code lets itself
                be interrupted.
            stream_beta: Call the functions below while it runs. What they raise is logged and stops nothing.
            on_stdout, on_stderr: Get each piece of output.
            on_error: Gets the error that the code meets, a dict with `code` and `message`, or the exception if it
                could not be run.

        Returns:
            What the code wrote and showed. Code that fails is an answer: `success` is False, `error` says why, and
            nothing is raised. If time ran out, `exception` is a `CodeTimeoutError`.

        Wire: CallMcpTool/run_code, or WebSocket run_code if streaming
        """
        if stream_beta:
            return await self._run_telling(self.stream(code, language, timeout_s), on_stdout, on_stderr, on_error)
        call = _call(code, language, timeout_s)
        return read_result(await self.session.run_tool(call, timeout=timeout_s + _MARGIN))

    run = run_code
    execute = run_code

    def stream(self, code: str, language: str, timeout_s: int = 60) -> AsyncCodeStream:
        """Run a piece of code and follow it as it runs; see `AsyncCodeStream`. Arguments are those of `run_code`.

        Raises:
            CodeError: The language is not known.

        Wire: WebSocket run_code
        """
        return AsyncCodeStream(self, _call(code, language, timeout_s))

    async def interrupt(self, language: str = "python") -> bool:
        """Interrupt the code that runs in a language, whoever has started it; what was defined before is kept.

        Returns:
            False if nothing was running.

        Raises:
            CodeError: The language is not known, or the service cannot interrupt.
            TransportError: There is no connection, or no answer in time.

        Wire: WebSocket interrupt_code, a word of the local runtime's own
        """
        try:
            answer = await self.session.ws.call(RunCode.server, interruption(_canonical(language)))
        except ToolError as error:
            raise CodeError(f"The service cannot interrupt code: {error.message}", **error.context()) from error
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

    async def interrupt(self) -> bool:
        """Interrupt the code; what was defined before is kept, and the events go on to the end. See `interrupt()`."""
        return await self._owner.interrupt(self._call.language)

    async def _begin(self) -> AsyncStream:
        if self._stream is None:
            wanted = request(self._call, LARGEST_FRAME)
            limit = self._call.timeout_s + _MARGIN
            self._stream = await self._owner.session.ws.stream(RunCode.server, wanted, limit)
        return self._stream


def _call(code: str, language: str, timeout_s: int) -> RunCode:
    return RunCode(code=code, language=_canonical(language), timeout_s=timeout_s)


def _canonical(language: str) -> str:
    name = language_of(language)
    if name is None:
        raise unsupported(language)
    return name
