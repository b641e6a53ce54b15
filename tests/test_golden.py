"""Captured requests and replies (`golden/`), replayed through the client and the service."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

import attrs
import pytest

from agentbay import (
    BetaContextMount,
    ContextStatusData,
    ContextSync,
    CreateSessionParams,
    PathNotFoundError,
    ReplyError,
)
from agentbay._transport import processes, tools as tool_replies
from agentbay._transport.command import read_command_result
from agentbay._transport.files import read_directory_listing, read_info
from agentbay._transport.reply import HttpAnswer, Reply, read_direct_reply, read_reply
from agentbay._transport.request import make_direct_request, make_rpc_request
from agentbay._wire import context_store as store, contexts, sessions, tools
from agentbay._wire.converter import structure, unstructure
from agentbay._wire.form import read_fields, write_fields
from agentbay._wire.key_names import normalize_arguments
from agentbay._wire.params import make_create_session
from agentbay._wire.registry import ACTIONS, TOOLS
from agentbay._wire.schema import Action, Tool
from agentbay.config import Settings
from tests.golden_images import IMAGE_DATA, IMAGE_REQUESTS
from tests.golden_processes import PROCESS_TOOL_CALLS
from tests.golden_ui import UI_DATA, UI_REQUESTS, UI_TOOL_CALLS
from tests.official_program import MOBILE, PARAMS

GOLDEN = Path(__file__).parent / "golden"
AUTHORIZATION = "Bearer akm-EXAMPLE"
SETTINGS = Settings("akm-EXAMPLE", "cn-hangzhou", "https://service.invalid", "service.invalid", 60.0)
SESSION, CONTEXT = "session-04bdwexample00001", "SdkCtx-04bdvexample00001"


class Pair(NamedTuple):
    query: str
    form: str
    reply: str


def load(path: Path) -> dict[str, Pair]:
    found = {}
    for block in re.split(r"^== ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        name, _, lines = block.partition("\n")
        assert name not in found, f"{path.name} has two pairs named {name!r}"
        parts = ("\n".join(line[2:] for line in lines.split("\n") if line.startswith(mark)) for mark in "?><")
        found[name] = Pair(*parts)
    return found


FILES = {path.stem: load(path) for path in sorted(GOLDEN.glob("*.txt"))}
DIRECT = FILES.pop("callTool")
TOOL_FILES = {path.stem: load(path) for path in sorted(GOLDEN.glob("tools/*.txt"))}

CREATIONS = {name.removeprefix("create: "): params for name, params in {**PARAMS, **MOBILE}.items()}
DOCUMENTED_CREATION = CreateSessionParams(
    image_id="linux_latest",
    labels={"project": "demo"},
    idle_release_timeout=300,
    context_syncs=[ContextSync(CONTEXT, "/tmp/data")],
    beta_context_mounts=[BetaContextMount(CONTEXT, "/mnt/ctx")],
)
OPTIONS_CREATION = CreateSessionParams(
    envs={"A": "é"}, cwd="/app", network=["pypi.org", "localhost:8080"], writable=["/app"]
)
NESTED = {"b": [1, None, True], "a": "é 😀", "c": {"d": 1.5}}
REQUESTS: dict[str, dict[str, Action[Any]]] = {
    **UI_REQUESTS,
    **IMAGE_REQUESTS,
    "CreateMcpSession": {
        "documented": make_create_session(DOCUMENTED_CREATION, "cn-hangzhou"),
        **{
            name: make_create_session(CREATIONS[name] or CreateSessionParams(), "cn-hangzhou")
            for name in FILES["CreateMcpSession"]
            if name not in ("documented", "options")
        },
        "options": make_create_session(OPTIONS_CREATION, "cn-hangzhou"),
    },
    "GetSession": {"documented": sessions.GetSession(session_id=SESSION)},
    "GetSessionDetail": {"documented": sessions.GetSessionDetail(session_id=SESSION)},
    "ListSession": {
        "documented": sessions.ListSession(labels={"project": "demo"}, max_results=10, status="RUNNING"),
        "all": sessions.ListSession(labels={}, max_results=10),
        "all, page 2": sessions.ListSession(labels={}, max_results=10, next_token="page-2"),
        "all, page 3": sessions.ListSession(labels={}, max_results=10, next_token="page-3"),
        "every filter": sessions.ListSession(
            labels={"a": "é", "b": "2"}, max_results=7, status="RUNNING", image_id="linux_latest"
        ),
        "filters, page 1": sessions.ListSession(labels={"a": "b"}, max_results=3, status="PAUSED"),
        "filters, page 2": sessions.ListSession(labels={"a": "b"}, max_results=3, status="PAUSED", next_token="page-2"),
    },
    "DeleteSessionAsync": {"documented": sessions.DeleteSessionAsync(session_id=SESSION)},
    "ReleaseMcpSession": {"documented": sessions.ReleaseMcpSession(session_id=SESSION)},
    "PauseSessionAsync": {"documented": sessions.PauseSessionAsync(session_id=SESSION)},
    "ResumeSessionAsync": {"documented": sessions.ResumeSessionAsync(session_id=SESSION)},
    "RefreshSessionIdleTime": {"documented": sessions.RefreshSessionIdleTime(session_id=SESSION)},
    "SetSessionLifecycle": {
        "documented": sessions.SetSessionLifecycle(session_id=SESSION, idle_release_timeout=5, max_runtime=90),
        "never": sessions.SetSessionLifecycle(session_id=SESSION, manual_release=True),
    },
    "SetLabel": {
        "documented": sessions.SetLabel(session_id=SESSION, labels={"project": "demo"}),
        "escaped": sessions.SetLabel(session_id="session-1", labels={"project": "demo", "é": "ü & +"}),
    },
    "GetLabel": {"documented": sessions.GetLabel(session_id=SESSION)},
    "GetMcpResource": {"documented": sessions.GetMcpResource(session_id=SESSION)},
    "GetLink": {
        "documented": sessions.GetLink(session_id=SESSION, protocol_type="https", port=30150),
        "nothing given": sessions.GetLink(session_id="session-1"),
        "port": sessions.GetLink(session_id="session-1", protocol_type="https", port=30150),
        "options": sessions.GetLink(session_id="session-1", protocol_type="wss", option='{"a": 1}'),
    },
    "CallMcpTool": {
        "documented": tools.CallMcpTool(
            session_id=SESSION, name="shell", args={"command": "echo hi", "timeout_ms": 5000}
        ),
        "nested": tools.CallMcpTool(session_id="session-1", name="any", args=NESTED),
        "options": tools.CallMcpTool(session_id="session-1", name="any", args={}, auto_gen_session=True),
        "press_keys": tools.CallMcpTool(
            session_id="session-1",
            name="press_keys",
            args=normalize_arguments("press_keys", {"keys": ["CTRL", "A", "esc", "é"], "hold": True}),
        ),
    },
    "ListMcpTools": {
        "documented": tools.ListMcpTools(image_id="linux_latest"),
        "the session's image": tools.ListMcpTools(image_id="code_latest"),
        "another image": tools.ListMcpTools(image_id="browser_latest"),
    },
    "GetContextInfo": {
        "documented": contexts.GetContextInfo(
            session_id=SESSION, context_id=CONTEXT, path="/tmp/data", task_type="upload"
        )
    },
    "SyncContext": {
        "documented": contexts.SyncContext(session_id=SESSION, context_id=CONTEXT, path="/tmp/data", mode="upload"),
        "all contexts": contexts.SyncContext(session_id="session-1"),
    },
    "GetContext": {
        "documented": store.GetContext(allow_create=True, name="my-ctx", login_region_id="cn-hangzhou"),
        "by id": store.GetContext(context_id=CONTEXT),
    },
    "ListContexts": {"documented": store.ListContexts(max_results=20, next_token="TOKEN1")},
    "ModifyContext": {"documented": store.ModifyContext(id=CONTEXT, name="new-name")},
    "DeleteContext": {"documented": store.DeleteContext(id=CONTEXT)},
    "ClearContext": {"documented": store.ClearContext(id=CONTEXT)},
    "GetContextFileUploadUrl": {
        "documented": store.GetContextFileUploadUrl(context_id=CONTEXT, file_path="/tmp/data/a.txt")
    },
    "GetContextFileDownloadUrl": {
        "documented": store.GetContextFileDownloadUrl(context_id=CONTEXT, file_path="/tmp/data/a.txt")
    },
    "DeleteContextFile": {"documented": store.DeleteContextFile(context_id=CONTEXT, file_path="/tmp/data/a.txt")},
    "DescribeContextFiles": {
        "documented": store.DescribeContextFiles(
            context_id=CONTEXT, parent_folder_path="/tmp/data", page_number=1, page_size=50
        ),
        "by token": store.DescribeContextFiles(
            context_id=CONTEXT, parent_folder_path="/tmp/data", max_results=5, next_token="TOKEN1"
        ),
    },
    "BindContexts": {
        "documented": contexts.BindContexts(
            session_id=SESSION, persistence_data_list=[{"ContextId": CONTEXT, "Path": "/tmp/data"}]
        )
    },
    "DescribeSessionContexts": {"documented": contexts.DescribeSessionContexts(session_id=SESSION)},
    "GetAndLoadInternalContext": {
        "documented": contexts.GetAndLoadInternalContext(session_id=SESSION, context_types=["file_transfer"])
    },
}

SHELL_TOOL = tools.ToolEntry(
    name="shell", server="wuying_shell", description="Run shell commands", input_schema={"type": "object"}, tool="shell"
)
MY_CONTEXT = store.ContextData(
    id=CONTEXT,
    name="my-ctx",
    state="available",
    create_time="2025-05-29T12:00:00Z",
    last_used_time="2025-05-29T12:30:00Z",
    os_type="linux",
)
PRESIGNED = f"https://oss.example.invalid/contexts/{CONTEXT}/tmp/data/a.txt?sig=x"
DATA: dict[str, Any] = {
    **UI_DATA,
    **IMAGE_DATA,
    "GetContext": MY_CONTEXT,
    "ListContexts": [MY_CONTEXT],
    "GetContextFileUploadUrl": store.PresignedUrl(url=PRESIGNED, expire_time=3600),
    "GetContextFileDownloadUrl": store.PresignedUrl(url=PRESIGNED, expire_time=7200),
    "DescribeContextFiles": [
        store.ContextFileData(
            file_id="f-1",
            file_name="a.txt",
            file_path="/tmp/data/a.txt",
            file_type="FILE",
            gmt_create="2025-05-29T12:00:00Z",
            gmt_modified="2025-05-29T12:00:00Z",
            size=5,
            status="ready",
        )
    ],
    "DescribeSessionContexts": [
        contexts.BindingData(
            context_id=CONTEXT,
            context_name="my-ctx",
            path="/tmp/data",
            policy="{}",
            bind_time="2025-05-29T12:00:00Z",
        )
    ],
    "GetAndLoadInternalContext": [
        contexts.InternalContext(context_id=CONTEXT, context_path="/tmp/transfer", context_type="file_transfer")
    ],
    "CreateMcpSession": sessions.CreatedSessionData(
        success=True,
        session_id=SESSION,
        app_instance_id="ai-example0001",
        resource_id="p-example0001",
        resource_url="https://example.invalid/view?resourceId=p-example0001&authcode=abc",
        tool_list=[SHELL_TOOL],
    ),
    "GetSession": sessions.SessionData(
        session_id=SESSION,
        status="RUNNING",
        app_instance_id="ai-example0001",
        resource_id="p-example0001",
        resource_url="https://example.invalid/view?resourceId=p-example0001&authcode=def",
        ws_url="wss://example.invalid/ws",
        contexts=[sessions.BoundContext(id=CONTEXT, name="my-ctx")],
    ),
    "GetSessionDetail": sessions.SessionDetail(
        status="RUNNING", image_id="linux_latest", app_instance_id="ai-example0001", region_id="cn-hangzhou"
    ),
    "ListSession": [
        sessions.SessionItem(
            session_id=f"session-04bdwexample0000{number}",
            session_status="RUNNING",
            app_instance_id=f"ai-example000{number}",
            image_id="linux_latest",
        )
        for number in (1, 2)
    ],
    "GetLabel": sessions.LabelData(labels={"project": "demo"}),
    "GetMcpResource": sessions.ResourceData(
        session_id=SESSION,
        resource_url="https://example.invalid/view?resourceId=p-example0001&authcode=ghi",
        desktop_info=sessions.DesktopInfo(
            app_id="app-1",
            auth_code="auth-1",
            connection_properties="{}",
            resource_id="p-example0001",
            resource_type="AIAgent",
            ticket="ticket-1",
        ),
    ),
    "SetSessionLifecycle": sessions.SessionExpiry(expire_time="2026-01-02T03:04:05.678+00:00"),
    "GetLink": sessions.LinkData(url="https://gateway.example.invalid:8008/request_ai/TOKEN/path/"),
    "CallMcpTool": tools.ToolReply(
        content=[{"type": "text", "text": '{"stdout":"hi\\n","stderr":"","exit_code":0}'}], is_error=False
    ),
    "ListMcpTools": [SHELL_TOOL],
    "GetContextInfo": contexts.ContextInfo(
        context_status=json.dumps(
            [
                {
                    "type": "data",
                    "data": json.dumps(
                        [
                            {
                                "contextId": CONTEXT,
                                "path": "/tmp/data",
                                "errorMessage": "",
                                "status": "Success",
                                "startTime": 1600000000,
                                "finishTime": 1600000100,
                                "taskType": "upload",
                            }
                        ],
                        separators=(",", ":"),
                    ),
                }
            ],
            separators=(",", ":"),
        )
    ),
}

OSS_URL = "https://bucket.example.com/a?Expires=1&Signature=s"
OSS_KEYS = {
    "access_key_id": "LTAI-EXAMPLE",
    "access_key_secret": "secret-EXAMPLE",
    "security_token": "token-EXAMPLE",
}
TOOL_CALLS: dict[str, dict[str, Tool]] = {
    "shell": {
        "wrapped": tools.Shell(command="echo hi", timeout_ms=5000),
        "everything given": tools.Shell(command="pwd", timeout_ms=1234, cwd="/tmp", envs={"A": "b", "Ü": ""}),
        "arguments and input": tools.Shell(
            command="wc -c", argv=["wc", "-c"], stdin="AP8=", stdin_encoding="base64", merge_stderr=True
        ),
        "no directory": tools.Shell(command="pwd", cwd="/none"),
        "exit code": tools.Shell(command="cat nosuch", timeout_ms=50000),
        "raw": tools.Shell(command="uname", timeout_ms=50000),
        "out of time": tools.Shell(command="sleep 9", timeout_ms=100),
    },
    "read_file": {
        "text": tools.ReadFile(path="/tmp/a.txt", offset=51200, length=800),
        "bytes": tools.ReadFile(path="/tmp/a.bin", format="binary"),
    },
    "write_file": {
        "overwrite": tools.WriteFile(path="/tmp/a", content="héllo"),
        "append": tools.WriteFile(path="/tmp/a", content="x", mode="append"),
    },
    "list_directory": {"text": tools.ListDirectory(path="/tmp"), "empty": tools.ListDirectory(path="/empty")},
    "get_file_info": {"file": tools.GetFileInfo(path="/tmp/a"), "missing": tools.GetFileInfo(path="/tmp/x")},
    "get_metrics": {"documented": tools.GetMetrics()},
    "run_code": {
        "documented": tools.RunCode(code="print('hi')\n6*7", language="python", timeout_s=60),
        "in a context": tools.RunCode(code="6*7", context="analysis"),
    },
    "create_code_context": {
        "documented": tools.CreateCodeContext(language="python"),
        "named": tools.CreateCodeContext(language="r", name="Ü 1"),
    },
    "list_code_contexts": {"documented": tools.ListCodeContexts()},
    "restart_code_context": {"documented": tools.RestartCodeContext(name="python")},
    "remove_code_context": {"documented": tools.RemoveCodeContext(name="Ü 1")},
    "set_env": {
        "documented": tools.SetEnv(
            envs=[tools.EnvironmentVariable(key="A", value="b"), tools.EnvironmentVariable(key="É", value="")]
        )
    },
    "get_env": {"all": tools.GetEnv(), "some": tools.GetEnv(keys=["A", "É"])},
    "oss_env_init": {
        "keys alone": tools.OssEnvInit(**OSS_KEYS),
        "everything given": tools.OssEnvInit(
            **OSS_KEYS, endpoint="https://oss-cn-hangzhou.aliyuncs.com", region="cn-hangzhou"
        ),
    },
    "oss_upload": {
        "documented": tools.OssUpload(bucket="bucket-EXAMPLE", object="dir/é.txt", path="/tmp/a.txt"),
        "refused": tools.OssUpload(bucket="bucket-EXAMPLE", object="a.txt", path="/tmp/a.txt"),
    },
    "oss_upload_annon": {"documented": tools.OssUploadAnonymous(url=OSS_URL, path="/tmp/a.txt")},
    "oss_download": {"documented": tools.OssDownload(bucket="bucket-EXAMPLE", object="dir/é.txt", path="/tmp/a.txt")},
    "oss_download_annon": {"documented": tools.OssDownloadAnonymous(url=OSS_URL, path="/tmp/a.txt")},
    "create_directory": {"documented": tools.CreateDirectory(path="/tmp/a/b")},
    "delete_file": {"documented": tools.DeleteFile(path="/tmp/a")},
    "move_file": {"documented": tools.MoveFile(source="/tmp/a", destination="/tmp/b")},
    "search_files": {
        "plain": tools.SearchFiles(path="/tmp", pattern="*.py"),
        "with exclusions": tools.SearchFiles(path="/tmp", pattern="*.py", exclude_patterns="venv,*.pyc"),
    },
    "edit_file": {
        "documented": tools.EditFile(path="/tmp/a.txt", edits=[tools.TextReplacement(old_text="old", new_text="new")]),
        "dry run of two": tools.EditFile(
            path="/tmp/a.txt",
            edits=[tools.TextReplacement(old_text="a", new_text="b"), tools.TextReplacement(old_text="é", new_text="")],
            dry_run=True,
        ),
    },
    "read_multiple_files": {"documented": tools.ReadMultipleFiles(paths=["/tmp/a.txt", "/tmp/b.txt"])},
    "get_file_change": {"documented": tools.GetFileChange(path="/tmp/w")},
    **UI_TOOL_CALLS,
    **PROCESS_TOOL_CALLS,
}


def pairs(files: dict[str, dict[str, Pair]]) -> list[Any]:
    return [
        pytest.param(name, case, pair, id=f"{name}: {case}")
        for name, blocks in files.items()
        for case, pair in blocks.items()
    ]


def answer(body: object, action: str = "") -> HttpAnswer:
    data = body if isinstance(body, str) else json.dumps(body)
    return HttpAnswer(200, {}, data.encode(), action)


def test_every_action_and_tool_has_pairs() -> None:
    """Every action and tool has a pair, and every file and pair is used."""
    assert {name: set(blocks) for name, blocks in FILES.items()} == {n: set(b) for n, b in REQUESTS.items()}
    assert {name: set(blocks) for name, blocks in TOOL_FILES.items()} == {n: set(b) for n, b in TOOL_CALLS.items()}
    assert set(FILES) == set(ACTIONS)
    assert set(TOOL_FILES) == set(TOOLS)


@pytest.mark.parametrize(("name", "case", "pair"), pairs(FILES))
def test_client_writes_the_request(name: str, case: str, pair: Pair) -> None:
    """The encoder writes the captured fields, byte for byte, in query or form."""
    query, form = write_fields(REQUESTS[name][case], AUTHORIZATION)
    assert (urlencode(query), urlencode(form)) == (pair.query, pair.form)


@pytest.mark.parametrize(("name", "case", "pair"), pairs(FILES))
def test_request_carries_the_fields(name: str, case: str, pair: Pair) -> None:
    """The request has the fixed query, the action's own, and the form as body."""
    made = make_rpc_request(REQUESTS[name][case], SETTINGS)
    fixed = re.fullmatch(
        rf"/\?Action={name}&Format=json&Version=2025-05-06&Timestamp=\d{{4}}-\d\d-\d\dT\d\d%3A\d\d%3A\d\dZ"
        rf"&SignatureNonce=[0-9a-f]{{32}}(?:&(?P<own>.*))?",
        made.target.decode(),
    )
    assert fixed is not None
    assert (fixed["own"] or "") == pair.query
    assert made.body == pair.form.encode()
    headers = dict(made.headers)
    assert headers[b"content-length"] == str(len(made.body)).encode()
    assert headers[b"content-type"] == b"application/x-www-form-urlencoded"
    assert (headers[b"x-acs-action"], headers[b"x-acs-version"]) == (name.encode(), b"2025-05-06")
    assert b"authorization" not in headers


