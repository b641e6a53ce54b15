"""The wire format: names, strict reading, form fields, session parameters and key names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from agentbay import (
    AppManagerRule,
    BetaContextMount,
    BrowserContext,
    BrowserFingerprintContext,
    BWList,
    ContextStatusData,
    ContextSync,
    CreateSessionParams,
    ExtensionOption,
    ExtraConfigs,
    MappingPolicy,
    MobileExtraConfig,
    MobileSimulateConfig,
    SyncPolicy,
    UploadMode,
    UploadPolicy,
    WhiteList,
)
from agentbay._wire import contexts, sessions, tools
from agentbay._wire.contexts import ContextInfo, write_mount, write_sync
from agentbay._wire.converter import MalformedError, structure, unstructure
from agentbay._wire.form import read_fields, write_fields
from agentbay._wire.key_names import normalize_arguments, normalize_key
from agentbay._wire.params import awaited_contexts, make_create_session
from agentbay._wire.schema import camel, camel_payload, flatten, pascal, pascal_payload, wire_field


@pytest.mark.parametrize(
    ("name", "in_pascal", "in_camel"),
    [
        ("session_id", "SessionId", "sessionId"),
        ("status", "Status", "status"),
        ("is_error", "IsError", "isError"),
        ("vpc_ip", "VpcIp", "vpcIp"),
        ("network_interface_ip", "NetworkInterfaceIp", "networkInterfaceIp"),
    ],
)
def test_names_follow_one_rule(name: str, in_pascal: str, in_camel: str) -> None:
    """A Python name has one form on the wire for each style."""
    assert (pascal(name), camel(name)) == (in_pascal, in_camel)


@given(st.text("abcdefghij_", min_size=1), st.text("abcdefghij_", min_size=1))
def test_both_styles_differ_in_the_first_letter_only(first: str, second: str) -> None:
    """Both styles differ in the case of the first letter only."""
    name = f"a{first}_{second}"
    assert camel(name)[1:] == pascal(name)[1:]


@pascal_payload
class Sample:
    text: str = ""
    count: int = 0
    share: float = 0.0
    flag: bool = False
    names: list[str] = wire_field(factory=list)
    nested: tools.ToolEntry = wire_field(factory=tools.ToolEntry)
    table: dict[str, str] = wire_field(factory=dict)
    ws_url: str = wire_field(aliases=("wsUrl",), default="")


@pytest.mark.parametrize(
    ("given_", "field", "expected"),
    [
        ({"Text": None}, "text", ""),
        ({"Count": None}, "count", 0),
        ({"Flag": None}, "flag", False),
        ({"Names": None}, "names", []),
        ({"Flag": "false"}, "flag", False),
        ({"Flag": "False"}, "flag", False),
        ({"Flag": "true"}, "flag", True),
        ({"Count": "12"}, "count", 12),
        ({"Count": "-12"}, "count", -12),
        ({"Count": 12.0}, "count", 12),
        ({"Text": 8443}, "text", "8443"),
        ({"Text": 1.5}, "text", "1.5"),
        ({"Share": 3}, "share", 3.0),
        ({"WsUrl": "a"}, "ws_url", "a"),
        ({"wsUrl": "a"}, "ws_url", "a"),
        ({"Unknown": {"a": [1]}, "Text": "x"}, "text", "x"),
        ({"Nested": {"Name": "a", "serverName": "b"}}, "nested", tools.ToolEntry(name="a", server="b")),
        ({"Nested": {"name": "a", "Server": "b"}}, "nested", tools.ToolEntry(name="a", server="b")),
    ],
)
def test_values_from_services_are_read(given_: dict[str, Any], field: str, expected: object) -> None:
    """null is absent, unknown keys are ignored, and only exact conversions are made."""
    found = getattr(structure(given_, Sample), field)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("given_", "place"),
    [
        ({"Text": True}, "Text"),
        ({"Text": ["a"]}, "Text"),
        ({"Text": {"a": 1}}, "Text"),
        ({"Count": True}, "Count"),
        ({"Count": 1.5}, "Count"),
        ({"Count": "1.0"}, "Count"),
        ({"Count": ""}, "Count"),
        ({"Count": "--1"}, "Count"),
        ({"Share": "1.5"}, "Share"),
        ({"Share": True}, "Share"),
        ({"Flag": 1}, "Flag"),
        ({"Flag": "no"}, "Flag"),
        ({"Names": "abc"}, "Names"),
        ({"Names": {"a": 1}}, "Names"),
        ({"Names": 5}, "Names"),
        ({"Names": ["a", ["b"]]}, "Names[1]"),
        ({"Nested": "text"}, "Nested"),
        ({"Nested": {"name": ["a"]}}, "Nested.name"),
        ({"Nested": {"inputSchema": [["type", "object"]]}}, "Nested.inputSchema"),
        ({"Table": {"a": [1]}}, "Table['a']"),
        ({"Table": [["a", "b"]]}, "Table"),
        ({"Table": "ab"}, "Table"),
        ({"WsUrl": 1j}, "WsUrl"),
        ({"wsUrl": False}, "WsUrl"),
    ],
)
def test_values_of_another_type_are_refused(given_: dict[str, Any], place: str) -> None:
    """A value of another type is refused by its wire name, without the value."""
    with pytest.raises(MalformedError) as caught:
        structure(given_, Sample)
    assert caught.value.field == f"Data.{place}"
    assert str(caught.value) == f"Data.{place}: {caught.value.problem}"
    assert "--1" not in str(caught.value)


@pytest.mark.parametrize("content", ["plain text", {"type": "text"}, 5, True])
def test_content_that_is_no_list_is_refused(content: object) -> None:
    """A tool's content must be a list, not a text."""
    with pytest.raises(MalformedError) as caught:
        structure({"content": content}, tools.ToolReply)
    assert caught.value.field == "Data.content"
    assert caught.value.problem.startswith("must be a list, not ")


