"""A subscription to the changes below a directory, without duplicates.

| the service         | where a subscription begins      | after a lost connection                        |
|---------------------|----------------------------------|------------------------------------------------|
| numbers its pushes  | after the number in its answer   | it gets the last number, and sends the rest    |
| does not            | with its answer                  | one call of get_file_change                    |

The local runtime is one of the first kind.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import FileError, ToolError
from ..models.filesystem import FileChangeEvent
from .files import parse_changes


class Subscription:
    """One subscription, which outlives the connections that carry it.

    Attributes:
        path: The directory, exactly as the service got it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._subscriber_id = os.urandom(8).hex()  # so that two watchers of one path can unsubscribe separately
        self._last_number: int | None = None

    @property
    def is_numbered(self) -> bool:
        """Whether the service numbers its pushes."""
        return self._last_number is not None

    def subscribe_request(self) -> dict[str, Any]:
        """Return the request that begins it, or continues it after a lost connection."""
        since = {} if self._last_number is None else {"since": self._last_number}
        return self._request("subscribe_file_change", **since)

    def unsubscribe_request(self) -> dict[str, Any]:
        """Return the request that ends it."""
        return self._request("unsubscribe_file_change")

    def on_answer(self, answer: Mapping[str, Any]) -> None:
        """Read the answer to `subscribe_request`.

        Raises:
            ToolError: If the service refuses.
            FileError: If changes are lost for good.
        """
        if answer.get("phase") == "error":
            raise ToolError(f"The service does not push changes of {self.path}.")
        number = answer.get("number")
        if isinstance(number, int) and (self._last_number is None or answer.get("lost")):
            self._last_number = number
        if answer.get("lost"):
            raise FileError(
                f"Changes below {self.path} are lost: there were too many while the connection was away.",
                hint="List the directory itself; changes from now on are reported.",
            )

    def read_changes_of(self, push: Mapping[str, Any]) -> list[FileChangeEvent]:
        """Return the new changes in a push.

        There are none in a push of another subscription, in a duplicate, or after a gap, which the service fills later.
        """
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
    """Drop a modification right after the creation of the same file.

    Writing a new file causes both.
    """
    created = ""
    for event in events:
        if event.event_type != "modify" or event.path != created:
            yield event
        created = event.path if event.event_type == "create" else ""