@pytest.mark.parametrize(("name", "case", "pair"), pairs(FILES))
def test_service_reads_the_request(name: str, case: str, pair: Pair) -> None:
    """The service reads the action that the client wrote, also after a second round."""
    fields = dict(parse_qsl(f"{pair.query}&{pair.form}", keep_blank_values=True))
    found, expected = read_fields(ACTIONS[name], fields), REQUESTS[name][case]
    if name == "CreateMcpSession":  # flattened fields keep their dotted names and text: their types do not travel
        flat = {n.removeprefix("ExtraConfigs."): v for n, v in fields.items() if n.startswith("ExtraConfigs.")}
        assert isinstance(found, sessions.CreateMcpSession)
        assert found.extra_configs == (flat or None)
        found = attrs.evolve(found, extra_configs=expected.extra_configs)
    assert found == expected


@pytest.mark.parametrize("name", list(FILES))
def test_client_reads_the_reply(name: str) -> None:
    """The documented reply gives the expected payload, request id and counts."""
    reply = read_reply(REQUESTS[name]["documented"], answer(FILES[name]["documented"].reply, name))
    body = json.loads(FILES[name]["documented"].reply)
    assert reply.data == DATA.get(name)
    assert (reply.request_id, reply.code) == (body["RequestId"], "ok")
    assert (reply.total_count, reply.max_results) == (body.get("TotalCount", 0), body.get("MaxResults", 0))


