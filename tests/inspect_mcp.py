"""Call every tool of `agentbay mcp` through the MCP inspector: `scripts/test-inspector` runs this.

The tools are tested by `test_mcp.py`, with the protocol's official client; here it is another client that has to
understand them. All calls share one server, and so one session.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from typing import Any

PAGE = "data:text/html,<title>A page</title><p>hello"
# tool, its arguments, what the answer says. Later calls use what earlier ones have made.
CALLS: list[tuple[str, dict[str, Any], str]] = [
    ("run_command", {"command": "echo hello"}, "hello"),
    ("start_process", {"command": "cat; echo ended"}, "[0-9a-f]{16}"),
    ("list_processes", {}, "PROCESS"),
    ("write_process", {"process_id": "PROCESS", "text": "typed\n"}, "."),
    ("read_process", {"process_id": "PROCESS", "wait_seconds": 5}, "typed"),
    ("stop_process", {"process_id": "PROCESS"}, "."),
    ("run_code", {"code": "6 * 7"}, "42"),
    ("write_file", {"path": "a.txt", "content": "one\ntwo\n"}, r"a\.txt"),
    ("read_file", {"path": "a.txt"}, "two"),
    ("edit_file", {"path": "a.txt", "edits": [{"old_text": "two", "new_text": "2"}]}, r"\+2|a\.txt"),
    ("list_directory", {"path": "."}, r"a\.txt"),
    ("search_files", {"pattern": "*.txt"}, r"a\.txt"),
    ("create_directory", {"path": "d"}, "d"),
    ("move_file", {"source": "a.txt", "destination": "d/b.txt"}, r"b\.txt"),
    ("delete_file", {"path": "d/b.txt"}, r"b\.txt"),
    ("get_link", {"port": 30100}, "http"),
    ("browser_open", {"url": PAGE}, "A page|hello"),
    ("browser_screenshot", {}, "image/"),
    ("browser_evaluate", {"expression": "1 + 1"}, "2"),
    ("browser_act", {"instruction": "click"}, "model|MODEL"),  # which is not there, and the answer says so
    ("start_app", {"command": "xterm"}, "."),
    ("list_windows", {}, "."),
    ("screenshot", {}, "image/"),
    ("click", {"x": 20, "y": 20}, "."),
    ("drag", {"from_x": 20, "from_y": 20, "to_x": 40, "to_y": 40}, "."),
    ("scroll", {"x": 20, "y": 20}, "."),
    ("type_text", {"text": "ls"}, "."),
    ("press_keys", {"keys": ["Return"]}, "."),
]
FAILING = {"browser_act"}


def inspect(inspector: str, url: str, *arguments: str) -> Any:
    """Run the inspector once, and return what it prints."""
    command = [inspector, "--cli", url, "--transport", "http", "--connect-timeout", "120000", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise SystemExit(f"{' '.join(arguments)}: {done.stdout}{done.stderr}") from None


def call(inspector: str, url: str, name: str, arguments: dict[str, Any]) -> tuple[bool, str]:
    """Call a tool, and return whether it says that it failed, and the answer."""
    pairs = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in arguments.items()]
    result = inspect(inspector, url, "--method", "tools/call", "--tool-name", name, *(
        part for pair in pairs for part in ("--tool-arg", pair)))  # fmt: skip
    return bool(result.get("isError")), json.dumps(result)


def check(inspector: str, url: str) -> int:
    """Call every tool that the server offers, and return how many went wrong."""
    offered = {tool["name"] for tool in inspect(inspector, url, "--method", "tools/list")["tools"]}
    wrong = [f"no call for {name}" for name in sorted(offered - {name for name, _, _ in CALLS})]
    process = "PROCESS"
    for name, arguments, says in CALLS:
        if name not in offered:
            wrong.append(f"{name} is not offered")
            continue
        given = {key: process if value == "PROCESS" else value for key, value in arguments.items()}
        failed, answer = call(inspector, url, name, given)
        if name == "start_process" and (found := re.search(r"\b[0-9a-f]{16}\b", answer)):
            process = found[0]
        fits = failed is (name in FAILING) and re.search(says.replace("PROCESS", re.escape(process)), answer)
        print("ok" if fits else "WRONG", name, "" if fits else answer[:300], flush=True)
        if not fits:
            wrong.append(name)
    print(f"{len(CALLS) - len(wrong)} of {len(CALLS)} calls, {len(offered)} tools")
    return len(wrong)


def main() -> None:
    """Start a server, and check it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AGENTBAY_")}
    server = subprocess.Popen([sys.executable, "-m", "agentbay", "mcp", "--http", str(port)], env=environment)
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if server.poll() is not None:
                raise SystemExit("the server has ended")
            time.sleep(0.1)
        sys.exit(check(sys.argv[1], f"http://127.0.0.1:{port}/mcp") > 0)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
