"""A task of an agent, polled or followed event by event."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from .._arguments import checked_arguments
from .._concurrency import async_sleep
from .._transport.agent import (
    CALL_FOR_USER,
    GONE_PREFIX,
    PHONE_TASKS,
    POLL_SECONDS,
    TERMINATION_POLL_SECONDS,
    TERMINATION_POLLS,
    count_polls,
    describe_timeout,
    read_event,
)
from .._transport.deadline import Deadline, time_limit
from .._transport.poll import LAST_POLL_SECONDS
from .._transport.tools import tool_arguments
from .._wire.schema import Tool
from ..errors import AgentBayError, AgentError, DeadlineExceeded, WsCancelledError
from ..models.agent import AgentEvent, ExecutionResult, QueryResult
from .callbacks import invoke_callback
from .error_boundary import folded

if TYPE_CHECKING:
    from .base_agent import AsyncBaseAgent
    from .ws_connection import AsyncWsStream

_DEFAULT_TIMEOUT_SECONDS = 300
_MAX_TASK_SECONDS = 24 * 3600.0  # time limit until `wait` sets another one


class AsyncTaskCallbacks(NamedTuple):
    """Callbacks for the events of a task. It is false if none is set."""

    on_reasoning: Callable[[AgentEvent], object] | None = None
    on_content: Callable[[AgentEvent], object] | None = None
    on_tool_call: Callable[[AgentEvent], object] | None = None
    on_tool_result: Callable[[AgentEvent], object] | None = None
    on_error: Callable[[AgentEvent], object] | None = None
    on_call_for_user: Callable[[AgentEvent], Any] | None = None

    def __bool__(self) -> bool:
        return any(callback is not None for callback in self)

    async def report(self, event: AgentEvent) -> None:
        """Call the function for this kind of event."""
        callback = getattr(self, f"on_{event.type}", None) if event.type != CALL_FOR_USER else None
        if callback is not None:
            await invoke_callback(callback, event)

    async def ask_user(self, event: AgentEvent) -> str:
        """Return the person's answer, or "" if there is none."""
        answers: list[Any] = []

        async def ask(asked: AgentEvent) -> None:
            assert self.on_call_for_user is not None
            found = self.on_call_for_user(asked)
            answers.append(await found if hasattr(found, "__await__") else found)

        if self.on_call_for_user is not None:
            await invoke_callback(ask, event)
        return str(answers[0]) if answers and answers[0] is not None else ""


