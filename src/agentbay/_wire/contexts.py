"""Actions on the contexts of a session."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..models.context import BetaContextMount, ContextStatusData, ContextSync, SyncPolicy, UploadMode
from .converter import structure, unstructure
from .schema import Action, action, payload


@payload
class ContextInfo:
    """Data of GetContextInfo: JSON text in JSON text in JSON text."""

    context_status: str = ""

    def transfers(self) -> list[ContextStatusData]:
        """Read the transfers out of the nested text; what cannot be read is left out."""
        return list(_transfers(self.context_status))


def _transfers(status: str) -> Iterator[ContextStatusData]:
    for item in _listed(status):
        if isinstance(item, dict) and item.get("type") == "data":
            for transfer in _listed(item.get("data")):
                yield structure(transfer, ContextStatusData)


def _listed(text: object) -> list[Any]:
    try:
        found = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return []
    return found if isinstance(found, list) else []


@action("GetContextInfo", idempotent=True)
class GetContextInfo(Action[ContextInfo]):
    """Tell how the transfers between contexts and a session stand."""

    session_id: str
    context_id: str | None = None
    path: str | None = None
    task_type: str | None = None


@action("SyncContext", idempotent=True, query=("Authorization",))
class SyncContext(Action[None]):
    """Begin to copy between contexts and a session; `mode` is upload or download."""

    session_id: str
    context_id: str | None = None
    path: str | None = None
    mode: str | None = None


def write_policy(policy: SyncPolicy) -> dict[str, Any]:
    """Write a policy as the wire has it."""
    written: dict[str, Any] = unstructure(policy)
    upload = policy.upload_policy
    if upload is not None and not (upload.archive_exclude_paths and upload.upload_mode is UploadMode.ARCHIVE):
        written["uploadPolicy"].pop("archiveExcludePaths")
    return written


def write_sync(sync: ContextSync) -> dict[str, Any]:
    """Write an item of PersistenceDataList that synchronises; its policy is JSON text inside the JSON."""
    item = {"ContextId": sync.context_id, "Path": sync.path}
    if sync.policy is not None:
        item["Policy"] = json.dumps(write_policy(sync.policy), ensure_ascii=False)
    return item


def write_mount(mount: BetaContextMount) -> dict[str, Any]:
    """Write an item of PersistenceDataList that mounts."""
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
