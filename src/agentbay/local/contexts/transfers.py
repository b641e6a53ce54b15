"""Status of the transfers of a session, as GetContextInfo reports it."""

from __future__ import annotations

import json
import time

from agentbay._lazy_attrs import define

UPLOAD, DOWNLOAD = "upload", "download"
RUNNING, SUCCESS, FAILED = "Running", "Success", "Failed"


@define(slots=False)
class Transfer:
    """One transfer between a session and a context.

    Attributes:
        path: As the client wrote it.
        message: Why it failed.
        started: Seconds since 1970.
        finished: Seconds since 1970, or 0 while it runs.
    """

    context_id: str
    path: str
    task: str
    status: str = RUNNING
    message: str = ""
    started: int = 0
    finished: int = 0

    def __attrs_post_init__(self) -> None:
        self.started = int(time.time())

    def end(self, message: str = "") -> None:
        """Record the end of the transfer. A message means that it failed."""
        self.status, self.message = FAILED if message else SUCCESS, message
        self.finished = int(time.time())

    def matches(self, context_id: str | None, path: str | None, task: str | None) -> bool:
        """Whether the transfer passes a filter. Empty fields match all."""
        return all(
            not asked or asked == mine
            for asked, mine in ((context_id, self.context_id), (path, self.path), (task, self.task))
        )


class TransferTable:
    """The latest transfer of each context, path and direction."""

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str, str], Transfer] = {}

    def begin(self, context_id: str, path: str, task: str) -> Transfer:
        """Begin a transfer, which replaces the last one of its kind."""
        transfer = Transfer(context_id, path, task)
        self._latest[context_id, path, task] = transfer
        return transfer

    def matching(self, context_id: str | None, path: str | None, task: str | None) -> list[Transfer]:
        """Return the transfers that pass a filter."""
        return [transfer for transfer in self._latest.values() if transfer.matches(context_id, path, task)]


def to_wire_json(transfers: list[Transfer]) -> str:
    """Serialise transfers for the wire, as JSON in JSON."""
    items = [
        {
            "contextId": transfer.context_id,
            "path": transfer.path,
            "errorMessage": transfer.message,
            "status": transfer.status,
            "startTime": transfer.started,
            "finishTime": transfer.finished,
            "taskType": transfer.task,
        }
        for transfer in transfers
    ]
    return json.dumps([{"type": "data", "data": json.dumps(items)}] if items else [])
