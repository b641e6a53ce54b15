"""Our client sends the same requests as the official client."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.both_clients import run_both, run_program
from tests.capture import Captured

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).with_name("official_program.py")
ACCIDENTS = {"Timestamp", "SignatureNonce"}
HEADERS = ("content-type", "x-acs-action", "x-acs-version", "x-access-token")
TOOLS = ("any", "press_keys", "shell", "read_file", "write_file", "list_directory", "get_file_info", "get_metrics")
READ_SIZE = 120_000  # two whole pieces of 51,200 bytes and a rest
CONTEXTS = ("plain", "default", "policy", "file", "browser", "extensions", "fingerprint")


class Service:
    """A service that records the requests of each step of the program."""

    def __init__(self) -> None:
        self.url = ""
        self.status = "RUNNING"
        self.step = ""
        self.steps: dict[str, list[Captured]] = {}

    def answer(self, request: Captured) -> dict[str, Any]:
        if request.path == "/step":
            self.step = request.body.decode() or next(iter(request.form))
            self.steps[self.step] = []
            return {}
        self.steps[self.step].append(request)
        if request.path.endswith("/callTool"):
            call = json.loads(request.body)
            return {"data": {"result": self._tool(call["tool"], call["args"])}}
        fields = request.fields
        data = getattr(self, f"_{request.action}", lambda _: None)(fields)
        envelope = {"RequestId": "R-1", "Success": True, "Code": "ok", "HttpStatusCode": 200, "Message": ""}
        if request.action == "ListSession":
            page = int(fields.get("NextToken", "page-1").removeprefix("page-"))
            envelope |= {"NextToken": f"page-{page + 1}", "MaxResults": 10, "TotalCount": 99}
        return envelope if data is None else {**envelope, "Data": data}

    def _session(self) -> dict[str, Any]:
        return {"SessionId": "session-1", "AppInstanceId": "ai-1", "ResourceId": "p-1", "ResourceUrl": "https://x/y"}

    def _CreateMcpSession(self, fields: dict[str, str]) -> dict[str, Any]:
        direct = "direct" in fields.get("Labels", "")
        tools = json.dumps([{"name": name, "server": f"server_{name}"} for name in TOOLS]) if direct else "[]"
        links = {"Token": "token-1", "LinkUrl": f"{self.url}/link/base/"} if direct else {}
        return {**self._session(), "Success": True, "ToolList": tools, **links}

    def _GetSession(self, _: dict[str, str]) -> dict[str, Any]:
        return {**self._session(), "Status": self.status, "ToolList": "[]"}

    def _PauseSessionAsync(self, _: dict[str, str]) -> None:
        self.status = "PAUSED"

    def _ResumeSessionAsync(self, _: dict[str, str]) -> None:
        self.status = "RUNNING"

    def _GetSessionDetail(self, _: dict[str, str]) -> dict[str, Any]:
        return {"Status": "FINISH"}

    def _ListSession(self, _: dict[str, str]) -> list[dict[str, str]]:
        return [{"SessionId": "session-1", "SessionStatus": "RUNNING"}]

    def _GetContextInfo(self, _: dict[str, str]) -> dict[str, str]:
        done = [{"contextId": f"ctx-{name}", "status": "Success", "taskType": "download"} for name in CONTEXTS]
        return {"ContextStatus": json.dumps([{"type": "data", "data": json.dumps(done)}])}

    def _GetLabel(self, _: dict[str, str]) -> dict[str, str]:
        return {"Labels": "{}"}

    def _GetMcpResource(self, _: dict[str, str]) -> dict[str, Any]:
        return {"SessionId": "session-1", "ResourceUrl": "https://x/y", "DesktopInfo": {"AppId": "app-1"}}

    def _GetLink(self, _: dict[str, str]) -> dict[str, str]:
        return {"Url": "https://x/y"}

    def _ListMcpTools(self, _: dict[str, str]) -> str:
        return "[]"

    def _CallMcpTool(self, fields: dict[str, str]) -> dict[str, Any]:
        return self._tool(fields["Name"], json.loads(fields["Args"]))

    def _tool(self, name: str, args: dict[str, Any]) -> dict[str, Any]:
        text = "True"
        if name == "shell":
            text = json.dumps({"stdout": "", "stderr": "", "exit_code": 0})
        elif name == "get_file_info":
            text = f"size: {READ_SIZE}\nisDirectory: false\nisFile: true"
        elif name == "read_file":
            content = "x" * (args["length"] or READ_SIZE)
            text = base64.b64encode(content.encode()).decode() if args.get("format") else content
        elif name == "get_metrics":
            text = '{"cpu_count": 4}'
        elif name == "list_directory":
            text = "[DIR] a\n[FILE] b"
        return {"content": [{"type": "text", "text": text}], "isError": False}


def run(python: str, flavour: str, cwd: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Run the program, and return the requests of each step, without varying parts."""
    service = Service()
    run_program(python, PROGRAM, flavour, cwd, service)
    return {name: without_repeats(requests, service.url) for name, requests in service.steps.items()}


def without_repeats(requests: list[Captured], url: str) -> list[tuple[Any, ...]]:
    """Drop repeated status polls, whose number depends on time."""
    found = [sent(request, url) for request in requests]
    looks = {"Action": "GetContextInfo", "Format": "json", "Version": "2025-05-06"}
    return [item for place, item in enumerate(found) if not (place and item == found[place - 1] and item[1] == looks)]


def sent(request: Captured, url: str) -> tuple[Any, ...]:
    """Return the parts of a request that must be equal."""
    query = {name: value for name, value in request.query.items() if name not in ACCIDENTS}
    headers = {name: request.headers[name] for name in HEADERS if name in request.headers}
    body = re.sub(rb"link-\d{13}-\d{9}", b"link-MS-RANDOM", request.body).decode().replace(url, "URL")
    body = re.sub(r"(pm_lock\.trigger\+)\d+", r"\1TIME", body)
    return request.path, query, headers, body


@pytest.fixture(scope="module")
def sent_by(official: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return the requests by client and flavour, with keys such as "ours sync"."""
    return run_both(official, tmp_path_factory, "wire", run)


@pytest.fixture(params=["sync", "async"])
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_both_run_the_same_steps(sent_by: dict[str, dict[str, Any]], flavour: str) -> None:
    """Both clients complete every step of the program."""
    assert list(sent_by[f"ours {flavour}"]) == list(sent_by[f"official {flavour}"])
    assert len(sent_by[f"ours {flavour}"]) > 70


def test_every_request_is_the_official_clients(
    sent_by: dict[str, dict[str, Any]], flavour: str, subtests: pytest.Subtests
) -> None:
    """Path, query, headers and body equal the official client's, byte for byte."""
    for step, expected in sent_by[f"official {flavour}"].items():
        with subtests.test(step):
            found = sent_by[f"ours {flavour}"][step]
            assert [request[1].get("Action", request[0]) for request in found] == [
                request[1].get("Action", request[0]) for request in expected
            ]
            assert found == expected


def test_flavours_send_the_same(sent_by: dict[str, dict[str, Any]]) -> None:
    """Both flavours send the same requests."""
    assert sent_by["ours sync"] == sent_by["ours async"]
