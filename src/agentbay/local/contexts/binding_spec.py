"""Binding specs: how a session uses a context, parsed from PersistenceDataList."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from agentbay._lazy_attrs import define
from agentbay._wire.contexts import write_policy
from agentbay._wire.converter import MalformedError, structure
from agentbay.local.api_errors import invalid_request
from agentbay.local.contexts import keys
from agentbay.local.sandbox.shared.path_filter import PathFilter
from agentbay.models.context import (
    BetaContextMountAccessMode,
    DownloadStrategy,
    Lifecycle,
    SyncPolicy,
    UploadMode,
    UploadStrategy,
)

_DAY_SECONDS = 86400.0
# a context at one of these paths would hide the system
_SYSTEM_PATHS = ("/bin", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys", "/usr")
_WILDCARDS = frozenset("*?[]")
_ENUM_FIELDS: tuple[tuple[str, str, type[Enum]], ...] = (
    ("uploadPolicy", "uploadMode", UploadMode),
    ("uploadPolicy", "uploadStrategy", UploadStrategy),
    ("downloadPolicy", "downloadStrategy", DownloadStrategy),
    ("recyclePolicy", "lifecycle", Lifecycle),
)


@define(frozen=True, slots=False)
class MountSpec:
    """How a context is mounted.

    Attributes:
        source: The directory of the context to show, or "" for all of it.
    """

    read_only: bool
    source: str


@define(frozen=True, slots=False)
class BindingSpec:
    """A context at a path of a session, with its sync policy or mount.

    Attributes:
        path_as_given: The path in the session as the client wrote it.
        path: The same path, normalised.
        policy_text: The policy as the client wrote it, or "".
        key: The key of the files in the context. It is `path`, unless the policy maps it.
    """

    context_id: str
    path_as_given: str
    path: str
    policy: SyncPolicy
    policy_text: str
    key: str
    mount: MountSpec | None = None

    @property
    def selection(self) -> PathFilter:
        """Return the filter of the paths that are synchronised."""
        return PathFilter(self.white_lists, self.path)

    @property
    def white_lists(self) -> list[dict[str, Any]]:
        """Return the white lists as `PathFilter` takes them."""
        written: list[dict[str, Any]] = write_policy(self.policy)["bwList"]["whiteLists"]
        return written

    @property
    def uploads_at_end(self) -> bool:
        """Whether the files are uploaded when the session ends."""
        return self.mount is None and self.policy.upload_policy is not None and self.policy.upload_policy.auto_upload

    @property
    def downloads_at_start(self) -> bool:
        """Whether the files are downloaded when the session starts."""
        download = self.policy.download_policy
        return self.mount is None and download is not None and download.auto_download

    @property
    def downloads_async(self) -> bool:
        """Whether the session starts without waiting for the download."""
        download = self.policy.download_policy
        return download is not None and download.download_strategy is DownloadStrategy.DOWNLOAD_ASYNC

    @property
    def propagates_deletes(self) -> bool:
        """Whether files deleted in the session are deleted in the context."""
        return self.policy.delete_policy is not None and self.policy.delete_policy.sync_local_file

    @property
    def archive_name(self) -> str:
        """Return the name of the archive below `path`, or "" without one."""
        upload = self.policy.upload_policy
        return archive_name_for(self.key) if upload is not None and upload.upload_mode is UploadMode.ARCHIVE else ""

    def is_excluded_from_archive(self, path: str) -> bool:
        """Whether upload mode Archive keeps a path as a single file."""
        upload = self.policy.upload_policy
        excluded = upload.archive_exclude_paths if upload else []
        # a text prefix, as the service documents it: "logs/" is a directory, "log" is all that begins with it
        return any(path.startswith(prefix.lstrip("/")) for prefix in excluded if prefix.strip("/"))

    def expiry_time(self, path: str, now: float) -> float | None:
        """Return when a file uploaded now expires, in seconds since 1970, or None."""
        recycle = self.policy.recycle_policy
        if recycle is None or recycle.lifecycle is Lifecycle.LIFECYCLE_FOREVER:
            return None
        days = int(re.sub(r"\D", "", recycle.lifecycle.value))
        spellings = ("/" + path, keys.join(self.path, path))  # relative as in white lists, or absolute
        tops = ["/" + top.strip("/") for top in recycle.paths]
        chosen = any(keys.relative_to(spelling, top) is not None for top in tops for spelling in spellings)
        return now + days * _DAY_SECONDS if chosen else None

    @property
    def extracts_archives(self) -> bool:
        """Whether archives that are files of the context are extracted.

        Only a given policy extracts them. Otherwise a zip that one session has written would be missing in the next.
        """
        return bool(self.policy_text) and self.policy.extract_policy is not None and self.policy.extract_policy.extract


def archive_name_for(key: str) -> str:
    """Return the name of the archive for a synchronised path."""
    return (keys.split(key) or ["root"])[-1] + ".zip"


def parse_binding_specs(listed: Sequence[Mapping[str, Any]]) -> list[BindingSpec]:
    """Parse a PersistenceDataList.

    Raises:
        InvalidRequestError: An item is malformed, or its path is not allowed.
    """
    return [_read(item) for item in listed]


def _read(item: Mapping[str, Any]) -> BindingSpec:
    context_id, path = item.get("ContextId"), item.get("Path")
    if not isinstance(context_id, str) or not context_id.strip():
        raise invalid_request("PersistenceDataList: each item needs a ContextId.")
    if not isinstance(path, str) or not path.startswith("/"):
        raise invalid_request("PersistenceDataList: each item needs a Path, absolute and of this system: /...")
    place = keys.normalize(path)
    if place == "/" or any(keys.relative_to(place, system) is not None for system in _SYSTEM_PATHS):
        raise invalid_request(
            f"Path: a context cannot be at {place}; put it below the home directory, such as /home/wuying/data.",
            "InvalidParameter.Path",
        )
    if item.get("Type") == "mount":
        return BindingSpec(context_id, path, place, SyncPolicy(), "", place, _read_mount(item.get("MountConfig") or {}))
    text = item.get("Policy") or ""
    policy = _read_policy(text, place)
    mapped = policy.mapping_policy.path if policy.mapping_policy else ""
    return BindingSpec(
        context_id, path, place, policy, str(text), keys.normalize(mapped, "Policy") if mapped else place
    )


def _read_mount(config: Mapping[str, Any]) -> MountSpec:
    try:
        mode = BetaContextMountAccessMode(config.get("AccessMode") or "readWrite")
    except ValueError as error:
        raise invalid_request("MountConfig: AccessMode must be readWrite or readOnly.") from error
    source = str(config.get("SourcePath") or "")
    if _WILDCARDS & set(source):
        raise invalid_request("MountConfig: SourcePath must not contain wildcards.", "InvalidParameter.Path")
    return MountSpec(mode is BetaContextMountAccessMode.READ_ONLY, keys.normalize(source, "SourcePath").strip("/"))


def _read_policy(text: object, path: str) -> SyncPolicy:
    if not text:
        return SyncPolicy()
    try:
        given = json.loads(text) if isinstance(text, str) else text
        chosen = {(part, name): _pop_enum(given, part, name, kind) for part, name, kind in _ENUM_FIELDS}
        policy: SyncPolicy = structure(given, SyncPolicy, path="Policy")
        for (part, name), value in chosen.items():
            if value is not None:
                setattr(getattr(policy, _attribute(part)), _attribute(name), value)
        PathFilter(write_policy(policy)["bwList"]["whiteLists"], path)
    except (MalformedError, ValueError, RecursionError, re.error) as error:
        raise invalid_request(f"Policy: cannot be read: {error}.", "InvalidParameter.Policy") from error
    return policy


def _pop_enum(given: Any, part: str, name: str, kind: type[Enum]) -> Enum | None:
    # The converter reads enums as plain text, which clients of later services need.
    holder = given.get(part) if isinstance(given, dict) else None
    text = holder.pop(name, None) if isinstance(holder, dict) else None
    return None if text is None else kind(text)


def _attribute(name: str) -> str:
    return re.sub(r"[A-Z]", lambda capital: "_" + capital[0].lower(), name)
