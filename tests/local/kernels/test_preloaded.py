"""What a warm kernel has preloaded: it is imported as in a fresh process, whatever the session has installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentbay.local.kernels.kernel_manager import KernelManager
from agentbay.local.kernels.python_forker import PythonKernelForker
from agentbay.local.sandbox.service.manager import SandboxManager, SandboxSpec
from tests.local.kernels.conftest import LIMITS, KernelRunner

# It writes a module where pip would, so that this takes no time.
INSTALL = (
    "import sysconfig\nwith open(f\"{sysconfig.get_path('purelib')}/%s.py\", 'w') as file: file.write('VERSION = 99')\n"
)
REMOVE = "import os, sysconfig; os.remove(f\"{sysconfig.get_path('purelib')}/%s.py\")"
IS_WARM = "'agentbay-kernel' in open('/proc/self/cmdline').read()"


@pytest.fixture
async def warm_bench(host: SandboxManager, warm: PythonKernelForker, tmp_path: Path):
    sandbox = await host.create(SandboxSpec(root=tmp_path, limits=LIMITS))
    yield KernelRunner("python", sandbox, KernelManager(python=warm.start))
    await sandbox.close()


async def test_nothing_is_imported_yet(warm_bench: KernelRunner) -> None:
    """Packages are preloaded, and yet appear when they are imported, with all that they use."""
    assert await warm_bench.value(f"import sys; {IS_WARM}, 'numpy' in sys.modules, 'pandas' in sys.modules") == (
        "(True, False, False)"
    )
    code = (
        "from importlib.util import find_spec\nfound = find_spec('pandas').origin\nimport pandas.core.frame as frame\n"
    )
    await warm_bench.run(code)
    assert await warm_bench.value("'numpy' in sys.modules, 'matplotlib' in sys.modules") == "(True, False)"
    assert await warm_bench.value(
        "import pandas; frame.DataFrame is pandas.DataFrame, found == pandas.__file__ == pandas.__spec__.origin"
    ) == ("(True, True)")
    assert await warm_bench.value(
        "import numpy; pandas.DataFrame({'a': [1, 2]}).a.to_numpy().__class__ is numpy.ndarray"
    )
    await warm_bench.run("import matplotlib.pyplot as plot; plot.plot([1])")
    assert await warm_bench.value("import importlib; importlib.reload(pandas.compat) is pandas.compat") == "True"


async def test_a_plot_is_drawn_for_its_picture_alone(warm_bench: KernelRunner) -> None:
    """A figure is drawn twice, to find its bounds and to make its picture, and not once more for nobody."""
    code = (
        "import matplotlib.pyplot as plot; from matplotlib.figure import Figure\n"
        "drawn, draw = [], Figure.draw\n"
        "Figure.draw = lambda figure, *given: drawn.append(figure) or draw(figure, *given)"
    )
    await warm_bench.run(code)
    shown = await warm_bench.run("plot.plot([1, 2, 3]);")
    answer = shown.to_json("")
    assert "image/png" in (answer if isinstance(answer, str) else "".join(answer.text_pieces()))
    assert await warm_bench.value("len(drawn)") == "2"


async def test_what_is_installed_comes_first(warm_bench: KernelRunner) -> None:
    """An installed module replaces a preloaded one that was not imported yet, in the same cell."""
    assert await warm_bench.value(f"{INSTALL % 'six'}import six; six.VERSION, {IS_WARM}") == "(99, True)"
    # what uses the replaced one goes on with its own
    assert await warm_bench.value("import pandas; str(pandas.Timestamp('2024-01-01').date())") == "'2024-01-01'"
    assert await warm_bench.value(f"{INSTALL % 'pytz'}import numpy; numpy.__name__") == "'numpy'"


async def test_what_cannot_be_loaded_twice(warm_bench: KernelRunner) -> None:
    """A compiled package is not mixed with another version of what it was loaded with; a new kernel has them."""
    assert await warm_bench.output(f"{INSTALL % 'numpy'}import numpy; print(numpy.VERSION)") == "99\n"
    refused = await warm_bench.run("import pandas")
    assert refused.error_line == (
        "ImportError: pandas is loaded already with the numpy that was replaced since. "
        "Restart this context to use them together."
    )
    await warm_bench.kernels.restart("python")
    assert await warm_bench.output(f"import numpy; print(numpy.VERSION, {IS_WARM})") == "99 False\n"
    await warm_bench.run(REMOVE % "numpy")
    await warm_bench.kernels.restart("python")
    assert await warm_bench.value(f"import pandas; pandas.__name__, {IS_WARM}") == "('pandas', True)"