def test_a_missing_key_is_named() -> None:
    """A required key that is missing is refused by its name on the wire."""
    with pytest.raises(MalformedError) as caught:
        structure({"path": "/a", "edits": [{"oldText": "a"}]}, tools.EditFile, path="Args")
    assert (caught.value.field, caught.value.problem) == ("Args.edits[0].newText", "is required")


def test_json_text_that_is_no_json_is_refused() -> None:
    """A field of JSON text that cannot be parsed is refused without its text."""
    with pytest.raises(MalformedError) as caught:
        structure({"ToolList": "[secret"}, sessions.CreatedSessionData)
    assert (caught.value.field, caught.value.problem) == ("Data.ToolList", "must be JSON text")


@pytest.mark.parametrize("value", [None, "text", 5, [1], True])
def test_values_that_are_no_object_are_refused(value: object) -> None:
    """A value that is no object is refused where one is required."""
    with pytest.raises(MalformedError, match="Data"):
        structure(value, Sample)


def test_null_is_never_the_word_none() -> None:
    """A null in a list of strings is refused, not read as 'None'."""
    with pytest.raises(MalformedError):
        structure({"Names": [None]}, Sample)


def test_writes_nothing_for_none() -> None:
    """None is left out when writing, and empty values are not."""
    assert unstructure(tools.ToolReply()) == {"content": [], "isError": False}
    assert unstructure(tools.Shell(command="x", cwd="")) == {"command": "x", "timeout_ms": 1000, "cwd": ""}


def test_json_text_inside_json_may_be_json_as_well() -> None:
    """A ToolList is read as text or as an array, and written as text."""
    entry = {"name": "shell", "server": "s"}
    as_text = structure({"ToolList": json.dumps([entry])}, sessions.CreatedSessionData)
    assert as_text == structure({"ToolList": [entry]}, sessions.CreatedSessionData)
    assert as_text.tool_list == [tools.ToolEntry(name="shell", server="s")]
    assert isinstance(unstructure(as_text)["ToolList"], str)


