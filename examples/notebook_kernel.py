"""Run a notebook, and cells one by one, on a kernel that is in a session. Needs nbclient and the extra jupyter.

    python examples/notebook_kernel.py

`python -m agentbay.integrations.jupyter` adds the same kernel to Jupyter itself.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient
from nbformat import v4

from agentbay.integrations.jupyter import install


def run_notebook() -> None:
    """Run all cells of a notebook in a session of its own, and print what they say."""
    cells = ["import os\nanswer = 6 * 7", "print(os.environ['HOME'], answer)"]
    notebook: Any = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, kernel_name="session").execute()
    print(notebook.cells[1].outputs[0].text, end="")


def run_cells() -> None:
    """Run cells, interrupt one, and restart the kernel, which keeps the files of its session."""
    manager, client = start_new_kernel(kernel_name="session")
    try:
        client.execute_interactive("answer = 42; done = open('note', 'w').write('still here')")
        client.execute("print('on it', flush=True)\nwhile True: pass")
        while client.get_iopub_msg(timeout=30)["msg_type"] != "stream":
            pass
        manager.interrupt_kernel()
        print("interrupted:", client.get_shell_msg(timeout=30)["content"]["ename"])
        manager.restart_kernel()
        client.wait_for_ready(timeout=60)
        client.execute_interactive("print('after the restart:', open('note').read(), 'answer' in globals())")
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JUPYTER_DATA_DIR"] = folder  # so that this adds no kernel to your Jupyter
        install("session", user=True)
        run_notebook()
        run_cells()
