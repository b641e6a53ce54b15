from __future__ import annotations

import json
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

if sys.platform != "linux":
    pytest.skip("kernels run in sandboxes, which need Linux", allow_module_level=True)

from agentbay.local.kernels.table import Kernels
from agentbay.local.kernels.transcript import MIB, Transcript
from agentbay.local.kernels.warm import WarmPython
from agentbay.local.sandbox.host import Limits, Sandbox, SandboxHost, SandboxSpec
from tests.local.traces import PATIENCE

LIMITS = Limits(total_memory_bytes=512 * MIB, processes=128)
PROGRAMS = {"javascript": "node", "r": "R", "java": "jshell"}


@dataclass
class Bench:
    """One language's kernels in a sandbox of their own; "cold" is Python without its zygote."""

    language: str
    sandbox: Sandbox
    kernels: Kernels
    environment: dict[str, str] = field(default_factory=dict)

    async def run(self, code: str, timeout: float = 2 * PATIENCE, context: str = "") -> Transcript:
        transcript = Transcript()
        await self.kernels.run(
            self.sandbox,
            context or self.language,
            code,
            env=self.environment,
            timeout=timeout,
            transcript=transcript,
        )
        return transcript

    async def value(self, code: str, context: str = "") -> str:
        """Run code that succeeds; return the text of its value."""
        transcript = await self.run(code, context=context)
        assert not transcript.failed, transcript.message
        return str(json.loads(json.loads(transcript.text(""))["result"][-1])["text/plain"])

    async def output(self, code: str) -> str:
        """Run code that succeeds; return what it wrote."""
        transcript = await self.run(code)
        assert not transcript.failed, transcript.message
        return written(transcript)


def written(transcript: Transcript) -> str:
    """What code wrote to its standard output."""
    return "".join(json.loads(transcript.text(""))["stdout"])


@pytest.fixture(scope="session")
async def host() -> AsyncIterator[SandboxHost]:
    host = await SandboxHost.start()
    yield host
    await host.close()


@pytest.fixture(scope="session")
async def warm() -> AsyncIterator[WarmPython]:
    """The zygote, ready to fork."""
    warm = WarmPython()
    warm.begin()
    with anyio.fail_after(PATIENCE):
        while not warm.ready:
            await anyio.sleep(0.02)
    yield warm
    warm.close()


@pytest.fixture(
    scope="module", params=["warm", "cold", "javascript", "r", pytest.param("java", marks=pytest.mark.slow)]
)
async def bench(
    request: pytest.FixtureRequest, host: SandboxHost, warm: WarmPython, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bench]:
    """A bench of each kind; what one test does to it, the next one has to live with."""
    if (program := PROGRAMS.get(request.param)) and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    sandbox = await host.create(SandboxSpec(root=Path(tmp_path_factory.mktemp("bench")), limits=LIMITS))
    kernels = Kernels(python=warm.start) if request.param == "warm" else Kernels()
    yield Bench("python" if request.param in ("warm", "cold") else request.param, sandbox, kernels)
    await sandbox.close()
