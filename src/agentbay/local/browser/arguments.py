"""The command line of a browser, from the options that a client gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentbay.local.browser.engines import BrowserEngine

PROFILE_DIRECTORY = "/tmp/agentbay_browser"  # what clients keep in a context
AHEAD_DIRECTORY = "/tmp/.agentbay_browser-ahead"  # the profile of a browser that was started ahead
_DEFAULT_SIZE = (1920, 1080)  # pixels
_FLAGS = (
    "--no-sandbox",  # it needs rights that sessions do not have; the session's sandbox confines it
    "--disable-gpu",
    "--disable-back-forward-cache",  # a page from this cache loads without the events that clients wait for
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--password-store=basic",
    "--remote-debugging-port=0",  # any free port: with the host's network several sessions share the ports
)


def browser_arguments(
    engine: BrowserEngine, option: Mapping[str, Any], environment: Mapping[str, str], extensions: Sequence[str]
) -> list[str]:
    """Return the command line, without the profile.

    Args:
        option: The client's `BrowserOption`, as it travels.
        environment: Variables of the session, which name its egress proxy.
        extensions: Directories of unpacked extensions.
    """
    arguments = [engine.path, *_FLAGS]
    if not engine.is_headless_shell:
        arguments.append("--headless=new")
    width, height = _size(option)
    arguments.append(f"--window-size={width},{height}")
    if agent := option.get("userAgent"):
        arguments.append(f"--user-agent={agent}")
    if option.get("useStealth"):
        arguments.append("--disable-blink-features=AutomationControlled")
    if proxy := _proxy(option, environment):
        arguments.append(f"--proxy-server={proxy}")
    if extensions:
        listed = ",".join(extensions)
        arguments += [
            f"--load-extension={listed}",
            f"--disable-extensions-except={listed}",
            "--disable-features=DisableLoadExtensionCommandLineSwitch",
        ]
    arguments += [str(argument) for argument in option.get("cmdArgs") or ()]
    arguments.append(str(option.get("defaultNavigateUrl") or "about:blank"))
    return arguments


def profile_flag(directory: str) -> str:
    """Return the argument that names the directory of the profile."""
    return f"--user-data-dir={directory}"


def _size(option: Mapping[str, Any]) -> tuple[int, int]:
    for name in ("viewport", "screen"):
        size = option.get(name)
        if isinstance(size, Mapping) and isinstance(size.get("width"), int) and isinstance(size.get("height"), int):
            return size["width"], size["height"]
    return _DEFAULT_SIZE


def _proxy(option: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """Return the proxy of the client, or else the session's egress proxy."""
    for proxy in option.get("proxies") or ():
        if isinstance(proxy, Mapping) and proxy.get("server"):
            return str(proxy["server"])
    return environment.get("HTTPS_PROXY", "")