@pytest.mark.parametrize("name", list(DATA))
def test_service_writes_the_reply(name: str) -> None:
    """A payload from the service is read back equal, with every documented value."""
    written: Any = unstructure(DATA[name])
    documented = json.loads(FILES[name]["documented"].reply)["Data"]
    sent: Any = json.dumps(written) if ACTIONS[name].spec.data_as_text else written
    reply = read_reply(REQUESTS[name]["documented"], answer({"Success": True, "Data": sent}, name))
    assert reply.data == DATA[name]
    assert type(sent) is type(documented)
    if isinstance(written, dict) and name != "GetContextInfo":
        known = {key: value for key, value in documented.items() if key in written}
        assert {key: plain(value) for key, value in written.items() if key in known} == {
            key: plain(value) for key, value in known.items()
        }
        assert {type(written[key]) for key in known} == {type(value) for value in known.values()}


def plain(value: Any) -> Any:
    """Return a JSON value with all nested JSON text parsed."""
    try:
        return json.loads(value) if isinstance(value, str) and value[:1] in "[{" else value
    except ValueError:
        return value


def test_transfers_of_context_info() -> None:
    """The three levels of JSON text of GetContextInfo give one transfer."""
    assert DATA["GetContextInfo"].transfers() == [
        ContextStatusData(CONTEXT, "/tmp/data", "", "Success", 1600000000, 1600000100, "upload")
    ]


