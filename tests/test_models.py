"""Parameters and results: validation, defaults and behaviour."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import attrs
import pytest

import agentbay
from agentbay import (
    BaseResult,
    BetaContextMount,
    BetaContextMountAccessMode,
    BetaContextMountStrategy,
    BrowserContext,
    BrowserFingerprintContext,
    ContextSync,
    CreateSessionParams,
    DirectoryEntry,
    DirectoryListResult,
    ExtensionOption,
    FileInfoResult,
    LifecyclePolicy,
    RecyclePolicy,
    SessionListResult,
    SessionMetrics,
    SyncPolicy,
    UploadPolicy,
    WhiteList,
)
from agentbay._transport.files import read_info
from agentbay.models.base import IterableResult

NAMES = [name for name in agentbay.__all__ if name not in ("__version__",)]
RESULTS = [v for v in (getattr(agentbay, n) for n in NAMES) if isinstance(v, type) and issubclass(v, BaseResult)]
# Git raises its failures, and by the contract ContextInfoResult succeeds by default.
RESULTS = [v for v in RESULTS if v.__module__ != "agentbay.models.git" and v.__name__ != "ContextInfoResult"]


@pytest.mark.parametrize("kind", RESULTS, ids=lambda kind: kind.__name__)
def test_results(kind: type[Any]) -> None:
    """Results fail by default, are true on success, and can be pickled and copied."""
    failed, succeeded = kind(), kind(success=True)
    assert not failed
    assert succeeded
    assert succeeded.unwrap() is succeeded
    error = agentbay.SessionError("why")
    with pytest.raises(agentbay.SessionError, match="why"):
        kind(exception=error).unwrap()
    assert pickle.loads(pickle.dumps(succeeded)) == succeeded == copy.deepcopy(succeeded)
    assert failed.get_request_id() == failed.request_id == ""
    fields = attrs.fields_dict(kind)
    assert fields["exception"].kw_only


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"idle_release_timeout": 0}, "idle_release_timeout must be a positive integer"),
        ({"idle_release_timeout": True}, "idle_release_timeout must be a positive integer"),
        ({"max_runtime": 1.5}, "max_runtime must be a positive integer"),
        ({"max_runtime": -1}, "max_runtime must be a positive integer"),
        ({"manual_release": True, "max_runtime": 5}, "manual_release"),
        ({"manual_release": True, "idle_release_timeout": 5}, "manual_release"),
    ],
)
def test_lifecycle_refuses(arguments: dict[str, Any], message: str) -> None:
    """Times must be positive whole minutes, and exclude manual release."""
    with pytest.raises(ValueError, match=message):
        LifecyclePolicy(**arguments)


def test_lifecycle_defaults() -> None:
    """The idle timeout is 5 minutes and the maximum run time 30 by default."""
    assert vars(LifecyclePolicy()) == {"manual_release": False, "idle_release_timeout": 5, "max_runtime": 30}
    manual = LifecyclePolicy(manual_release=True)
    assert vars(manual) == {"manual_release": True, "idle_release_timeout": 0, "max_runtime": 0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"idle_release_timeout": "5"}, r"must be an int \(seconds\)"),
        ({"idle_release_timeout": 0}, r"must be > 0 \(seconds\)"),
        ({"idle_release_timeout": 5, "lifecycle_policy": LifecyclePolicy()}, "Cannot set both"),
    ],
)
def test_session_parameters_refuse(arguments: dict[str, Any], message: str) -> None:
    """The deprecated idle timeout is positive whole seconds, and excludes a policy."""
    with pytest.raises(ValueError, match=message):
        CreateSessionParams(**arguments)


def test_session_parameters_default() -> None:
    """None becomes an empty collection or an empty framework."""
    params = CreateSessionParams()
    assert (params.labels, params.context_syncs, params.beta_context_mounts, params.framework) == ({}, [], [], "")


@pytest.mark.parametrize(
    "make",
    [
        lambda: UploadPolicy(upload_mode="File"),
        lambda: RecyclePolicy(lifecycle="Lifecycle_1Day"),
        lambda: RecyclePolicy(paths=["/a*"]),
        lambda: WhiteList("/a?"),
        lambda: WhiteList("/a", ["[b]"]),
        lambda: ExtensionOption("", ["a"]),
        lambda: ExtensionOption("c", []),
        lambda: BrowserFingerprintContext(" "),
    ],
)
def test_policies_refuse(make: Any) -> None:
    """Values that the service would misread are refused by the constructor."""
    with pytest.raises(ValueError, match=r".+"):
        make()


def test_regular_expressions_are_allowed() -> None:
    """Wildcards are allowed where the path is a regular expression."""
    assert WhiteList("a.*", ["b*"], True, True).path == "a.*"


def test_policy_parts_are_filled_in() -> None:
    """A policy fills in all parts except the mapping."""
    policy = SyncPolicy()
    assert policy == SyncPolicy.default()
    assert [n for n in attrs.fields_dict(SyncPolicy) if getattr(policy, n) is None] == ["mapping_policy"]


def test_fluent_settings() -> None:
    """`new` takes None for defaults, and `with_...` sets and returns the same object."""
    sync = ContextSync.new("c", "/p")
    assert sync.with_policy(SyncPolicy()) is sync
    mount = BetaContextMount.new("c", "/p", None, None, None)
    assert mount == BetaContextMount("c", "/p")
    changed = mount.with_access_mode(BetaContextMountAccessMode.READ_ONLY)
    changed = changed.with_strategy(BetaContextMountStrategy.PERFORMANCE).with_source_path("/s")
    assert changed is mount
    assert (mount.access_mode.value, mount.strategy.value, mount.source_path) == ("readOnly", "performance", "/s")


def test_browser_context() -> None:
    """A browser context without options needs no other context."""
    plain = BrowserContext("c")
    assert (plain.extension_context_syncs, plain.get_extension_context_syncs()) == (None, [])
    assert plain.get_fingerprint_context_sync() is None


def test_collections_are_never_none() -> None:
    """None becomes an empty list or dict, and raw dicts become entries."""
    assert SessionListResult(session_ids=None).session_ids == []  # type: ignore[arg-type]
    assert FileInfoResult().file_info == {}
    entry = DirectoryListResult(entries=[{"name": "a", "isDirectory": True}]).entries[0]
    assert (entry.name, entry.is_directory, entry.is_file, entry.size) == ("a", True, False, 0)


@pytest.mark.parametrize("kind", [kind for kind in RESULTS if issubclass(kind, IterableResult)])
def test_lists_can_be_iterated(kind: type[Any]) -> None:
    """A result that holds a list has a length and can be iterated."""
    items = [DirectoryEntry("a")] if kind is DirectoryListResult else [{"id": 1}]
    result = kind(success=True, **{kind._LIST_FIELD: items})
    assert (len(result), list(result)) == (1, items)
    assert bool(kind(success=True)) is True
    assert (len(kind()), list(kind())) == (0, [])


def test_metrics_by_either_name() -> None:
    """The aliases of metrics are parameters and properties."""
    assert SessionMetrics(rx_rate_kbps=1.0, tx_used_kb=2.0) == SessionMetrics(
        rx_rate_kbyte_per_s=1.0, tx_used_kbyte=2.0
    )
    assert SessionMetrics(tx_rate_kbps=3.0).tx_rate_kbps == 3.0


@pytest.mark.parametrize(
    ("text", "shown"), [("000", "000"), ("044", "044"), ("644", "644"), ("4755", "4755"), ("", "")]
)
def test_permissions_keep_their_zeros(text: str, shown: str) -> None:
    """Permissions have at least three digits, or are empty if unknown."""
    assert FileInfoResult(file_info=read_info(f"permissions: {text}")).permissions == shown