def test_types_without_a_reader_of_their_own_are_strict_inside() -> None:
    """Inside a type that is left to cattrs, values keep their types and objects their names."""
    sample = Sample(ws_url="x")
    assert structure([{"wsUrl": "x"}, "7"], tuple[Sample, int]) == (sample, 7)
    with pytest.raises(MalformedError):
        structure([5.5], tuple[int])
    assert unstructure((sample,))[0]["WsUrl"] == "x"


def test_sessions_with_the_same_tools_share_what_was_read() -> None:
    """The list is read once; another one, or one that is no text, is read anew."""

    def read(tool_list: object) -> list[tools.ToolEntry]:
        return structure({"ToolList": tool_list}, sessions.CreatedSessionData).tool_list

    text = json.dumps([{"name": "shell", "server": "s"}])
    assert read(text) is read(text[:1] + text[1:])
    assert read(text) == read(json.loads(text)) == [tools.ToolEntry(name="shell", server="s")]
    assert read(text.replace("shell", "other")) == [tools.ToolEntry(name="other", server="s")]
    with pytest.raises(MalformedError, match=r"Data\.ToolList"):
        read("[")


def test_unknown_values_of_enums_are_harmless() -> None:
    """A reply's unknown status is read as a plain string."""
    assert structure({"Status": "HIBERNATING"}, sessions.SessionDetail).status == "HIBERNATING"
    assert structure({"status": "Queued"}, ContextStatusData).status == "Queued"


@camel_payload
class Deep:
    value: Any = None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_any_json_is_kept(value: object) -> None:
    """Plain JSON in a payload comes back unchanged."""
    assert structure({"value": value}, Deep).value == value


@given(st.dictionaries(st.sampled_from([*(pascal(n) for n in Sample.__annotations__), "wsUrl"]), json_values))
def test_reading_fails_with_one_error_only(value: dict[str, Any]) -> None:
    """Reading any JSON gives an object or raises MalformedError."""
    try:
        assert isinstance(structure(value, Sample), Sample)
    except MalformedError as error:
        assert str(error)  # noqa: PT017 - either outcome is fine


def sent_fields(action: Any) -> dict[str, str]:
    query, form = write_fields(action, "A")
    return dict(query + form)


@pytest.mark.parametrize("text", ["True", "true", "TRUE"])
def test_truth_in_any_case(text: str) -> None:
    """The service reads True and true alike, and the client writes True."""
    fields = {"SessionId": "s", "Name": "n", "Args": "{}", "AutoGenSession": text}
    action = read_fields(tools.CallMcpTool, fields)
    assert isinstance(action, tools.CallMcpTool)
    assert action.auto_gen_session is True
    assert sent_fields(action)["AutoGenSession"] == "True"


@pytest.mark.parametrize("text", ['{"a":"b","c":"d"}', '{"a": "b", "c": "d"}', ' {"a":\n"b", "c" : "d"}'])
def test_json_in_any_spacing(text: str) -> None:
    """JSON fields are read with any white space."""
    action = read_fields(sessions.SetLabel, {"SessionId": "s", "Labels": text})
    assert action == sessions.SetLabel(session_id="s", labels={"a": "b", "c": "d"})


