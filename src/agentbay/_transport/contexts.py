"""Turn the service's data about contexts and their transfers into models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .._wire.context_store import ContextData, ContextFileData
from .._wire.contexts import BindingData
from ..errors import FileError
from ..models.context import ContextStatusData
from ..models.context_results import Context, ContextBinding, ContextFileEntry

_DONE_STATUSES = frozenset({"success", "successful", "ok", "finished", "done", "completed", "complete"})
_EMPTY_ANSWERS = 3  # after so many answers that list no transfer, there is none


def to_context(found: ContextData, name: str = "") -> Context:
    """Return the `Context` for the service's data.

    Args:
        name: The name that was asked for, for a service that does not repeat it.
    """
    return Context(found.id, found.name or name, found.create_time or None, found.last_used_time or None)


def to_file_entry(found: ContextFileData) -> ContextFileEntry:
    return ContextFileEntry(
        found.file_id,
        found.file_name,
        found.file_path,
        found.file_type,
        found.gmt_create,
        found.gmt_modified,
        found.size,
        found.status,
    )


def to_binding(found: BindingData) -> ContextBinding:
    return ContextBinding(found.context_id, found.context_name, found.path, found.policy, found.bind_time)


def child_path(folder: str, name: str) -> str:
    """Return the path of an entry in a folder.

    Raises:
        FileError: If the name would lead out of the folder (path traversal).
    """
    plain = name.rstrip("/")
    if plain in ("", ".", "..") or "/" in plain or "\\" in plain or "\0" in plain:
        raise FileError(f"The folder {folder} has an entry whose name cannot be used here: {name!r}.")
    return f"{folder.rstrip('/')}/{plain}"


class TransferState(NamedTuple):
    """The state of some transfers.

    Attributes:
        is_found: Whether the service lists any.
        is_pending: Whether one is still running.
        errors: Why others failed.
    """

    is_found: bool
    is_pending: bool
    errors: tuple[str, ...]

    def is_finished(self, answers: int) -> bool:
        """Whether the transfers are over, after a number of answers.

        Answers that list none count as finished after a few: the service lists a transfer a moment after it began.
        """
        return not self.is_pending and (self.is_found or answers >= _EMPTY_ANSWERS)


def get_transfer_state(transfers: Iterable[ContextStatusData], task_type: str) -> TransferState:
    """Return the state of the transfers in one direction."""
    mine = [item for item in transfers if item.task_type == task_type]
    wrong = tuple(_failure_message(item) for item in mine if item.status.lower() == "failed")
    ended = sum(item.status.lower() in _DONE_STATUSES for item in mine) + len(wrong)
    return TransferState(bool(mine), ended < len(mine), wrong)


def get_file_transfer_state(
    transfers: Iterable[ContextStatusData], task_type: str, context_id: str, path: str
) -> TransferState:
    """Return the state of one file's transfer.

    An error message counts as a failure, whatever the status is.
    """
    mine = [item for item in transfers if (item.task_type, item.context_id, item.path) == (task_type, context_id, path)]
    wrong = tuple(_failure_message(item) for item in mine if item.error_message or item.status.lower() == "failed")
    done = any(item.status.lower() in _DONE_STATUSES for item in mine)
    return TransferState(bool(mine), not (done or wrong), wrong)


def _failure_message(item: ContextStatusData) -> str:
    what, why = item.path or item.context_id, item.error_message or "no reason is given"
    return f"the {item.task_type} of {what} failed: {why}"


def total_poll_seconds(polls: int, interval: float) -> float:
    """Return the seconds that a number of polls takes.

    The interval starts at `interval` seconds and grows by a tenth each time, up to 5 s.
    """
    total = 0.0
    for _ in range(max(polls, 1)):
        total += min(interval, 5.0)
        interval = min(interval * 1.1, max(interval, 5.0))
    return total
