"""The documentation's notebooks run, and both flavours work in a notebook kernel."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

if sys.platform != "linux":
    pytest.skip("the local runtime needs Linux", allow_module_level=True)

NOTEBOOKS = sorted((Path(__file__).parent.parent / "docs" / "notebooks").glob("*.ipynb"))
SECONDS = 300  # for one cell

pytestmark = pytest.mark.slow


def execute(notebook: Any, folder: Path) -> Any:
    """Execute all cells in a new kernel, and raise if one fails."""
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=SECONDS, startup_timeout=SECONDS, resources=resources).execute()
    return notebook


def cells(*sources: str) -> Any:
    """Return a notebook with these cells."""
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


def outputs(notebook: Any) -> list[list[str]]:
    """Return the kinds of output of each cell."""
    found = []
    for cell in notebook.cells:
        kinds = [
            output.get("name") or f"{output.output_type}: {' '.join(sorted(output.get('data', ())))}"
            for output in cell.get("outputs", ())
        ]
        found.append([kind for number, kind in enumerate(kinds) if kinds[number - 1 : number] != [kind]])
    return found


def written(cell: Any, stream: str) -> str:
    """Return the text that a cell wrote to a stream."""
    return "".join(output.text for output in cell.outputs if output.get("name") == stream)


def test_all_are_here() -> None:
    """All three notebooks are tested."""
    assert [path.stem for path in NOTEBOOKS] == ["data_analysis", "first_steps", "parallel_sessions"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    """The notebook runs without warnings, and its outputs equal the stored ones."""
    stored = nbformat.read(path, 4)  # type: ignore[no-untyped-call]
    nbformat.validate(stored)
    fresh = execute(nbformat.read(path, 4), tmp_path)  # type: ignore[no-untyped-call]
    assert outputs(fresh) == outputs(stored)
    assert not [kinds for kinds in outputs(fresh) if "stderr" in kinds]
    assert [cell.execution_count for cell in stored.cells if cell.cell_type == "code"] == [
        cell.execution_count for cell in fresh.cells if cell.cell_type == "code"
    ]
    assert not re.search(r"/root|/home/(?!wuying)|site-packages|akm-|127\.0\.0\.1", path.read_text(encoding="utf-8"))


def test_blocking_calls(tmp_path: Path) -> None:
    """A cell may block, but a stalled background task is reported once."""
    notebook = cells(
        "import asyncio\nfrom agentbay import AgentBay\nbay = AgentBay.local()\nbay.list().unwrap()",
        "await asyncio.sleep(0)\nbay.list().unwrap()",
        "async def blocking():\n    for _ in range(2):\n        bay.list().unwrap()",
        "await asyncio.create_task(blocking())",
        "await asyncio.gather(asyncio.to_thread(bay.list), asyncio.sleep(0))\nbay.close()",
    )
    execute(notebook, tmp_path)
    warned = [written(cell, "stderr") for cell in notebook.cells]
    assert warned[3].count("BlockingCallWarning: This blocks the running event loop") == 1
    assert "bay.list().unwrap()" in warned[3]  # the line that is meant
    assert [bool(text) for text in warned] == [False, False, False, True, False]


def test_what_goes_on_is_shown_in_the_cell(tmp_path: Path) -> None:
    """Progress bars and live output appear in the cell that caused them."""
    notebook = cells(
        "from agentbay import AgentBay, progress\nbay = AgentBay.local()\nsession = bay.create().unwrap().session",
        "with progress('<sending>', 3000) as tell:\n    tell(1500)",
        "try:\n    with progress('sending'):\n        1 / 0\nexcept ZeroDivisionError: pass",
        "session.code.stream('print(1)\\ndisplay({\"text/html\": \"<b>2</b>\"}, raw=True)', 'python').show()",
        'live = """from IPython.display import clear_output\\ndisplay(1); clear_output()\\n'
        'h = display(5, display_id="x"); display("end"); h.update(6)"""\nsession.code.stream(live, "python").show()',
        "session.command.start('echo 3; echo 4 >&2').show()",
        "open('sent', 'w').write('x')\nsession.file_system.push('.', '/tmp/there', progress=True).copied",
        "session.delete()\nbay.close()",
    )
    execute(notebook, tmp_path)
    bar, failed, code, live, command, push = notebook.cells[1:7]
    assert re.search(r"&lt;sending&gt;: done, 1.5 kB, \d+\.\d s", bar.outputs[0].data["text/html"])
    assert "sending: failed, " in failed.outputs[0].data["text/html"]
    assert written(code, "stdout") == "1\n"
    assert [output.data["text/html"] for output in code.outputs if "data" in output] == ["<b>2</b>"]
    assert [output.data["text/plain"] for output in live.outputs] == ["6", "'end'"]
    assert (written(command, "stdout"), written(command, "stderr")) == ("3\n", "4\n")
    assert "push /tmp/there: done, 1 B" in push.outputs[0].data["text/html"]