@pytest.mark.parametrize(
    ("cls", "fields", "place"),
    [
        (sessions.GetSession, {}, "SessionId"),
        (sessions.SetLabel, {"SessionId": "s"}, "Labels"),
        (sessions.SetLabel, {"SessionId": "s", "Labels": "[1]"}, "Labels"),
        (sessions.SetLabel, {"SessionId": "s", "Labels": '{"a": [1]}'}, "Labels"),
        (sessions.SetLabel, {"SessionId": "s", "Labels": "{"}, "Labels"),
        (sessions.GetLink, {"SessionId": "s", "Port": "30150.5"}, "Port"),
        (sessions.ListSession, {"MaxResults": "ten"}, "MaxResults"),
        (tools.CallMcpTool, {"SessionId": "s", "Name": "n", "Args": "[]"}, "Args"),
        (tools.CallMcpTool, {"SessionId": "s", "Name": "n", "Args": "{}", "AutoGenSession": "1"}, "AutoGenSession"),
        (sessions.CreateMcpSession, {"PersistenceDataList": '{"a": 1}'}, "PersistenceDataList"),
        (sessions.CreateMcpSession, {"Skills": "[{}]"}, "Skills"),
        (sessions.CreateMcpSession, {"Skills": '"abc"'}, "Skills"),
        (sessions.CreateMcpSession, {"ExtraConfigs.1": "a"}, "ExtraConfigs"),
        (contexts.GetAndLoadInternalContext, {"SessionId": "s"}, "ContextTypes"),
        (contexts.GetAndLoadInternalContext, {"SessionId": "s", "ContextTypes.A": "x"}, "ContextTypes"),
    ],
)
def test_malformed_fields_are_named(cls: Any, fields: dict[str, str], place: str) -> None:
    """A field that is missing or cannot be read is refused by its name."""
    with pytest.raises(MalformedError) as caught:
        read_fields(cls, fields)
    assert re.split(r"[.\[]", caught.value.field)[0] == place


def test_unknown_fields_are_ignored() -> None:
    """Unknown fields of other clients are ignored."""
    fields = {"SessionId": "s", "ExternalUserId": "u", "Timestamp": "t", "Authorization": "A"}
    assert read_fields(sessions.GetSession, fields) == sessions.GetSession(session_id="s")


def test_none_is_left_out_and_empty_is_not() -> None:
    """None has no field, but an empty string, list or object has one."""
    assert sent_fields(sessions.GetLink(session_id="s")) == {"Authorization": "A", "SessionId": "s"}
    assert sent_fields(tools.CallMcpTool(session_id="s", name="n", args={}))["Server"] == ""
    assert sent_fields(sessions.ListSession(labels={}))["Labels"] == "{}"
    assert sent_fields(sessions.CreateMcpSession(skills=[]))["Skills"] == "[]"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"A": {"B": ["x", "y"]}}, {"N.A.B.1": "x", "N.A.B.2": "y"}),
        ({"A": True, "B": None, "C": 5}, {"N.A": True, "N.C": 5}),
        ({"A": [], "B": {}, "C": [[]]}, {}),
        ([{"A": 1}, {"A": 2}], {"N.1.A": 1, "N.2.A": 2}),
        ("x", {"N": "x"}),
    ],
)
def test_flattening(value: object, expected: dict[str, Any]) -> None:
    """Objects become dotted names, lists indices from 1, and empty ones vanish."""
    assert flatten("N", value) == expected


@given(st.text(), st.dictionaries(st.text(), st.text()), st.booleans() | st.none(), st.integers() | st.none())
def test_form_fields_round_trip(text: str, labels: dict[str, str], flag: bool | None, number: int | None) -> None:
    """Any values of plain and JSON fields are read back equal."""
    action = sessions.CreateMcpSession(
        image_id=text, labels=labels, enable_record=flag, timeout=number, skills=[text], login_region_id="r"
    )
    assert read_fields(sessions.CreateMcpSession, sent_fields(action)) == action


DEFAULT_POLICY = (
    '{"uploadPolicy": {"autoUpload": true, "uploadStrategy": "UploadBeforeResourceRelease", "uploadMode": "File"}, '
    '"downloadPolicy": {"autoDownload": true, "downloadStrategy": "DownloadAsync"}, '
    '"deletePolicy": {"syncLocalFile": true}, '
    '"extractPolicy": {"extract": true, "deleteSrcFile": true, "extractToCurrentFolder": false}, '
    '"recyclePolicy": {"lifecycle": "Lifecycle_Forever", "paths": [""]}, '
    '"bwList": {"whiteLists": [{"path": "", "excludePaths": [], "isPathRegex": false, "isExcludeRegex": false}]}}'
)
BROWSER_PATHS = [
    "/Local State",
    "/Default/Cookies",
    "/Default/Cookies-journal",
    "/Default/Local Storage",
    "/Default/IndexedDB",
    "/Default/Session Storage",
    "/Default/Login Data",
    "/Default/Login Data-journal",
    "/Default/Login Data For Account",
    "/Default/Login Data For Account-journal",
    "/Default/Web Data",
    "/Default/Web Data-journal",
    "/Default/Preferences",
    "/Default/Secure Preferences",
    "/Default/TransportSecurity",
    "/Default/Network Persistent State",
    "/Default/GPUCache",
    "/Default/Affiliation Database",
    "/Default/Affiliation Database-journal",
]


