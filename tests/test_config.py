"""The address of the service and the time limit, and which source goes first."""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from agentbay import AgentBay, AsyncAgentBay, Config, ConfigurationError
from agentbay.config import Settings, redact_url, resolve_settings

HAS_DOTENV = importlib.util.find_spec("dotenv") is not None
DEFAULT = ("cn-hangzhou", "https://agentbay.cn-hangzhou.aliyuncs.com")


def address(settings: Settings) -> tuple[str, str]:
    return settings.region_id, settings.url


@pytest.mark.parametrize("by_environment", [True, False])
@pytest.mark.parametrize(
    ("region", "plain", "host"),
    [
        ("", "cn-hangzhou", "agentbay.cn-hangzhou.aliyuncs.com"),
        ("cn-hangzhou", "cn-hangzhou", "agentbay.cn-hangzhou.aliyuncs.com"),
        ("ap-southeast-1", "ap-southeast-1", "agentbay.ap-southeast-1.aliyuncs.com"),
        ("us-east-1", "us-east-1", "agentbay.us-east-1.aliyuncs.com"),
        ("pre-cn-hangzhou", "cn-hangzhou", "agentbay-pre.cn-hangzhou.aliyuncs.com"),
        ("pre-ap-southeast-1", "ap-southeast-1", "wuyingai-pre.ap-southeast-1.aliyuncs.com"),
    ],
)
def test_regions(region: str, plain: str, host: str, by_environment: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A region decides the endpoint, from `cfg` or the environment."""
    if by_environment:
        monkeypatch.setenv("AGENTBAY_REGION_ID", region)
    settings = resolve_settings("key", None if by_environment else Config(region_id=region))
    assert (settings.region_id, settings.url, settings.host) == (plain, f"https://{host}", host)


@pytest.mark.parametrize(
    ("region", "plain", "host"),
    [
        ("mars-1", "mars-1", "agentbay.mars-1.aliyuncs.com"),
        ("pre-mars-1", "mars-1", "agentbay-pre.mars-1.aliyuncs.com"),
    ],
)
def test_unknown_regions(region: str, plain: str, host: str) -> None:
    """An unknown region is used by the rule, with a warning."""
    with pytest.warns(UserWarning, match="unknown region_id"):
        assert address(resolve_settings("key", Config(region_id=region))) == (plain, f"https://{host}")


@pytest.mark.parametrize(
    ("endpoint", "url", "host"),
    [
        ("agentbay.example.com", "https://agentbay.example.com", "agentbay.example.com"),
        ("localhost:8443", "https://localhost:8443", "localhost:8443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("http://127.0.0.1:8080/prefix/", "http://127.0.0.1:8080/prefix", "127.0.0.1:8080"),
        ("https://[::1]:9", "https://[::1]:9", "[::1]:9"),
    ],
)
@pytest.mark.parametrize("by_environment", [True, False])
def test_endpoints(endpoint: str, url: str, host: str, by_environment: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint is used as it is, with https by default."""
    if by_environment:
        monkeypatch.setenv("AGENTBAY_ENDPOINT", endpoint)
    settings = resolve_settings("key", None if by_environment else Config(endpoint=endpoint))
    assert (settings.url, settings.host, settings.region_id) == (url, host, "cn-hangzhou")


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://",
        "https://:80",
        "host:port",
        "host:0",
        "host:99999",
        "a b",
        "http://h?a=b",
        "h#f",
        "ht!tp://x y",
        "  ",
        "http://user:pass@host",
    ],
)
def test_unusable_endpoints(endpoint: str) -> None:
    """A malformed endpoint is refused at once, without showing its password."""
    with pytest.raises(ConfigurationError, match="endpoint") as caught:
        resolve_settings("key", Config(endpoint=endpoint))
    assert isinstance(caught.value, ValueError)
    assert "pass" not in str(caught.value)
    assert "pass" not in repr(Config(endpoint=endpoint))


def test_region_goes_before_endpoint() -> None:
    """A region goes before an endpoint, with a warning."""
    with pytest.warns(UserWarning, match="goes before endpoint"):
        settings = resolve_settings("key", Config(region_id="us-east-1", endpoint="https://user:pass@host"))
    assert address(settings) == ("us-east-1", "https://agentbay.us-east-1.aliyuncs.com")


def test_cfg_replaces_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `cfg` only the key may come from the environment."""
    monkeypatch.setenv("AGENTBAY_API_KEY", "from-environment")
    monkeypatch.setenv("AGENTBAY_REGION_ID", "us-east-1")
    monkeypatch.setenv("AGENTBAY_ENDPOINT", "http://elsewhere")
    monkeypatch.setenv("AGENTBAY_TIMEOUT_MS", "5")
    settings = resolve_settings("", Config())
    assert (settings.api_key, *address(settings), settings.timeout) == ("from-environment", *DEFAULT, 60.0)


def test_argument_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key as argument goes before the environment."""
    monkeypatch.setenv("AGENTBAY_API_KEY", "from-environment")
    assert resolve_settings("given").api_key == "given"
    assert resolve_settings().api_key == "from-environment"


