"""Browser profiles that are kept in contexts and outlive a session."""

from __future__ import annotations

from enum import Enum

from .._arguments import checked_arguments
from .._lazy_attrs import define, field
from .context import (
    BWList,
    ContextSync,
    DeletePolicy,
    ExtractPolicy,
    SyncPolicy,
    UploadPolicy,
    WhiteList,
)

BROWSER_DATA_PATH = "/tmp/agentbay_browser"
_EXTENSIONS_PATH = "/tmp/extensions/"
_FINGERPRINT_PATH = "/tmp/browser_fingerprint"

_MINIMAL_PATHS = ("/Local State", "/Default/Cookies", "/Default/Cookies-journal")
_STANDARD_PATHS = (
    *_MINIMAL_PATHS,
    *(
        f"/Default/{name}"
        for name in (
            "Local Storage",
            "IndexedDB",
            "Session Storage",
            "Login Data",
            "Login Data-journal",
            "Login Data For Account",
            "Login Data For Account-journal",
            "Web Data",
            "Web Data-journal",
            "Preferences",
            "Secure Preferences",
            "TransportSecurity",
            "Network Persistent State",
            "GPUCache",
            "Affiliation Database",
            "Affiliation Database-journal",
        )
    ),
)


class BrowserSyncMode(str, Enum):
    """How much of a browser profile is kept."""

    MINIMAL = "minimal"
    STANDARD = "standard"


@checked_arguments()
@define(slots=False)
class ExtensionOption:
    """Browser extensions to load: their ids, and the context that holds them."""

    context_id: str
    extension_ids: list[str]

    def __attrs_post_init__(self) -> None:
        if not self.context_id or not self.context_id.strip():
            raise ValueError("context_id cannot be empty; it names the context that holds the extensions")
        if not self.extension_ids:
            raise ValueError("extension_ids cannot be empty; they name the extensions to load")


@checked_arguments()
@define(slots=False)
class BrowserFingerprintContext:
    """The context that holds a browser fingerprint."""

    fingerprint_context_id: str

    def __attrs_post_init__(self) -> None:
        if not self.fingerprint_context_id or not self.fingerprint_context_id.strip():
            raise ValueError("fingerprint_context_id cannot be empty; it names the context that holds the fingerprint")


@checked_arguments()
@define(slots=False)
class BrowserContext:
    """Keep the browser profile in a context.

    The next session with it starts logged in.

    Attributes:
        context_id: The context that holds the profile.
        auto_upload: Save the profile when the session ends.
        sync_mode: How much of the profile is kept.
        extension_option: Browser extensions to load.
        fingerprint_context: Browser fingerprint to use.
    """

    context_id: str
    auto_upload: bool = True
    sync_mode: BrowserSyncMode = BrowserSyncMode.STANDARD
    extension_option: ExtensionOption | None = None
    fingerprint_context: BrowserFingerprintContext | None = None
    extension_context_id: str | None = field(init=False, default=None)
    extension_ids: list[str] = field(init=False, factory=list)
    extension_context_syncs: list[ContextSync] | None = field(init=False, default=None)
    fingerprint_context_id: str | None = field(init=False, default=None)
    fingerprint_context_sync: ContextSync | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        if self.extension_option is not None:
            self.extension_context_id = self.extension_option.context_id
            self.extension_ids = list(self.extension_option.extension_ids)
            self.extension_context_syncs = [
                ContextSync(self.extension_option.context_id, _EXTENSIONS_PATH, _extension_policy(self.extension_ids))
            ]
        if self.fingerprint_context is not None:
            self.fingerprint_context_id = self.fingerprint_context.fingerprint_context_id
            policy = SyncPolicy(upload_policy=UploadPolicy(auto_upload=False), bw_list=BWList([]))
            self.fingerprint_context_sync = ContextSync(self.fingerprint_context_id, _FINGERPRINT_PATH, policy)

    def get_extension_context_syncs(self) -> list[ContextSync]:
        """Return the context syncs that bring the extensions into the session."""
        return self.extension_context_syncs or []

    def get_fingerprint_context_sync(self) -> ContextSync | None:
        """Return the context sync that brings the fingerprint into the session, or None."""
        return self.fingerprint_context_sync

    def profile_sync(self) -> ContextSync:
        """Return the context sync that keeps the profile."""
        paths = _MINIMAL_PATHS if self.sync_mode is BrowserSyncMode.MINIMAL else _STANDARD_PATHS
        policy = SyncPolicy(
            upload_policy=UploadPolicy(auto_upload=self.auto_upload),
            bw_list=BWList([WhiteList(path) for path in paths]),
        )
        return ContextSync(self.context_id, BROWSER_DATA_PATH, policy)


def _extension_policy(extension_ids: list[str]) -> SyncPolicy:
    return SyncPolicy(
        upload_policy=UploadPolicy(auto_upload=False),
        delete_policy=DeletePolicy(sync_local_file=False),
        extract_policy=ExtractPolicy(extract=True, delete_src_file=True),
        bw_list=BWList([WhiteList(extension_id) for extension_id in extension_ids]),
    )
