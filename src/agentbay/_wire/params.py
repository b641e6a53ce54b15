"""Turn `CreateSessionParams` into a CreateMcpSession request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..models.context import ContextSync
from ..models.mobile import MobileExtraConfig
from ..models.params import CreateSessionParams
from .contexts import write_mount, write_sync
from .sessions import CreateMcpSession, SessionOptions

# The service counts clients by these; the wire is that of this version of the official package.
_SDK_STATS = {"source": "sdk", "sdk_language": "python", "sdk_version": "0.22.3", "is_release": True}
_SIMULATED_DEVICE_PATH = "/data/agentbay_mobile_info"


def make_create_session(params: CreateSessionParams, region_id: str, built_image: str = "") -> CreateMcpSession:
    """Return the request that creates a session.

    Args:
        built_image: The id that an `Image` of the parameters was built as.

    Raises:
        ValueError: If a nested setting is malformed.
    """
    if params.extra_configs is not None:
        params.extra_configs.validate()
    return CreateMcpSession(
        login_region_id=region_id,
        sdk_stats={**_SDK_STATS, "framework": params.framework},
        image_id=(params.image_id if isinstance(params.image_id, str) else built_image) or None,
        labels=params.labels or None,
        persistence_data_list=_persistence_items(params) or None,
        policy_id=params.policy_id or None,
        network_id=params.beta_network_id or None,
        enable_record=params.enable_browser_replay,
        load_skill=params.load_skills or None,
        skills=(params.skill_names or None) if params.load_skills else None,
        extra_configs=_extra_configs(params),
        session_options=_session_options(params),
        **_lifecycle_fields(params),
    )


def missing_options(params: CreateSessionParams, given: Sequence[str] | None) -> list[str]:
    """Return the asked options that the service did not say it has given."""
    return [name for name in asked_options(params) if name not in (given or ())]


def asked_options(params: CreateSessionParams) -> dict[str, Any]:
    """Return the fields of `SessionOptions` that are asked for."""
    options = {name: getattr(params, name) or None for name in ("envs", "cwd", "writable", "user")}
    # An empty list is a wish too: to reach nothing, to start nothing.
    lists = {"network": params.network, "entrypoint": params.entrypoint}
    return {name: value for name, value in {**options, **lists}.items() if value is not None}


def _session_options(params: CreateSessionParams) -> SessionOptions | None:
    asked = asked_options(params)
    return SessionOptions(**asked) if asked else None


def awaited_contexts(params: CreateSessionParams) -> frozenset[str]:
    """Return the ids of the contexts that must arrive before the session is ready."""
    awaited = {sync.context_id for sync in params.context_syncs if sync.beta_wait_for_completion is not False}
    if params.browser_context:
        awaited.add(params.browser_context.context_id)
    if simulated := _simulated_device(params):
        awaited.add(simulated.context_id)
    return frozenset(awaited)


def _simulated_device(params: CreateSessionParams) -> ContextSync | None:
    """Return the context with the device that a phone simulates."""
    mobile = params.extra_configs and params.extra_configs.mobile
    config = mobile and mobile.simulate_config
    if not config or not config.simulated_context_id:
        return None
    return ContextSync(config.simulated_context_id, _SIMULATED_DEVICE_PATH)


def _lifecycle_fields(params: CreateSessionParams) -> dict[str, Any]:
    policy = params.lifecycle_policy
    if policy is None:
        return {"timeout": params.idle_release_timeout}
    if policy.manual_release:
        return {"manual_release": True}
    return {"timeout": policy.idle_release_timeout, "max_runtime": policy.max_runtime}


def _persistence_items(params: CreateSessionParams) -> list[dict[str, Any]]:
    browser, simulated = params.browser_context, _simulated_device(params)
    return [
        *map(write_sync, params.context_syncs),
        *([write_sync(simulated)] if simulated else ()),
        *map(write_mount, params.beta_context_mounts),
        *([write_sync(browser.profile_sync())] if browser else ()),
    ]


def _extra_configs(params: CreateSessionParams) -> dict[str, Any] | None:
    mobile = params.extra_configs and params.extra_configs.mobile
    return {"Mobile": _mobile(mobile)} if mobile else None


def _mobile(mobile: MobileExtraConfig) -> dict[str, Any]:
    rule = mobile.app_manager_rule
    return {
        "LockResolution": mobile.lock_resolution,
        "HideNavigationBar": mobile.hide_navigation_bar,
        "AppManagerRule": {"RuleType": rule.rule_type, "AppPackageNameList": rule.app_package_name_list or []}
        if rule
        else None,
        "UninstallBlacklist": mobile.uninstall_blacklist or [],
    }
