"""Agents of a session, which carry out tasks given in natural language."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .._arguments import checked_arguments, refusal
from .._transport.agent import (
    DEFAULT_SCHEMA,
    PHONE_TASKS,
    read_task_id,
)
from .._transport.deadline import time_limit
from .._wire import browser_tools as wire
from ..errors import AgentBayError, AgentError, ReplyError
from ..models.agent import AgentEvent, ExecutionResult
from ..models.browser_option import BrowserOption
from .agent_task import AsyncTaskCallbacks, AsyncTaskExecution
from .base_agent import AsyncBaseAgent
from .error_boundary import folded
from .service import AsyncBaseService, text_or_raise

if TYPE_CHECKING:
    from .session import AsyncSession

EventCallback = Callable[[AgentEvent], object]
UserCallback = Callable[[AgentEvent], Any]  # returns the person's answer


@checked_arguments()
class AsyncComputerAgent(AsyncBaseAgent):
    """The agent of a desktop."""

    _status_tool, _end_tool = wire.ComputerTaskStatus, wire.ComputerTaskEnd

    @folded(ExecutionResult, task_status="failed")
    async def execute_task(self, task: str, *, timeout: float | None = None) -> ExecutionResult:
        """Start a task and return its id in `task_id`.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/flux_execute_task
        """
        with time_limit(timeout):
            return await self._start(wire.ComputerTask(task=task))

    async def stream_task(
        self,
        task: str,
        on_reasoning: EventCallback | None = None,
        on_content: EventCallback | None = None,
        on_tool_call: EventCallback | None = None,
        on_tool_result: EventCallback | None = None,
        on_error: EventCallback | None = None,
        on_call_for_user: UserCallback | None = None,
        *,
        timeout: float | None = None,
    ) -> AsyncTaskExecution:
        """Start a task, and report its events as they happen.

        Args:
            on_reasoning, on_content, on_tool_call, on_tool_result, on_error: Called with each event of that kind, while
                `wait()` of the returned object runs.
            on_call_for_user: Called when the agent needs a person; what it returns is the person's answer.
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            AgentBayError: The task could not be started.

        Wire: WebSocket exec_task
        """
        with time_limit(timeout):
            callbacks = AsyncTaskCallbacks(
                on_reasoning, on_content, on_tool_call, on_tool_result, on_error, on_call_for_user
            )
            return await AsyncTaskExecution.follow(self, wire.ComputerTask(task=task), callbacks)

    @folded(ExecutionResult, task_status="failed", task_result="Task Failed")
    async def execute_task_and_wait(
        self,
        task: str,
        timeout: int,
        on_reasoning: EventCallback | None = None,
        on_content: EventCallback | None = None,
        on_tool_call: EventCallback | None = None,
        on_tool_result: EventCallback | None = None,
        on_error: EventCallback | None = None,
        on_call_for_user: UserCallback | None = None,
    ) -> ExecutionResult:
        """Start a task and wait for its end.

        The callbacks are those of `stream_task`; with any of them the task is followed over the session's WebSocket.

        Args:
            timeout: Seconds; a task that takes longer is ended.

        Wire: CallMcpTool/flux_execute_task, flux_get_task_status, or WebSocket exec_task
        """
        callbacks = AsyncTaskCallbacks(
            on_reasoning, on_content, on_tool_call, on_tool_result, on_error, on_call_for_user
        )
        if callbacks:
            return await (await self.stream_task(task, *callbacks)).wait(timeout)
        return await self._wait(await self.execute_task(task), timeout)


@checked_arguments()
class AsyncBrowserAgent(AsyncBaseAgent):
    """The agent of a browser, which starts the browser if need be."""

    _status_tool, _end_tool = wire.BrowserTaskStatus, wire.BrowserTaskEnd

    def __init__(self, session: AsyncSession) -> None:
        super().__init__(session)
        self.initialized = False

    async def initialize(self, option: BrowserOption | None = None, *, timeout: float | None = None) -> bool:
        """Start the browser.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Returns:
            Whether it runs; see `session.browser.initialize`.

        Wire: InitBrowser
        """
        with time_limit(timeout):
            self.initialized = await self.session.browser.initialize(option)
            return self.initialized

    @folded(ExecutionResult, task_status="failed")
    async def execute_task(
        self,
        task: str,
        use_vision: bool = False,
        output_schema: Any = None,
        full_page_screenshot: bool | None = False,
        *,
        timeout: float | None = None,
    ) -> ExecutionResult:
        """Start a task and return its id in `task_id`.

        Args:
            use_vision: Let the model look at screenshots.
            output_schema: A pydantic model that the result must match; None asks for a text.
            full_page_screenshot: Take screenshots of whole pages.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/browser_use_execute_task
        """
        with time_limit(timeout):
            return await self._start(await self._prepare(task, use_vision, output_schema, full_page_screenshot))

    async def stream_task(
        self,
        task: str,
        use_vision: bool = False,
        output_schema: Any = None,
        full_page_screenshot: bool | None = False,
        on_reasoning: EventCallback | None = None,
        on_content: EventCallback | None = None,
        on_tool_call: EventCallback | None = None,
        on_tool_result: EventCallback | None = None,
        on_error: EventCallback | None = None,
        on_call_for_user: UserCallback | None = None,
        *,
        timeout: float | None = None,
    ) -> AsyncTaskExecution:
        """Start a task, and report its events as they happen.

        Further arguments are those of `execute_task`.

        Args:
            on_reasoning, on_content, on_tool_call, on_tool_result, on_error: Called with each event of that kind, while
                `wait()` of the returned object runs.
            on_call_for_user: Called when the agent needs a person; what it returns is the person's answer.
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            AgentBayError: The task could not be started.

        Wire: WebSocket exec_task
        """
        with time_limit(timeout):
            callbacks = AsyncTaskCallbacks(
                on_reasoning, on_content, on_tool_call, on_tool_result, on_error, on_call_for_user
            )
            call = await self._prepare(task, use_vision, output_schema, full_page_screenshot)
            return await AsyncTaskExecution.follow(self, call, callbacks)

    @folded(ExecutionResult, task_status="failed", task_result="Task Failed")
    async def execute_task_and_wait(
        self,
        task: str,
        timeout: int,
        use_vision: bool = False,
        output_schema: Any = None,
        full_page_screenshot: bool | None = False,
        on_reasoning: EventCallback | None = None,
        on_content: EventCallback | None = None,
        on_tool_call: EventCallback | None = None,
        on_tool_result: EventCallback | None = None,
        on_error: EventCallback | None = None,
        on_call_for_user: UserCallback | None = None,
    ) -> ExecutionResult:
        """Start a task and wait for its end.

        Further arguments are those of `stream_task`; with any of its callbacks the task is followed over the session's
        WebSocket.

        Args:
            timeout: Seconds; a task that takes longer is ended.

        Wire: CallMcpTool/browser_use_execute_task, browser_use_get_task_status, or WebSocket exec_task
        """
        callbacks = AsyncTaskCallbacks(
            on_reasoning, on_content, on_tool_call, on_tool_result, on_error, on_call_for_user
        )
        if callbacks:
            started = await self.stream_task(task, use_vision, output_schema, full_page_screenshot, *callbacks)
            return await started.wait(timeout)
        return await self._wait(await self.execute_task(task, use_vision, output_schema, full_page_screenshot), timeout)

    async def _prepare(
        self, task: str, use_vision: bool, output_schema: Any, full_page_screenshot: bool | None
    ) -> wire.BrowserTask:
        """Start the browser if need be, and return the call that starts the task."""
        if output_schema is None:
            schema = DEFAULT_SCHEMA
        elif hasattr(output_schema, "model_json_schema"):
            schema = output_schema.model_json_schema()
        else:
            raise refusal("output_schema", "a pydantic model", output_schema)
        if not self.initialized:
            try:
                await self.session.browser._start(None)
            except AgentBayError as error:
                raise AgentError(f"Failed to initialize browser: {error.message}", **error.context()) from error
            self.initialized = True
        return wire.BrowserTask(
            task=task,
            use_vision=use_vision,
            full_page_screenshot=full_page_screenshot,
            output_schema=json.dumps(schema),
        )


@checked_arguments()
class AsyncMobileAgent(AsyncBaseAgent):
    """The agent of a phone, whose work can be followed as it happens."""

    _statuses = PHONE_TASKS
    _status_tool, _end_tool = wire.MobileTaskStatus, wire.MobileTaskEnd

    async def execute_task(
        self,
        task: str,
        max_steps: int = 50,
        on_reasoning: EventCallback | None = None,
        on_content: EventCallback | None = None,
        on_tool_call: EventCallback | None = None,
        on_tool_result: EventCallback | None = None,
        on_error: EventCallback | None = None,
        on_call_for_user: UserCallback | None = None,
        *,
        timeout: float | None = None,
    ) -> AsyncTaskExecution:
        """Start a task, and return an object whose `wait()` waits for its end.

        Args:
            max_steps: How many steps the agent may take.
            on_reasoning, on_content, on_tool_call, on_tool_result, on_error: Called with each event of that kind. With
                any of them the task is followed over the session's WebSocket.
            on_call_for_user: Called when the agent needs a person; what it returns is the person's answer.
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            AgentError: The task could not be started.

        Wire: CallMcpTool/execute_task, or WebSocket exec_task
        """
        with time_limit(timeout):
            call = wire.MobileTask(task=task, max_steps=max_steps)
            callbacks = AsyncTaskCallbacks(
                on_reasoning, on_content, on_tool_call, on_tool_result, on_error, on_call_for_user
            )
            if callbacks:
                return await AsyncTaskExecution.follow(self, call, callbacks)
            reply = await self.session._run_tool(call)
            text = text_or_raise(reply, AgentError)
            try:
                task_id = read_task_id(text)
            except ReplyError:  # the task has ended, and this is what it found
                ended = ExecutionResult(
                    request_id=reply.request_id, success=True, task_status="completed", task_result=text
                )
                return AsyncTaskExecution.ended(self, ended)
            return AsyncTaskExecution(task_id, _agent=self, _request_id=reply.request_id)

    @folded(ExecutionResult, task_status="failed", task_result="Task Failed")
    async def execute_task_and_wait(
        self,
        task: str,
        timeout: int,
        max_steps: int = 50,
        on_reasoning: EventCallback | None = None,
        on_content: EventCallback | None = None,
        on_tool_call: EventCallback | None = None,
        on_tool_result: EventCallback | None = None,
        on_error: EventCallback | None = None,
        on_call_for_user: UserCallback | None = None,
    ) -> ExecutionResult:
        """Start a task and wait for its end.

        Further arguments are those of `execute_task`.

        Args:
            timeout: Seconds; a task that takes longer is ended.

        Wire: CallMcpTool/execute_task, get_task_status, or WebSocket exec_task
        """
        started = await self.execute_task(
            task, max_steps, on_reasoning, on_content, on_tool_call, on_tool_result, on_error, on_call_for_user
        )
        return await started.wait(timeout)


class AsyncAgent(AsyncBaseService):
    """Agents of a session, which carry out tasks given in natural language."""

    Browser, Computer, Mobile = AsyncBrowserAgent, AsyncComputerAgent, AsyncMobileAgent

    @cached_property
    def browser(self) -> AsyncBrowserAgent:
        """The agent of the browser."""
        return AsyncBrowserAgent(self.session)

    @cached_property
    def computer(self) -> AsyncComputerAgent:
        """The agent of the desktop."""
        return AsyncComputerAgent(self.session)

    @cached_property
    def mobile(self) -> AsyncMobileAgent:
        """The agent of the phone."""
        return AsyncMobileAgent(self.session)