@pytest.mark.parametrize(("name", "case", "pair"), pairs(TOOL_FILES))
def test_tool_arguments(name: str, case: str, pair: Pair) -> None:
    """The arguments are written as captured, and read back as the same call."""
    call = TOOL_CALLS[name][case]
    written = tool_replies.tool_arguments(call)
    assert json.dumps(written, ensure_ascii=False) == pair.form
    assert structure(json.loads(pair.form), TOOLS[name]) == call


@pytest.mark.parametrize(("name", "case", "pair"), pairs(TOOL_FILES))
def test_tool_reply_round_trip(name: str, case: str, pair: Pair) -> None:
    """A tool's result is the same through the service and from the session's link."""
    result = json.loads(pair.reply)
    call = tools.CallMcpTool(session_id=SESSION, name=name, args={})
    by_service = [
        read_reply(call, answer({"Success": True, "Data": data})).data_or_raise() for data in (result, pair.reply)
    ]
    straight = [
        read_direct_reply(answer({"data": data}), "link-1").data_or_raise()
        for data in ({"result": result}, json.dumps({"result": result}))
    ]
    assert len({repr(reply) for reply in (*by_service, *straight)}) == 1
    assert structure(unstructure(by_service[0]), tools.ToolReply) == by_service[0]


def tool_reply(name: str, case: str) -> Reply[tools.ToolReply]:
    data = structure(json.loads(TOOL_FILES[name][case].reply), tools.ToolReply)
    return Reply(action="CallMcpTool", data=data, request_id="R-1")


