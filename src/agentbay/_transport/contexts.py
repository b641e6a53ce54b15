"""Contexts as the service tells of them, turned into what users hold, and how their transfers stand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .._wire.context_store import ContextData, ContextFileData
from .._wire.contexts import BindingData
from ..errors import FileError
from ..models.context import ContextStatusData
from ..models.context_results import Context, ContextBinding, ContextFileEntry

_DONE_STATUSES = frozenset({"success", "successful", "ok", "finished", "done", "completed", "complete"})
_EMPTY_POLLS = 3  # so often nothing is to be seen of a transfer before it is believed that there is none


def to_context(found: ContextData, name: str = "") -> Context:
    """A context as users hold it; `name` is what was asked for, if the service does not repeat it."""
    return Context(found.id, found.name or name, found.create_time or None, found.last_used_time or None)


def to_file_entry(found: ContextFileData) -> ContextFileEntry:
    """A file of a context as users hold it."""
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
    """A context of a session as users hold it."""
    return ContextBinding(found.context_id, found.context_name, found.path, found.policy, found.bind_time)


def child_path(folder: str, name: str) -> str:
    """The path of an entry of a folder.

    Raises:
        FileError: If the name would lead out of the folder.
    """
    plain = name.rstrip("/")
    if plain in ("", ".", "..") or "/" in plain or "\\" in plain or "\0" in plain:
        raise FileError(f"The folder {folder} has an entry whose name cannot be used here: {name!r}.")
    return f"{folder.rstrip('/')}/{plain}"


class TransferState(NamedTuple):
    """How transfers stand: whether there are any, whether some are under way, and what went wrong with others."""

    is_found: bool
    is_pending: bool
    errors: tuple[str, ...]

    def is_finished(self, looks: int) -> bool:
        """Whether there is nothing to wait for, seen at so many looks."""
        return not self.is_pending and (self.is_found or looks >= _EMPTY_POLLS)


def get_transfer_state(transfers: Iterable[ContextStatusData], task_type: str) -> TransferState:
    """Tell how the transfers of one direction stand; those of the other one are past, or nobody's concern."""
    mine = [item for item in transfers if item.task_type == task_type]
    wrong = tuple(_failure_message(item) for item in mine if item.status.lower() == "failed")
    ended = sum(item.status.lower() in _DONE_STATUSES for item in mine) + len(wrong)
    return TransferState(bool(mine), ended < len(mine), wrong)


def get_file_transfer_state(
    transfers: Iterable[ContextStatusData], task_type: str, context_id: str, path: str
) -> TransferState:
    """Tell how the transfer of one file stands; an error message is a failure whatever the status is."""
    mine = [item for item in transfers if (item.task_type, item.context_id, item.path) == (task_type, context_id, path)]
    wrong = tuple(_failure_message(item) for item in mine if item.error_message or item.status.lower() == "failed")
    done = any(item.status.lower() in _DONE_STATUSES for item in mine)
    return TransferState(bool(mine), not (done or wrong), wrong)


def _failure_message(item: ContextStatusData) -> str:
    what, why = item.path or item.context_id, item.error_message or "no reason is given"
    return f"the {item.task_type} of {what} failed: {why}"


def total_poll_seconds(looks: int, interval: float) -> float:
    """How long so many looks take whose pauses begin at `interval` seconds and grow by a tenth up to 5 s."""
    total = 0.0
    for _ in range(max(looks, 1)):
        total += min(interval, 5.0)
        interval = min(interval * 1.1, max(interval, 5.0))
    return total