@checked_arguments()
class AsyncTaskExecution:
    """A task of an agent.

    Attributes:
        task_id: Its id; "" if it is followed over the WebSocket.
    """

    def __init__(
        self,
        task_id: str = "",
        *,
        _agent: AsyncBaseAgent | None = None,
        _request_id: str = "",
        _result: ExecutionResult | None = None,
        _ws_handle: AsyncWsStream | None = None,
        _context: AsyncTaskCallbacks | None = None,
    ) -> None:
        self.task_id = task_id
        self._agent, self._request_id, self._result = _agent, _request_id, _result
        self._stream, self._callbacks = _ws_handle, _context

    @classmethod
    def ended(cls, agent: AsyncBaseAgent, result: ExecutionResult) -> AsyncTaskExecution:
        """Make a task that has ended."""
        return cls(result.task_id, _agent=agent, _request_id=result.request_id, _result=result)

    @classmethod
    async def follow(cls, agent: AsyncBaseAgent, call: Tool, callbacks: AsyncTaskCallbacks) -> AsyncTaskExecution:
        """Start a task over the WebSocket, whose events `wait` delivers.

        Args:
            call: The tool that would start the task without the WebSocket.
        """
        session = agent.session
        listed = (tool.server for tool in session.mcpTools if tool.name == call.tool)
        wanted = {"method": "exec_task", "params": tool_arguments(call)}
        stream = await session.ws.stream(next(listed, "") or call.server, wanted, _MAX_TASK_SECONDS)
        return cls(_agent=agent, _request_id=stream.id, _ws_handle=stream, _context=callbacks)

    @property
    def strict(self) -> bool:
        """Whether a failed task raises instead of returning a failed result."""
        return self._agent is not None and self._agent.strict

    async def cancel(self, *, timeout: float | None = None) -> None:
        """End the task early.

        Whoever waits for it gets a failed result with the status "cancelled". Once it has ended, this does nothing.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: WebSocket cancel, or CallMcpTool, the termination tool of the agent
        """
        with time_limit(timeout):
            if self._stream is not None:
                await self._stream.cancel()
            elif self._result is None:
                await self._require_agent().terminate_task(self.task_id)

    @folded(ExecutionResult, task_status="failed")
    async def wait(self, timeout: int = _DEFAULT_TIMEOUT_SECONDS) -> ExecutionResult:
        """Wait for the end of the task.

        Args:
            timeout: Seconds; a task that takes longer is ended.

        Returns:
            What the agent found in `task_result`, or a failed result that says why there is nothing.
        """
        if self._result is None:
            self._result = await (self._poll(timeout) if self._stream is None else self._follow_events(timeout))
        return self._result

    async def _poll(self, timeout: int) -> ExecutionResult:
        agent = self._require_agent()
        last: QueryResult | None = None
        deadline = Deadline(timeout)
        for number in range(count_polls(timeout)):
            if number and deadline.remaining() <= 0:  # polls that take long are fewer
                break
            if number:
                await async_sleep(POLL_SECONDS)
            step = deadline.capped(agent.session.timeout, at_least=LAST_POLL_SECONDS)
            last = await agent.get_task_status(self.task_id, timeout=step.remaining())
            if not last.success:
                return self._failed(last.error_message, "failed", last.exception)
            if last.task_status == PHONE_TASKS.finished:
                return self._finished(last.task_status, last.task_product)
            if last.task_status in PHONE_TASKS.failed:
                reason = last.error or last.error_message or f"Task {last.task_status}."
                return self._failed(reason, last.task_status, None)
        # A task that nobody waits for would go on acting on the phone.
        await agent.terminate_task(self.task_id)
        # The service ends a task in its own time, and until then the phone takes no other.
        await self._wait_until_gone(agent)
        message = f"Task execution timed out after {timeout} seconds. Task ID: {self.task_id}."
        return self._failed(message, "failed", None, describe_timeout(self.task_id, timeout, last))

    async def _wait_until_gone(self, agent: AsyncBaseAgent) -> None:
        """Wait until the service has ended the task and the phone is free."""
        for _ in range(TERMINATION_POLLS):
            status = await agent.get_task_status(self.task_id)
            if status.error.startswith(GONE_PREFIX) or status.error_message.startswith(GONE_PREFIX):
                return
            if status.success and status.task_status in {PHONE_TASKS.finished, *PHONE_TASKS.failed}:
                return
            await async_sleep(TERMINATION_POLL_SECONDS)

    async def _follow_events(self, timeout: int) -> ExecutionResult:
        finished, stream, callbacks = self._require_agent()._statuses.finished, self._stream, self._callbacks
        assert stream is not None
        assert callbacks is not None
        contents: list[str] = []
        fault: AgentEvent | None = None
        # The stream was opened before `wait` was called, so its limit was a day.
        stream.set_time_limit(timeout)
        try:
            async with stream:
                async for data in stream:
                    event = read_event(data)
                    if event.type == "content":
                        contents.append(event.content)
                    elif event.type == "error":
                        fault = event
                    await callbacks.report(event)
                    if event.type == "tool_call" and event.tool_name == CALL_FOR_USER:
                        await self._resume(stream, event, callbacks)
        except DeadlineExceeded as error:
            found = "".join(contents) or "Task execution timed out."
            return self._failed(f"Task execution timed out after {timeout} seconds.", "failed", error, found)
        except WsCancelledError as error:
            return self._failed("The task was cancelled.", "cancelled", error)
        except AgentBayError as error:
            return self._failed(str(error), "failed", error)
        if fault is not None:
            return self._failed(str(fault.error), "failed", None, "".join(contents))
        end = stream.end or {}
        status = str(end.get("status") or finished)
        found = str(end.get("taskResult") or "") or "".join(contents)
        if status in ("finished", finished):
            return self._finished(status, found)
        return self._failed(f"Task ended with status: {status}", status, None, found)

    async def _resume(self, stream: AsyncWsStream, event: AgentEvent, callbacks: AsyncTaskCallbacks) -> None:
        """Send the person's answer, for which the agent waits."""
        # An answer is sent even if there is none, because the agent waits for it.
        answer = await callbacks.ask_user(event)
        params = {"toolCallId": event.tool_call_id, "response": answer}
        await stream.write({"method": "resume_task", "params": params})

    def _require_agent(self) -> AsyncBaseAgent:
        if self._agent is None:
            raise AgentError("This task was not started by an agent, so there is nothing to wait for.")
        return self._agent

    def _finished(self, status: str, found: str) -> ExecutionResult:
        return ExecutionResult(
            request_id=self._request_id, success=True, task_id=self.task_id, task_status=status, task_result=found
        )

    def _failed(self, message: str, status: str, error: AgentBayError | None, found: str = "") -> ExecutionResult:
        return ExecutionResult(
            request_id=self._request_id,
            error_message=message,
            task_id=self.task_id,
            task_status=status,
            task_result=found,
            exception=error or AgentError(message, request_id=self._request_id),
        )