def test_texts_about_processes() -> None:
    """Each documented answer about a process gives the documented values."""
    assert processes.read_pid_answer(tool_reply("start_process", "least")) == 7
    with pytest.raises(PathNotFoundError, match="cd: /none: No such file"):
        processes.read_pid_answer(tool_reply("start_process", "refused"))
    runs, ended = processes.read_entries(tool_reply("list_processes", "two"))
    assert (runs.pid, runs.command, runs.exit_code) == (7, "sleep 9", None)
    assert (ended.pid, ended.command, ended.exit_code) == (9, "build", 137)
    assert processes.read_output_answer(tool_reply("read_process_output", "bytes")) == (0, False, 4, b"\xff\0")
    assert processes.read_output_answer(tool_reply("wait_process", "runs")).exit_code is None
    assert processes.read_output_answer(tool_reply("wait_process", "ended")).exit_code == 3
    assert processes.read_sent_bytes(tool_reply("write_process_input", "text")) == 7
    for name, case in (("signal_process", "interrupt"), ("remove_process", "any")):
        processes.check_answer(tool_reply(name, case))
    unreadable = Reply(action="CallMcpTool", data=tools.ToolReply(content=["[]"]), request_id="R-1")
    for read in (processes.read_pid_answer, processes.read_entries, processes.read_output_answer):
        with pytest.raises(ReplyError, match="cannot be read"):
            read(unreadable)