def test_policy_is_exact_json_text() -> None:
    """A policy is the documented JSON text, byte for byte."""
    for policy in (SyncPolicy(), SyncPolicy.default()):
        assert write_sync(ContextSync("c", "/p", policy)) == {"ContextId": "c", "Path": "/p", "Policy": DEFAULT_POLICY}
    mapped = write_sync(ContextSync("c", "/p", SyncPolicy(mapping_policy=MappingPolicy("C:\\é"))))["Policy"]
    assert mapped == DEFAULT_POLICY[:-1] + ', "mappingPolicy": {"path": "C:\\\\é"}}'
    assert write_sync(ContextSync("c", "/p")) == {"ContextId": "c", "Path": "/p"}


@pytest.mark.parametrize(
    ("mode", "paths", "written"),
    [(UploadMode.ARCHIVE, ["/a"], True), (UploadMode.ARCHIVE, [], False), (UploadMode.FILE, ["/a"], False)],
)
def test_archive_exclusions_only_with_archives(mode: UploadMode, paths: list[str], written: bool) -> None:
    """`archiveExcludePaths` is sent only if there are some and the mode is Archive."""
    policy = SyncPolicy(upload_policy=UploadPolicy(upload_mode=mode, archive_exclude_paths=paths))
    upload = json.loads(write_sync(ContextSync("c", "/p", policy))["Policy"])["uploadPolicy"]
    assert ("archiveExcludePaths" in upload) is written


def test_mount_is_written_with_all_its_parts() -> None:
    """A mount has a MountConfig with its source path, and no policy."""
    assert write_mount(BetaContextMount("c", "/m")) == {
        "ContextId": "c",
        "Path": "/m",
        "Type": "mount",
        "MountConfig": {"AccessMode": "readWrite", "StorageMode": "standard", "SourcePath": ""},
    }


def test_order_of_persistence_items() -> None:
    """Syncs, extensions, fingerprint, mounts and the browser profile are sent in this order."""
    params = CreateSessionParams(
        context_syncs=[ContextSync("own", "/p")],
        beta_context_mounts=[BetaContextMount("mount", "/m")],
        browser_context=BrowserContext(
            "profile",
            extension_option=ExtensionOption("extensions", ["e1", "e2"]),
            fingerprint_context=BrowserFingerprintContext("fingerprint"),
        ),
    )
    items = make_create_session(params, "r").persistence_data_list or []
    assert [(item["ContextId"], item["Path"]) for item in items] == [
        ("own", "/p"),
        ("extensions", "/tmp/extensions/"),
        ("fingerprint", "/tmp/browser_fingerprint"),
        ("mount", "/m"),
        ("profile", "/tmp/agentbay_browser"),
    ]
    extensions, fingerprint, profile = (json.loads(items[place]["Policy"]) for place in (1, 2, 4))
    assert [item["path"] for item in extensions["bwList"]["whiteLists"]] == ["e1", "e2"]
    assert (extensions["uploadPolicy"]["autoUpload"], extensions["deletePolicy"]["syncLocalFile"]) == (False, False)
    assert fingerprint["bwList"] == {"whiteLists": []}
    assert [item["path"] for item in profile["bwList"]["whiteLists"]] == BROWSER_PATHS
    assert awaited_contexts(params) == {"own", "extensions", "fingerprint", "profile"}


