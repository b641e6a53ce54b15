"""The tasks of one session, which run in the background."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from agentbay._lazy_attrs import define
from agentbay.errors import AgentBayError
from agentbay.local.agent.task import Task, TaskFailed, TaskLimits
from agentbay.local.sandbox.service.manager import SandboxError

if TYPE_CHECKING:
    from agentbay.local.agent.model import Model

_logger = logging.getLogger(__name__)
_MAX_RUNNING = 8  # tasks of a session at a time
_MAX_KEPT = 100  # tasks that have ended, whose outcome can still be asked for


class TooManyTasks(Exception):
    """The session has as many tasks under way as it may have."""


@define(frozen=True, slots=False)
class ModelSettings:
    """The model of a runtime, and what one task may take."""

    model: Model
    limits: TaskLimits


class RunningTask:
    """A task that was started, with its outcome once it has ended.

    Attributes:
        kind: Which operator or agent started it, so that no other can query it.
        task: The task of the model; None while the tools are being prepared.
        result: Its result, if it succeeded.
        failure: Why it failed, if it did.
    """

    def __init__(self, kind: str) -> None:
        self.id, self.kind = secrets.token_hex(16), kind
        self.task: Task | None = None
        self.result: Any = None
        self.failure = ""
        self.runner: asyncio.Task[None] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, with a result or without."""
        return self.runner is not None and self.runner.done()

    async def wait(self) -> Any:
        """Wait for the end, and return the result.

        Raises:
            TaskFailed: It has no result.
        """
        assert self.runner is not None
        await asyncio.wait([self.runner])
        if self.failure:
            raise TaskFailed(self.failure)
        return self.result


class SessionAgent:
    """Runs the tasks of a session.

    Attributes:
        settings: The model and its limits; None on a runtime without a model.
    """

    def __init__(self, settings: ModelSettings | None = None) -> None:
        self.settings = settings
        self._tasks: dict[str, RunningTask] = {}

    def find(self, task_id: str, kind: str) -> RunningTask | None:
        """Return a task of a kind by its id, or None."""
        found = self._tasks.get(task_id)
        return found if found is not None and found.kind == kind else None

    def start(self, running: RunningTask, work: Coroutine[Any, Any, Any]) -> None:
        """Run the work of a task in the background.

        Raises:
            TooManyTasks: Too many are under way.
        """
        if sum(not task.has_ended for task in self._tasks.values()) >= _MAX_RUNNING:
            work.close()
            raise TooManyTasks(f"the session has {_MAX_RUNNING} tasks under way, as many as it may have")
        ended = [task.id for task in self._tasks.values() if task.has_ended]
        for task_id in ended[: max(len(ended) - _MAX_KEPT + 1, 0)]:
            del self._tasks[task_id]
        self._tasks[running.id] = running
        running.runner = asyncio.create_task(_record_outcome(running, work))

    def end(self, *kinds: str) -> None:
        """End the tasks of some kinds, or all of them."""
        for task in self._tasks.values():
            if (not kinds or task.kind in kinds) and task.runner is not None:
                task.runner.cancel()

    async def close(self) -> None:
        """End all tasks, and wait for that."""
        self.end()
        runners = [task.runner for task in self._tasks.values() if task.runner is not None]
        await asyncio.gather(*runners, return_exceptions=True)


async def _record_outcome(running: RunningTask, work: Coroutine[Any, Any, Any]) -> None:
    try:
        running.result = await work
    except TaskFailed as failure:
        running.failure = str(failure)
    except (AgentBayError, SandboxError) as error:  # the session was paused or deleted meanwhile
        running.failure = str(error)
    except asyncio.CancelledError:
        running.failure = "it was ended"
        raise
    except Exception:  # the boundary, as for requests: a bug must be an answer, and in the log
        _logger.exception("a task failed")
        running.failure = "the local runtime failed; its log says why"
