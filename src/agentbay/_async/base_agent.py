"""What the agents of a session have in common."""

from __future__ import annotations

from collections.abc import Callable

from .._arguments import checked_arguments
from .._concurrency import async_sleep
from .._transport.agent import (
    DESKTOP_TASKS,
    POLL_SECONDS,
    TaskStatuses,
    count_polls,
    read_status,
    read_task_id,
    read_termination,
)
from .._transport.deadline import Deadline, time_limit
from .._transport.poll import LAST_POLL_SECONDS
from .._wire.schema import Tool
from ..errors import AgentError, ReplyError
from ..models.agent import ExecutionResult, QueryResult
from .error_boundary import folded
from .service import AsyncBaseService, text_or_raise


@checked_arguments()
class AsyncBaseAgent(AsyncBaseService):
    """Base class of the agents: it queries and ends tasks."""

    _statuses: TaskStatuses = DESKTOP_TASKS
    _status_tool: Callable[..., Tool]
    _end_tool: Callable[..., Tool]

    async def get_task_status(self, task_id: str, *, timeout: float | None = None) -> QueryResult:
        """Return the status of a task.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool, the status tool of the agent
        """
        with time_limit(timeout):
            found = await self._query(task_id)
            found.task_id = found.task_id or task_id
            return found

    async def terminate_task(self, task_id: str, *, timeout: float | None = None) -> ExecutionResult:
        """End a task.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool, the termination tool of the agent
        """
        with time_limit(timeout):
            ended = await self._terminate(task_id)
            ended.task_id = ended.task_id or task_id
            return ended

    @folded(QueryResult, task_status="failed")
    async def _query(self, task_id: str) -> QueryResult:
        reply = await self.session._run_tool(type(self)._status_tool(task_id=task_id))
        return read_status(text_or_raise(reply, AgentError), self._statuses, reply.request_id)

    @folded(ExecutionResult, task_status="failed")
    async def _terminate(self, task_id: str) -> ExecutionResult:
        reply = await self.session._run_tool(type(self)._end_tool(task_id=task_id))
        return read_termination(text_or_raise(reply, AgentError), self._statuses, reply.request_id)

    async def _start(self, call: Tool) -> ExecutionResult:
        reply = await self.session._run_tool(call)
        text = text_or_raise(reply, AgentError)
        try:
            task_id = read_task_id(text)
        except ReplyError as error:
            raise AgentError(f"Failed to execute: {error.message}", request_id=reply.request_id) from error
        return ExecutionResult(request_id=reply.request_id, success=True, task_id=task_id, task_status="running")

    async def _wait(self, started: ExecutionResult, timeout: int) -> ExecutionResult:
        """Poll a task until it has ended, or end it after its time limit."""
        if not started.success:
            started.task_result = "Task Failed"
            return started
        polls, deadline = count_polls(timeout), Deadline(timeout)
        for number in range(polls):
            if number and deadline.remaining() <= 0:  # polls that take long are fewer
                polls = number
                break
            if number:
                await async_sleep(POLL_SECONDS)
            step = deadline.capped(self.session.timeout, at_least=LAST_POLL_SECONDS)
            status = await self.get_task_status(started.task_id, timeout=step.remaining())
            if not status.success or status.task_status in self._statuses.failed:
                return _failed(started, status)
            if status.task_status == self._statuses.finished:
                return ExecutionResult(
                    request_id=status.request_id,
                    success=True,
                    task_id=started.task_id,
                    task_status=status.task_status,
                    task_result=status.task_product,
                )
        await self.terminate_task(started.task_id)
        message = (
            f"Task execution timed out after {timeout} seconds. Task ID: {started.task_id}. "
            f"Polled {polls} times (max: {polls})."
        )
        return ExecutionResult(
            request_id=started.request_id,
            error_message=message,
            task_id=started.task_id,
            task_status="failed",
            task_result=f"Task execution timed out after {timeout} seconds.",
            exception=AgentError(message, request_id=started.request_id),
        )


def _failed(started: ExecutionResult, status: QueryResult) -> ExecutionResult:
    """Make the result of a failed task, with the service's reason."""
    reason = status.error_message or status.error or status.task_product
    word = "Unsupported task." if status.task_status == "unsupported" else "Failed to execute task."
    message = f"{word} {reason}".strip()
    return ExecutionResult(
        request_id=status.request_id,
        error_message=message,
        task_id=started.task_id,
        task_status=status.task_status,
        exception=status.exception or AgentError(message, request_id=status.request_id),
    )