def test_contexts_that_are_not_awaited() -> None:
    """Mounts, and syncs that say so, are not awaited."""
    params = CreateSessionParams(
        context_syncs=[
            ContextSync("a", "/a", beta_wait_for_completion=False),
            ContextSync("b", "/b", beta_wait_for_completion=True),
        ],
        beta_context_mounts=[BetaContextMount("m", "/m")],
    )
    assert awaited_contexts(params) == {"b"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AppManagerRule("White", ["a", 5]), r"app_package_name_list\[1\] must be a string, not 5"),  # type: ignore[list-item]
        (lambda: MobileExtraConfig(uninstall_blacklist=[None]), r"uninstall_blacklist\[0\] must be a string, not None"),  # type: ignore[list-item]
        (
            lambda: make_create_session(
                CreateSessionParams(
                    extra_configs=ExtraConfigs(MobileExtraConfig(simulate_config=MobileSimulateConfig(simulate=True)))
                ),
                "r",
            ),
            "simulate_path is required",
        ),
    ],
)
def test_nested_settings_are_checked(make: Callable[[], object], message: str) -> None:
    """A malformed nested setting is refused before anything is sent."""
    with pytest.raises(ValueError, match=message):
        make()


def test_parameters_are_not_changed_by_sending() -> None:
    """Writing the same parameters twice gives equal requests."""
    params = CreateSessionParams(
        labels={"a": "b"},
        context_syncs=[ContextSync("c", "/p", SyncPolicy(bw_list=BWList([WhiteList("/a")])))],
        browser_context=BrowserContext("b", extension_option=ExtensionOption("e", ["x"])),
    )
    assert make_create_session(params, "r") == make_create_session(params, "r")
    assert len(params.context_syncs) == 2


@pytest.mark.parametrize(
    "status",
    [
        "",
        "[]",
        "{}",
        "null",
        "no json",
        '[{"type":"log","data":"x"}]',
        '[{"type":"data","data":"no json"}]',
        "[1]",
        '[{"type":"data"}]',
        '[{"type":"data","data":"{}"}]',
        '[{"type":"data","data":"[1]"}]',
        "[" * 100000,
        '[{"type":"data","data":"[[{}], null, true]"}]',
    ],
)
def test_unreadable_transfers_are_left_out(status: str) -> None:
    """Unreadable parts of a context status are ignored, and raise nothing."""
    assert ContextInfo(context_status=status).transfers() == []


def test_transfers_with_unreadable_times() -> None:
    """A transfer with unreadable times keeps its state."""
    items = [5, {"contextId": "c", "status": "Failed", "errorMessage": "no", "startTime": "noon", "more": 1}]
    for data in (json.dumps(items), items):
        status = json.dumps([{"type": "log", "data": "[]"}, {"type": "data", "data": data}])
        assert contexts.ContextInfo(context_status=status).transfers() == [
            ContextStatusData(context_id="c", status="Failed", error_message="no")
        ]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("ctrl", "Ctrl"),
        ("CONTROL", "Ctrl"),
        ("esc", "Escape"),
        ("Return", "Enter"),
        ("pgup", "PageUp"),
        ("ArrowLeft", "ArrowLeft"),
        ("left", "ArrowLeft"),
        ("f12", "F12"),
        ("f25", "f25"),
        ("A", "a"),
        ("a", "a"),
        ("1", "1"),
        ("cmd", "Command"),
        ("minus", "-"),
        ("nonsense", "nonsense"),
        (5, 5),
        (None, None),
    ],
)
def test_key_names(key: object, expected: object) -> None:
    """Keys get the tool's spelling, and unknown keys are unchanged."""
    assert normalize_key(key) == expected


@given(st.text())
def test_normalizing_keys_is_idempotent(key: str) -> None:
    """Normalizing is idempotent."""
    assert normalize_key(normalize_key(key)) == normalize_key(key)


def test_only_press_keys_is_touched() -> None:
    """The caller's arguments and other tools' arguments are unchanged."""
    args = {"keys": ["CTRL", "c"], "hold": True}
    assert normalize_arguments("press_keys", args) == {"keys": ["Ctrl", "c"], "hold": True}
    assert args["keys"] == ["CTRL", "c"]
    assert normalize_arguments("type_keys", args) is args
    assert normalize_arguments("press_keys", {"keys": "CTRL"}) == {"keys": "CTRL"}
