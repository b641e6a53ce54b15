"""Print facts about the installed client as JSON: `peer_program.py URL`.

Prints a fact a line, as the table in the README has them: a name, a tab, and what was found.
"""

import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import agentbay
from agentbay import AgentBay, AgentBayError, Config


def report(name: str, found: object) -> None:
    print(name, found, sep="\t")


def fails(operation: Callable[[], Any]) -> bool:
    try:
        return not operation().success
    except AgentBayError:
        return True


package = Path(agentbay.__file__).parent
plugins = importlib.metadata.entry_points(group="pytest11")
bay = AgentBay(api_key="key", cfg=Config(endpoint=sys.argv[1], timeout_ms=10_000))
session = bay.get("session-1").session
assert session is not None

report("runs offline", hasattr(AgentBay, "local"))
report("pytest plugin", any(plugin.value.startswith("agentbay.") for plugin in plugins))
report("refused labels are a success", not fails(lambda: session.set_labels({"a": "b"})))
report("a refused link is a success", not fails(lambda: session.get_link(port=30100)))
report("an answer lost once is a failure", fails(session.get_labels))
report("a command is found again", hasattr(session.command, "attach"))
report("with", hasattr(AgentBay, "__exit__") and hasattr(AgentBay, "session"))
report("py.typed", (package / "py.typed").is_file())
