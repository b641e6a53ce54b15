"""The settings that are read from this machine's package clients."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentbay.local.network import package_client_settings
from agentbay.local.network.egress_policy import EgressRule


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty home, with all variables of package clients unset."""
    for name in package_client_settings._variables():
        monkeypatch.delenv(name)
    for name in ("PIP_CONFIG_FILE", "NPM_CONFIG_USERCONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    return tmp_path


def test_configured_rules(home, monkeypatch):
    """Hosts come from files and variables, but not from proxies and comments."""
    (home / ".config/pip").mkdir(parents=True)
    (home / ".config/pip/pip.conf").write_text(
        "[global]\nindex-url = https://me:secret@index.test/index\n"
        "extra-index-url =\n  http://one.test:8080/index\n  https://two.test\nproxy = http://proxy.test:3128\n"
        "# find-links = https://comment.test\n"
    )
    (home / ".npmrc").write_text("registry=https://npm.test/\n@scope:registry=https://scope.test:4873/\n")
    (home / ".gitconfig").write_text('[url "https://mirror.test/"]\n  insteadOf = https://origin.test/\n')
    monkeypatch.setenv("UV_INDEX", "name=https://uv.test/index")
    found = package_client_settings.configured_rules()
    assert found >= {
        EgressRule("index.test", (443,)), EgressRule("one.test", (8080,)), EgressRule("two.test", (443,)),
        EgressRule("npm.test", (443,)),
        EgressRule("scope.test", (4873,)), EgressRule("mirror.test", (443,)), EgressRule("uv.test", (443,)),
    }  # fmt: skip
    assert not {"proxy.test", "comment.test"} & {rule.host for rule in found}


def test_variables_for_sandboxes(home, monkeypatch):
    """Sandboxes get the same indexes without credentials, variables before files."""
    (home / ".pip").mkdir()
    (home / ".pip/pip.conf").write_text("[global]\nindex-url = https://me:secret@index.test/index\nretries = 3\n")
    (home / ".npmrc").write_text("//npm.test/:_authToken=secret\nregistry=https://npm.test/\n")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://extra.test/index file:///opt/wheels")
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/ssl/certs/ca.pem")
    monkeypatch.setenv("PIP_CERT", str(home / "ca.pem"))
    found = package_client_settings.package_client_environment()
    assert found["PIP_INDEX_URL"] == "https://index.test/index"
    assert found["PIP_EXTRA_INDEX_URL"] == "https://extra.test/index"
    assert found["NPM_CONFIG_REGISTRY"] == "https://npm.test/"
    assert found["SSL_CERT_FILE"] == "/etc/ssl/certs/ca.pem"
    assert "PIP_CERT" not in found  # a file that sandboxes do not see
    assert "secret" not in str(found)


def test_built_in_indexes(home, monkeypatch):
    """Without configuration, the built-in indexes of pip and npm are allowed."""
    pip = pytest.importorskip("pip._internal.models.index")
    monkeypatch.setenv("PATH", str(home))  # npm takes half a second
    (home / "npm").write_text("#!/bin/sh\necho https://registry.test/\n")
    (home / "npm").chmod(0o755)
    hosts = {rule.host for rule in package_client_settings.default_rules()}
    assert hosts == {pip.PyPI.netloc, pip.PyPI.file_storage_domain, "registry.test"}
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.test/index")
    assert {rule.host for rule in package_client_settings.default_rules()} == {"registry.test"}
