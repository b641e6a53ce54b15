"""A subscription to what changes below a directory: which pushes are meant for it, and none of them twice.

| the service         | where a subscription begins      | after a lost connection                        |
|---------------------|----------------------------------|------------------------------------------------|
| numbers its pushes  | behind the number in its answer  | it is told the last number, and sends the rest |
| does not            | with its answer                  | it is asked once what has changed              |

The local runtime is one of the first kind.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import FileError, ToolError
from ..models.filesystem import FileChangeEvent
from .files import parse_changes


class Subscription:
    """One subscription, over as many connections as it takes.

    Attributes:
        path: The directory, exactly as the service was told.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._subscriber_id = secrets.token_hex(8)  # two that watch the same path do not end each other's subscription
        self._last_number: int | None = None

    @property
    def is_numbered(self) -> bool:
        """Whether the service numbers its pushes."""
        return self._last_number is not None

    def subscribe_request(self) -> dict[str, Any]:
        """What to ask, the first time and after each loss of the connection."""
        since = {} if self._last_number is None else {"since": self._last_number}
        return self._request("subscribe_file_change", **since)

    def unsubscribe_request(self) -> dict[str, Any]:
        """What to say when it is over."""
        return self._request("unsubscribe_file_change")

    def on_answer(self, answer: Mapping[str, Any]) -> None:
        """Take the answer.

        Raises:
            ToolError: The service refuses.
            FileError: Changes are lost for good.
        """
        if answer.get("phase") == "error":
            raise ToolError(f"The service does not push changes of {self.path}.")
        number = answer.get("number")
        if isinstance(number, int) and (self._last_number is None or answer.get("lost")):
            self._last_number = number
        if answer.get("lost"):
            raise FileError(
                f"Changes below {self.path} are lost: there were too many while the connection was away.",
                hint="Look at the directory itself; what changes from now on is told.",
            )

    def read_changes_of(self, push: Mapping[str, Any]) -> list[FileChangeEvent]:
        """Return the changes in a push; none in one that is another's, was told before, or will be told in its turn."""
        if push.get("eventType") != "file_change" or push.get("path") != self.path:
            return []
        number = push.get("number")
        if isinstance(number, int):
            if self._last_number is None or number != self._last_number + 1:
                return []
            self._last_number = number
        return parse_changes(push.get("events"))

    def _request(self, method: str, **more: Any) -> dict[str, Any]:
        return {"method": method, "params": {"path": self.path, "subscriber": self._subscriber_id, **more}}


def drop_redundant_modifies(events: Iterable[FileChangeEvent]) -> Iterator[FileChangeEvent]:
    """Leave out that a file was modified where it has just been told that it was created: writing it is both."""
    created = ""
    for event in events:
        if event.event_type != "modify" or event.path != created:
            yield event
        created = event.path if event.event_type == "create" else ""
