from __future__ import annotations

import base64
import json

import pytest

from agentbay.local.handlers.files import whole_characters
from tests.local.raw import Wire


def failure(wire: Wire, session: str, name: str, **args: object) -> str:
    reply = wire.tool(session, name, **args)
    assert reply["isError"]
    return str(reply["content"][0]["text"])


def test_shell(wire: Wire, session: str):
    """A command runs in sh with its directory and variables."""
    assert wire.sh(session, "printf 'a\\0b\\001'; echo err >&2") == {
        "stdout": "a\0b\1",
        "stderr": "err\n",
        "exit_code": 0,
    }
    failed = wire.sh(session, "nosuch; (exit 3)")
    assert (failed["exit_code"], failed["stderr"], len(failed["traceId"])) == (3, "sh: 1: nosuch: not found\n", 32)
    assert wire.sh(session, "pwd; echo $A", cwd="/tmp", envs={"A": "ü $x"})["stdout"] == "/tmp\nü $x\n"
    assert wire.sh(session, "printf '\\377é'")["stdout"] == "\ufffdé"
    missing = wire.sh(session, "true", cwd="/nowhere")
    assert missing["exit_code"] != 0
    assert "/nowhere: No such file or directory" in missing["stderr"]


def test_reading_a_huge_file(wire: Wire, session: str):
    """The refusal of a file that no answer can hold names ways that are there."""
    wire.sh(session, "truncate -s 257M huge")
    text = failure(wire, session, "read_file", path="huge")
    assert "256 MiB" in text
    assert "offset and length" in text
    assert "pull, download_file or a command" in text


def test_shell_timeout(wire: Wire, session: str):
    """A command over its time limit is killed, and its output kept."""
    for args, limit in (({"timeout_ms": 5000}, 5000), ({}, 1000)):
        reply = wire.tool(session, "shell", command="echo out; echo err >&2; sleep 30", **args)
        assert json.loads(reply["content"][0]["text"]) == {
            "stdout": "", "stderr": "", "exit_code": -1, "errorMessage": f"timed out after {limit} ms",
        }  # fmt: skip
        assert reply["isError"]
        assert reply["structuredContent"]["timedOut"] is True
        if args:  # in less time a busy machine need not even begin
            assert reply["structuredContent"] == {"stdout": "out\n", "stderr": "err\n", "timedOut": True}
    much = wire.tool(session, "shell", command="head -c 70000000 /dev/zero | tr '\\0' x; sleep 30", timeout_ms=5000)
    assert (much["structuredContent"]["timedOut"], much["structuredContent"]["truncated"]) == (True, True)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("shell", {}), ("shell", {"command": [1]}), ("shell", {"command": "a\0b"}), ("shell", {"command": "\ud800"}),
        ("shell", {"command": "true", "timeout_ms": 0}), ("shell", {"command": "true", "timeout_ms": True}),
        ("shell", {"command": "true", "envs": {"a=b": "c"}}), ("shell", {"command": "true", "cwd": "\0"}),
        ("read_file", {"path": "\0"}), ("read_file", {"path": "x", "offset": -1}),
        ("write_file", {"path": "x", "content": "y", "mode": "z"}), ("write_file", {"path": "x"}),
        ("read_multiple_files", {"paths": "/etc/hostname"}), ("read_multiple_files", {"paths": {"a": 1}}),
        ("set_env", {"envs": {"key": "a", "value": "b"}}), ("get_env", {"keys": "HOME"}),
        ("shell", {"command": "true", "envs": [["a", "b"]]}), ("nosuch", {}),
    ],
)  # fmt: skip
def test_malformed_calls(wire: Wire, session: str, name: str, args: dict[str, object]):
    """What a tool cannot do anything with is its answer, in the service's form."""
    form = json.dumps(args)  # escapes, so that what is no Unicode gets through
    reply = wire.data("CallMcpTool", SessionId=session, Name=name, Args=form)
    assert reply["isError"]
    assert reply["content"][0]["text"].startswith("Execution failed. Error code:-326")


