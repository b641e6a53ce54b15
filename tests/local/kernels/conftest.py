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

from agentbay.local.kernels.execution_output import MIB, ExecutionOutput
from agentbay.local.kernels.kernel_manager import KernelManager
from agentbay.local.kernels.python_forker import PythonKernelForker
from agentbay.local.sandbox.service.manager import Limits, Sandbox, SandboxManager, SandboxSpec
from tests.local.traces import PATIENCE

LIMITS = Limits(total_memory_bytes=512 * MIB, processes=128)
PROGRAMS = {"javascript": "node", "r": "R", "java": "jshell"}


@dataclass
class KernelRunner:
    """The kernels of one language in a sandbox of their own."""

    language: str
    sandbox: Sandbox
    kernels: KernelManager
    environment: dict[str, str] = field(default_factory=dict)

    async def run(self, code: str, timeout: float = 2 * PATIENCE, context: str = "") -> ExecutionOutput:
        transcript = ExecutionOutput()
        await self.kernels.run(
            self.sandbox,
            context or self.language,
            code,
            env=self.environment,
            timeout=timeout,
            output=transcript,
        )
        return transcript

    async def value(self, code: str, context: str = "") -> str:
        """Run code, and return the text of its value."""
        transcript = await self.run(code, context=context)
        assert not transcript.failed, transcript.error_line
        return str(json.loads(json.loads(transcript.to_json(""))["result"][-1])["text/plain"])

    async def output(self, code: str) -> str:
        """Run code, and return its standard output."""
        transcript = await self.run(code)
        assert not transcript.failed, transcript.error_line
        return written(transcript)


def written(transcript: ExecutionOutput) -> str:
    """What code wrote to its standard output."""
    answer = transcript.to_json("")
    return "".join(json.loads(answer if isinstance(answer, str) else "".join(answer.text_pieces()))["stdout"])


@pytest.fixture(scope="session")
async def host() -> AsyncIterator[SandboxManager]:
    host = await SandboxManager.start()
    yield host
    await host.close()


@pytest.fixture(scope="session")
async def warm(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PythonKernelForker]:
    """The zygote, ready to fork."""
    warm = PythonKernelForker(tmp_path_factory.mktemp("cache"))
    warm.start_zygote()
    with anyio.fail_after(PATIENCE):
        while not warm.ready:
            await anyio.sleep(0.02)
    yield warm
    warm.close()


@pytest.fixture(
    scope="module", params=["warm", "cold", "javascript", "r", pytest.param("java", marks=pytest.mark.slow)]
)
async def runner(
    request: pytest.FixtureRequest,
    host: SandboxManager,
    warm: PythonKernelForker,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[KernelRunner]:
    """A runner of each kind, which the tests of a module share."""
    if (program := PROGRAMS.get(request.param)) and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    sandbox = await host.create(SandboxSpec(root=Path(tmp_path_factory.mktemp("runner")), limits=LIMITS))
    kernels = KernelManager(python=warm.start) if request.param == "warm" else KernelManager()
    yield KernelRunner("python" if request.param in ("warm", "cold") else request.param, sandbox, kernels)
    await sandbox.close()