def test_texts_of_tools() -> None:
    """Each documented text of a tool gives the documented values."""
    wrapped, refused, late = (
        read_command_result(tool_reply("shell", case)) for case in ("wrapped", "exit code", "out of time")
    )
    assert read_command_result(tool_reply("shell", "arguments and input")).stdout_bytes == b"\xff"
    with pytest.raises(PathNotFoundError, match="/none"):
        read_command_result(tool_reply("shell", "no directory"))
    assert (wrapped.success, wrapped.stdout, wrapped.exit_code) == (True, "hi\n", 0)
    assert (refused.success, refused.exit_code, refused.trace_id) == (False, 1, "0af7651916cd43dd8448eb211c80319c")
    assert refused.error_message == refused.stderr == "cat: nosuch: No such file or directory\n"
    assert (late.exit_code, late.error_message, late.output) == (-1, "timed out after 100 ms", "")
    assert [
        (e.name, e.is_directory) for e in read_directory_listing(tool_reply("list_directory", "text").data_or_raise())
    ] == [
        ("src", True),
        ("a [FILE].txt", False),
        ("b", False),
    ]
    assert read_directory_listing(tool_reply("list_directory", "empty").data_or_raise()) == []
    assert read_info(tool_reply("get_file_info", "file").data_or_raise().text) == {
        "size": 12,
        "created": "2025-12-24T10:54:23",
        "isDirectory": False,
        "isFile": True,
        "permissions": 644,
        "mode": "1.2.3",
    }
    _, metrics = tool_replies.read_metrics(tool_reply("get_metrics", "documented").data_or_raise().text)
    assert (metrics.cpu_count, metrics.rx_rate_kbps, metrics.timestamp) == (4, 0.5, "2025-12-24T10:54:23+08:00")


