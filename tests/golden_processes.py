"""The recorded calls of the tools for background processes, which are this project's own."""

from __future__ import annotations

from agentbay._wire import process_tools as tools
from agentbay._wire.schema import Tool

_ID = "0af7651916cd43dd"
PROCESS_TOOL_CALLS: dict[str, dict[str, Tool]] = {
    "start_process": {
        "least": tools.StartProcess(command="sleep 9"),
        "everything given": tools.StartProcess(
            command="make", process_id=_ID, cwd="/tmp", envs={"A": "b", "Ü": ""}, label="build"
        ),
        "arguments and input": tools.StartProcess(command="cat -", argv=["cat", "-"], stdin="text", merge_stderr=True),
        "refused": tools.StartProcess(command="true", cwd="/none"),
    },
    "list_processes": {"two": tools.ListProcesses()},
    "read_process_output": {
        "text": tools.ReadProcessOutput(process_id=_ID),
        "bytes": tools.ReadProcessOutput(
            process_id=_ID, stream="stderr", offset=2, max_bytes=100, wait_ms=5000, encoding="base64"
        ),
    },
    "wait_process": {
        "runs": tools.WaitProcess(process_id=_ID, timeout_ms=5000),
        "ended": tools.WaitProcess(process_id=_ID),
    },
    "write_process_input": {
        "text": tools.WriteProcessInput(process_id=_ID, data="héllo\n", close=True),
        "bytes": tools.WriteProcessInput(process_id=_ID, data="/wA=", encoding="base64", timeout_ms=1000),
    },
    "signal_process": {"interrupt": tools.SignalProcess(process_id=_ID, signal=2)},
    "remove_process": {
        "ended": tools.RemoveProcess(process_id=_ID),
        "any": tools.RemoveProcess(process_id=_ID, kill=True),
    },
}
