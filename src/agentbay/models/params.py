"""Parameters of new sessions."""

from __future__ import annotations

from .._arguments import check_variable, checked_arguments
from .._lazy_attrs import define, field
from .browser import BrowserContext
from .context import BetaContextMount, ContextSync
from .image_recipe import Image
from .mobile import ExtraConfigs


def _check_minutes(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ValueError(f"{name} must be a positive integer (minutes), not {value!r}")


@checked_arguments(idle_release_timeout=None, max_runtime=None)
class LifecyclePolicy:
    """When the service ends a session by itself.

    Args:
        idle_release_timeout: Minutes without activity until release; None means 5.
        max_runtime: Minutes until release, busy or not; None means 30.
        manual_release: Never release it automatically; excludes the other two.

    Raises:
        ValueError: If a time is not a positive integer, or given together with `manual_release`.
    """

    def __init__(
        self,
        idle_release_timeout: int | None = None,
        max_runtime: int | None = None,
        manual_release: bool = False,
    ) -> None:
        if manual_release and (idle_release_timeout is not None or max_runtime is not None):
            raise ValueError("manual_release=True excludes idle_release_timeout and max_runtime: leave them out")
        for name, value in (("idle_release_timeout", idle_release_timeout), ("max_runtime", max_runtime)):
            if value is not None:
                _check_minutes(name, value)
        self.manual_release = manual_release
        self.idle_release_timeout = 0 if manual_release else (idle_release_timeout or 5)
        self.max_runtime = 0 if manual_release else (max_runtime or 30)

    def __repr__(self) -> str:
        if self.manual_release:
            return "LifecyclePolicy(manual_release=True)"
        return f"LifecyclePolicy(idle_release_timeout={self.idle_release_timeout}, max_runtime={self.max_runtime})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LifecyclePolicy) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


@checked_arguments("cwd", idle_release_timeout=None)
class CreateSessionParams:
    """Parameters of a new session, all optional.

    Args:
        labels: Names and values by which to find the session again.
        image_id: Image to run, such as "linux_latest" (the default of the service), "browser_latest", "code_latest". On
            the local runtime also one of its images, or an `Image`, which is built then.
        idle_release_timeout: Seconds without activity until release. Deprecated by the service; use
            `lifecycle_policy`, which excludes it.
        lifecycle_policy: When the session ends by itself.
        context_syncs: Contexts to copy into the session, and back at its end.
        beta_context_mounts: Contexts to mount in the session.
        browser_context: Context that keeps the browser profile.
        policy_id: Id of a policy of the service; on the local runtime its network: "none", "proxy" or "host".
        beta_network_id: Id of a network of the service.
        enable_browser_replay: Record the browser; None leaves it to the service.
        extra_configs: Settings that only some images support.
        framework: Name of the framework that uses this package, for statistics of the service.
        load_skills: Load skills into the session; `skill_names` selects which.
        skill_names: Names of the skills to load.
        envs: Environment variables of everything that runs in it. A service that cannot start a session with them gets
            them by `session.env.set` right after.
        cwd: Directory in which commands and code start and relative paths of files begin; made if it is missing. None
            is the home directory. It may be relative to that.
        network: Hosts that the session may reach, as HOST, HOST:PORT or *.DOMAIN; it can only narrow what the runtime
            allows. An empty list allows no host.
        writable: Further directories that the session may write, such as "/app". Directories of the system keep
            their content; "/" makes the whole system writable.
        user: User inside of a session on an image, as a name or a number, perhaps with a group: "root", "1000:1000".
            None is the USER of the image. Outside it is always an ordinary user.
        entrypoint: Program and arguments that start with the session, in the background. None is the ENTRYPOINT of the
            image, with its CMD as arguments; an empty list starts nothing.

    `cwd`, `network`, `writable`, `user` and `entrypoint` need the local runtime: any other service fails with
    `NotSupportedError`, and no session is left.

    Raises:
        ValueError: If `idle_release_timeout` is not a positive integer, or given together with `lifecycle_policy`.
    """

    def __init__(
        self,
        labels: dict[str, str] | None = None,
        image_id: str | Image | None = None,
        idle_release_timeout: int | None = None,
        lifecycle_policy: LifecyclePolicy | None = None,
        context_syncs: list[ContextSync] | None = None,
        beta_context_mounts: list[BetaContextMount] | None = None,
        browser_context: BrowserContext | None = None,
        policy_id: str | None = None,
        beta_network_id: str | None = None,
        enable_browser_replay: bool | None = None,
        extra_configs: ExtraConfigs | None = None,
        framework: str | None = None,
        load_skills: bool | None = None,
        skill_names: list[str] | None = None,
        envs: dict[str, str] | None = None,
        cwd: str | None = None,
        network: list[str] | None = None,
        writable: list[str] | None = None,
        user: str | None = None,
        entrypoint: list[str] | None = None,
    ) -> None:
        _check_idle_release(idle_release_timeout, lifecycle_policy)
        self.labels = labels or {}
        self.image_id = image_id
        self.idle_release_timeout = idle_release_timeout
        self.lifecycle_policy = lifecycle_policy
        # New lists, so that neither the additions nor later changes reach those of the caller.
        self.context_syncs = [*(context_syncs or ()), *_browser_syncs(browser_context)]
        self.beta_context_mounts = list(beta_context_mounts or ())
        self.browser_context = browser_context
        self.policy_id = policy_id
        self.beta_network_id = beta_network_id
        self.enable_browser_replay = enable_browser_replay
        self.extra_configs = extra_configs
        self.framework = framework or ""
        self.load_skills = load_skills
        self.skill_names = skill_names
        for name, value in (envs or {}).items():
            check_variable("envs", name, value)
        self.envs = dict(envs or {})
        self.cwd = cwd
        self.network = None if network is None else list(network)
        self.writable = list(writable or ())
        self.user = user
        self.entrypoint = None if entrypoint is None else list(entrypoint)

    def __repr__(self) -> str:
        # Values of variables may be secrets.
        shown = {**vars(self), "envs": dict.fromkeys(self.envs, "…")}
        given = ", ".join(f"{name}={value!r}" for name, value in shown.items() if value)
        return f"CreateSessionParams({given})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CreateSessionParams) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


def _check_idle_release(seconds: object, policy: LifecyclePolicy | None) -> None:
    if seconds is None:
        return
    if policy is not None:
        raise ValueError(
            "idle_release_timeout is deprecated, use lifecycle_policy.idle_release_timeout instead. Cannot set both."
        )
    if not isinstance(seconds, int):
        raise ValueError(f"idle_release_timeout must be an int (seconds), not {seconds!r}")
    if seconds <= 0:
        raise ValueError(f"idle_release_timeout must be > 0 (seconds), not {seconds!r}")


def _browser_syncs(browser: BrowserContext | None) -> list[ContextSync]:
    if browser is None:
        return []
    fingerprint = browser.get_fingerprint_context_sync()
    return [*browser.get_extension_context_syncs(), *([fingerprint] if fingerprint else [])]


@checked_arguments()
@define(slots=False)
class ListSessionParams:
    """Which page of sessions to list: page size, cursor and labels."""

    max_results: int = 10
    next_token: str = ""
    labels: dict[str, str] = field(factory=dict)