@pytest.mark.parametrize("case", list(DIRECT))
def test_direct_call(case: str) -> None:
    """A direct call has the captured body and both tokens, but not the key."""
    pair = DIRECT[case]
    call = structure(json.loads(pair.form), tools.DirectToolCall)
    made = make_direct_request("https://link.invalid:8443/base/", call)
    assert made.body.decode() == pair.form
    assert (made.url, made.target) == ("https://link.invalid:8443/", b"/base/callTool")
    headers = dict(made.headers)
    assert headers[b"x-access-token"] == b"TOKEN"
    assert headers[b"host"] == b"link.invalid:8443"
    assert headers[b"content-type"] == b"application/json"
    reply = read_direct_reply(answer(pair.reply), call.request_id)
    assert (reply.data_or_raise().text, reply.request_id) == ("a\n", "link-1795339577622-948100413")


@pytest.mark.parametrize("text", ["", "id-1_x.y~z", "a b+c%20&=ü😀\n\0/?#", "".join(map(chr, range(1, 0x300)))])
def test_forms_are_encoded_as_urllib_does(text: str) -> None:
    """The body of a request has the same bytes as `urlencode` makes."""
    action = tools.CallMcpTool(session_id=text, name="write_file", args={"content": text})
    body = make_rpc_request(action, SETTINGS).body
    assert body == urlencode(parse_qsl(body.decode(), keep_blank_values=True)).encode()
    assert dict(parse_qsl(body.decode()))["Name"] == "write_file"
