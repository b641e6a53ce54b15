"""Actions on the contexts of a session."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..models.context import BetaContextMount, ContextStatusData, ContextSync, SyncPolicy, UploadMode
from .converter import MalformedError, structure, unstructure
from .schema import JSON_COMPACT, Action, action, pascal_payload, wire_field


@pascal_payload
class ContextInfo:
    """Data of GetContextInfo, which is JSON text in JSON text in JSON text."""

    context_status: str = ""

    def transfers(self) -> list[ContextStatusData]:
        """Return the transfers in the nested text, and ignore everything else."""
        return list(_read_transfers(self.context_status))


def _read_transfers(status: str) -> Iterator[ContextStatusData]:
    for item in _parse_list(status):
        if isinstance(item, dict) and item.get("type") == "data":
            yield from (_read_transfer(found) for found in _parse_list(item.get("data")) if isinstance(found, dict))


def _read_transfer(found: dict[str, Any]) -> ContextStatusData:
    try:
        return structure(found, ContextStatusData)
    except MalformedError:  # its times, most likely: without it a failed transfer would go unseen
        texts = {key: value for key, value in found.items() if isinstance(value, str) and not key.endswith("Time")}
        return structure(texts, ContextStatusData)


def _parse_list(text: object) -> list[Any]:
    try:
        found = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else []


@action("GetContextInfo", idempotent=True)
class GetContextInfo(Action[ContextInfo]):
    """Return the state of the transfers between contexts and a session."""

    session_id: str
    context_id: str | None = None
    path: str | None = None
    task_type: str | None = None


@action("SyncContext", idempotent=True, query=("Authorization",))
class SyncContext(Action[None]):
    """Begin to copy between contexts and a session.

    `mode` is upload or download.
    """

    session_id: str
    context_id: str | None = None
    path: str | None = None
    mode: str | None = None


@action("BindContexts")
class BindContexts(Action[None]):
    """Bind contexts to a running session.

    Not idempotent: a path can be bound once.
    """

    session_id: str
    persistence_data_list: list[dict[str, Any]] = wire_field(codec=JSON_COMPACT, caller="contexts")


@pascal_payload
class BindingData:
    """An item of DescribeSessionContexts."""

    context_id: str = ""
    context_name: str = ""
    path: str = ""
    policy: str = ""
    bind_time: str = ""


@action("DescribeSessionContexts", idempotent=True)
class DescribeSessionContexts(Action[list[BindingData]]):
    """List the contexts that are bound to a session."""

    session_id: str


@pascal_payload
class InternalContext:
    """An item of GetAndLoadInternalContext."""

    context_id: str = ""
    context_path: str = ""
    context_type: str = ""


@action("GetAndLoadInternalContext", idempotent=True)
class GetAndLoadInternalContext(Action[list[InternalContext]]):
    """Return the contexts of internal types, such as `file_transfer`, and create missing ones."""

    session_id: str
    context_types: list[str]


def write_policy(policy: SyncPolicy) -> dict[str, Any]:
    """Return a policy as a JSON object."""
    written: dict[str, Any] = unstructure(policy)
    upload = policy.upload_policy
    if upload is not None and not (upload.archive_exclude_paths and upload.upload_mode is UploadMode.ARCHIVE):
        written["uploadPolicy"].pop("archiveExcludePaths")
    return written


def write_sync(sync: ContextSync, *, escaped: bool = False) -> dict[str, Any]:
    """Return the item of PersistenceDataList that synchronises a context.

    Its policy is JSON text inside the JSON.

    BindContexts requires the policy's non-ASCII characters `escaped`, CreateMcpSession does not.
    """
    item = {"ContextId": sync.context_id, "Path": sync.path}
    if sync.policy is not None:
        item["Policy"] = json.dumps(write_policy(sync.policy), ensure_ascii=escaped)
    return item


def write_mount(mount: BetaContextMount) -> dict[str, Any]:
    """Return the item of PersistenceDataList that mounts a context."""
    return {
        "ContextId": mount.context_id,
        "Path": mount.path,
        "Type": "mount",
        "MountConfig": {
            "AccessMode": mount.access_mode.value,
            "StorageMode": mount.strategy.value,
            "SourcePath": mount.source_path,
        },
    }
