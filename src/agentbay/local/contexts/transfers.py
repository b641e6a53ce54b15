"""How the transfers of a session stand, as GetContextInfo tells it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

UPLOAD, DOWNLOAD = "upload", "download"
RUNNING, SUCCESS, FAILED = "Running", "Success", "Failed"


@dataclass
class Transfer:
    """One transfer; times are seconds since 1970, `finished` 0 until it is over. `path` is as the client wrote it."""

    context_id: str
    path: str
    task: str
    status: str = RUNNING
    message: str = ""
    started: int = 0
    finished: int = 0

    def __post_init__(self) -> None:
        self.started = int(time.time())

    def end(self, message: str = "") -> None:
        """Note how it ended; a message says that it failed, and why."""
        self.status, self.message = FAILED if message else SUCCESS, message
        self.finished = int(time.time())

    def matches(self, context_id: str | None, path: str | None, task: str | None) -> bool:
        """Whether it is among what a client asks for."""
        return all(
            not asked or asked == mine
            for asked, mine in ((context_id, self.context_id), (path, self.path), (task, self.task))
        )


class TransferTable:
    """The latest transfer of each context, path and direction."""

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str, str], Transfer] = {}

    def begin(self, context_id: str, path: str, task: str) -> Transfer:
        """Note a new one; from now on it is this one that counts."""
        transfer = Transfer(context_id, path, task)
        self._latest[context_id, path, task] = transfer
        return transfer

    def matching(self, context_id: str | None, path: str | None, task: str | None) -> list[Transfer]:
        """Return what a client asks for."""
        return [transfer for transfer in self._latest.values() if transfer.matches(context_id, path, task)]


def to_wire_json(transfers: list[Transfer]) -> str:
    """Write transfers as the wire has them: JSON in JSON."""
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