def test_files(wire: Wire, session: str):
    """What is written can be read, listed, described, moved, found and deleted."""
    wire.text(session, "write_file", path="a/b/c.txt", content="héllo\n")
    wire.text(session, "write_file", path="a/b/c.txt", content="---\n", mode="append")
    assert wire.text(session, "read_file", path="/home/wuying/a/b/c.txt") == "héllo\n---\n"
    assert wire.text(session, "read_file", path="a/b/c.txt", offset=7, length=3) == "---"
    binary = wire.text(session, "read_file", path="a/b/c.txt", offset=0, length=3, format="binary")
    assert base64.b64decode(binary) == "hé".encode()
    info = dict(line.split(": ", 1) for line in wire.text(session, "get_file_info", path="a/b/c.txt").split("\n"))
    assert (info["size"], info["isFile"], info["isDirectory"], info["permissions"]) == ("11", "true", "false", "644")
    assert set(info) >= {"created", "modified", "accessed"}
    wire.text(session, "create_directory", path="a/d/e")
    wire.text(session, "move_file", source="a/b/c.txt", destination="/tmp/[FILE] c")
    reply = wire.tool(session, "list_directory", path="/tmp")
    # a runtime whose own Python lies below /tmp shows that there too
    assert {"[DIR] .X11-unix", "[FILE] [FILE] c"} <= set(reply["content"][0]["text"].split("\n"))
    assert {"name": "[FILE] c", "isDirectory": False, "size": 11} in reply["structuredContent"]["entries"]
    assert wire.text(session, "list_directory", path="a/d/e") == ""
    assert (
        wire.text(session, "search_files", path="a", pattern="?")
        == "/home/wuying/a/b\n/home/wuying/a/d\n/home/wuying/a/d/e"
    )
    assert wire.text(session, "search_files", path="a", pattern="?", excludePatterns="d,x") == "/home/wuying/a/b"
    assert wire.text(session, "search_files", path="a", pattern="z*") == "No matches found"
    wire.text(session, "delete_file", path="a")
    assert wire.stdout(session, "ls") == ""


@pytest.mark.parametrize(
    ("name", "args", "what", "path"),
    [
        ("get_file_info", {"path": "/tmp/x"}, "get file status", "/tmp/x"),
        ("read_file", {"path": "/tmp/x"}, "get file status", "/tmp/x"),
        ("list_directory", {"path": "nowhere"}, "list directory", "/home/wuying/nowhere"),
        ("delete_file", {"path": "/tmp/x"}, "delete file", "/tmp/x"),
    ],
)
def test_missing_files(wire: Wire, session: str, name: str, args: dict[str, str], what: str, path: str):
    """A file operation that fails says so in the service's words."""
    expected = (
        f"Execution failed. Error code:-32602 Error message: Failed to {what}: {path}, error: No such file or directory"
    )
    assert failure(wire, session, name, **args) == expected


def test_forbidden_files(wire: Wire, session: str):
    """Files are reached with the rights of the session's user, in its mounts only."""
    assert failure(wire, session, "create_directory", path="/opt/mine").endswith(": Read-only file system")
    wire.stdout(session, "ln -s /etc/shadow link; mkfifo fifo")
    assert "No such file" in failure(wire, session, "read_file", path="link")
    assert failure(wire, session, "read_file", path="fifo").endswith("fifo, error: Not a regular file")


def test_names_that_are_no_unicode(wire: Wire, session: str):
    """A file whose name is not UTF-8 can be used by its listed name."""
    wire.stdout(session, "printf x > \"$(printf 'caf\\351')\"")
    (entry,) = wire.tool(session, "list_directory", path=".")["structuredContent"]["entries"]
    reply = wire.data("CallMcpTool", SessionId=session, Name="read_file", Args=json.dumps({"path": entry["name"]}))
    assert reply["content"][0]["text"] == "x"


@pytest.mark.parametrize("text", ["aé€😀", "😀😀", "abc", "€" * 5, ""])
def test_pieces_add_up(text: str):
    """Pieces of any size, cut anywhere, add up to the whole."""
    data = text.encode()
    for size in range(1, len(data) + 2):
        pieces = [
            bytes(whole_characters(data[at : at + size + 3], size, inside=at > 0)).decode()
            for at in range(0, max(len(data), 1), size)
        ]
        assert "".join(pieces) == text


def test_metrics(wire: Wire, session: str):
    """The numbers are the machine's and the session's own."""
    wire.text(session, "get_metrics")
    wire.stdout(session, "python3 -c 'import time\nwhile time.process_time() < 0.5: pass'")
    metrics = json.loads(wire.text(session, "get_metrics"))
    assert metrics["cpu_count"] >= 1
    assert 0 < metrics["cpu_used_pct"] <= 100
    assert 0 < metrics["disk_used"] < metrics["disk_total"]
    assert 0 <= metrics["mem_used"] < metrics["mem_total"]
    assert metrics["timestamp"][10] == "T"
    assert metrics["timestamp"][-6] in "+-"