@pytest.mark.parametrize("kind", [AgentBay, AsyncAgentBay])
def test_no_key(kind: Any) -> None:
    """A missing key is a ValueError that names both ways out."""
    with pytest.raises(ConfigurationError, match=r"API key is required.*AGENTBAY_API_KEY.*local\(\)") as caught:
        kind()
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("key", [" sEcReT", "sEcReT ", "two sEcReTs", "sEcReT\n", "sécrét", "sEc\tReT", "sEcReT\x00"])
def test_malformed_keys(key: str) -> None:
    """A malformed key is refused before it is sent, and not shown."""
    with pytest.raises(ConfigurationError, match="copied whole") as caught:
        resolve_settings(key)
    assert not set(key.split()) & set(str(caught.value).split())


@pytest.mark.parametrize(
    ("timeout", "cfg_ms", "variable", "expected"),
    [
        (None, None, None, 60.0),
        (None, None, "5000", 5.0),
        (None, 2500, None, 2.5),
        (None, 2500, "5000", 2.5),
        (0.5, 2500, "5000", 0.5),
        (7, None, "5000", 7.0),
        (None, 0, None, 60.0),
        (None, -1, None, 60.0),
        (None, True, None, 60.0),
        (None, "9", None, 60.0),
    ],
)
def test_time_limits(
    timeout: float | None, cfg_ms: Any, variable: str | None, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The argument goes before `cfg`, then the environment, then 60 s."""
    if variable is not None:
        monkeypatch.setenv("AGENTBAY_TIMEOUT_MS", variable)
    cfg = None if cfg_ms is None else Config(timeout_ms=cfg_ms)
    assert resolve_settings("key", cfg, timeout=timeout).timeout == expected


@pytest.mark.parametrize("text", ["soon", "-5", "0", "1.5", "٣x", "²"])
def test_bad_time_limit_in_the_environment(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A malformed variable causes a warning, and the default holds."""
    monkeypatch.setenv("AGENTBAY_TIMEOUT_MS", text)
    with pytest.warns(UserWarning, match="AGENTBAY_TIMEOUT_MS"):
        assert resolve_settings("key").timeout == 60.0


@pytest.mark.parametrize("timeout", [0, -1, True, "5", float("nan")])
def test_bad_time_limits(timeout: Any) -> None:
    """A malformed time limit is refused."""
    with pytest.raises(ConfigurationError, match="timeout must be"):
        resolve_settings("key", timeout=timeout)


@pytest.mark.parametrize("kind", [AgentBay, AsyncAgentBay])
def test_client_says_what_it_uses(kind: Any) -> None:
    """Both clients have the decided key, region and time limit."""
    client = kind("key", Config(timeout_ms=1500, endpoint="http://127.0.0.1:1"))
    assert (client.api_key, client.region_id, client.timeout) == ("key", "cn-hangzhou", 1.5)


def test_no_file_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A .env file is read only if it is named."""
    (tmp_path / ".env").write_text("AGENTBAY_API_KEY=found\nAGENTBAY_REGION_ID=us-east-1\n")
    (tmp_path / "below").mkdir()
    for folder in (tmp_path, tmp_path / "below"):
        monkeypatch.chdir(folder)
        with pytest.raises(ConfigurationError, match="API key is required"):
            resolve_settings()
        assert address(resolve_settings("key")) == DEFAULT


def test_file_that_is_not_there(tmp_path: Path) -> None:
    """A named file that does not exist is an error."""
    with pytest.raises(ConfigurationError, match="does not exist"):
        resolve_settings("key", env_file=str(tmp_path / "nosuch.env"))


def test_file_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without python-dotenv the error says how to install it."""
    monkeypatch.setitem(sys.modules, "dotenv", None)
    (tmp_path / "my.env").write_text("AGENTBAY_API_KEY=from-file\n")
    with pytest.raises(ConfigurationError, match=r"python-dotenv.*agentbay-sdk\[dotenv\]"):
        resolve_settings(env_file=str(tmp_path / "my.env"))


@pytest.mark.skipif(not HAS_DOTENV, reason="python-dotenv is not installed")
def test_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A named file supplies missing variables only, and changes no environment."""
    path = tmp_path / "my.env"
    path.write_text("AGENTBAY_API_KEY=from-file\nAGENTBAY_REGION_ID=us-east-1\nAGENTBAY_TIMEOUT_MS=\nOTHER=1\n")
    monkeypatch.setenv("AGENTBAY_REGION_ID", "ap-southeast-1")
    before = dict(os.environ)
    settings = resolve_settings(env_file=str(path))
    assert (settings.api_key, settings.region_id, settings.timeout) == ("from-file", "ap-southeast-1", 60.0)
    assert resolve_settings("given", Config(), env_file=str(path)).region_id == "cn-hangzhou"
    assert dict(os.environ) == before


def test_valid_settings_have_no_side_effects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Valid settings cause no warning and change no variable."""
    monkeypatch.setenv("AGENTBAY_API_KEY", "key")
    before = dict(os.environ)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resolve_settings(cfg=Config(endpoint="http://127.0.0.1:1"))
    assert dict(os.environ) == before
    assert caught == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:secret@p:1", "http://…p:1"),
        ("user:secret@p:1", "…p:1"),
        ("foo://user:se?cret@p/y", "foo://…p/y"),
        ("http://h/p?token=1\n2", "http://h/p…"),
        ("http://h:1/p", "http://h:1/p"),
        ("x" * 1_000_000, "x" * 1_000_000),
    ],
)
def test_urls_are_shown_without_secrets(url: str, shown: str) -> None:
    """Neither a user, nor a password, nor a query of a URL is shown, and a long text takes no long time."""
    assert redact_url(url) == shown
