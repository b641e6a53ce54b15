"""Shell commands that set up a phone image."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence

from ..errors import InvalidArgumentError
from ..models.mobile import MobileSimulateConfig, MobileSimulateMode

COMMAND_TIMEOUT_MS = 50_000
_WHITELIST = ("/data/system/pm_whitelist.txt", "rw.wy.pm_whitelist.refresh", 2)
_BLACKLIST = ("/data/system/pm_blacklist.txt", "rw.wy.pm_blacklist.refresh", 1)
_UNINSTALL_LIST = "/data/system/pm_lock.conf"
_SIMULATE_OPTIONS = {
    MobileSimulateMode.PROPERTIES_ONLY.value: "",
    MobileSimulateMode.SENSORS_ONLY.value: "-sensors",
    MobileSimulateMode.PACKAGES_ONLY.value: "-packages",
    MobileSimulateMode.SERVICES_ONLY.value: "-services",
    MobileSimulateMode.ALL.value: "-all",
}


def resolution_lock_script(enable: bool) -> str:
    """Write the command that locks or unlocks the resolution of the screen."""
    return f"setprop sys.wuying.lockres {int(enable)}"


def navigation_bar_script(hide: bool) -> str:
    """Write the command that hides or shows the navigation bar."""
    return f"setprop persist.wy.hasnavibar {'false' if hide else 'true'}; killall com.android.systemui"


def whitelist_script(packages: Sequence[str]) -> str:
    """Write the commands after which only these packages may run."""
    return _app_rule_script(packages, *_WHITELIST)


def blacklist_script(packages: Sequence[str]) -> str:
    """Write the commands after which these packages may not run."""
    return _app_rule_script(packages, *_BLACKLIST)


def uninstall_blacklist_script(packages: Sequence[str]) -> str:
    """Write the commands after which these packages cannot be uninstalled."""
    # the property must change for the file to be read again
    return f"{_write_list(_UNINSTALL_LIST, packages)}\nsetprop persist.wy.pm_lock.trigger {int(time.time())}\n"


def simulate_script(config: MobileSimulateConfig) -> str:
    """Write the command that makes a phone look like another device."""
    path = (config.simulate_path or "").rstrip("/")
    mode = config.simulate_mode
    option = _SIMULATE_OPTIONS.get(str(mode.value if isinstance(mode, MobileSimulateMode) else mode or ""), "")
    words = ["wya", "apply", *([option] if option else []), shlex.quote(f"{path}/dev_info.json")]
    return f"chmod -R a+rwx {shlex.quote(path)}; {' '.join(words)}"


def _app_rule_script(packages: Sequence[str], path: str, refresh: str, switch: int) -> str:
    return f"{_write_list(path, packages)}\nsetprop {refresh} 1\nsetprop persist.wy.pm_blacklist.switch {switch}\n"


def _write_list(path: str, packages: Sequence[str]) -> str:
    # A line EOF would end the here-document, and the shell would run what follows it (shell injection).
    for package in packages:
        if not isinstance(package, str) or not package or "\n" in package or package == "EOF":
            raise InvalidArgumentError(f"{package!r:.80} is not the name of a package")
    lines = "\n".join(packages)
    return f"cat > {path} << 'EOF'\n{lines}\nEOF\nchmod 644 {path}"
