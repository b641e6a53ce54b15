"""Languages that this machine does not have."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from agentbay.local.kernels import languages
from agentbay.local.kernels.kernel_manager import CodeRequestRejected, KernelManager
from agentbay.local.sandbox.service.manager import SandboxManager, SandboxSpec
from tests.local.kernels.conftest import KernelRunner


@pytest.mark.parametrize(
    ("language", "advice"),
    [
        ("python", 'pip install "agentbay-sdk[local,data]"'),
        ("jupyter:python3", 'pip install "agentbay-sdk[jupyter]"'),
        ("javascript", "apt-get install nodejs"),
        ("r", "apt-get install r-base-core"),
        ("java", "apt-get install openjdk-17-jdk-headless"),
    ],
)
async def test_what_is_not_installed(
    host: SandboxManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, advice: str
) -> None:
    """Code in a language that lacks its program is a failed result that says what to install; so is a context."""
    monkeypatch.setattr(languages, "_SANDBOX_PATH", str(tmp_path))
    monkeypatch.setattr(
        languages, "find_spec", lambda name: None if name in ("IPython", "jupyter_client") else find_spec(name)
    )
    runner = KernelRunner(language, await host.create(SandboxSpec(root=tmp_path)), KernelManager())
    transcript = await runner.run("1")
    assert transcript.error is not None
    assert transcript.error["name"] == "LanguageNotInstalled.Local"
    assert advice in transcript.error["value"]
    with pytest.raises(CodeRequestRejected) as refused:
        await runner.kernels.create(runner.sandbox, language, "mine", {})
    assert advice in str(refused.value)
    assert [facts.name for facts in runner.kernels.list()] == [language]
    await runner.sandbox.close()
